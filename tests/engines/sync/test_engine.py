"""The sync of an account: changes, gaps, refusals, lost cursors, and events of another API version."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pytest
from pydantic import SecretStr

from orchestration.base.account import AccountKey
from orchestration.simulator import DEFAULT_API_KEY, DEFAULT_LIVE_API_KEY, Fault, SimulatedAccount, SimulatorServer
from orchestration.simulator.stripe.objects import Renderer
from orchestration.stripe_api import API_VERSION, Answer, AuthenticationFailed, StripeClient, StripeUnavailable
from orchestration.stripe_api.client import RetryPolicy
from orchestration.sync import AccountMismatch, SyncReport, SyncRequest, sync_account
from orchestration.sync.engine import OVERLAP_SECONDS, RETENTION_MARGIN_SECONDS, has_gap
from orchestration.sync.streams import OBJECT_STREAMS
from orchestration.warehouse.checkpoints import Checkpoint, OpenWindow, write_checkpoint
from orchestration.warehouse.connection import LOADING_OPTIONS, open_warehouse
from orchestration.warehouse.load import Loader
from orchestration.warehouse.rows import event_row
from tests.support.borrowed_warehouse import BorrowedWarehouse

DAY = 86_400
PERMISSIONS = ("payment_intent_read", "charge_read", "dispute_read", "event_read", "accounts_kyc_id_numbers_read")
OBJECTS = ("payment_intents", "charges", "refunds", "disputes")
TABLES = (*OBJECTS, "events", "last_payment_errors")

Sync = Callable[..., SyncReport]


def new_account(**options: Any) -> SimulatedAccount:
    """Return a small account with two disputes."""
    return SimulatedAccount(**{"seed": 34, "payments": 300, "days": 45} | options)


@contextmanager
def serving(account: SimulatedAccount, **without: str) -> Iterator[SimulatorServer]:
    """Serve the account, with a key for everything and one key without each given permission."""
    keys: dict[str, Any] = {DEFAULT_LIVE_API_KEY if account.livemode else DEFAULT_API_KEY: None}
    keys |= {key: [name for name in PERMISSIONS if name != lacks] for key, lacks in without.items()}
    with SimulatorServer(account, keys=keys) as server:
        yield server


@pytest.fixture
def warehouse(tmp_path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    with open_warehouse(tmp_path / "warehouse.duckdb", options=LOADING_OPTIONS) as connection:
        yield connection


@pytest.fixture
def sync(warehouse: duckdb.DuckDBPyConnection) -> Sync:
    def run(server: SimulatorServer, key: str = DEFAULT_API_KEY, **options: Any) -> SyncReport:
        client = StripeClient(
            SecretStr(key), api_base=server.url, retry=RetryPolicy(tries=4), sleep=lambda seconds: None
        )
        try:
            return sync_account(client, BorrowedWarehouse(warehouse), **options)
        finally:
            client.close()

    return run


def stored(warehouse: duckdb.DuckDBPyConnection) -> dict[str, list[Any]]:
    return {table: warehouse.execute(f"FROM raw_stripe.{table} ORDER BY ALL").fetchall() for table in TABLES}


def statuses(warehouse: duckdb.DuckDBPyConnection) -> dict[str, str]:
    return dict(warehouse.execute("SELECT id, payload ->> 'status' FROM raw_stripe.payment_intents").fetchall())


def true_statuses(account: SimulatedAccount) -> dict[str, str]:
    return {payment.id: payment.status for payment in account.truth(account.now).payments}


def test_a_sync_with_nothing_new_takes_three_requests_and_writes_nothing(
    sync: Sync, warehouse: duckdb.DuckDBPyConnection
) -> None:
    with serving(new_account()) as server:
        sync(server)
        before = stored(warehouse)
        server.requests.clear()
        report = sync(server)
    assert report.written == 0
    assert server.requests.total == report.requests.requests == 3
    assert stored(warehouse) == before


def test_every_row_read_is_counted_as_written_unchanged_or_outdated(sync: Sync) -> None:
    account = new_account()
    with serving(account) as server:
        for pause in (0, DAY, 40 * DAY):
            account.now += pause
            for counts in sync(server).counts.values():
                assert counts.read == counts.written + counts.unchanged + counts.outdated


def test_a_later_sync_reads_changes_of_old_payments(sync: Sync, warehouse: duckdb.DuckDBPyConnection) -> None:
    account = new_account()
    with serving(account) as server:
        sync(server)
        first = statuses(warehouse)
        account.now += 6 * DAY
        report = sync(server)
    now = statuses(warehouse)
    assert now == true_statuses(account)
    assert any(now[intent] != status for intent, status in first.items()), "an old payment has changed"
    assert report.relisted_feeds == []
    assert report.data_through == account.now


@pytest.mark.parametrize(("events_lost", "pauses"), [(0.5, [DAY] * 4), (1.0, [3 * DAY, 4 * DAY])])
def test_new_objects_without_an_event_are_found_in_their_list(
    events_lost: float, pauses: list[int], sync: Sync, warehouse: duckdb.DuckDBPyConnection
) -> None:
    account = new_account(events_lost=events_lost)
    with serving(account) as server:
        sync(server)
        first = ids(warehouse, "payment_intents")
        for pause in pauses:
            account.now += pause
            report = sync(server)
    assert report.relisted_feeds == []
    assert len(first) < len(ids(warehouse, "payment_intents"))
    for table in OBJECTS:
        listed = account.list_entries(table, account.now, created=(0, account.now))  # type: ignore[arg-type]
        assert ids(warehouse, table) == sorted((entry.id,) for entry in listed), table


def test_lists_are_extended_daily_even_if_webhooks_brought_all_events(
    sync: Sync, warehouse: duckdb.DuckDBPyConnection
) -> None:
    account = new_account()
    with serving(account) as server:
        sync(server)
        account.now += 2 * DAY
        renderer, loader = Renderer(account), Loader(warehouse, AccountKey(account.id, False), API_VERSION)
        events = [renderer.render("events", each, account.now) for each in account.events_between(0, account.now)]
        loader.load_events([event_row(event, "webhook") for event in events])
        server.requests.clear()
        sync(server)
    assert server.requests.by_endpoint["/v1/payment_intents"] >= 1


def test_a_charge_is_read_again_after_events_of_its_refunds_and_disputes(
    sync: Sync, warehouse: duckdb.DuckDBPyConnection
) -> None:
    """A dispute sets `disputed`, a failed refund lowers `amount_refunded`; neither has an event of the charge."""
    account = new_account(payments=1_000)
    with serving(account) as server:
        sync(server)
        before = fields_changed_without_event(account)
        for _ in range(3):
            account.now += 6 * DAY
            sync(server)
            expected = fields_changed_without_event(account)
            rows = warehouse.execute(
                "SELECT id, (payload ->> 'disputed')::BOOLEAN, (payload ->> 'amount_refunded')::BIGINT"
                " FROM raw_stripe.charges"
            ).fetchall()
            assert {charge: tuple(values) for charge, *values in rows} == expected
        assert sync(server).reread_count == 0, "a charge is not read again without a new event"
    changed = [expected[charge] for charge, values in before.items() if values != expected[charge]]
    assert {disputed for disputed, _ in changed} == {True, False}
    assert any(amount < before[charge][1] for charge, (_, amount) in expected.items() if charge in before)


def fields_changed_without_event(account: SimulatedAccount) -> dict[str, tuple[bool, int]]:
    """Return, by charge, the fields that its disputes and refunds change."""
    renderer = Renderer(account)
    listed = account.list_entries("charges", account.now, created=(0, account.now))
    charges = [renderer.render("charges", entry, account.now) for entry in listed]
    return {charge["id"]: (charge["disputed"], charge["amount_refunded"]) for charge in charges}


def test_without_access_to_events_every_sync_continues_the_lists(
    sync: Sync, warehouse: duckdb.DuckDBPyConnection
) -> None:
    account = new_account()
    with serving(account, rk_test_lacking="event_read") as server:
        sync(server, "rk_test_lacking")
        account.now += 3_600 * 7
        sync(server, "rk_test_lacking")
        assert statuses(warehouse).keys() == true_statuses(account).keys()
        assert listed_in_full(warehouse) == account.now - 3_600 * 7
        account.now += 30 * DAY
        report = sync(server, "rk_test_lacking")
        assert report.relisted_feeds == ["payment_intent_events", "charge_events"], (
            "changes of old charges are only in the lists"
        )
        assert statuses(warehouse) == true_statuses(account)
        assert listed_in_full(warehouse) == account.now


def listed_in_full(warehouse: duckdb.DuckDBPyConnection) -> int:
    """Return when all charges were last listed."""
    query = "SELECT epoch(known_since)::BIGINT FROM sync.streams WHERE stream = 'charges'"
    return int(warehouse.execute(query).fetchall()[0][0])


def test_after_a_pause_longer_than_the_retention_of_events_everything_is_listed_again(
    sync: Sync, warehouse: duckdb.DuckDBPyConnection
) -> None:
    account = new_account()
    with serving(account) as server:
        sync(server)
        account.now += 31 * DAY
        report = sync(server)
        assert report.relisted_feeds == ["payment_intent_events", "charge_events"]
        assert statuses(warehouse) == true_statuses(account)
        assert report.streams["payment_intent_events"].known_since == account.now - 30 * DAY
        assert sync(server).relisted_feeds == []


LIMIT = 30 * DAY - RETENTION_MARGIN_SECONDS - OVERLAP_SECONDS
"""Seconds behind from which a feed has a gap: its next pass overlaps the last, and no event may expire meanwhile."""


@pytest.mark.parametrize(
    ("behind", "expected"), [(LIMIT - 1, False), (LIMIT, True), (LIMIT + 1, True), (30 * DAY, True)]
)
def test_a_feed_has_a_gap_once_it_is_behind_by_the_retention_less_the_margin(behind: int, expected: bool) -> None:
    now = 100 * DAY
    streams = [Checkpoint("charges", known_since=now), Checkpoint("refunds", walk_ceiling=now)]
    feed = Checkpoint("charge_events", complete_through=now - behind, known_since=now - behind)
    assert has_gap(feed, *streams, now=now) is expected


@pytest.mark.parametrize("reached", ["known_since", "walk_ceiling"])
@pytest.mark.parametrize(("behind", "expected"), [(LIMIT - 1, False), (LIMIT, True), (LIMIT + 1, True)])
def test_before_its_first_pass_the_gap_of_a_feed_depends_on_its_oldest_stream(
    behind: int, expected: bool, reached: str
) -> None:
    now = 100 * DAY
    streams = [Checkpoint("charges", **{reached: now - behind}), Checkpoint("refunds", known_since=now)]
    for order in (streams, streams[::-1]):
        assert has_gap(Checkpoint("charge_events"), *order, now=now) is expected


def test_a_feed_that_was_never_read_has_no_gap() -> None:
    assert has_gap(Checkpoint("charge_events"), Checkpoint("charges"), now=100 * DAY) is False


def test_the_retention_margin_is_at_least_an_hour_and_the_overlap_at_least_a_minute() -> None:
    """Reading the oldest events may take an hour, and Stripe may list an event a minute late. Less loses events."""
    assert RETENTION_MARGIN_SECONDS >= 3_600
    assert OVERLAP_SECONDS >= 60


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any, Any]]:
    """Return the path, floor and ceiling of each request for a list."""
    noted: list[tuple[str, Any, Any]] = []
    ask = StripeClient.list

    def note(client: StripeClient, path: str, params: Any, **options: Any) -> Answer:
        noted.append((path, params["created"]["gte"], params["created"]["lt"]))
        return ask(client, path, params, **options)

    monkeypatch.setattr(StripeClient, "list", note)
    return noted


def test_the_next_pass_of_a_feed_overlaps_the_last_one(sync: Sync, requests: list[tuple[str, Any, Any]]) -> None:
    account = new_account(payments=20)
    with serving(account) as server:
        sync(server)
        through = account.now
        requests.clear()
        account.now += 3_600
        sync(server)
    passes = [each for each in requests if each[0] == "/v1/events"]
    assert passes == [("/v1/events", through - OVERLAP_SECONDS, account.now + 1)] * 2


def test_the_first_pass_of_a_feed_begins_at_the_oldest_event_that_stripe_keeps(
    sync: Sync, requests: list[tuple[str, Any, Any]]
) -> None:
    account = new_account(payments=20)
    with serving(account) as server:
        sync(server)
    floors = {floor for path, floor, _ in requests if path == "/v1/events"}
    assert floors == {account.now - 30 * DAY}


def test_an_interrupted_pass_is_finished_and_later_events_are_read_with_the_overlap(
    sync: Sync, warehouse: duckdb.DuckDBPyConnection, requests: list[tuple[str, Any, Any]]
) -> None:
    account = new_account(payments=20)
    with serving(account) as server:
        sync(server)
        through = account.now
        left = OpenWindow(through - 2 * DAY, through - DAY)
        interrupted = Checkpoint(
            "charge_events", walk_floor=through - 2 * DAY, walk_ceiling=through, open_windows=(left,)
        )
        write_checkpoint(warehouse, AccountKey(account.id, False), interrupted, now=through)
        requests.clear()
        account.now += 3_600
        report = sync(server)
    passes = sorted(each[1:] for each in requests if each[0] == "/v1/events")
    since = (through - OVERLAP_SECONDS, account.now + 1)
    assert passes == [(left.floor, left.ceiling), since, since], "the other feed was not interrupted"
    assert report.streams["charge_events"].complete_through == account.now
    assert report.streams["charge_events"].known_since == through - 2 * DAY


def checkpoints(warehouse: duckdb.DuckDBPyConnection) -> dict[str, Any]:
    """Return the stored checkpoint of each stream."""
    rows = warehouse.execute("SELECT stream, * EXCLUDE (stream, updated_at, _updated_at) FROM sync.streams").fetchall()
    return {stream: values for stream, *values in rows}


def fail(*arguments: object, **options: object) -> None:
    raise duckdb.IOException("no space left")


def test_a_page_of_a_list_that_cannot_be_loaded_advances_no_checkpoint(
    sync: Sync, warehouse: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = new_account(payments=20)
    with serving(account) as server:
        with monkeypatch.context() as patched:
            patched.setattr(Loader, "load_objects", fail)
            with pytest.raises(duckdb.IOException):
                sync(server)
        assert checkpoints(warehouse) == {}
        assert all(rows == [] for rows in stored(warehouse).values())
        sync(server)
    assert statuses(warehouse) == true_statuses(account)


def test_a_page_of_a_feed_that_cannot_be_loaded_advances_no_checkpoint(
    sync: Sync, warehouse: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = new_account()
    with serving(account) as server:
        sync(server)
        before = checkpoints(warehouse)
        account.now += 3 * DAY
        with monkeypatch.context() as patched:
            patched.setattr(Loader, "load", fail)
            with pytest.raises(duckdb.IOException):
                sync(server)
        assert checkpoints(warehouse) == before
        sync(server)
    assert statuses(warehouse) == true_statuses(account)


def test_if_a_checkpoint_cannot_be_written_its_rows_are_rolled_back(
    sync: Sync, warehouse: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(new_account(payments=20)) as server:
        monkeypatch.setattr("orchestration.sync.context.write_checkpoint", fail)
        with pytest.raises(duckdb.IOException):
            sync(server)
    assert all(rows == [] for rows in stored(warehouse).values())


@pytest.mark.parametrize(
    ("lacks", "missing"),
    [
        ("payment_intent_read", {"payment_intents", "payment_intent_events"}),
        ("charge_read", {"charges", "refunds"}),
        ("dispute_read", {"disputes"}),
        ("event_read", {"payment_intent_events", "charge_events"}),
    ],
)
def test_a_missing_permission_is_named_and_its_objects_are_read_once_it_is_granted(
    lacks: str, missing: set[str], sync: Sync, warehouse: duckdb.DuckDBPyConnection
) -> None:
    account = new_account()
    with serving(account, rk_test_lacking=lacks) as server:
        for pause in (0, DAY):
            account.now += pause
            report = sync(server, "rk_test_lacking")
            assert set(report.missing) == missing
            assert set(report.missing.values()) == {f"rak_{lacks}"}
            assert all(report.streams[stream].complete_through is None for stream in missing)
        assert {name for name in OBJECTS if not stored(warehouse)[name]} == missing.intersection(OBJECTS)
        report = sync(server)
        assert report.missing == {}
        assert statuses(warehouse) == true_statuses(account)
        assert report.data_through == account.now
    truth = account.truth(account.now)
    charges = {attempt.charge_id for attempt in truth.attempts if attempt.charge_id}
    assert {row[2] for row in stored(warehouse)["charges"]} == charges


def test_a_stream_that_becomes_readable_gets_all_retained_events(
    sync: Sync, warehouse: duckdb.DuckDBPyConnection
) -> None:
    with serving(new_account(), rk_test_lacking="charge_read") as server:
        sync(server, "rk_test_lacking")
        server.account.now += DAY
        sync(server, "rk_test_lacking")
        report = sync(server)
        late = stored_events(warehouse)
        warehouse.execute("DELETE FROM raw_stripe.events")
        warehouse.execute("DELETE FROM sync.streams")
        sync(server)
    assert late == stored_events(warehouse)
    assert report.streams["charge_events"].known_since == server.account.now - 30 * DAY


def stored_events(warehouse: duckdb.DuckDBPyConnection) -> list[Any]:
    rows = warehouse.execute("SELECT id FROM raw_stripe.events WHERE type LIKE 'charge%' ORDER BY id").fetchall()
    assert rows
    return rows


def test_a_revoked_permission_keeps_the_stored_rows_and_their_checkpoint(
    sync: Sync, warehouse: duckdb.DuckDBPyConnection
) -> None:
    account = new_account()
    with serving(account, rk_test_lacking="event_read") as server:
        sync(server)
        before, through = stored(warehouse)["events"], account.now
        account.now += 2 * DAY
        report = sync(server, "rk_test_lacking")
        assert set(report.missing) == {"payment_intent_events", "charge_events"}
        assert report.data_through is None
        assert report.streams["charge_events"].complete_through == through
        assert stored(warehouse)["events"] == before
        sync(server)
    assert statuses(warehouse) == true_statuses(account)


def test_a_list_that_was_unreadable_for_days_is_complete_after_the_next_sync(
    sync: Sync, warehouse: duckdb.DuckDBPyConnection
) -> None:
    """In the meantime the feed is read for disputes, which the key may still read."""
    account = new_account()
    with serving(account, rk_test_lacking="charge_read") as server:
        sync(server)
        for _ in range(3):
            account.now += DAY
            requests = SyncRequest(created=(account.now - DAY, None))
            report = sync(server, "rk_test_lacking", request=requests)
            assert {"charges", "refunds"} <= report.missing.keys()
        account.now += DAY
        assert sync(server).missing == {}
        assert_complete(warehouse, account)


def test_a_first_listing_that_lost_its_permission_is_completed_once_it_is_granted(
    sync: Sync, warehouse: duckdb.DuckDBPyConnection
) -> None:
    account = new_account()
    with serving(account, rk_test_lacking="charge_read") as server:
        sync(server)
        stop_at(warehouse, "charges", "charges", cursor="gone")
        for pause in (DAY, 4 * DAY):
            account.now += pause
            sync(server, "rk_test_lacking")
        account.now += DAY
        sync(server)
        assert_complete(warehouse, account)
    missing = warehouse.execute("SELECT count(missing_permission) FROM sync.streams").fetchall()
    assert missing == [(0,)]


def assert_complete(warehouse: duckdb.DuckDBPyConnection, account: SimulatedAccount) -> None:
    """Assert that all retained events are stored, and every charge as Stripe shows it."""
    renderer, at = Renderer(account), account.now
    wanted = {kind for stream in OBJECT_STREAMS for kind in stream.event_types}
    retained = {
        entry.id
        for entry in account.list_entries("events", at, created=(at - 30 * DAY, at))
        if entry.event_type in wanted
    }
    assert retained <= {event_id for (event_id,) in ids(warehouse, "events")}
    for table, field in (("charges", "amount_refunded"), ("charges", "disputed"), ("disputes", "status")):
        query = f"SELECT id, payload -> '{field}' FROM raw_stripe.{table}"
        shown = account.list_entries(table, at, created=(0, at))  # type: ignore[arg-type]
        expected = {entry.id: renderer.render(table, entry, at)[field] for entry in shown}  # type: ignore[arg-type]
        assert {key: json.loads(text) for key, text in warehouse.execute(query).fetchall()} == expected, field


@pytest.mark.parametrize("count", [1, 5])
def test_objects_that_no_longer_exist_at_stripe_are_requested_once(
    count: int, sync: Sync, warehouse: duckdb.DuckDBPyConnection
) -> None:
    """A single object is requested by its id, several neighbours by a page of their list."""
    account = new_account()
    with serving(account) as server:
        sync(server)
        warehouse.execute(
            """INSERT INTO raw_stripe.payment_intents
               SELECT * EXCLUDE (number)
                   REPLACE ('pi_gone_' || number AS id, created - INTERVAL 9 DAY AS _as_of, '010' AS _precedence)
               FROM (FROM raw_stripe.payment_intents ORDER BY created LIMIT 1), range(?) AS numbers (number)""",
            [count],
        )
        report = sync(server)
        assert (report.reread_count, report.vanished_count, report.requests.requests) == (count, count, 4)
        assert sync(server).requests.requests == 3
    assert ("pi_gone_0",) in ids(warehouse, "payment_intents")


def test_requests_of_a_sync_that_fails_are_counted(sync: Sync, warehouse: duckdb.DuckDBPyConnection) -> None:
    with serving(new_account()) as server:
        server.faults.add(Fault("server_error", times=1_000, path="/v1/charges"))
        with pytest.raises(StripeUnavailable):
            sync(server)
        (counted,) = warehouse.execute("SELECT sum(requests) FROM sync.reads WHERE endpoint = '/v1/charges'").fetchone()
    assert counted == 4


def test_a_key_that_stripe_does_not_know_stops_the_sync(sync: Sync, warehouse: duckdb.DuckDBPyConnection) -> None:
    with serving(new_account()) as server, pytest.raises(AuthenticationFailed):
        sync(server, "rk_test_unknown")
    assert all(rows == [] for rows in stored(warehouse).values())


def test_a_key_that_lost_access_to_its_account_stops_the_sync_at_once(sync: Sync) -> None:
    """This 403 affects all streams; that of a missing permission affects one."""
    with serving(new_account()) as server:
        server.faults.add(Fault("no_access", times=1_000))
        with pytest.raises(AuthenticationFailed, match="no longer has access to the account"):
            sync(server)
        assert server.requests.total == 1


@pytest.mark.parametrize(("stream", "table"), [("payment_intents", "payment_intents"), ("charge_events", "events")])
def test_a_cursor_that_stripe_no_longer_knows_loses_no_object(
    stream: str, table: str, sync: Sync, warehouse: duckdb.DuckDBPyConnection
) -> None:
    """The object of the cursor was deleted, or its event expired, between a killed run and the next."""
    with serving(new_account()) as server:
        sync(server)
        before = ids(warehouse, table)
        stop_at(warehouse, stream, table, cursor="gone")
        assert len(ids(warehouse, table)) < len(before)
        sync(server)
    assert ids(warehouse, table) == before


def ids(warehouse: duckdb.DuckDBPyConnection, table: str) -> list[Any]:
    return warehouse.execute(f"SELECT id FROM raw_stripe.{table} ORDER BY id").fetchall()


def stop_at(warehouse: duckdb.DuckDBPyConnection, stream: str, table: str, *, cursor: str) -> None:
    """Put the tables into the state of a run that was killed after the first hundred rows of the stream."""
    of_stream = "type NOT LIKE 'payment_intent.%'" if stream == "charge_events" else "TRUE"
    (cursor_at,) = warehouse.execute(
        f"SELECT created FROM raw_stripe.{table} WHERE {of_stream} ORDER BY created DESC LIMIT 1 OFFSET 100"
    ).fetchall()[0]
    warehouse.execute(f"DELETE FROM raw_stripe.{table} WHERE created <= ? AND {of_stream}", [cursor_at])
    warehouse.execute(
        """UPDATE sync.streams SET
               walk_ceiling = complete_through, walk_floor = if(stream LIKE '%events', known_since, NULL),
               complete_through = NULL, known_since = NULL,
               open_windows = [{
                   'floor': if(stream LIKE '%events', known_since, NULL),
                   'ceiling': complete_through + INTERVAL 1 SECOND,
                   'cursor': $cursor, 'cursor_at': $at
               }]
           WHERE stream = $stream""",
        {"stream": stream, "cursor": cursor, "at": cursor_at},
    )


@pytest.mark.parametrize("event_api_version", ["2024-06-20", None])
def test_objects_in_events_of_another_api_version_are_read_again(
    event_api_version: str | None, sync: Sync, warehouse: duckdb.DuckDBPyConnection
) -> None:
    account = new_account(event_api_version=event_api_version)
    with serving(account) as server:
        sync(server)
        account.now += 2 * DAY
        report = sync(server)
        versions = warehouse.execute(
            """SELECT DISTINCT _api_version
               FROM (FROM raw_stripe.payment_intents UNION ALL FROM raw_stripe.charges)"""
        ).fetchall()
    assert report.reread_count > 0
    assert versions == [("2026-10-28.endive",)]
    assert statuses(warehouse) == true_statuses(account)


@pytest.mark.parametrize("seed", [34, 37])
def test_of_changes_within_one_second_the_last_state_is_stored(
    seed: int, sync: Sync, warehouse: duckdb.DuckDBPyConnection
) -> None:
    """Two days count as one second: challenges, failures and retries tie, and event ids do not show their order."""
    account = new_account(seed=seed, payments=1_500, tick=2 * DAY, tie_order="shuffled")
    with serving(account) as server:
        sync(server)
        account.now += 12 * DAY
        sync(server)
    assert statuses(warehouse) == true_statuses(account)
    assert warehouse.execute("SELECT count(*) FROM raw_stripe.payment_intents WHERE _needs_read").fetchall() == [(0,)]


def test_two_accounts_and_two_modes_share_a_warehouse_but_no_row(
    sync: Sync, warehouse: duckdb.DuckDBPyConnection
) -> None:
    accounts = [new_account(), new_account(seed=35), new_account(livemode=True)]
    for account in accounts:
        with serving(account) as server:
            sync(server, DEFAULT_LIVE_API_KEY if account.livemode else DEFAULT_API_KEY)
    found = warehouse.execute(
        """SELECT account_id, livemode, count(*), count(DISTINCT id)
           FROM raw_stripe.payment_intents GROUP BY ALL ORDER BY ALL"""
    ).fetchall()
    expected = [(each.id, each.livemode, len(true_statuses(each)), len(true_statuses(each))) for each in accounts]
    assert found == sorted(expected)


def test_the_account_id_is_taken_from_the_refusal_if_the_account_cannot_be_read(sync: Sync) -> None:
    account = new_account()
    with serving(account, rk_test_lacking="accounts_kyc_id_numbers_read") as server:
        report = sync(server, "rk_test_lacking")
    assert report.account.account_id == account.id
    assert report.missing == {}


def test_a_configured_account_that_is_not_that_of_the_key_is_refused(
    sync: Sync, warehouse: duckdb.DuckDBPyConnection
) -> None:
    with serving(new_account()) as server, pytest.raises(AccountMismatch, match="acct_other"):
        sync(server, stated_id="acct_other")
    assert all(rows == [] for rows in stored(warehouse).values())
