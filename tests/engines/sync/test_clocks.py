"""Wrong clocks: Stripe's `Date` header, this machine's clock, or both. None loses an object for good."""

import itertools
from collections.abc import Callable, Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import duckdb
import pytest
from pydantic import SecretStr
from starlette.requests import Request
from starlette.responses import Response

from orchestration.simulator import DEFAULT_API_KEY, SimulatedAccount, SimulatorServer
from orchestration.stripe_api import StripeClient, StripeUnavailable
from orchestration.stripe_api.client import RetryPolicy
from orchestration.stripe_api.clock import MAX_CLOCK_DIFFERENCE_SECONDS, StripeClock, parse_date
from orchestration.sync import SyncReport, sync_account
from orchestration.warehouse.connection import LOADING_OPTIONS, open_warehouse
from tests.support.borrowed_warehouse import BorrowedWarehouse

MINUTE, HOUR, DAY = 60, 3_600, 86_400
TABLES = ("payment_intents", "charges", "refunds", "disputes", "events")


@pytest.fixture
def server() -> Iterator[SimulatorServer]:
    with SimulatorServer(SimulatedAccount(seed=34, payments=80, days=12), keys={DEFAULT_API_KEY: None}) as running:
        yield running


def dated(server: SimulatorServer, shifts: Iterator[int | str | None]) -> None:
    """Shift the `Date` of each answer by the next number of seconds, or set it to a text, or remove it (None)."""

    def spoil(request: Request, response: Response) -> None:
        shift = next(shifts)
        if shift is None:
            del response.headers["Date"]
        else:
            right = isinstance(shift, str)
            response.headers["Date"] = shift if right else formatdate(server.account.now + shift, usegmt=True)  # type: ignore[assignment,operator]

    server.gates[server.account.id].alter_response = spoil


def sync(server: SimulatorServer, warehouse: duckdb.DuckDBPyConnection, own: int | None = 0) -> SyncReport:
    """Sync with this machine's clock `own` seconds off; with None, the clock is not used."""
    clock = None if own is None else lambda: server.account.now + own + 0.5
    client = StripeClient(
        SecretStr(DEFAULT_API_KEY),
        api_base=server.url,
        retry=RetryPolicy(tries=30, first_tries=30),
        sleep=lambda seconds: None,
        own_clock=clock,
    )
    try:
        return sync_account(client, BorrowedWarehouse(warehouse))
    finally:
        client.close()


def stored(warehouse: duckdb.DuckDBPyConnection) -> dict[str, list[Any]]:
    return {
        table: warehouse.execute(f"SELECT id, payload FROM raw_stripe.{table} ORDER BY ALL").fetchall()
        for table in TABLES
    }


def truth(server: SimulatorServer, folder: Path) -> dict[str, list[Any]]:
    with open_warehouse(folder / "truth.duckdb", options=LOADING_OPTIONS) as connection:
        sync(server, connection)
        return stored(connection)


@pytest.fixture
def warehouse(tmp_path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    with open_warehouse(tmp_path / "warehouse.duckdb", options=LOADING_OPTIONS) as connection:
        yield connection


SHIFTS: dict[str, Callable[[], Iterator[int | str | None]]] = {
    "ten minutes ahead": lambda: itertools.repeat(10 * MINUTE),
    "a day ahead": lambda: itertools.repeat(DAY),
    "a day behind": lambda: itertools.repeat(-DAY),
    "at first a day ahead": lambda: itertools.chain([DAY], itertools.repeat(0)),
    "jumping": lambda: itertools.cycle([0, DAY, -HOUR, 10 * MINUTE, None, "garbage"]),
}


@pytest.mark.parametrize(
    ("shift", "own"),
    [
        (shift, own)
        for shift in SHIFTS
        for own in (0, -3 * HOUR, 5 * HOUR)
        if own <= 0 or shift not in ("ten minutes ahead", "a day ahead")  # undetectable: both clocks are ahead
    ],
)
def test_a_wrong_date_header_loses_no_object(
    shift: str, own: int, server: SimulatorServer, warehouse: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    dated(server, SHIFTS[shift]())
    for _ in range(2):
        report = sync(server, warehouse, own)
        assert report.data_through is not None
        assert report.data_through <= server.account.now
        server.account.now += 6 * HOUR
    dated(server, itertools.repeat(0))
    sync(server, warehouse)
    assert stored(warehouse) == truth(server, tmp_path)


def test_a_checkpoint_in_the_future_is_discarded(
    server: SimulatorServer, warehouse: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    """Both clocks were ahead when it was written."""
    dated(server, itertools.repeat(DAY))
    sync(server, warehouse, DAY)
    server.account.now += 6 * HOUR
    dated(server, itertools.repeat(0))
    assert sync(server, warehouse).relisted_feeds
    assert stored(warehouse) == truth(server, tmp_path)


@pytest.mark.parametrize(("shift", "difference"), [(3 * DAY, "3.0 days ahead of"), (-365 * DAY, "365.0 days behind")])
def test_clocks_that_differ_too_much_end_the_sync_with_a_message(
    shift: int, difference: str, server: SimulatorServer, warehouse: duckdb.DuckDBPyConnection
) -> None:
    dated(server, itertools.repeat(shift))
    with pytest.raises(
        StripeUnavailable, match=f"{difference} this machine's clock. Correct this machine's clock"
    ) as failure:
        sync(server, warehouse)
    assert failure.value.fault == "wrong_clock"
    assert abs(shift) > MAX_CLOCK_DIFFERENCE_SECONDS


def test_the_clock_is_the_earlier_of_stripes_and_this_machines() -> None:
    at = 1_800_000_000.0
    clock = StripeClock(lambda: at)
    clock.record(int(at) + 600, at)
    assert (clock.now, clock.latest, clock.setback) == (int(at), int(at) + 600, 0)
    clock.record(int(at) - 3_600, at)
    assert clock.now == int(at) - 3_600
    assert clock.setback == 3_600


@pytest.mark.parametrize("slow", [0.0, 40.0])
def test_a_slow_answer_does_not_set_the_clock_back(slow: float) -> None:
    at = 1_800_000_000.9
    clock = StripeClock(lambda: at + slow)
    clock.record(int(at), at)
    assert clock.now == int(at + slow)


@pytest.mark.parametrize(
    ("header", "instant"),
    [
        ("Tue, 24 Nov 2026 10:00:00 GMT", 1_795_514_400),
        ("Tue, 24 Nov 2026 10:00:00 -0000", 1_795_514_400),
        ("Tue, 24 Nov 2026 12:00:00 +0200", 1_795_514_400),
        ("yesterday", None),
        ("", None),
        ("Tue, 24 Nov 9999 10:00:00 GMT", None),
        ("Thu, 01 Jan 1970 00:00:00 GMT", None),
        ("Tue, 99 Nov 2026 10:00:00 GMT", None),
        ("Tue, 24 Nov 2026 10:00:00 +9999", None),
    ],
)
def test_a_date_header_is_parsed_as_utc_or_rejected(header: str, instant: int | None) -> None:
    assert parse_date(header) == instant
