"""Dagster's sensors. Dagster calls each of them again and again; one call is a tick.

`webhook_queue_sensor` processes the webhook queue, `integrations_sensor` updates the list of partitions,
`command_sensor` reports what commands did, and `sync_all_sensor` starts the syncs that `sync_all` asks for.

A tick of `webhook_queue_sensor` waits for events and processes them in batches: ingest, build by the compiled plan,
publish. A batch takes a second or two; a run of a job takes ten. The sensor requests a run of `ingest_webhooks` for
work that a tick cannot do: the first build, a changed dbt project, a large backlog, and a batch that failed in a tick.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import dagster as dg

from orchestration import pipeline
from orchestration.accounts.registry import IntegrationError
from orchestration.assets.publish import RECOVERY, published_figures
from orchestration.assets.webhooks import WEBHOOK_EVENTS, first_materialization, ingest_figures
from orchestration.base.errors import RecoupError
from orchestration.config.settings import Settings
from orchestration.partitions import PartitionRequest, integration_names, partition_requests
from orchestration.pipeline.command_report import read_reports
from orchestration.pipeline.dbt_runner import ModelsFailed
from orchestration.resources import WarehouseResource
from orchestration.setup.connections import make_connections
from orchestration.setup.pipeline import make_build_options
from orchestration.stripe_api import StripeApiError
from orchestration.warehouse.connection import WarehouseBusy, WarehouseError
from orchestration.webhooks.errors import AccountUnknown, QueueUnavailable
from orchestration.webhooks.queue import Queue, days_ago

if TYPE_CHECKING:
    from orchestration.assets.commands import CommandEvents  # imports dagster-dbt, which `recoup dev` need not wait for

WAIT_SECONDS: Final = 5.0
"""How long a tick waits for events. Dagster begins ticks five seconds apart; after a shorter one, events would wait."""

WORK_SECONDS: Final = 20.0
"""How long a tick accepts new work. Dagster shows the materializations of a tick when the tick ends, and waits for the
tick at shutdown. Its limit for a tick is 60 seconds (DAGSTER_SENSOR_GRPC_TIMEOUT_SECONDS)."""

POLL_SECONDS: Final = 0.1
MAX_BATCH_EVENTS: Final = 5_000
"""Most events in a batch. A run, which has no time limit, loads a larger backlog."""

_BUSY_SECONDS: Final = 15.0
"""How long a tick waits for the warehouse. A sync releases the warehouse between two batches."""

_FIRST_PAUSE_SECONDS: Final = 5.0
_MAX_PAUSE_SECONDS: Final = 300.0
"""Longest pause after a failure. The first pause doubles with each further failure."""

_EMPTY: Final = "The webhook queue is empty."
_JOB: Final = "ingest_webhooks"
_OLDEST_TAG: Final = "recoup/oldest_queued"
"""Tag of a run with the number of the oldest row in the queue when the run was requested.

