"""Requests for more than the changes (a full refresh, a range), the plan of a sync, and its progress."""

import doctest
from collections.abc import Iterator
from math import ceil
from pathlib import Path
from typing import Any

import duckdb
import pytest
from pydantic import SecretStr

from orchestration.simulator import DEFAULT_API_KEY, SimulatedAccount, SimulatorServer
from orchestration.stripe_api import StripeClient
from orchestration.stripe_api.rate_limits import Governor
from orchestration.sync import Progress, SyncReport, SyncRequest, estimate, plan_sync, sync_account
from orchestration.warehouse.connection import LOADING_OPTIONS, open_warehouse
from tests.support.borrowed_warehouse import BorrowedWarehouse

DAY = 86_400
OBJECTS = ("payment_intents", "charges", "refunds", "disputes")


@pytest.fixture
def server() -> Iterator[SimulatorServer]:
    with SimulatorServer(SimulatedAccount(seed=7, payments=1_500, days=90)) as running:
        yield running


@pytest.fixture
def client(server: SimulatorServer) -> Iterator[StripeClient]:
    made = StripeClient(
        SecretStr(DEFAULT_API_KEY), api_base=server.url, governor=Governor(livemode=False, wait=lambda seconds: None)
    )
    yield made
    made.close()


@pytest.fixture
def warehouse(tmp_path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    with open_warehouse(tmp_path / "warehouse.duckdb", options=LOADING_OPTIONS) as connection:
        yield connection


def listed(server: SimulatorServer) -> dict[str, int]:
    return {name: server.requests.by_endpoint[f"/v1/{name}"] for name in OBJECTS}


def corrupt_payment_intents(warehouse: duckdb.DuckDBPyConnection) -> None:
    """Corrupt every stored payment intent, which no event reports."""
    warehouse.execute("""UPDATE raw_stripe.payment_intents SET payload = '{"amount": -1}'""")


def corrupt_since(warehouse: duckdb.DuckDBPyConnection) -> set[int]:
    """Return when the payment intents that are still corrupt were created."""
    rows = warehouse.execute(
        "SELECT epoch(created)::BIGINT FROM raw_stripe.payment_intents WHERE payload ->> 'amount' = '-1'"
    ).fetchall()
    return {created for (created,) in rows}


def test_a_full_refresh_lists_everything_again(
    server: SimulatorServer, client: StripeClient, warehouse: duckdb.DuckDBPyConnection
) -> None:
    sync_account(client, BorrowedWarehouse(warehouse))
    corrupt_payment_intents(warehouse)
    server.account.now += 60
    server.requests.clear()
    report = sync_account(client, BorrowedWarehouse(warehouse), request=SyncRequest(full_refresh=True))
    assert corrupt_since(warehouse) == set()
    assert all(listed(server).values())
    assert report.relisted_feeds == []


def test_only_objects_in_the_requested_range_are_listed_again(
    server: SimulatorServer, client: StripeClient, warehouse: duckdb.DuckDBPyConnection
) -> None:
    sync_account(client, BorrowedWarehouse(warehouse))
    corrupt_payment_intents(warehouse)
    server.account.now += 60
    since, until = server.account.now - 40 * DAY, server.account.now - 20 * DAY
    sync_account(client, BorrowedWarehouse(warehouse), request=SyncRequest(created=(since, until)))
    left = corrupt_since(warehouse)
    assert left
    assert not [created for created in left if since <= created < until]


@pytest.mark.parametrize(
    ("asked", "created"),
    [
        ({"created_from": "2026-01-31", "created_until": None}, (1_769_817_600, None)),
        ({"created_from": None, "created_until": "2026-01-31T12:00:00Z"}, (None, 1_769_860_800)),
        ({"created_from": "2026-01-31T12:00:00+02:00", "created_until": "2026-02-01"}, (1_769_853_600, 1_769_904_000)),
        ({"created_from": None, "created_until": None}, None),
    ],
)
def test_a_range_can_be_days_or_times_with_a_zone(asked: dict[str, Any], created: Any) -> None:
    assert SyncRequest.of(**asked).created == created


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"created_from": "yesterday", "created_until": None}, "created_from is 'yesterday': give a day such as"),
        ({"created_from": "2026-02-01", "created_until": "2026-02-01"}, "(2026-02-01) must be later than created_from"),
    ],
)
def test_an_invalid_range_is_refused(asked: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence.replace("(", r"\(").replace(")", r"\)")):
        SyncRequest.of(**asked)


