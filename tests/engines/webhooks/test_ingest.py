"""Ingesting the queue into the warehouse: each event once, whatever fails, and unreadable ones are quarantined."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import orjson
import pytest

from orchestration.stripe_api import API_VERSION
from orchestration.warehouse.connection import LOADING_OPTIONS, open_warehouse
from orchestration.warehouse.load import Loader
from orchestration.warehouse.validation import SAMPLE_PREFIX
from orchestration.webhooks import ingest
from orchestration.webhooks.errors import AccountUnknown
from orchestration.webhooks.ingest import MAX_ATTEMPTS, IngestReport, ingest_queue
from orchestration.webhooks.queue import Delivery, Queue
from tests.engines.webhooks.conftest import make_event


@pytest.fixture
def warehouse(tmp_path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    with open_warehouse(tmp_path / "warehouse.duckdb", options=LOADING_OPTIONS) as connection:
        yield connection


def put(queue: Queue, *events: dict[str, Any] | str, event_id: str = "evt_raw") -> None:
    now = datetime.now(UTC)
    queue.put(
        [
            Delivery("default", event_id, event, now)
            if isinstance(event, str)
            else Delivery("default", event["id"], orjson.dumps(event).decode(), now)
            for event in events
        ]
    )


def run(warehouse: duckdb.DuckDBPyConnection, queue: Queue, **options: Any) -> IngestReport:
    options = {"account_of": lambda integration: "acct_1", "pinned_version": API_VERSION} | options
    return ingest_queue(warehouse, queue, **options)


def rows(warehouse: duckdb.DuckDBPyConnection, table: str, columns: str = "id") -> list[Any]:
    return warehouse.execute(f"SELECT {columns} FROM raw_stripe.{table} ORDER BY ALL").fetchall()


def test_events_their_objects_and_their_times_of_arrival_are_stored(
    warehouse: duckdb.DuckDBPyConnection, queue: Queue
) -> None:
    put(queue, make_event(1), make_event(2))
    report = run(warehouse, queue)
    assert (report.taken, report.ingested, report.duplicates, report.quarantined) == (2, 2, 0, 0)
    assert report.objects_written == 2
    assert rows(warehouse, "events", "account_id, livemode, id, _source") == [
        ("acct_1", False, "evt_1", "webhook"),
        ("acct_1", False, "evt_2", "webhook"),
    ]
    assert rows(warehouse, "payment_intents") == [("pi_1",), ("pi_2",)]
    assert rows(warehouse, "webhook_events", "event_id, integration") == [("evt_1", "default"), ("evt_2", "default")]
    assert queue.stats().queued == 0
    assert run(warehouse, queue).taken == 0


def test_an_event_that_is_already_stored_is_a_duplicate(warehouse: duckdb.DuckDBPyConnection, queue: Queue) -> None:
    put(queue, make_event(1))
    run(warehouse, queue)
    before = rows(warehouse, "events", "*")
    queue.delete_finished(before=datetime(2100, 1, 1, tzinfo=UTC))
    put(queue, make_event(1))
    report = run(warehouse, queue)
    assert (report.taken, report.ingested, report.duplicates) == (1, 0, 1)
    assert rows(warehouse, "events", "*") == before


def test_events_of_connected_accounts_without_an_integration_are_skipped(
    warehouse: duckdb.DuckDBPyConnection, queue: Queue
) -> None:
    put(queue, make_event(1), make_event(2, account="acct_2"), make_event(3, account="acct_3"))
    report = run(
        warehouse, queue, may_write=lambda integration, account, is_own: is_own or account.account_id == "acct_3"
    )
    assert (report.taken, report.ingested, report.ignored) == (3, 2, 1)
    assert rows(warehouse, "events", "account_id, id") == [("acct_1", "evt_1"), ("acct_3", "evt_3")]
    assert queue.stats().queued == 0


def test_test_mode_and_live_mode_and_connected_accounts_never_mix(
    warehouse: duckdb.DuckDBPyConnection, queue: Queue
) -> None:
    put(queue, make_event(1), make_event(2, livemode=True), make_event(3, account="acct_2"))
    report = run(warehouse, queue, may_write=lambda integration, account, is_own: True)
    assert len(report.accounts) == 3
    assert rows(warehouse, "payment_intents", "id, account_id, livemode") == [
        ("pi_1", "acct_1", False),
        ("pi_2", "acct_1", True),
        ("pi_3", "acct_2", False),
    ]


def carrying(**carried: Any) -> str:
    return orjson.dumps(make_event(1, id="evt_raw", data={"object": carried})).decode()


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        ("no json", "not JSON"),
        ("[]", "not a JSON object"),
        ('{"object": "event"}', "`livemode`"),
        (orjson.dumps(make_event(9)).decode(), "differs from the id in the queue"),
        (carrying(id="pi_1", object="charge"), "not the payment_intent that its type names"),
        (
            carrying(id="pi_1", object="payment_intent", created=1, amount=1, currency="eur", status={"a": 1}),
            "`status`",
        ),
        (carrying(id="pi_1", object="payment_intent", created="soon"), "`created`"),
        (carrying(id="pi_1", object="payment_intent", created=1, amount=-5, currency="eur"), "`amount`"),
        (carrying(id="pi_1", object="payment_intent", created=1, amount="5", currency="eur"), "`amount`"),
        (carrying(id="pi_1", object="payment_intent", created=1), "`amount`"),
    ],
)
def test_an_unreadable_event_is_quarantined_and_blocks_no_other(
    payload: str, reason: str, warehouse: duckdb.DuckDBPyConnection, queue: Queue
) -> None:
    put(queue, make_event(1), payload, make_event(2))
    report = run(warehouse, queue)
    assert (report.taken, report.ingested, report.quarantined) == (3, 2, 1)
    ((event_id, _, found_reason),) = queue.quarantine(9)
    assert event_id == "evt_raw"
    assert reason in found_reason


def test_an_event_in_quarantine_is_kept_without_personal_data(
    warehouse: duckdb.DuckDBPyConnection, queue: Queue
) -> None:
    unreadable = {"receipt_email": "jane@example.com", "metadata": {"note": "4242 4242 4242 4242", "order_id": "A-17"}}
    put(queue, carrying(id="pi_1", object="payment_intent", created="soon", **unreadable))
    put(queue, "jane@example.com, no JSON", event_id="evt_text")
    put(queue, '{"object":' * 600 + "1" + "}" * 600, event_id="evt_deep")
    put(queue, make_event(1, data={"object": {"id": "jane@example.com", "object": "customer", "created": 1}}))
    assert run(warehouse, queue).quarantined == 4
    assert queue.requeue_quarantined() == 4
    kept = "".join(each.payload for each in queue.take(9))
    assert "A-17" in kept
    assert not [each for each in ("jane", "example.com", "4242") if each in kept]


def test_the_one_event_of_a_batch_that_cannot_be_loaded_is_quarantined(
    warehouse: duckdb.DuckDBPyConnection, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = Loader.load_events

    def fail_on_one(loader: Loader, events: Any) -> Any:
        if any(event.id == "evt_7" for event in events):
            raise duckdb.ConversionException("Could not convert")
        return load(loader, events)

    monkeypatch.setattr(Loader, "load_events", fail_on_one)
    put(queue, *[make_event(number) for number in range(1, 30)])
    report = run(warehouse, queue)
    assert (report.taken, report.ingested, report.quarantined) == (29, 28, 1)
    assert [(event_id, found_reason) for event_id, _, found_reason in queue.quarantine(9)] == [
        ("evt_7", "It could not be loaded (ConversionException).")
    ]
    assert len(rows(warehouse, "events")) == 28


def test_a_batch_that_kills_its_run_is_split_until_the_faulty_event_is_isolated(
    warehouse: duckdb.DuckDBPyConnection, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Died(BaseException):
        """End the run as a kill does, without any cleanup."""

    batches: list[int] = []
    load = Loader.load_events

    def dying(loader: Loader, events: Any) -> Any:
        batches.append(len(events))
        if any(event.id == "evt_3" for event in events):
            raise Died
        return load(loader, events)

    monkeypatch.setattr(Loader, "load_events", dying)
    put(queue, *[make_event(number) for number in range(100)])
    for _ in range(3 * MAX_ATTEMPTS):
        try:
            run(warehouse, queue)
        except Died:
            continue
        break
    assert [event_id for event_id, _, _ in queue.quarantine(9)] == ["evt_3"]
    assert len(rows(warehouse, "events")) == 99
    assert batches[0] == 100
    assert 1 in batches


@pytest.mark.parametrize("fault", [duckdb.IOException("disk full"), OSError("no space"), duckdb.CatalogException("?")])
def test_a_fault_of_the_disk_or_the_database_quarantines_no_event(
    fault: Exception, warehouse: duckdb.DuckDBPyConnection, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise fault

    put(queue, make_event(1))
    with monkeypatch.context() as patched:
        patched.setattr(Loader, "load_events", fail)
        for _ in range(2 * MAX_ATTEMPTS):
            with pytest.raises(type(fault)):
                run(warehouse, queue)
    assert queue.stats().attempts == 0
    assert run(warehouse, queue).ingested == 1


def test_events_wait_while_their_account_is_unknown(warehouse: duckdb.DuckDBPyConnection, queue: Queue) -> None:
    def unknown(integration: str) -> str:
        raise AccountUnknown(integration)

    put(queue, make_event(1))
    with pytest.raises(AccountUnknown):
        run(warehouse, queue, account_of=unknown)
    assert (queue.stats().queued, queue.stats().attempts) == (1, 0)


def test_events_of_an_unknown_account_block_no_others(warehouse: duckdb.DuckDBPyConnection, queue: Queue) -> None:
    asked = []

    def account_of(integration: str) -> str:
        asked.append(integration)
        if integration == "lost":
            raise AccountUnknown(integration)
        return "acct_1"

    now = datetime.now(UTC)
    for number, integration in enumerate(["lost", "default", "lost", "default"]):
        queue.put([Delivery(integration, f"evt_{number}", orjson.dumps(make_event(number)).decode(), now)])
    with pytest.raises(AccountUnknown, match="lost"):
        run(warehouse, queue, account_of=account_of)
    assert rows(warehouse, "events") == [("evt_1",), ("evt_3",)]
    assert [(each.event_id, each.attempts) for each in queue.take(9)] == [("evt_0", 1), ("evt_2", 1)]
    assert asked.count("lost") == 1


def test_events_belong_to_the_account_that_the_integration_had_on_arrival(
    warehouse: duckdb.DuckDBPyConnection, queue: Queue
) -> None:
    event = orjson.dumps(make_event(1)).decode()
    queue.put([Delivery("shop", "evt_1", event, datetime.now(UTC), account_id="acct_before")])
    run(warehouse, queue, account_of=lambda _: "acct_now")
    assert rows(warehouse, "events", "account_id, id") == [("acct_before", "evt_1")]


def test_a_kill_between_commit_and_acknowledgement_counts_no_event_twice(
    warehouse: duckdb.DuckDBPyConnection, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Died(BaseException):
        pass

    def die(*_: Any) -> None:
        raise Died

    put(queue, make_event(1), make_event(2))
    with monkeypatch.context() as patched:
        patched.setattr(Queue, "finish", die)
        with pytest.raises(Died):
            run(warehouse, queue)
    before = {table: rows(warehouse, table, "*") for table in ("events", "payment_intents", "webhook_events")}
    report = run(warehouse, queue)
    assert (report.taken, report.ingested, report.duplicates) == (2, 0, 2)
    assert {table: rows(warehouse, table, "*") for table in before} == before
    assert queue.stats().queued == 0


def test_a_sample_event_is_logged_and_stores_no_payment(warehouse: duckdb.DuckDBPyConnection, queue: Queue) -> None:
    put(queue, make_event(1, id=f"{SAMPLE_PREFIX}1"))
    run(warehouse, queue)
    assert rows(warehouse, "webhook_events", "event_id") == [(f"{SAMPLE_PREFIX}1",)]
    assert rows(warehouse, "events") == rows(warehouse, "payment_intents") == []


def test_a_backlog_is_ingested_in_batches_up_to_the_limit(
    warehouse: duckdb.DuckDBPyConnection, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest, "BATCH_SIZE", 10)
    put(queue, *[make_event(number) for number in range(35)])
    assert run(warehouse, queue, limit=12).taken == 12
    assert run(warehouse, queue).taken == 23
