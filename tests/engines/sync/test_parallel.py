"""Lists and event feeds that are read at the same time: changes during the sync, refusals, and kills."""

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pytest
from pydantic import SecretStr

from orchestration.base.account import AccountKey
from orchestration.simulator import DEFAULT_API_KEY, Fault, SimulatedAccount, SimulatorServer
from orchestration.stripe_api import API_VERSION, Answer, StripeClient
from orchestration.stripe_api.errors import AccessRefused
from orchestration.stripe_api.rate_limits import Governor
from orchestration.sync import SyncReport, engine, sync_account
from orchestration.sync.engine import IDLE_REQUESTS, OVERLAP_SECONDS
from orchestration.sync.streams import EVENTS_PATH
from orchestration.warehouse.connection import LOADING_OPTIONS, open_warehouse
from orchestration.warehouse.load import Loader
from orchestration.warehouse.rows import event_row, object_row
from tests.support.borrowed_warehouse import BorrowedWarehouse

DAY = 86_400
ACCOUNT = AccountKey("acct_1", True)
FEEDS = ("payment_intent_events", "charge_events")


@pytest.fixture
def warehouse(tmp_path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    with open_warehouse(tmp_path / "warehouse.duckdb", options=LOADING_OPTIONS) as connection:
        yield connection


@dataclass(frozen=True)
class Request:
    """One request as a client sent it."""

    path: str
    types: tuple[str, ...]
    since: int | None


class WatchedClient(StripeClient):
    """A client that records its requests and calls `before` ahead of each."""

    def __init__(self, url: str, key: str = DEFAULT_API_KEY) -> None:
        super().__init__(SecretStr(key), api_base=url, governor=Governor(livemode=False, wait=lambda seconds: None))
        self.requests: list[Request] = []
        self.before: Callable[[Request], object] = lambda request: None

    def list(self, path: str, params: Any, **options: Any) -> Answer:
        request = Request(path, tuple(params.get("types", ())), params["created"]["gte"])
        self.before(request)
        self.requests.append(request)
        return super().list(path, params, **options)


def requests_for(client: WatchedClient, path: str) -> list[Request]:
    return [request for request in client.requests if request.path == path]


def sync(
    warehouse: duckdb.DuckDBPyConnection,
    server: SimulatorServer,
    key: str = DEFAULT_API_KEY,
    *,
    before: Callable[[WatchedClient, Request], object] = lambda client, request: None,
) -> tuple[SyncReport, WatchedClient]:
    with closing(WatchedClient(server.url, key)) as client:
        client.before = lambda request: before(client, request)
        return sync_account(client, BorrowedWarehouse(warehouse)), client


def once(action: Callable[[], object], *, at: Callable[[WatchedClient, Request], bool]) -> Any:
    """Return a hook that runs the action ahead of the first request for which `at` is true."""
    done: list[bool] = []

    def before(client: WatchedClient, request: Request) -> None:
        if not done and at(client, request):
            done.append(True)
            action()

    return before


def statuses(warehouse: duckdb.DuckDBPyConnection) -> dict[str, str]:
    return dict(warehouse.execute("SELECT id, payload ->> 'status' FROM raw_stripe.payment_intents").fetchall())


def true_statuses(account: SimulatedAccount) -> dict[str, str]:
    return {payment.id: payment.status for payment in account.truth(account.now).payments}


def checkpoints(warehouse: duckdb.DuckDBPyConnection) -> dict[str, tuple[int | None, int | None, bool]]:
    """Return the end and the start of what is known of each stream, and whether a pass is unfinished."""
    rows = warehouse.execute(
        "SELECT stream, epoch(complete_through)::BIGINT, epoch(known_since)::BIGINT, walk_ceiling IS NOT NULL"
        " FROM sync.streams"
    ).fetchall()
    return {stream: tuple(state) for stream, *state in rows}


def test_events_are_requested_while_lists_are_still_being_read(warehouse: duckdb.DuckDBPyConnection) -> None:
    with SimulatorServer(SimulatedAccount(seed=61, payments=2_500, days=60)) as server:
        server.limits.change(latency=0.02)
        _, client = sync(warehouse, server)
    first_event = next(number for number, request in enumerate(client.requests) if request.path == EVENTS_PATH)
    listed_later = [request for request in client.requests[first_event:] if request.path != EVENTS_PATH]
    assert len(listed_later) > len(client.requests) / 4


@pytest.mark.parametrize("events_late", [0, 200])
def test_changes_during_the_listing_are_stored_at_its_end(
    events_late: int, warehouse: duckdb.DuckDBPyConnection
) -> None:
    """Half a day passes after the pass over the feeds began. The first page of each list was read before."""
    account = SimulatedAccount(seed=62, payments=900, days=40, events_late=events_late)
    started = account.now

    def let_time_pass() -> None:
        account.now += DAY // 2
        account.events_late = 0

    with SimulatorServer(account) as server:
        hook = once(
            let_time_pass,
            at=lambda client, request: request.path == "/v1/charges" and bool(requests_for(client, EVENTS_PATH)),
        )
        server.limits.change(latency=0.01)
        report, client = sync(warehouse, server, before=hook)
    assert account.now == started + DAY // 2, "the feeds must begin before the lists end"
    assert statuses(warehouse) == true_statuses(account)
    assert report.data_through == account.now
    known = checkpoints(warehouse)
    assert {known[feed] for feed in FEEDS} == {(account.now, account.now - 30 * DAY, False)}
    assert known["charges"][:2] == (started, started)
    assert started - OVERLAP_SECONDS in {request.since for request in requests_for(client, EVENTS_PATH)}


def test_a_short_backfill_requests_each_feed_once(
    warehouse: duckdb.DuckDBPyConnection,
) -> None:
    with SimulatorServer(SimulatedAccount(seed=63, payments=30, days=10)) as server:
        report, _ = sync(warehouse, server)
        assert server.requests.by_endpoint[EVENTS_PATH] == len(FEEDS)
        assert report.data_through == server.account.now
        assert report.backfill_requests == report.requests.requests - 1


def test_an_idle_sync_after_a_long_backfill_takes_only_its_fixed_requests(
    warehouse: duckdb.DuckDBPyConnection,
) -> None:
    account = SimulatedAccount(seed=64, payments=300, days=40)
    with SimulatorServer(account) as server:
        server.faults.add(Fault("slow", path="/v1/refunds", clock_seconds=90))
        sync(warehouse, server)
        report, client = sync(warehouse, server)
    assert report.requests.requests == IDLE_REQUESTS
    assert [request.path for request in client.requests] == [EVENTS_PATH] * len(FEEDS)
    assert (report.written, report.backfill_requests) == (0, 0)


@pytest.mark.parametrize(
    ("lacks", "absent"),
    [("charge_read", ("charge.succeeded", "refund.created")), ("dispute_read", ("charge.dispute.",))],
)
def test_feeds_read_during_the_listing_omit_types_that_the_key_may_not_read(
    lacks: str, absent: tuple[str, ...], warehouse: duckdb.DuckDBPyConnection
) -> None:
    permissions = {"payment_intent_read", "charge_read", "dispute_read", "event_read"} - {lacks}
    keys = {DEFAULT_API_KEY: None, "rk_test_lacking": permissions}
    account = SimulatedAccount(seed=65, payments=400, days=40)
    with SimulatorServer(account, keys=keys) as server:
        report, client = sync(warehouse, server, "rk_test_lacking")
        assert set(report.missing.values()) == {f"rak_{lacks}"}
        assert not set(FEEDS) & report.missing.keys()
        assert report.streams["charge_events"].complete_through == account.now
        types = {kind for request in requests_for(client, EVENTS_PATH) for kind in request.types}
        assert types
        assert not [kind for kind in types if kind.startswith(absent)]
        report, _ = sync(warehouse, server)
    assert report.missing == {}
    assert statuses(warehouse) == true_statuses(account)


def test_a_permission_lost_during_a_list_removes_only_its_types_from_the_feed(
    warehouse: duckdb.DuckDBPyConnection,
) -> None:
    """The feed, which includes events of that list, is refused too. The pass after the lists requests the others."""
    account = SimulatedAccount(seed=66, payments=900, days=40)

    def refuse(client: WatchedClient, request: Request) -> None:
        wants_charges = request.path == "/v1/charges" or "charge.succeeded" in request.types
        if wants_charges and len(requests_for(client, "/v1/charges")) >= 3:
            raise AccessRefused("", fault="missing_permission", permission="rak_charge_read", account_id=None)

    with SimulatorServer(account) as server:
        server.limits.change(latency=0.01)
        report, _ = sync(warehouse, server, before=refuse)
        assert report.missing == {"charges": "rak_charge_read"}
        assert report.streams["charge_events"].complete_through == account.now
        account.now += DAY
        report, _ = sync(warehouse, server)
    assert report.missing == {}
    assert statuses(warehouse) == true_statuses(account)
    stored = {event for (event,) in warehouse.execute("SELECT id FROM raw_stripe.events").fetchall()}
    listed = account.list_entries("events", account.now, created=(account.now - 30 * DAY, account.now))
    charges = {entry.id for entry in listed if entry.event_type == "charge.succeeded"}
    assert charges
    assert charges <= stored


class Killed(BaseException):
    """End a sync as a kill does, without any cleanup."""


@pytest.mark.parametrize("pause", [0, 600, 20 * DAY])
def test_a_sync_killed_before_the_last_pass_over_the_feeds_is_finished_by_the_next(
    pause: int, warehouse: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Feeds are complete only when the lists have ended and the last pass is stored."""
    account = SimulatedAccount(seed=67, payments=900, days=40)
    started = account.now

    def kill(self: Any) -> None:
        raise Killed

    with SimulatorServer(account) as server:
        with monkeypatch.context() as patched:
            patched.setattr(engine._Sync, "_finish_change_feed", kill)
            later = once(lambda: setattr(account, "now", started + 60), at=lambda client, _: len(client.requests) == 6)
            with pytest.raises(Killed):
                sync(warehouse, server, before=later)
        left = checkpoints(warehouse)
        assert left["charges"] == left["payment_intents"] == (started, started, False)
        assert {left[feed] for feed in FEEDS} == {(None, None, True)}
        query = "SELECT epoch(min(walk_ceiling))::BIGINT FROM sync.streams"
        (reached,) = warehouse.execute(query).fetchall()[0]
        account.now += pause
        report, client = sync(warehouse, server)
    if pause < DAY:
        assert {(request.path, request.since) for request in client.requests} == {
            (EVENTS_PATH, reached - OVERLAP_SECONDS)
        }
    assert report.relisted_feeds == []
    assert statuses(warehouse) == true_statuses(account)
    known = checkpoints(warehouse)
    assert {known[feed][0] for feed in FEEDS} == {account.now}
    assert all(known[feed][1] >= account.now - 30 * DAY for feed in FEEDS)


def test_an_object_in_a_list_and_in_events_of_one_load_is_merged_once(
    warehouse: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    merges: list[str] = []
    merge = Loader._merge

    def counted(self: Loader, table: Any, count: int, bounds: Any) -> Any:
        merges.append(table)
        return merge(self, table, count, bounds)

    monkeypatch.setattr(Loader, "_merge", counted)
    listed = [
        object_row(
            intent("pi_1", "processing"), as_of=50, read_no_later_than=50, api_version=API_VERSION, source="list"
        )
    ]
    events = [event("evt_1", "pi_1", "processing", 50), event("evt_2", "pi_1", "succeeded", 60)]
    counts = Loader(warehouse, ACCOUNT, API_VERSION).load(
        {"payment_intents": listed}, [*events, event("evt_3", "pi_2", "processing", 40)]
    )
    assert merges == [], "new rows need no merge"
    assert (counts["payment_intents"].read, counts["payment_intents"].written) == (4, 2)
    assert counts["payment_intents"].outdated == 2
    assert statuses(warehouse) == {"pi_1": "succeeded", "pi_2": "processing"}
    listed = [
        object_row(intent(name, "canceled"), as_of=70, read_no_later_than=70, api_version=API_VERSION, source="list")
        for name in ("pi_1", "pi_2")
    ]
    Loader(warehouse, ACCOUNT, API_VERSION).load(
        {"payment_intents": listed}, [event("evt_4", "pi_1", "succeeded", 70), event("evt_5", "pi_2", "processing", 69)]
    )
    assert merges == ["payment_intents"]
    assert statuses(warehouse) == {"pi_1": "canceled", "pi_2": "canceled"}


def test_rows_older_than_the_stored_ones_change_nothing(warehouse: duckdb.DuckDBPyConnection) -> None:
    listed = object_row(
        intent("pi_1", "processing"), as_of=50, read_no_later_than=50, api_version=API_VERSION, source="list"
    )
    Loader(warehouse, ACCOUNT, API_VERSION).load_objects("payment_intents", [listed])
    before = warehouse.execute("FROM raw_stripe.payment_intents").fetchall()
    counts = Loader(warehouse, ACCOUNT, API_VERSION).load_events([event("evt_1", "pi_1", "canceled", 49)])
    assert warehouse.execute("FROM raw_stripe.payment_intents").fetchall() == before
    assert (counts["payment_intents"].read, counts["payment_intents"].outdated) == (1, 1)


def intent(object_id: str, status: str) -> dict[str, Any]:
    return {
        "id": object_id,
        "object": "payment_intent",
        "created": 10,
        "amount": 900,
        "currency": "eur",
        "status": status,
    }


def event(event_id: str, object_id: str, status: str, created: int) -> Any:
    body = {"id": event_id, "type": f"payment_intent.{status}", "created": created, "api_version": API_VERSION}
    return event_row(body | {"data": {"object": intent(object_id, status)}}, "event")