def test_a_plan_takes_few_requests_and_is_right_within_a_factor_of_two(
    server: SimulatorServer, client: StripeClient, warehouse: duckdb.DuckDBPyConnection
) -> None:
    plan = plan_sync(client, warehouse)
    assert plan.requests_made == server.requests.total
    assert plan.requests_made <= 40
    assert warehouse.execute("SELECT count(*) FROM raw_stripe.payment_intents").fetchone() == (0,)
    server.requests.clear()
    sync_account(client, BorrowedWarehouse(warehouse))
    assert plan.requests / 2 <= server.requests.total <= plan.requests * 2
    planned = {stream.stream: stream.requests for stream in plan.streams}
    for name in ("payment_intents", "charges"):
        assert planned[name] / 2 <= listed(server)[name] <= planned[name] * 2


def test_a_plan_after_a_sync_has_the_three_requests_of_an_idle_sync(
    server: SimulatorServer, client: StripeClient, warehouse: duckdb.DuckDBPyConnection
) -> None:
    sync_account(client, BorrowedWarehouse(warehouse))
    assert plan_sync(client, warehouse).requests == 3


def test_a_plan_after_a_long_pause_counts_the_requests_of_a_full_listing(
    server: SimulatorServer, client: StripeClient, warehouse: duckdb.DuckDBPyConnection
) -> None:
    sync_account(client, BorrowedWarehouse(warehouse))
    server.account.now += 40 * DAY
    planned = {stream.stream: stream for stream in plan_sync(client, warehouse).streams}
    server.requests.clear()
    sync_account(client, BorrowedWarehouse(warehouse))
    for name in ("payment_intents", "charges"):
        assert planned[name].objects is not None
        assert planned[name].requests / 2 <= listed(server)[name] <= planned[name].requests * 2


def test_every_request_is_counted_by_day_and_endpoint(
    server: SimulatorServer, client: StripeClient, warehouse: duckdb.DuckDBPyConnection
) -> None:
    for pause in (0, 60, DAY):
        server.account.now += pause
        report = sync_account(client, BorrowedWarehouse(warehouse))
    rows = warehouse.execute("SELECT endpoint, sum(requests) FROM sync.reads GROUP BY endpoint").fetchall()
    assert dict(rows) == dict(server.requests.by_endpoint)
    assert warehouse.execute("SELECT count(DISTINCT day) FROM sync.reads").fetchone() == (2,)
    assert report.budget is not None
    assert report.budget.used == server.requests.total
    assert report.budget.allowance >= 10_000


def test_progress_reports_the_pages_that_are_left(client: StripeClient, warehouse: duckdb.DuckDBPyConnection) -> None:
    reports: list[Progress] = []
    report: SyncReport = sync_account(client, BorrowedWarehouse(warehouse), observe=reports.append)
    assert reports[-1].requests.requests == report.requests.requests
    assert min(each.pages_left for each in reports) == 0
    rows = [sum(counts.read for counts in each.counts.values()) for each in reports]
    assert rows == sorted(rows)
    assert sum(report.read_by_day.values()) >= rows[-1] / 2
    assert ceil(max(report.read_by_day) - min(report.read_by_day)) <= 91


def test_the_doctest_of_the_estimate_passes() -> None:
    result = doctest.testmod(estimate)
    assert (result.failed, result.attempted) == (0, 2)
