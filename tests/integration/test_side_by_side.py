"""Syncs of several accounts, and builds, in parallel on one warehouse: none waits for another's requests."""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from pydantic import SecretStr

from orchestration.accounts.registry import Integration
from orchestration.config.settings import Settings
from orchestration.setup.registry import make_integrations
from orchestration.simulator import DEFAULT_API_KEY, Fault, SimulatedAccount, SimulatorServer
from orchestration.warehouse.connection import open_warehouse
from tests.support import pipeline
from tests.support.processes import run_sync_process
from tests.support.truth import read_tables

SEEDS = (61, 62, 63)


def settings_of(server: SimulatorServer, folder: Path) -> Settings:
    return Settings(stripe_api_key=DEFAULT_API_KEY, stripe_api_base=server.url, recoup_data_dir=folder)  # type: ignore[arg-type]


@pytest.fixture
def servers() -> Iterator[list[SimulatorServer]]:
    with ExitStack() as stack:
        accounts = [SimulatedAccount(seed=seed, payments=80, days=60) for seed in SEEDS]
        yield [stack.enter_context(SimulatorServer(account)) for account in accounts]


def test_syncs_during_a_build_give_the_same_tables(servers: list[SimulatorServer], tmp_path: Path) -> None:
    together, one_by_one = tmp_path / "together", tmp_path / "one_by_one"
    with ExitStack() as stack:
        syncs = [stack.enter_context(run_sync_process(server, together)) for server in servers]
        pipeline.build(settings_of(servers[0], together))
        assert [process.wait() for process in syncs] == [0, 0, 0]
    for server in servers:
        pipeline.extract(settings_of(server, one_by_one))
    found, expected = (
        read_tables(settings_of(servers[0], folder).warehouse_path, without={"_load_id", "_loaded_at"})
        for folder in (together, one_by_one)
    )
    raw = [table for table in expected if table.startswith("raw_stripe.")]
    assert len(raw) > 5
    assert [table for table in raw if found[table] != expected[table]] == []


def test_a_second_sync_of_the_same_account_waits_for_the_first(servers: list[SimulatorServer], tmp_path: Path) -> None:
    server = servers[0]
    server.faults.add(Fault(kind="slow", times=20, seconds=0.05))
    with run_sync_process(server, tmp_path) as first:
        while not (tmp_path / "warehouse.duckdb").exists():
            time.sleep(0.01)
        assert not pipeline.extract(settings_of(server, tmp_path)).written
        assert first.wait() == 0


def test_connected_accounts_sync_in_parallel_and_a_failing_one_stops_no_other(tmp_path: Path) -> None:
    """Sync five integrations of one platform's key: the platform and four connected accounts, two refused by Stripe."""
    platform, *connected = (SimulatedAccount(seed=seed, payments=100, days=60) for seed in range(71, 76))
    with SimulatorServer(platform, connected=connected) as server, ExitStack() as stack:
        settings = settings_of(server, tmp_path).model_copy(update={"stripe_api_key": None})
        integrations = make_integrations(settings)
        integrations.add(Integration("market", SecretStr(DEFAULT_API_KEY), "", account_id=platform.id, livemode=False))
        names = [f"market_{number}" for number in range(len(connected))]
        for name, account in zip(names, connected, strict=True):
            integrations.add(Integration(name, None, "", account_id=account.id, livemode=False, platform="market"))
        server.gates[connected[0].id].faults.add(Fault("invalid_key", times=10**6))
        server.gates[connected[1].id].faults.add(Fault("rate_limit", times=10**6, path="/v1/payment_intents"))
        refused, turned_away, *others = [
            stack.enter_context(run_sync_process(server, tmp_path, name)) for name in (*names, "market")
        ]
        assert [process.wait() for process in others] == [0, 0, 0]
        assert refused.wait() == 1
        assert turned_away.poll() in (None, 1), "it retries for a minute"
        with open_warehouse(settings.warehouse_path) as warehouse:
            counted = "SELECT account_id, count(*) FROM raw_stripe.payment_intents GROUP BY ALL"
            found = dict(warehouse.execute(counted).fetchall())
        read = (platform, *connected[2:])
        assert found == {account.id: len(account.truth(account.now).payments) for account in read}