A failed run leaves that row in the queue, so the failed runs for it can be counted.
"""

UNFINISHED: Final = [
    status
    for status in dg.DagsterRunStatus
    if status not in (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)
]
"""Statuses of runs that are waiting or running."""

_MAX_COUNTED_RUNS: Final = 20
"""Most failed runs that are counted for one row of the queue."""

_EXPECTED_FAILURES: Final = (ModelsFailed, AccountUnknown, StripeApiError, WarehouseError)

_PARTITIONS_INTERVAL_SECONDS: Final = 10
"""Seconds between two ticks of `integrations_sensor`. A long tick of `webhook_queue_sensor` can delay the next one."""

_COMMANDS_INTERVAL_SECONDS: Final = 5
"""Seconds between two ticks of `command_sensor`."""


class TickFailed(RecoupError):
    """A batch of webhook events was not published. The text says why, and what happens next."""


def webhook_queue_sensor(settings: Settings) -> dg.SensorDefinition:
    """Return the sensor that loads the events in the webhook queue and publishes the result."""
    memory = _Memory()

    @dg.sensor(
        name="webhook_queue_sensor",
        job_name=_JOB,
        minimum_interval_seconds=1,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Loads webhook events as they arrive, updates the models, and publishes recovery.duckdb.",
    )
    def sensor(context: dg.SensorEvaluationContext, warehouse: WarehouseResource) -> dg.SensorResult:
        try:
            with closing(Queue(settings.queue_url)) as queue:
                return _Tick(settings, queue, warehouse.path, context.instance, memory).run()
        except QueueUnavailable as error:
            return dg.SensorResult(skip_reason=f"{error} The next tick tries again.")

    return sensor


def integrations_sensor(settings: Settings) -> dg.SensorDefinition:
    """Return the sensor that makes Dagster's list of partitions equal to the connected integrations.

    If the list of integrations cannot be read, the partitions stay as they are.
    """

    @dg.sensor(
        name="integrations_sensor",
        minimum_interval_seconds=_PARTITIONS_INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Adds a partition for each connected account, and removes those of disconnected accounts.",
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        try:
            requests = partition_requests(context.instance, integration_names(settings))
        except IntegrationError as error:
            return dg.SensorResult(skip_reason=f"{error} The partitions stay as they are.")
        return dg.SensorResult(dynamic_partitions_requests=requests, skip_reason=_changes_text(requests))

    return sensor


def command_sensor(settings: Settings, events: "CommandEvents") -> dg.SensorDefinition:
    """Return the sensor that reports to Dagster what commands have synced, built and published.

    The cursor is the name of the last file that was reported. The first tick in a new instance also reports
    `stripe/webhook_events` and its checks: otherwise each run would warn that this input was never materialized.
    """

    @dg.sensor(
        name="command_sensor",
        minimum_interval_seconds=_COMMANDS_INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Shows what `recoup sync`, `recoup demo` and `recoup ingest` did, as if a run had done it.",
    )
    def sensor(context: dg.SensorEvaluationContext, warehouse: WarehouseResource) -> dg.SensorResult:
        report, last = read_reports(settings.command_reports_dir, after=context.cursor or "")
        made: list[Any] = []
        try:
            if context.cursor is None:
                first = first_materialization(context.instance)
                made += [*([first] if first else []), *events.of_queue()]
            if last != (context.cursor or ""):
                with warehouse.get_connection() as connection:
                    made += events.of_report(report, connection)
        except (WarehouseError, QueueUnavailable, IntegrationError) as error:
            return dg.SensorResult(skip_reason=f"{error} The next tick tries again.")
        return dg.SensorResult(
            asset_events=made, cursor=last, skip_reason=None if made else "No command has finished since the last tick."
        )

    return sensor


def sync_all_sensor(settings: Settings, sync_all: dg.JobDefinition, sync: Any) -> dg.SensorDefinition:
    """Return the sensor that starts a sync of each integration after a run of `sync_all`."""

    @dg.run_status_sensor(
        run_status=dg.DagsterRunStatus.SUCCESS,
        name="sync_all_sensor",
        monitored_jobs=[sync_all],
        request_jobs=[sync],
        minimum_interval_seconds=1,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Starts a run of sync_stripe for each account after a run of sync_all.",
    )
    def sensor(context: dg.RunStatusSensorContext) -> Iterator[dg.RunRequest | dg.SkipReason]:
        for name in integration_names(settings):
            of_integration = {"dagster/partition": name}
            if context.instance.get_runs(dg.RunsFilter(job_name=sync.name, tags=of_integration, statuses=UNFINISHED)):
                yield dg.SkipReason(f"{name} is being synced already.")
            else:
                run_id = context.dagster_run.run_id
                yield dg.RunRequest(run_key=f"{run_id} {name}", job_name=sync.name, partition_key=name)

    return sensor


def _changes_text(requests: Sequence[PartitionRequest]) -> str:
    """Return which partitions a tick adds and removes. Dagster shows it with the tick."""
    changes = [
        f"{'Added' if isinstance(request, dg.AddDynamicPartitionsRequest) else 'Removed'}: "
        f"{', '.join(request.partition_keys)}."
        for request in requests
    ]
    return " ".join(changes) or "Every connected account has its partition."


@dataclass
class _Memory:
    """State that a code server keeps between ticks.

    Attributes:
        needs_run: whether the next tick requests a run, since the last tick failed.
        needs_build: whether events may be loaded that the models do not have yet, as at the start and after a failure.
        failed_ticks: number of ticks that failed since the last batch that was published.
        failed_at: Unix seconds of the last failure.
    """

    needs_run: bool = False
    needs_build: bool = True
    failed_ticks: int = 0
    failed_at: float = 0.0


@dataclass
class _Tick:
    """One evaluation of the sensor."""

    settings: Settings
    queue: Queue
    warehouse: Path
    instance: dg.DagsterInstance
    memory: _Memory
    _events: list[Any] = field(default_factory=list)

    def run(self) -> dg.SensorResult:
        """Wait for events and process them, until the queue is empty or the tick's time is over."""
        started = time.monotonic()
        while (elapsed := time.monotonic() - started) <= WORK_SECONDS:
            if self._has_work():
                if isinstance(decision := self._decide(), dg.RunRequest):
                    return dg.SensorResult(run_requests=[decision], asset_events=self._events)
                if decision is not None:
                    return dg.SensorResult(skip_reason=decision, asset_events=self._events)
            elif elapsed > WAIT_SECONDS:
                break
            else:
                time.sleep(POLL_SECONDS)
        self.queue.delete_finished(before=days_ago(self.settings.recoup_queue_days))
        return dg.SensorResult(asset_events=self._events, skip_reason=None if self._events else _EMPTY)

    def _has_work(self) -> bool:
        return self.memory.needs_build or self.queue.has_queued()

    def _decide(self) -> dg.RunRequest | str | None:
        """Process a batch and return None; or return a run to request, or the reason to skip this tick."""
        if reason := self._running_reason():
            return reason
        if self.memory.needs_run or self._has_large_backlog():
            return self._run_request()
        left = _pause_seconds(self.memory.failed_ticks) - (time.time() - self.memory.failed_at)
        if self.memory.failed_ticks and left > 0:
            return f"The last {self.memory.failed_ticks} ticks with work failed. The next attempt is in {left:.0f} s."
        try:
            self._process_batch()
        except pipeline.PlanUnusable:
            self.memory.needs_build = False  # the requested run, or the next sync, builds everything
            return self._run_request()
        except WarehouseBusy as error:
            return f"{error} The next tick tries again."
        except _EXPECTED_FAILURES as error:
            raise self._failure(error) from None
        return None

    def _process_batch(self) -> None:
        batch = pipeline.ingest_and_publish(
            make_connections(self.settings),
            replace(make_build_options(self.settings), warehouse_path=self.warehouse),
            self.settings.published_path,
            self.queue,
            limit=MAX_BATCH_EVENTS,
            wait=_BUSY_SECONDS,
        )
        self.memory.needs_build, self.memory.failed_ticks = False, 0
        if batch.ingested.taken:
            self._events.append(
                dg.AssetMaterialization(WEBHOOK_EVENTS, metadata=ingest_figures(batch.ingested, self.queue.stats()))
            )
        if batch.published.is_new:
            self._events.append(
                dg.AssetMaterialization(RECOVERY, metadata=published_figures(batch.published, batch.headline))
            )

    def _has_large_backlog(self) -> bool:
        return self.queue.stats().queued > MAX_BATCH_EVENTS

    def _running_reason(self) -> str | None:
        """Return why this tick must wait: a run of the job is waiting or running."""
        running = self.instance.get_runs(dg.RunsFilter(job_name=_JOB, statuses=UNFINISHED), limit=1)
        if not running:
            return None
        return f"Events are waiting until run {running[0].run_id[:8]} has finished."

    def _run_request(self) -> dg.RunRequest | str:
        """Return a run for the oldest event, or the reason to wait for longer after failed runs."""
        waiting = self.queue.stats()
        if waiting.oldest_seq is None and not self.memory.needs_run:
            return _EMPTY
        oldest = str(waiting.oldest_seq or f"none since {self.memory.failed_at:.0f}")
        failed_at = self._failure_times(oldest)
        if failed_at:
            left = _pause_seconds(len(failed_at)) - (time.time() - failed_at[0])
            if left > 0:
                return f"The last {len(failed_at)} runs failed. The next one starts in {left:.0f} s."
        attempt = len(failed_at) + 1
        tags = {_OLDEST_TAG: oldest, "recoup/attempt": str(attempt), "recoup/queued": str(waiting.queued)}
        self.memory.needs_run = False
        return dg.RunRequest(run_key=f"{oldest}-{attempt}-{self.memory.failed_ticks}", tags=tags)

    def _failure_times(self, oldest: str) -> Sequence[float]:
        """Return when the runs for the queue's oldest row ended, in Unix seconds, newest first."""
        records = self.instance.get_run_records(
            dg.RunsFilter(job_name=_JOB, tags={_OLDEST_TAG: oldest}), limit=_MAX_COUNTED_RUNS
        )
        ended = [record for record in records if record.dagster_run.is_finished]
        return [record.end_time or record.update_timestamp.replace(tzinfo=UTC).timestamp() for record in ended]

    def _failure(self, error: Exception) -> TickFailed:
        """Leave the batch to a run, report the earlier batches to Dagster, and return the error of the tick."""
        self.memory.needs_run, self.memory.needs_build = True, True
        self.memory.failed_ticks, self.memory.failed_at = self.memory.failed_ticks + 1, time.time()
        for event in self._events:
            self.instance.report_runless_asset_event(event)
        return TickFailed(f"{error}\nThe next tick starts a run of {_JOB} for these events.")


def _pause_seconds(failure_count: int) -> float:
    return min(_FIRST_PAUSE_SECONDS * 2.0 ** (failure_count - 1), _MAX_PAUSE_SECONDS)
