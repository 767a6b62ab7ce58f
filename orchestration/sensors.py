"""What starts runs when something happens: events in the webhook queue."""

import time
from collections.abc import Sequence
from datetime import UTC
from typing import Final

import dagster as dg

from orchestration.settings import Settings
from orchestration.webhooks.queue import Queue, QueueStats, QueueUnavailable

LOOKED_FOR: Final = 4.5
"""Seconds that a tick waits for events: Dagster begins one every five seconds at best."""

LOOKED_EVERY: Final = 0.1

_FIRST_PAUSE: Final = 5.0
_LONGEST_PAUSE: Final = 300.0
"""Seconds after a failed run until the next one: twice as long after each further failure."""

_JOB: Final = "ingest_webhooks"
_OLDEST: Final = "recoup/oldest_queued"
"""Tag of a run: the queue's oldest row when it was requested. A run that failed has left that row where it was."""

_ENDED_BADLY: Final = (dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)
_REMEMBERED_RUNS: Final = 20


def webhook_queue_sensor(settings: Settings) -> dg.SensorDefinition:
    """Requests `ingest_webhooks` while events wait. Reads the queue only, never the warehouse."""

    @dg.sensor(
        name="webhook_queue_sensor",
        job_name=_JOB,
        minimum_interval_seconds=1,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Requests a run as soon as events wait in the webhook queue, and one at a time.",
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        queue = Queue(settings.queue_url)
        try:
            return _decide(queue, context.instance)
        except QueueUnavailable as error:
            return dg.SkipReason(f"{error} Looking again at the next tick.")
        finally:
            queue.close()

    return sensor


def _decide(queue: Queue, instance: dg.DagsterInstance) -> dg.RunRequest | dg.SkipReason:
    deadline = time.monotonic() + LOOKED_FOR
    while True:
        reason = _why_not(queue, instance)
        if reason is None:
            return _request(queue.stats(), instance)
        if time.monotonic() > deadline:
            return dg.SkipReason(reason)
        time.sleep(LOOKED_EVERY)


def _why_not(queue: Queue, instance: dg.DagsterInstance) -> str | None:
    if not queue.has_queued():
        return "The webhook queue is empty."
    running = instance.get_runs(
        dg.RunsFilter(job_name=_JOB, statuses=[status for status in dg.DagsterRunStatus if not _has_ended(status)]),
        limit=1,
    )
    if running:
        return f"Events wait; run {running[0].run_id[:8]} is under way, and one at a time is enough."
    failures = _failures_of(queue.stats(), instance)
    if not failures:
        return None
    pause = min(_FIRST_PAUSE * 2 ** (len(failures) - 1), _LONGEST_PAUSE)
    left = pause - (time.time() - failures[0])
    return f"The last {len(failures)} runs failed. The next one starts in {left:.0f} s." if left > 0 else None


def _request(stats: QueueStats, instance: dg.DagsterInstance) -> dg.RunRequest | dg.SkipReason:
    if stats.oldest_seq is None:
        return dg.SkipReason("The webhook queue is empty.")
    attempt = len(_failures_of(stats, instance)) + 1
    tags = {_OLDEST: str(stats.oldest_seq), "recoup/attempt": str(attempt), "recoup/queued": str(stats.queued)}
    return dg.RunRequest(run_key=f"{stats.oldest_seq}-{attempt}", tags=tags)


def _failures_of(stats: QueueStats, instance: dg.DagsterInstance) -> Sequence[float]:
    """When the runs ended, newest first, that were requested for the row that is still the oldest."""
    records = instance.get_run_records(
        dg.RunsFilter(job_name=_JOB, tags={_OLDEST: str(stats.oldest_seq)}), limit=_REMEMBERED_RUNS
    )
    ended = [record for record in records if _has_ended(record.dagster_run.status)]
    return [record.end_time or record.update_timestamp.replace(tzinfo=UTC).timestamp() for record in ended]


def _has_ended(status: dg.DagsterRunStatus) -> bool:
    return status in (*_ENDED_BADLY, dg.DagsterRunStatus.SUCCESS)
