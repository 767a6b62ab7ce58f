"""One middle-sized account, over HTTP and in process. Tests that move its clock make their own."""

from collections.abc import Iterator

import pytest
import requests

from orchestration.simulator import DEFAULT_API_KEY, SimulatedAccount, SimulatorServer


@pytest.fixture(scope="session")
def account() -> SimulatedAccount:
    return SimulatedAccount(seed=7, payments=3_000, days=90)


@pytest.fixture(scope="session")
def server(account: SimulatedAccount) -> Iterator[SimulatorServer]:
    with SimulatorServer(account) as running:
        yield running


@pytest.fixture(scope="session")
def http() -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.headers["Authorization"] = f"Bearer {DEFAULT_API_KEY}"
        yield session
