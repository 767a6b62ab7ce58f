"""When jobs run by themselves."""

import dagster as dg

from orchestration.settings import Settings


def sync_schedule(settings: Settings) -> dg.ScheduleDefinition:
    """`sync_stripe` by RECOUP_SYNC_CRON, in UTC. Switched on where there is a key, since without one each run fails."""
    status = dg.DefaultScheduleStatus.RUNNING if settings.stripe_api_key else dg.DefaultScheduleStatus.STOPPED
    return dg.ScheduleDefinition(
        name="sync_stripe_schedule",
        job_name="sync_stripe",
        cron_schedule=settings.recoup_sync_cron,
        execution_timezone="UTC",
        default_status=status,
        description="Keeps the tables current: an idle sync costs three reads of Stripe's allocation.",
    )
