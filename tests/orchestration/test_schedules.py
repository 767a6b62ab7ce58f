"""When scheduled syncs run, and the check that reports that they have not run."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import pytest

from orchestration.config.settings import Settings
from orchestration.definitions import build_defs
from orchestration.simulator import SimulatedAccount, SimulatorServer
from orchestration.warehouse.connection import open_warehouse
from tests.conftest import MakeSettings
from tests.support import pipeline


@pytest.fixture(scope="module")
def server() -> Iterator[SimulatorServer]:
    with SimulatorServer(SimulatedAccount(seed=34, payments=60, days=20)) as running:
        yield running


def report_sync(instance: dg.DagsterInstance, **figures: Any) -> None:
    event = dg.AssetMaterialization(["sync", "streams"], metadata=figures, partition="default")
    instance.report_runless_asset_event(event)


def tick(instance: dg.DagsterInstance, settings: Settings, after: timedelta) -> str | None:
    """Return why a tick is skipped, or None if it requests a run."""
    repository = build_defs(settings=settings).get_repository_def()
    schedule = repository.get_schedule_def("sync_stripe_schedule")
    at = datetime.now(UTC) + after
    with dg.build_schedule_context(
        instance=instance, scheduled_execution_time=at, repository_def=repository
    ) as context:
        return schedule.evaluate_tick(context).skip_message


def test_the_first_tick_runs(
    instance: dg.DagsterInstance, server: SimulatorServer, make_settings: MakeSettings
) -> None:
    assert tick(instance, make_settings(server), timedelta()) is None


@pytest.mark.parametrize(
    ("poll", "allowance", "share", "hours"),
    [(3, 10_000, 0.25, 0.864), (40, 10_000, 0.25, 11.52), (40, 10_000, 0.5, 5.76), (40, 400_000, 0.25, 0.288)],
)
def test_ticks_are_skipped_to_stay_within_the_share_of_stripes_allowance(
    poll: int,
    allowance: int,
    share: float,
    hours: float,
    instance: dg.DagsterInstance,
    server: SimulatorServer,
    make_settings: MakeSettings,
) -> None:
    """Skip ticks until 30 days times the requests of a sync, over the share of the allowance, have passed."""
    settings = make_settings(server).model_copy(update={"recoup_read_share": share})
    report_sync(instance, requests_of_a_poll=poll, read_allowance_of_30_days=allowance)
    why = tick(instance, settings, timedelta(hours=hours * 0.98))
    assert why is not None
    assert f"The last sync made {poll} requests." in why
    assert "RECOUP_READ_SHARE" in why
    assert tick(instance, settings, timedelta(hours=hours * 1.02)) is None


@dg.job(name="sync_stripe")
def _sync_stripe() -> None:
    """Represent a run of the job in the instance's history."""


@dg.job(name="ingest_webhooks")
def _ingest_webhooks() -> None:
    """Represent a run of another job."""


def record_run(
    instance: dg.DagsterInstance, job: dg.JobDefinition, status: dg.DagsterRunStatus, partition: str = "default"
) -> str:
    """Add a run to the instance's history and return its id."""
    return instance.create_run_for_job(job, status=status, tags={"dagster/partition": partition}).run_id


def test_a_tick_is_skipped_while_the_integration_syncs(
    instance: dg.DagsterInstance, server: SimulatorServer, make_settings: MakeSettings
) -> None:
    settings = make_settings(server)
    for status in (
        dg.DagsterRunStatus.NOT_STARTED,
        dg.DagsterRunStatus.STARTING,
        dg.DagsterRunStatus.STARTED,
        dg.DagsterRunStatus.CANCELING,
    ):
        run_id = record_run(instance, _sync_stripe, status)
        assert tick(instance, settings, timedelta()) == f"default: Run {run_id[:8]} has not finished yet.", status
        instance.delete_run(run_id)
    assert tick(instance, settings, timedelta()) is None


def test_only_unfinished_runs_of_the_same_job_and_integration_block_a_sync(
    instance: dg.DagsterInstance, server: SimulatorServer, make_settings: MakeSettings
) -> None:
    for status in (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED):
        record_run(instance, _sync_stripe, status)
    record_run(instance, _ingest_webhooks, dg.DagsterRunStatus.STARTED)
    record_run(instance, _sync_stripe, dg.DagsterRunStatus.STARTED, partition="another")
    assert tick(instance, make_settings(server), timedelta()) is None


@pytest.mark.parametrize(
    ("days", "passed", "severity"),
    [(0, True, "WARN"), (19, True, "WARN"), (21, False, "WARN"), (31, False, "ERROR")],
)
def test_an_unread_feed_fails_its_check_before_events_are_lost(
    days: int,
    passed: bool,
    severity: str,
    instance: dg.DagsterInstance,
    server: SimulatorServer,
    make_settings: MakeSettings,
) -> None:
    settings = make_settings(server)
    pipeline.extract(settings)
    with open_warehouse(settings.warehouse_path) as connection:
        connection.execute("UPDATE sync.streams SET _updated_at = _updated_at - to_days(?)", [days])
    result = build_defs(settings=settings).resolve_job_def("check_sync").execute_in_process(instance=instance)
    (evaluation,) = [
        each for each in result.get_asset_check_evaluations() if each.check_name == "events_synced_before_expiry"
    ]
    assert evaluation.asset_key == dg.AssetKey(["stripe", "events"])
    assert (evaluation.passed, evaluation.severity.value) == (passed, severity)
