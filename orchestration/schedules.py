"""Dagster schedules: when jobs run automatically."""

from datetime import UTC, datetime
from typing import Final

import dagster as dg

from orchestration.assets.extract import POLL_REQUESTS, READ_ALLOWANCE
from orchestration.config.settings import Settings
from orchestration.sensors import UNFINISHED
from orchestration.setup.registry import make_integrations
from orchestration.stripe_api import seconds_between_polls

_JOB: Final = "sync_stripe"
_PARTITION: Final = "dagster/partition"
"""Tag in which Dagster stores the partition of a run."""

_NOT_CONNECTED: Final = "No account is connected yet: recoup connect"


def sync_schedule(settings: Settings) -> dg.ScheduleDefinition:
    """Return the schedule that runs `sync_stripe` for each integration at RECOUP_SYNC_CRON, in UTC.

    The integrations are read at each tick, so that one that was connected while Dagster runs is synced at the next
    tick. A tick skips an integration, and says why, if its last sync has not finished, or if a sync would use more than
    RECOUP_READ_SHARE of the account's read allocation.
    """

    @dg.schedule(
        name="sync_stripe_schedule",
        job_name=_JOB,
        cron_schedule=settings.recoup_sync_cron,
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Syncs every integration. A sync without changes uses three reads of Stripe's allocation.",
    )
    def sync_stripe_schedule(context: dg.ScheduleEvaluationContext) -> list[dg.RunRequest] | dg.SkipReason:
        requests, reasons = [], []
        for integration in make_integrations(settings).all():
            name, tick = integration.name, context.scheduled_execution_time
            last = _last_sync(context.instance, name)
            over_budget = _over_budget_reason(last, tick, settings.recoup_read_share) if last else None
            if reason := _running_reason(context.instance, name) or over_budget:
                reasons.append(f"{name}: {reason}")
            else:
                requests.append(dg.RunRequest(run_key=name, partition_key=name))
        return requests or dg.SkipReason(" ".join(reasons) or _NOT_CONNECTED)

    return sync_stripe_schedule


def check_schedule(settings: Settings) -> dg.ScheduleDefinition:
    """Return the daily schedule of `check_sync`. A failed or disabled sync cannot report itself."""

    @dg.schedule(
        name="check_sync_daily",
        job_name="check_sync",
        cron_schedule="0 6 * * *",
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Tries every key, and warns ten days before Stripe deletes events that were not read.",
    )
    def check_sync_daily() -> dg.RunRequest | dg.SkipReason:
        return dg.RunRequest() if make_integrations(settings).all() else dg.SkipReason(_NOT_CONNECTED)

    return check_sync_daily


def webhook_check_schedule() -> dg.ScheduleDefinition:
    """Return the hourly schedule of `check_webhooks`. A queue that nothing empties cannot report itself."""
    return dg.ScheduleDefinition(
        name="check_webhooks_hourly",
        job_name="check_webhooks",
        cron_schedule="30 * * * *",
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Warns if webhook events wait too long, or if their signatures are not valid.",
    )


def clean_schedule() -> dg.ScheduleDefinition:
    """Return the daily schedule of `clean_history`, at 03:15 UTC, between two hourly syncs."""
    return dg.ScheduleDefinition(
        name="clean_history_daily",
        job_name="clean_history",
        cron_schedule="15 3 * * *",
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Deletes runs, events, ticks and logs older than RECOUP_HISTORY_DAYS.",
    )


def _running_reason(instance: dg.DagsterInstance, integration: str) -> str | None:
    """Return why the tick must skip the integration: a sync of it has not finished. A first sync may take hours."""
    of_integration = dg.RunsFilter(job_name=_JOB, tags={_PARTITION: integration}, statuses=UNFINISHED)
    running = instance.get_runs(of_integration, limit=1)
    return f"Run {running[0].run_id[:8]} has not finished yet." if running else None


def _last_sync(instance: dg.DagsterInstance, integration: str) -> dg.EventLogRecord | None:
    """Return the latest materialization of `sync/streams` for the integration, or None before the first one."""
    of_integration = dg.AssetRecordsFilter(dg.AssetKey(["sync", "streams"]), asset_partitions=[integration])
    return next(iter(instance.fetch_materializations(of_integration, limit=1).records), None)


def _over_budget_reason(last: dg.EventLogRecord, tick: datetime, share: float) -> str | None:
    """Return why the tick must skip the integration to keep the read share, or None if it may sync.

    Args:
        last: Materialization of the last sync. Its metadata hold the requests it made, and the account's allocation.
        tick: When this tick was due, in UTC.
        share: Share of the read allocation that syncs may use, such as 0.5.
    """
    assert last.asset_materialization is not None
    metadata = {name: value.value for name, value in last.asset_materialization.metadata.items()}
    poll, allowance = metadata.get(POLL_REQUESTS), metadata.get(READ_ALLOWANCE)
    if not isinstance(poll, int) or not isinstance(allowance, int):
        return None
    interval_seconds = seconds_between_polls(poll, allowance, share)
    due = datetime.fromtimestamp(last.timestamp + interval_seconds, UTC)
    if tick >= due:
        return None
    return (
        f"The last sync made {poll:,} requests. To use at most {share:.0%} (RECOUP_READ_SHARE) of the {allowance:,} "
        f"reads that Stripe allows in 30 days, the next sync is due at {due:%Y-%m-%d %H:%M} UTC."
    )
