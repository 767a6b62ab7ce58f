"""What Stripe pushed, as an asset: one step takes it from the queue into the raw tables."""

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from typing import Any, Final

import dagster as dg
from pydantic import Field

from orchestration import pipeline
from orchestration.assets.preview import table_metadata
from orchestration.config.settings import Settings
from orchestration.resources import WAREHOUSE_POOL, WarehouseResource
from orchestration.stripe_api import StripeApiError
from orchestration.warehouse.connection import WarehouseError
from orchestration.webhooks.errors import AccountUnknown, QueueUnavailable
from orchestration.webhooks.ingest import IngestReport
from orchestration.webhooks.queue import Queue, QueueStats

WEBHOOK_EVENTS: Final = dg.AssetKey(["stripe", "webhook_events"])

_EXPECTED_FAILURES: Final = (AccountUnknown, QueueUnavailable, StripeApiError, WarehouseError)
_SHOWN: Final = 10


class IngestConfig(dg.Config):
    """What a run may be asked for beyond what is queued."""

    most: int | None = Field(default=None, gt=0, description="Take only the oldest so many events.")
    requeue_quarantined: bool = Field(default=False, description="Try once more what was put aside.")


def webhook_events_asset(settings: Settings) -> dg.AssetsDefinition:
    """The asset `stripe/webhook_events`."""

    @dg.asset(
        key=WEBHOOK_EVENTS,
        group_name="raw",
        kinds={"stripe", "duckdb"},
        pool=WAREHOUSE_POOL,
        description="Every event that Stripe pushed, once each: when it was received, when it was loaded. The events "
        "themselves, and the payments they carry, go into the same tables as those that are polled.",
        check_specs=[
            dg.AssetCheckSpec(
                "quarantine_is_empty", asset=WEBHOOK_EVENTS, description="Every event that was received could be read."
            )
        ],
    )
    def webhook_events(
        context: dg.AssetExecutionContext, warehouse: WarehouseResource, config: IngestConfig
    ) -> Iterator[dg.MaterializeResult[Any]]:
        """Take what is queued into the raw tables, and acknowledge it after the commit."""
        try:
            with closing(Queue(settings.queue_url)) as queue:
                if config.requeue_quarantined:
                    context.log.info(f"{queue.requeue_quarantined()} events are tried once more.")
                report = pipeline.ingest(settings, limit=config.most)
                stats, aside = queue.stats(), queue.quarantine(_SHOWN)
        except _EXPECTED_FAILURES as error:
            raise dg.Failure(description=str(error)) from None
        with warehouse.get_connection() as connection:
            preview = table_metadata(connection, "raw_stripe.webhook_events", order_by="_load_id DESC")
        yield dg.MaterializeResult(
            metadata={**ingest_figures(report, stats), **preview}, check_results=[_quarantine_is_empty(stats, aside)]
        )

    return webhook_events


def ingest_figures(report: IngestReport, stats: QueueStats) -> dict[str, Any]:
    """Return what became of a batch of events, as Dagster's metadata."""
    return {
        "received": report.received,
        "taken": report.taken,
        "ingested": report.ingested,
        "duplicates": report.duplicates,
        "quarantined": report.quarantined,
        "passed_over": report.passed_over,
        "objects_written": report.objects_written,
        "slowest_seconds": round(report.slowest_seconds, 3),
        "queued_now": stats.queued,
        "queue_age_seconds": round(stats.age(datetime.now(UTC)), 1),
    }


def _quarantine_is_empty(stats: QueueStats, aside: list[tuple[str, datetime, str]]) -> dg.AssetCheckResult:
    lines = ["| event | received (UTC) | why |", "|---|---|---|"]
    lines += [f"| {event_id} | {received_at:%Y-%m-%d %H:%M:%S} | {reason} |" for event_id, received_at, reason in aside]
    text = "Look at the reasons; `requeue_quarantined` in the run's config tries them again." if aside else None
    return dg.AssetCheckResult(
        asset_key=WEBHOOK_EVENTS,
        check_name="quarantine_is_empty",
        passed=stats.quarantined == 0,
        severity=dg.AssetCheckSeverity.WARN,
        description=text,
        metadata={
            "quarantined": stats.quarantined,
            "newest": dg.MetadataValue.md("\n".join(lines) if aside else "none"),
        },
    )
