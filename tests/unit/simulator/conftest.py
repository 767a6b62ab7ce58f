"""Fixture: one medium-sized account. Tests that move the account's clock create their own."""

import pytest

from orchestration.simulator import SimulatedAccount


@pytest.fixture(scope="session")
def account() -> SimulatedAccount:
    return SimulatedAccount(seed=7, payments=3_000, days=90)
