"""Any history, clock, fault or kill ends in Stripe's own state, and no row is ever replaced by an older one.

CASES examples are divided among the tests of CHUNKS; `make soak` runs thousands.
"""

import multiprocessing
import os
import signal
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb
import orjson
import pytest
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st
from hypothesis.internal.conjecture import engine as hypothesis_engine
from pydantic import SecretStr

from orchestration.simulator import DEFAULT_API_KEY, Fault, SimulatedAccount, SimulatorServer
from orchestration.simulator.stripe.objects import Renderer
from orchestration.stripe_api import StripeClient
from orchestration.stripe_api.client import RetryPolicy
from orchestration.stripe_api.rate_limits import Governor
from orchestration.sync import engine, sync_account
from orchestration.sync import readers as reading
from orchestration.sync.streams import EVENT_RETENTION_SECONDS, OBJECT_STREAMS
from orchestration.warehouse.connection import LOADING_OPTIONS, open_warehouse
from orchestration.warehouse.rows import OBJECT_TABLES
from tests.support.borrowed_warehouse import BorrowedWarehouse
from tests.support.processes import KillPoints

CASES = int(os.environ.get("RECOUP_CASES", "64"))
CHUNKS = 8
HOUR, DAY = 3_600, 86_400

SHRINKING_SECONDS = 60
"""How long Hypothesis may shrink a failing history. Its default of five minutes is a test's whole time limit in CI."""

EVENTED_FIELDS = {
    "payment_intents": ("status", "amount", "amount_received", "canceled_at", "cancellation_reason", "latest_charge"),
    "charges": ("status", "captured", "amount_captured", "amount_refunded", "disputed", "failure_code", "outcome"),
    "refunds": ("status", "amount", "charge"),
    "disputes": ("status", "amount", "charge", "reason"),
}
"""Fields whose every change has an event. Others, such as metadata, are known as of the last read of the object."""

forks = multiprocessing.get_context("forkserver")
forks.set_forkserver_preload([__name__, "pandas", "pyarrow.dataset", "pyarrow.pandas_compat", "_strptime", "netrc"])


@dataclass(frozen=True)
class Step:
    """A time to pass, then a sync, with faults, that may be killed around a transaction.

    A slow answer moves the clock only if the sync is not killed. Otherwise the server would answer the dead process
    later and move the clock while the test reads it.
    """

    pause: int
    faults: tuple[Fault, ...]
    killed_at: int | None


faults = st.builds(
    Fault,
    kind=st.sampled_from(["rate_limit", "lock_timeout", "server_error", "drop", "cut", "truncate", "slow"]),
    times=st.integers(1, 6),
    path=st.sampled_from(["/v1/", "/v1/payment_intents", "/v1/charges", "/v1/events"]),
    reason=st.sampled_from(["global-rate", "endpoint-rate", "endpoint-concurrency"]),
    probability=st.sampled_from([1.0, 0.5]),
    clock_seconds=st.sampled_from([0, 3]),
)
steps = st.builds(
    Step,
    pause=st.one_of(
        st.just(0), st.integers(1, 90), st.integers(1, 48).map(lambda hours: hours * HOUR), st.just(31 * DAY)
    ),
    faults=st.lists(faults, max_size=3).map(tuple),
    killed_at=st.one_of(st.none(), st.integers(1, 24)),
)


def sync(url: str, connection: duckdb.DuckDBPyConnection, batch_pages: int) -> None:
    client = StripeClient(
        SecretStr(DEFAULT_API_KEY),
        api_base=url,
        retry=RetryPolicy(tries=40, first_tries=40, base=0.0005, cap=0.002),
        governor=Governor(livemode=False, wait=lambda seconds: None),
    )
    with pytest.MonkeyPatch.context() as patched, closing(client):
        patched.setattr(reading, "BATCH_PAGES", batch_pages)
        sync_account(client, BorrowedWarehouse(connection))


def sync_until_killed(url: str, path: Path, batch_pages: int, killed_at: int) -> None:
    """Run a sync in a child process that is killed."""
    engine.transaction = KillPoints(killed_at).transaction  # type: ignore[assignment]
    with open_warehouse(path, options=LOADING_OPTIONS) as connection:
        sync(url, connection, batch_pages)


def sync_and_kill(url: str, path: Path, batch_pages: int, killed_at: int) -> None:
    """Run a sync in a child process, which is killed unless it ends earlier."""
    child = forks.Process(target=sync_until_killed, args=(url, path, batch_pages, killed_at))
    child.start()
    child.join()
    assert child.exitcode in (0, -signal.SIGKILL), child.exitcode


