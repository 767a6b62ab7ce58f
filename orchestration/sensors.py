"""What starts runs when something happens: events in the webhook queue."""

import time
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC
from typing import Final

import dagster as dg

from orchestration.settings import Settings
from orchestration.webhooks.queue import Queue, QueueUnavailable

LOOKED_FOR: Final = 4.5
"""Seconds that a tick waits for events: Dagster begins one every five seconds at best."""

LOOKED_EVERY: Final = 0.1

_FIRST_PAUSE: Final = 5.0
_LONGEST_PAUSE: Final = 300.0
"""Seconds after a failed run until the next one: twice as long after each further failure."""

_EMPTY: Final = "The webhook queue is empty."
_JOB: Final = "ingest_webhooks"
_OLDEST: Final = "recoup/oldest_queued"
"""Tag of a run: the queue's oldest row when it was requested. A run that failed has left that row where it was."""

UNFINISHED: Final = [
    status
    for status in dg.DagsterRunStatus
    if status not in (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)
]
"""What a run is while it may still do something."""

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
        try:
            with closing(Queue(settings.queue_url)) as queue:
                return _decide(queue, context.instance)
        except QueueUnavailable as error:
            return dg.SkipReason(f"{error} Looking again at the next tick.")

    return sensor


def _decide(queue: Queue, instance: dg.DagsterInstance) -> dg.RunRequest | dg.SkipReason:
    """Look until there is a run to request, or the tick's time is over."""
    deadline = time.monotonic() + LOOKED_FOR
    while isinstance(decision := _look(queue, instance), dg.SkipReason) and time.monotonic() <= deadline:
        time.sleep(LOOKED_EVERY)
    return decision


def _look(queue: Queue, instance: dg.DagsterInstance) -> dg.RunRequest | dg.SkipReason:
    if not queue.has_queued():
        return dg.SkipReason(_EMPTY)
    running = instance.get_runs(dg.RunsFilter(job_name=_JOB, statuses=UNFINISHED), limit=1)
    if running:
        return dg.SkipReason(f"Events wait; run {running[0].run_id[:8]} is under way, and one at a time is enough.")
    stats = queue.stats()
    if stats.oldest_seq is None:  # a run that somebody else started was quicker
        return dg.SkipReason(_EMPTY)
    failed_at = _failures_at(stats.oldest_seq, instance)
    if failed_at:
        pause = min(_FIRST_PAUSE * 2 ** (len(failed_at) - 1), _LONGEST_PAUSE)
        left = pause - (time.time() - failed_at[0])
        if left > 0:
            return dg.SkipReason(f"The last {len(failed_at)} runs failed. The next one starts in {left:.0f} s.")
    attempt = len(failed_at) + 1
    tags = {_OLDEST: str(stats.oldest_seq), "recoup/attempt": str(attempt), "recoup/queued": str(stats.queued)}
    return dg.RunRequest(run_key=f"{stats.oldest_seq}-{attempt}", tags=tags)


def _failures_at(oldest_seq: int, instance: dg.DagsterInstance) -> Sequence[float]:
    """When the runs ended, newest first, that were requested for the row that is still the oldest."""
    records = instance.get_run_records(
        dg.RunsFilter(job_name=_JOB, tags={_OLDEST: str(oldest_seq)}), limit=_REMEMBERED_RUNS
    )
    ended = [record for record in records if record.dagster_run.is_finished]
    return [record.end_time or record.update_timestamp.replace(tzinfo=UTC).timestamp() for record in ended]
