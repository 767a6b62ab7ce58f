"""Checks that run by themselves, also where no sync has run for a long time."""

from datetime import UTC, datetime
from typing import Final

import dagster as dg

from orchestration.resources import WAREHOUSE_POOL, WarehouseResource
from orchestration.sync.streams import EVENT_FEEDS
from orchestration.warehouse.checkpoints import feed_ages

WARN_AFTER_DAYS: Final = 20.0
"""Stripe keeps events for 30 days. Ten days are left then to bring the sync back before changes are lost."""

RETENTION_DAYS: Final = 30.0


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