def versions(connection: duckdb.DuckDBPyConnection) -> dict[tuple[str, str], tuple[Any, str]]:
    """Return the version of each row."""
    found = {}
    for stream in OBJECT_STREAMS:
        rows = connection.execute(f"SELECT id, _as_of, _precedence FROM raw_stripe.{stream.name}").fetchall()
        for object_id, as_of, precedence in rows:
            assert (stream.name, object_id) not in found, "no object is stored twice"
            found[stream.name, object_id] = (as_of, precedence)
    return found


def fields_with_events(table: str, payload: dict[str, Any]) -> dict[str, Any]:
    return {name: payload.get(name) for name in EVENTED_FIELDS[table]}


def assert_equals_stripe(connection: duckdb.DuckDBPyConnection, account: SimulatedAccount, first_sync: int) -> None:
    at, renderer = account.now, Renderer(account)
    for table in OBJECT_TABLES:
        listed = account.list_entries(table, at, created=(0, at))
        expected = {entry.id: fields_with_events(table, renderer.render(table, entry, at)) for entry in listed}
        rows = connection.execute(f"SELECT id, payload FROM raw_stripe.{table}").fetchall()
        assert {object_id: fields_with_events(table, orjson.loads(text)) for object_id, text in rows} == expected, table
    stored = [event_id for (event_id,) in connection.execute("SELECT id FROM raw_stripe.events").fetchall()]
    wanted = {kind for stream in OBJECT_STREAMS for kind in stream.event_types}
    told_of = account.list_entries("events", at, created=(first_sync - EVENT_RETENTION_SECONDS, at))
    events = {entry.id: entry for entry in told_of if entry.event_type in wanted}
    assert len(stored) == len(set(stored)), "no event is stored twice"
    assert set(stored) <= events.keys()
    for missing in events.keys() - set(stored):
        assert account.is_aged_out(events[missing], at), "only events that Stripe no longer lists are missing"


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_every_history_ends_in_stripes_own_state(chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hypothesis_engine, "MAX_SHRINKING_SECONDS", SHRINKING_SECONDS)

    @settings(
        max_examples=CASES // CHUNKS,
        deadline=None,
        database=None,
        phases=[phase for phase in Phase if phase is not Phase.explain],
        print_blob=True,
        derandomize=os.environ.get("RECOUP_CASES") is None,
        suppress_health_check=list(HealthCheck),
    )
    @given(
        seed=st.integers(chunk * 10_000, chunk * 10_000 + 9_999),
        payments=st.sampled_from([8, 8, 20, 20, 40, 105]),
        days=st.sampled_from([3, 20, 45]),
        tie_order=st.sampled_from(["forward", "reverse", "shuffled"]),
        event_api_version=st.sampled_from(["2026-10-28.endive", "2024-06-20"]),
        batch_pages=st.sampled_from([1, 2, reading.BATCH_PAGES]),
        events_late=st.sampled_from([0, 0, 5, 60, 240]),
        tick=st.sampled_from([1, 1, 600, 2 * DAY]),
        disturbed=st.lists(steps, min_size=1, max_size=3),
    )
    def run(
        seed: int,
        payments: int,
        days: int,
        tie_order: Any,
        event_api_version: str,
        batch_pages: int,
        events_late: int,
        tick: int,
        disturbed: list[Step],
    ) -> None:
        account = SimulatedAccount(
            seed,
            payments,
            days,
            tie_order=tie_order,
            event_api_version=event_api_version,
            events_late=events_late,
            tick=tick,
        )
        first_sync, before = account.now, {}
        with SimulatorServer(account) as server, TemporaryDirectory(dir=tmp_path) as folder:
            path = Path(folder, "warehouse.duckdb")
            for step in disturbed:
                account.now += step.pause
                for fault in step.faults:
                    server.faults.add(replace(fault, clock_seconds=0) if step.killed_at else fault)
                note(f"{step} at {account.now}")
                if step.killed_at is not None:
                    sync_and_kill(server.url, path, batch_pages, step.killed_at)
                with open_warehouse(path, options=LOADING_OPTIONS) as connection:
                    if step.killed_at is None:
                        sync(server.url, connection, batch_pages)
                    after = versions(connection)
                server.faults.clear()
                assert all(after[key] >= newest for key, newest in before.items()), "no row became older"
                before = after
            account.events_late = 0
            with open_warehouse(path, options=LOADING_OPTIONS) as connection:
                sync(server.url, connection, batch_pages)
                assert_equals_stripe(connection, account, first_sync)

    run()
