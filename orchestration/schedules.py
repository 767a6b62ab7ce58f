"""When jobs run by themselves."""

from datetime import UTC, datetime
from typing import Final

import dagster as dg

from orchestration.accounts.registry import Integrations
from orchestration.assets.extract import POLL_REQUESTS, READ_ALLOWANCE, integration_names
from orchestration.config.settings import Settings
from orchestration.sensors import UNFINISHED
from orchestration.stripe_api import seconds_between_polls

_JOB: Final = "sync_stripe"
_PARTITION: Final = "dagster/partition"
"""Dagster's tag of a run for its partition."""


def sync_schedule(settings: Settings) -> dg.ScheduleDefinition:
    """`sync_stripe` for each integration by RECOUP_SYNC_CRON, in UTC. Switched on where there is one, since without a
    key each run fails.

    An integration is passed over, and the tick says why, where a sync would take more of the read allocation of its
    account than RECOUP_READ_SHARE. One that was connected since Dagster loaded the code is no partition yet, and waits
    until it is loaded anew; one that was removed gets no run.
    """
    partitions = integration_names(settings)

    @dg.schedule(
        name="sync_stripe_schedule",
        job_name=_JOB,
        cron_schedule=settings.recoup_sync_cron,
        execution_timezone="UTC",
        default_status=_switched_on_with_a_key(settings),
        description="Keeps the tables current: an idle sync costs three reads of Stripe's allocation.",
    )
    def sync_stripe_schedule(context: dg.ScheduleEvaluationContext) -> list[dg.RunRequest] | dg.SkipReason:
        requests, reasons = [], []
        there = integration_names(settings)
        for name in partitions:
            if name not in there:
                reasons.append(f"{name} was removed.")
                continue
            last = _last_sync(context.instance, name)
            too_soon = _too_soon(last, context.scheduled_execution_time, settings.recoup_read_share) if last else None
            if reason := _under_way(context.instance, name) or too_soon:
                reasons.append(f"{name}: {reason}")
            else:
                requests.append(dg.RunRequest(run_key=name, partition_key=name))
        return requests or dg.SkipReason(" ".join(reasons))

    return sync_stripe_schedule


def check_schedule(settings: Settings) -> dg.ScheduleDefinition:
    """`check_sync` once a day: a sync that fails, or was switched off, cannot tell of itself."""
    return dg.ScheduleDefinition(
        name="check_sync_daily",
        job_name="check_sync",
        cron_schedule="0 6 * * *",
        execution_timezone="UTC",
        default_status=_switched_on_with_a_key(settings),
        description="Warns ten days before events that were never read are lost.",
    )


def webhook_check_schedule() -> dg.ScheduleDefinition:
    """`check_webhooks` every hour: what nobody takes from the queue cannot tell of itself."""
    return dg.ScheduleDefinition(
        name="check_webhooks_hourly",
        job_name="check_webhooks",
        cron_schedule="30 * * * *",
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Warns when pushed events wait too long, or are not signed with the endpoint's secret.",
    )


def clean_schedule() -> dg.ScheduleDefinition:
    """Build the schedule of `clean_history`, daily at 03:15 UTC, between two hourly syncs."""
    return dg.ScheduleDefinition(
        name="clean_history_daily",
        job_name="clean_history",
        cron_schedule="15 3 * * *",
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Deletes runs, ticks and logs older than RECOUP_HISTORY_DAYS.",
    )


def _switched_on_with_a_key(settings: Settings) -> dg.DefaultScheduleStatus:
    return dg.DefaultScheduleStatus.RUNNING if Integrations(settings).all() else dg.DefaultScheduleStatus.STOPPED


def _under_way(instance: dg.DagsterInstance, integration: str) -> str | None:
    """Why another sync of the integration would only wait: a first one may take hours."""
    of_integration = dg.RunsFilter(job_name=_JOB, tags={_PARTITION: integration}, statuses=UNFINISHED)
    running = instance.get_runs(of_integration, limit=1)
    return f"Run {running[0].run_id[:8]} is under way." if running else None


def _last_sync(instance: dg.DagsterInstance, integration: str) -> dg.EventLogRecord | None:
    """The newest materialization of the integration's partition."""
    of_integration = dg.AssetRecordsFilter(dg.AssetKey(["sync", "streams"]), asset_partitions=[integration])
    return next(iter(instance.fetch_materializations(of_integration, limit=1).records), None)


def _too_soon(last: dg.EventLogRecord, tick: datetime, share: float) -> str | None:
    """Why the tick must be passed over, judged by the requests of the last sync; None where it need not."""
    assert last.asset_materialization is not None
    told = {name: value.value for name, value in last.asset_materialization.metadata.items()}
    poll, allowance = told.get(POLL_REQUESTS), told.get(READ_ALLOWANCE)
    if not isinstance(poll, int) or not isinstance(allowance, int):
        return None
    distance = seconds_between_polls(poll, allowance, share)
    due = datetime.fromtimestamp(last.timestamp + distance, UTC)
    if tick >= due:
        return None
    return (
        f"The last sync made {poll:,} requests. To stay within {share:.0%} of the {allowance:,} reads that Stripe "
        f"allows in 30 days, the next is due at {due:%Y-%m-%d %H:%M} UTC (RECOUP_READ_SHARE)."
    )
