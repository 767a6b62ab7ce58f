"""Webhook events in Dagster: the sensor that finds them, the run that loads them, and the checks."""

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import duckdb
import orjson
import pytest

from orchestration import sensors
from orchestration.config.settings import Settings
from orchestration.definitions import build_defs
from orchestration.resources import WarehouseResource
from orchestration.simulator import Fault, SimulatedAccount, SimulatorServer
from orchestration.simulator.stripe.objects import Renderer
from orchestration.warehouse.connection import open_warehouse
from orchestration.webhooks.queue import Delivery, Queue
from tests.conftest import MakeSettings
from tests.support import pipeline
from tests.support.built_folder import BuiltFolder
from tests.support.processes import run_sync_process
from tests.support.truth import find_differences

FIRST_EVENTS = 40
PUSHED = {f"payment_intent.{kind}" for kind in ("succeeded", "payment_failed", "processing", "canceled")}


@pytest.fixture(scope="module")
def server() -> Iterator[SimulatorServer]:
    with SimulatorServer(SimulatedAccount(seed=34, payments=120, days=25)) as running:
        yield running


@pytest.fixture
def settings(server: SimulatorServer, make_settings: MakeSettings) -> Settings:
    made = make_settings(server)
    made.recoup_data_dir.mkdir(exist_ok=True)
    return made


@pytest.fixture
def queue(settings: Settings) -> Iterator[Queue]:
    made = Queue(settings.queue_url)
    yield made
    made.close()


@pytest.fixture(autouse=True)
def _sensors_do_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sensors, "WAIT_SECONDS", 0.0)


def deliver(queue: Queue, account: SimulatedAccount, most: int = 10_000) -> int:
    renderer, now = Renderer(account), datetime.now(UTC)
    listed = account.list_entries("events", account.now, created=(0, account.now))
    events = [renderer.render("events", each, account.now) for each in listed if each.event_type in PUSHED][:most]
    queue.put([Delivery("default", event["id"], orjson.dumps(event).decode(), now) for event in events])
    return len(events)


def tick(instance: dg.DagsterInstance, settings: Settings) -> dg.RunRequest | str:
    """Return the run that a new code server's sensor requests, or why it requests none."""
    result = evaluate(instance, settings, build_defs(settings=settings).resolve_sensor_def("webhook_queue_sensor"))
    return result.run_requests[0] if result.run_requests else str(result.skip_message)


def evaluate(instance: dg.DagsterInstance, settings: Settings, sensor: dg.SensorDefinition) -> Any:
    warehouse = WarehouseResource(database=str(settings.warehouse_path))
    with dg.build_sensor_context(instance=instance, resources={"warehouse": warehouse}) as context:
        return sensor.evaluate_tick(context)


def run(instance: dg.DagsterInstance, settings: Settings, **options: Any) -> dg.ExecuteInProcessResult:
    job = build_defs(settings=settings).resolve_job_def("ingest_webhooks")
    return job.execute_in_process(instance=instance, raise_on_error=False, **options)


def figures(instance: dg.DagsterInstance) -> dict[str, Any]:
    event = instance.get_latest_materialization_event(dg.AssetKey(["stripe", "webhook_events"]))
    assert event is not None
    assert event.asset_materialization is not None
    return {name: value.value for name, value in event.asset_materialization.metadata.items()}


def record_run(instance: dg.DagsterInstance, request: dg.RunRequest, status: dg.DagsterRunStatus) -> None:
    instance.create_run_for_job(_nothing, status=status, tags=dict(request.tags))


@dg.job(name="ingest_webhooks")
def _nothing() -> None:
    """Represent a run of the job in the instance's history."""


def test_the_sensor_reports_an_empty_queue(instance: dg.DagsterInstance, settings: Settings) -> None:
    assert tick(instance, settings) == "The webhook queue is empty."


def test_the_sensor_requests_one_run_at_a_time_and_says_why_it_waits(
    instance: dg.DagsterInstance, settings: Settings, server: SimulatorServer, queue: Queue
) -> None:
    deliver(queue, server.account, 3)
    request = tick(instance, settings)
    assert isinstance(request, dg.RunRequest)
    assert (request.run_key, request.tags["recoup/attempt"], request.tags["recoup/queued"]) == ("1-1-0", "1", "3")
    for status in (dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING):
        record_run(instance, request, status)
        assert "has finished." in str(tick(instance, settings))
        for unfinished in instance.get_runs():
            instance.delete_run(unfinished.run_id)


