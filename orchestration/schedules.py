"""When jobs run by themselves."""

from datetime import UTC, datetime

import dagster as dg

from orchestration.assets.extract import POLL_REQUESTS, READ_ALLOWANCE
from orchestration.settings import Settings
from orchestration.stripe_api import seconds_between_polls


def sync_schedule(settings: Settings) -> dg.ScheduleDefinition:
    """`sync_stripe` by RECOUP_SYNC_CRON, in UTC. Switched on where there is a key, since without one each run fails.

    A tick is passed over, and says why, where it would take more of Stripe's read allocation than RECOUP_READ_SHARE.
    """

    @dg.schedule(
        name="sync_stripe_schedule",
        job_name="sync_stripe",
        cron_schedule=settings.recoup_sync_cron,
        execution_timezone="UTC",
        default_status=_switched_on_with_a_key(settings),
        description="Keeps the tables current: an idle sync costs three reads of Stripe's allocation.",
    )
    def sync_stripe_schedule(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        last = context.instance.get_latest_materialization_event(dg.AssetKey(["sync", "streams"]))
        too_soon = _too_soon(last, context.scheduled_execution_time, settings.recoup_read_share) if last else None
        return dg.SkipReason(too_soon) if too_soon else dg.RunRequest()

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


def _switched_on_with_a_key(settings: Settings) -> dg.DefaultScheduleStatus:
    return dg.DefaultScheduleStatus.RUNNING if settings.stripe_api_key else dg.DefaultScheduleStatus.STOPPED


def _too_soon(last: dg.EventLogEntry, tick: datetime, share: float) -> str | None:
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
