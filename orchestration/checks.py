"""Checks that run by themselves, also where no sync has run for a long time."""

from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime
from typing import Final

import dagster as dg

from orchestration import pipeline
from orchestration.accounts import clients
from orchestration.accounts.registry import Integration, Integrations
from orchestration.assets.webhooks import WEBHOOK_EVENTS
from orchestration.config.settings import Settings
from orchestration.resources import WAREHOUSE_POOL, WarehouseResource
from orchestration.sync.streams import EVENT_FEEDS
from orchestration.warehouse.checkpoints import feed_ages
from orchestration.webhooks.errors import QueueUnavailable
from orchestration.webhooks.queue import Queue, days_ago

WARN_AFTER_DAYS: Final = 20.0
"""Stripe keeps events for 30 days. Ten days are left then to bring the sync back before changes are lost."""

RETENTION_DAYS: Final = 30.0

QUEUE_MINUTES: Final = 15.0
"""An event that has waited so long is not waiting for a run any more: runs fail, or nothing starts them."""


@dg.asset_check(
    asset=["stripe", "events"],
    pool=WAREHOUSE_POOL,
    description="Events are read before Stripe drops them: it keeps them for 30 days. Warns from day 20 on.",
)
def is_read_in_time(warehouse: WarehouseResource) -> dg.AssetCheckResult:
    """Whether every event feed has been read within the last 20 days, by how far its checkpoint lies back."""
    with warehouse.get_connection() as connection:
        ages = feed_ages(connection, [feed.name for feed in EVENT_FEEDS], now=datetime.now(UTC))
    oldest = max(ages.values(), default=0.0)
    return dg.AssetCheckResult(
        passed=oldest < WARN_AFTER_DAYS,
        severity=dg.AssetCheckSeverity.ERROR if oldest >= RETENTION_DAYS else dg.AssetCheckSeverity.WARN,
        description=_meaning(oldest),
        metadata={
            "days_behind": oldest,
            "feeds": dg.MetadataValue.json({feed: round(age, 2) for feed, age in ages.items()}),
        },
    )


def _meaning(oldest: float) -> str:
    if oldest < WARN_AFTER_DAYS:
        return f"The feeds are {oldest:.1f} days behind at most."
    if oldest < RETENTION_DAYS:
        return (
            f"A feed is {oldest:.0f} days behind. In {RETENTION_DAYS - oldest:.0f} days Stripe drops events that were "
            "never read: run sync_stripe."
        )
    return f"A feed is {oldest:.0f} days behind: events are lost. The next sync lists everything anew, by itself."


def key_check(settings: Settings) -> dg.AssetChecksDefinition:
    """The check that tries every integration's key, so that a revoked permission is seen before data go missing."""

    @dg.asset_check(
        asset=["stripe", "payment_intents"],
        description="Every integration's key works at Stripe and may read what Recoup needs: recoup check, once a day.",
    )
    def every_key_works() -> dg.AssetCheckResult:
        states = {each.name: _state_of_key(settings, each) for each in Integrations(settings).all()}
        problems = {name: state for name, (is_good, state) in states.items() if not is_good}
        return dg.AssetCheckResult(
            passed=not problems,
            description=" ".join(f"{name}: {state}" for name, state in problems.items()) or None,
            metadata={name: state for name, (_, state) in states.items()},
        )

    return every_key_works


def _state_of_key(settings: Settings, integration: Integration) -> tuple[bool, str]:
    try:
        connection = clients.check(settings, integration)
    except pipeline.OF_ONE_INTEGRATION as error:
        return False, str(error)
    if connection.key.is_usable:
        return True, f"{connection.account.account_id} can be read."
    return False, f"The key lacks {', '.join(connection.key.missing_permissions)}."


def webhook_checks(settings: Settings) -> Sequence[dg.AssetChecksDefinition]:
    """The checks of `stripe/webhook_events` that read the queue: they run also where no run takes anything from it."""

    @dg.asset_check(
        asset=WEBHOOK_EVENTS,
        description=f"The queue can be read, and no event has waited in it for {QUEUE_MINUTES:.0f} minutes.",
    )
    def queue_is_worked_off() -> dg.AssetCheckResult:
        try:
            with closing(Queue(settings.queue_url)) as queue:
                stats = queue.stats()
        except QueueUnavailable as error:
            return dg.AssetCheckResult(passed=False, description=str(error))
        minutes = stats.age(datetime.now(UTC)) / 60
        waits = f"{stats.queued:,} events wait, the oldest for {minutes:.0f} minutes."
        return dg.AssetCheckResult(
            passed=minutes < QUEUE_MINUTES,
            description=waits if stats.queued else "No event waits.",
            metadata={"queued": stats.queued, "oldest_minutes": round(minutes, 1)},
        )

    @dg.asset_check(
        asset=WEBHOOK_EVENTS,
        description="In the last day everything that came to the endpoint was signed with its secret.",
    )
    def signatures_fit() -> dg.AssetCheckResult:
        try:
            with closing(Queue(settings.queue_url)) as queue:
                refused = queue.refusals(since=days_ago(1))
        except QueueUnavailable as error:
            return dg.AssetCheckResult(passed=False, description=str(error))
        return dg.AssetCheckResult(
            passed=not refused,
            severity=dg.AssetCheckSeverity.WARN,
            description="Where all of it was refused, the signing secret is wrong: `recoup webhooks secret` sets it. "
            "Where some was, the endpoint is being tried by others, or its secret was rolled."
            if refused
            else None,
            metadata=dict(sorted(refused.items())),
        )

    return [queue_is_worked_off, signatures_fit]