def test_after_a_failed_run_the_sensor_waits_longer_each_time(
    instance: dg.DagsterInstance,
    settings: Settings,
    server: SimulatorServer,
    queue: Queue,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    deliver(queue, server.account, 3)
    clock = sensors.time.time
    for attempt, pause in enumerate((0, 5, 10, 20), start=1):
        with monkeypatch.context() as later:
            later.setattr(sensors.time, "time", lambda after=pause + 1: clock() + after)
            request = tick(instance, settings)
        assert isinstance(request, dg.RunRequest)
        assert request.run_key == f"1-{attempt}-0"
        record_run(instance, request, dg.DagsterRunStatus.FAILURE)
        assert f"The last {attempt} runs failed." in str(tick(instance, settings))


def test_an_unreadable_queue_is_a_skip_reason_and_no_failure(instance: dg.DagsterInstance, settings: Settings) -> None:
    (settings.recoup_data_dir / "webhook_queue.sqlite").write_bytes(b"no database at all, but long enough" * 100)
    assert "cannot be used: file is not a database." in str(tick(instance, settings))


def test_a_run_publishes_queued_events_even_before_any_sync(
    instance: dg.DagsterInstance, settings: Settings, server: SimulatorServer, queue: Queue
) -> None:
    delivered = deliver(queue, server.account)
    assert run(instance, settings).success
    reported = figures(instance)
    assert (reported["taken"], reported["ingested"], reported["duplicates"], reported["quarantined"]) == (
        delivered,
        delivered,
        0,
        0,
    )
    assert (reported["queued_now"], reported["queue_age_seconds"]) == (0, 0.0)
    assert reported["dagster/row_count"] == delivered
    truth = {payment.id: payment.status for payment in server.account.truth(server.account.now).payments}
    with open_warehouse(settings.warehouse_path) as connection:
        known = dict(connection.execute("SELECT payment_intent_id, status FROM marts.payment_intents").fetchall())
    assert len(known) > 90
    assert {intent: truth[intent] for intent in known} == known
    assert settings.published_path.exists()
    assert tick(instance, settings) == "The webhook queue is empty."


@pytest.fixture
def built(
    instance: dg.DagsterInstance, settings: Settings, server: SimulatorServer, queue: Queue, built_folder: BuiltFolder
) -> dg.SensorDefinition:
    """Return the sensor of a code server after a run has built the models from the first events."""
    built_folder.copy(settings.recoup_data_dir)
    deliver(queue, server.account, FIRST_EVENTS)
    assert run(instance, settings).success
    return build_defs(settings=settings).resolve_sensor_def("webhook_queue_sensor")


def published_payments(settings: Settings) -> dict[str, str]:
    with duckdb.connect(str(settings.published_path), read_only=True) as connection:
        found = connection.execute("SELECT payment_intent_id, status FROM marts.payment_intents").fetchall()
    return dict(found)


def test_a_tick_publishes_events_without_a_run(
    instance: dg.DagsterInstance, settings: Settings, server: SimulatorServer, queue: Queue, built: dg.SensorDefinition
) -> None:
    before = published_payments(settings)
    delivered = deliver(queue, server.account)
    result = evaluate(instance, settings, built)
    assert (result.run_requests, queue.stats().queued) == ([], 0)
    ingested, published = result.asset_events
    assert (ingested.asset_key, published.asset_key) == (sensors.WEBHOOK_EVENTS, sensors.RECOVERY)
    assert ingested.metadata["taken"].value == delivered - FIRST_EVENTS, "the others are done"
    assert published.metadata["rows_written"].value > 0
    truth = {payment.id: payment.status for payment in server.account.truth(server.account.now).payments}
    after = published_payments(settings)
    assert len(after) > len(before)
    assert {intent: truth[intent] for intent in after} == after
    assert evaluate(instance, settings, built).asset_events == [], "nothing is left"


def test_the_first_tick_after_a_kill_builds_loaded_events(
    instance: dg.DagsterInstance, settings: Settings, server: SimulatorServer, queue: Queue, built: dg.SensorDefinition
) -> None:
    assert evaluate(instance, settings, built).asset_events == []
    before = published_payments(settings)
    deliver(queue, server.account)
    pipeline.ingest(settings)
    again = build_defs(settings=settings).resolve_sensor_def("webhook_queue_sensor")
    (published,) = evaluate(instance, settings, again).asset_events
    assert published.asset_key == sensors.RECOVERY
    assert len(published_payments(settings)) > len(before)


def test_a_tick_with_a_failed_test_publishes_nothing_and_requests_a_run(
    instance: dg.DagsterInstance, settings: Settings, server: SimulatorServer, queue: Queue, built: dg.SensorDefinition
) -> None:
    before, marts = published_payments(settings), "SELECT count(*), sum(_load_id) FROM marts.payment_attempts"
    with open_warehouse(settings.warehouse_path) as connection:
        connection.execute("DELETE FROM marts.payment_intents")
        counted = connection.execute(marts).fetchall()
    deliver(queue, server.account)
    with pytest.raises(sensors.TickFailed, match="no_row_is_lost_on_the_way_to_the_marts: 1 rows fail"):
        evaluate(instance, settings, built)
    assert published_payments(settings) == before
    with open_warehouse(settings.warehouse_path) as connection:
        assert connection.execute(marts).fetchall() == counted
    (request,) = evaluate(instance, settings, built).run_requests
    assert request.tags["recoup/queued"] == "0", "the events are in the raw tables"


def test_events_are_published_during_a_first_sync_and_no_run_fails(
    instance: dg.DagsterInstance, settings: Settings, server: SimulatorServer, queue: Queue
) -> None:
    """Load and build events while the sync, which has read the payments, waits for Stripe's charges."""
    account = server.account
    server.faults.add(Fault("slow", times=10**6, path="/v1/charges", seconds=600))
    with run_sync_process(server, settings.recoup_data_dir) as sync:
        _wait_for_payments(settings)
        delivered = deliver(queue, account, most=FIRST_EVENTS)
        sensor = build_defs(settings=settings).resolve_sensor_def("webhook_queue_sensor")
        (request,) = evaluate(instance, settings, sensor).run_requests
        assert run(instance, settings, tags=dict(request.tags)).success
        assert figures(instance)["taken"] == delivered
        published_at_first = published_attempts(settings)
        deliver(queue, account)
        ingested, published = evaluate(instance, settings, sensor).asset_events
        assert (ingested.asset_key, published.asset_key) == (sensors.WEBHOOK_EVENTS, sensors.RECOVERY)
        assert queue.stats().queued == 0
        assert published_attempts(settings) > published_at_first
        assert sync.poll() is None, "all of this happened during the sync"
        statuses = {record.dagster_run.status for record in instance.get_run_records()}
        assert statuses == {dg.DagsterRunStatus.SUCCESS}
    server.faults.clear()
    sync_build_publish(settings)
    assert find_differences(account, settings, [account.now]) == []


def _wait_for_payments(settings: Settings) -> None:
    """Wait until the sync has committed payments."""
    for _ in range(600):
        if settings.warehouse_path.exists():
            with open_warehouse(settings.warehouse_path) as connection:
                if connection.execute("SELECT count(*) FROM raw_stripe.payment_intents").fetchall() != [(0,)]:
                    return
        time.sleep(0.1)
    pytest.fail("The sync committed no payment within a minute.")


def published_attempts(settings: Settings) -> int:
    with duckdb.connect(str(settings.published_path), read_only=True) as connection:
        ((count,),) = connection.execute("SELECT count(*) FROM marts.payment_attempts").fetchall()
    return int(count)


def sync_build_publish(settings: Settings) -> None:
    pipeline.extract(settings)
    pipeline.build(settings)
    pipeline.publish_marts(settings)


def test_a_large_backlog_requests_a_run(
    instance: dg.DagsterInstance,
    settings: Settings,
    server: SimulatorServer,
    queue: Queue,
    built: dg.SensorDefinition,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sensors, "MAX_BATCH_EVENTS", 5)
    deliver(queue, server.account)
    assert len(evaluate(instance, settings, built).run_requests) == 1


def test_a_run_without_a_key_or_account_keeps_events_and_says_what_to_set(
    instance: dg.DagsterInstance, settings: Settings, server: SimulatorServer, queue: Queue
) -> None:
    deliver(queue, server.account, 3)
    bare = settings.model_copy(update={"stripe_api_key": None})
    result = run(instance, bare)
    assert not result.success
    (failed,) = [event for event in result.all_events if event.is_step_failure]
    assert "STRIPE_ACCOUNT_ID" in str(failed.step_failure_data.user_failure_data.description)
    assert queue.stats().queued == 3


CheckResults = dict[str, tuple[bool, str]]


def checks(result: dg.ExecuteInProcessResult) -> CheckResults:
    return {each.check_name: (each.passed, str(each.description)) for each in result.get_asset_check_evaluations()}


def test_the_checks_report_quarantined_waiting_and_forged_events(
    instance: dg.DagsterInstance, settings: Settings, queue: Queue
) -> None:
    watch: Callable[[], CheckResults] = lambda: checks(  # noqa: E731
        build_defs(settings=settings).resolve_job_def("check_webhooks").execute_in_process(instance=instance)
    )
    assert {name: passed for name, (passed, _) in watch().items()} == {
        "queue_is_drained": True,
        "signatures_are_valid": True,
    }
    queue.put([Delivery("default", "evt_1", "no json", datetime.now(UTC) - timedelta(minutes=40))])
    queue.count_not_stored("default", {"wrong_signature": 4}, now=datetime.now(UTC))
    seen = watch()
    assert seen["queue_is_drained"] == (False, "Events in the queue: 1. The oldest has waited 40 minutes.")
    assert seen["signatures_are_valid"][0] is False
    assert "`recoup webhooks secret`" in seen["signatures_are_valid"][1]

    result = run(instance, settings, asset_selection=[dg.AssetKey(["stripe", "webhook_events"])])
    passed, text = checks(result)["quarantine_is_empty"]
    assert not passed
    assert "requeue_quarantined" in text
    assert figures(instance)["quarantined"] == 1
    again = {"ops": {"stripe__webhook_events": {"config": {"requeue_quarantined": True}}}}
    run(instance, settings, asset_selection=[dg.AssetKey(["stripe", "webhook_events"])], run_config=again)
    assert figures(instance)["taken"] == 1
