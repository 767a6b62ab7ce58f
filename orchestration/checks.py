"""Asset checks that run on their own schedules, even if no sync has run for a long time."""

from collections.abc import Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from typing import Any, Final

import dagster as dg
import duckdb

from orchestration import pipeline
from orchestration.accounts.clients import StripeConnections
from orchestration.accounts.registry import Integration
from orchestration.assets.extract import STREAMS
from orchestration.assets.webhooks import WEBHOOK_EVENTS
from orchestration.config.settings import Settings
from orchestration.resources import WAREHOUSE_POOL, WarehouseResource
from orchestration.setup.connections import make_connections
from orchestration.sync import SyncReport
from orchestration.sync.streams import EVENT_FEEDS
from orchestration.warehouse.checkpoints import account_ages, feed_ages
from orchestration.webhooks.errors import QueueUnavailable
from orchestration.webhooks.queue import Queue, days_ago

WARN_AFTER_DAYS: Final = 20.0
"""Age at which the check warns. Ten days are then left to repair the sync before Stripe drops unread events."""

RETENTION_DAYS: Final = 30.0
"""Days for which Stripe keeps events (its documentation of the Events API)."""

MAX_QUEUE_MINUTES: Final = 15.0
"""Longest normal wait of a webhook event. After a longer one, runs fail or nothing starts them."""


@dg.asset_check(
    asset=["stripe", "events"],
    pool=WAREHOUSE_POOL,
    description="Every event feed is less than 20 days behind. Stripe deletes events after 30 days.",
)
def events_synced_before_expiry(warehouse: WarehouseResource) -> dg.AssetCheckResult:
    """Pass if the checkpoint of every event feed is less than 20 days old."""
    with warehouse.get_connection() as connection:
        return expiry_result(connection)


def expiry_result(connection: duckdb.DuckDBPyConnection) -> dg.AssetCheckResult:
    """Return the result of `events_synced_before_expiry`."""
    ages = feed_ages(connection, [feed.name for feed in EVENT_FEEDS], now=datetime.now(UTC))
    oldest = max(ages.values(), default=0.0)
    return dg.AssetCheckResult(
        asset_key=["stripe", "events"],
        check_name="events_synced_before_expiry",
        passed=oldest < WARN_AFTER_DAYS,
        severity=dg.AssetCheckSeverity.ERROR if oldest >= RETENTION_DAYS else dg.AssetCheckSeverity.WARN,
        description=_age_text(oldest),
        metadata={
            "days_behind": oldest,
            "feeds": dg.MetadataValue.json({feed: round(age, 2) for feed, age in ages.items()}),
        },
    )


def _age_text(oldest: float) -> str:
    """Return the description of the check result for the oldest feed, whose age is in days."""
    if oldest < WARN_AFTER_DAYS:
        return f"Every feed is at most {oldest:.1f} days behind."
    if oldest < RETENTION_DAYS:
        return (
            f"A feed is {oldest:.0f} days behind. Stripe deletes events that were not read yet in "
            f"{RETENTION_DAYS - oldest:.0f} days: run sync_stripe."
        )
    return (
        f"A feed is {oldest:.0f} days behind, and Stripe has deleted events that were not read. "
        "The next sync reads the whole history again: run sync_stripe."
    )


def accounts_check(stale_hours: float) -> dg.AssetChecksDefinition:
    """Return the check that finds accounts that have not been synced for `stale_hours`, even if others have."""

    @dg.asset_check(
        asset=STREAMS,
        pool=WAREHOUSE_POOL,
        description=f"The data of every account are less than {stale_hours:g} hours old (RECOUP_STALE_HOURS).",
    )
    def every_account_is_current(warehouse: WarehouseResource) -> dg.AssetCheckResult:
        with warehouse.get_connection() as connection:
            return accounts_result(connection, stale_hours)

    return every_account_is_current


def accounts_result(connection: duckdb.DuckDBPyConnection, stale_hours: float) -> dg.AssetCheckResult:
    """Return the result of `every_account_is_current`, with the age of each account's data."""
    ages = account_ages(connection, [feed.name for feed in EVENT_FEEDS], now=datetime.now(UTC))
    stale = [f"{account} ({age:.0f} hours)" for account, age in ages.items() if age >= stale_hours]
    return dg.AssetCheckResult(
        asset_key=STREAMS,
        check_name="every_account_is_current",
        passed=not stale,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"Not synced lately: {', '.join(stale)}. See the runs of sync_stripe." if stale else None,
        metadata={f"hours_behind {account}": round(age, 2) for account, age in ages.items()},
    )


def key_check(settings: Settings) -> dg.AssetChecksDefinition:
    """Return the check that tries the key of every integration, so that a revoked permission is found early."""

    @dg.asset_check(
        asset=["stripe", "payment_intents"],
        description="The key of every integration works and can read what Recoup needs. Same as `recoup check`.",
    )
    def every_key_works() -> dg.AssetCheckResult:
        connections = make_connections(settings)
        states = {each.name: _key_state(connections, each) for each in connections.integrations.all()}
        problems = {name: state for name, (is_good, state) in states.items() if not is_good}
        return dg.AssetCheckResult(
            passed=not problems,
            description=" ".join(f"{name}: {state}" for name, state in problems.items()) or None,
            metadata={name: state for name, (_, state) in states.items()},
        )

    return every_key_works


def synced_keys_result(syncs: Mapping[str, SyncReport]) -> dg.AssetCheckResult:
    """Return the result of `every_key_works` from a sync of all integrations, since the sync has used every key."""
    lacking = {name: sorted(set(report.missing.values())) for name, report in syncs.items() if report.missing}
    return dg.AssetCheckResult(
        asset_key=["stripe", "payment_intents"],
        check_name="every_key_works",
        passed=not lacking,
        description=" ".join(f"{name}: The key lacks {', '.join(names)}." for name, names in lacking.items()) or None,
    )


def _key_state(connections: StripeConnections, integration: Integration) -> tuple[bool, str]:
    """Return whether the key can read all that Recoup needs, and a sentence that says so or names the problem."""
    try:
        connection = connections.check(integration)
    except pipeline.INTEGRATION_ERRORS as error:
        return False, str(error)
    if connection.key.is_usable:
        return True, f"{connection.account.account_id} can be read."
    return False, f"The key lacks {', '.join(connection.key.missing_permissions)}."


def webhook_checks(queue_url: str) -> Sequence[dg.AssetChecksDefinition]:
    """Return the checks of `stripe/webhook_events` that read the queue. They work even if no run empties the queue."""

    @dg.asset_check(
        asset=WEBHOOK_EVENTS,
        description=f"The queue can be read, and no event has waited for {MAX_QUEUE_MINUTES:.0f} minutes or longer.",
    )
    def queue_is_drained() -> dg.AssetCheckResult:
        return queue_result(queue_url)

    @dg.asset_check(
        asset=WEBHOOK_EVENTS,
        description="The receiver rejected no delivery in the last 24 hours: all were signed with the signing secret.",
    )
    def signatures_are_valid() -> dg.AssetCheckResult:
        return signatures_result(queue_url)

    return [queue_is_drained, signatures_are_valid]


def queue_result(queue_url: str) -> dg.AssetCheckResult:
    """Return the result of `queue_is_drained`."""
    named: dict[str, Any] = {"asset_key": WEBHOOK_EVENTS, "check_name": "queue_is_drained"}
    try:
        with closing(Queue(queue_url)) as queue:
            stats = queue.stats()
    except QueueUnavailable as error:
        return dg.AssetCheckResult(passed=False, description=str(error), **named)
    minutes = stats.age(datetime.now(UTC)) / 60
    waiting = f"Events in the queue: {stats.queued:,}. The oldest has waited {minutes:.0f} minutes."
    return dg.AssetCheckResult(
        passed=minutes < MAX_QUEUE_MINUTES,
        description=waiting if stats.queued else "The queue is empty.",
        metadata={"queued": stats.queued, "oldest_minutes": round(minutes, 1)},
        **named,
    )


def signatures_result(queue_url: str) -> dg.AssetCheckResult:
    """Return the result of `signatures_are_valid`."""
    named: dict[str, Any] = {"asset_key": WEBHOOK_EVENTS, "check_name": "signatures_are_valid"}
    try:
        with closing(Queue(queue_url)) as queue:
            rejected = queue.rejected(since=days_ago(1))
    except QueueUnavailable as error:
        return dg.AssetCheckResult(passed=False, description=str(error), **named)
    return dg.AssetCheckResult(
        passed=not rejected,
        severity=dg.AssetCheckSeverity.WARN,
        description="If every delivery was rejected, the signing secret is wrong: set it with `recoup webhooks "
        "secret`. If only some were, another sender uses the endpoint, or the secret was rolled."
        if rejected
        else None,
        metadata=dict(sorted(rejected.items())),
        **named,
    )
