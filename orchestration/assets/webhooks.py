"""Webhook events as an asset. One step loads them from the queue into the raw tables."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime
from typing import Any, Final

import dagster as dg
from pydantic import Field

from orchestration import pipeline
from orchestration.assets.groups import RAW_GROUP
from orchestration.assets.preview import table_metadata
from orchestration.config.settings import Settings
from orchestration.resources import WAREHOUSE_POOL, WarehouseResource
from orchestration.setup.connections import make_connections
from orchestration.stripe_api import StripeApiError
from orchestration.warehouse.connection import WarehouseError
from orchestration.webhooks.errors import AccountUnknown, QueueUnavailable
from orchestration.webhooks.ingest import IngestReport
from orchestration.webhooks.queue import Queue, QueueStats

WEBHOOK_EVENTS: Final = dg.AssetKey(["stripe", "webhook_events"])

_EXPECTED_FAILURES: Final = (AccountUnknown, QueueUnavailable, StripeApiError, WarehouseError)
MAX_SHOWN_QUARANTINED: Final = 10
"""Most quarantined events that the check lists."""


class IngestConfig(dg.Config):
    """Options of a run: how many events to load, and whether to retry the quarantine."""

    most: int | None = Field(default=None, gt=0, description="Load at most this many events, the oldest first.")
    requeue_quarantined: bool = Field(default=False, description="Also try to load the events in quarantine again.")


def webhook_events_asset(settings: Settings) -> dg.AssetsDefinition:
    """Return the asset `stripe/webhook_events`."""

    @dg.asset(
        key=WEBHOOK_EVENTS,
        group_name=RAW_GROUP,
        kinds={"stripe", "duckdb"},
        owners=settings.owners,
        pool=WAREHOUSE_POOL,
        description="Every webhook event, once, with the times at which it was received and loaded. Its content is in "
        "the same tables as the objects and events that a sync reads.",
        check_specs=[
            dg.AssetCheckSpec(
                "quarantine_is_empty",
                asset=WEBHOOK_EVENTS,
                description="Every webhook event could be loaded; none is in quarantine.",
            )
        ],
    )
    def webhook_events(
        context: dg.AssetExecutionContext, warehouse: WarehouseResource, config: IngestConfig
    ) -> Iterator[dg.MaterializeResult[Any]]:
        """Load queued events into the raw tables, and remove them from the queue after the commit."""
        try:
            with closing(Queue(settings.queue_url)) as queue:
                if config.requeue_quarantined:
                    context.log.info(f"{queue.requeue_quarantined()} events in quarantine are tried again.")
                report = pipeline.ingest(
                    make_connections(settings),
                    warehouse.path,
                    settings.queue_url,
                    keep_days=settings.recoup_queue_days,
                    limit=config.most,
                )
                stats, quarantined = queue.stats(), queue.quarantine(MAX_SHOWN_QUARANTINED)
        except _EXPECTED_FAILURES as error:
            raise dg.Failure(description=str(error)) from None
        with warehouse.get_connection() as connection:
            preview = table_metadata(connection, "raw_stripe.webhook_events", order_by="_load_id DESC")
        yield dg.MaterializeResult(
            metadata={**ingest_figures(report, stats), **preview},
            check_results=[quarantine_result(stats, quarantined)],
        )

    return webhook_events


def first_materialization(instance: dg.DagsterInstance) -> dg.AssetMaterialization | None:
    """Return an event for a new instance, or None if webhook events were materialized before.

    The table exists from the start. Without this event, Dagster warns at each run that an input is missing.
    """
    if instance.get_latest_materialization_event(WEBHOOK_EVENTS) is not None:
        return None
    return dg.AssetMaterialization(WEBHOOK_EVENTS, description="No run has loaded webhook events yet.")


def ingest_figures(report: IngestReport, stats: QueueStats) -> dict[str, Any]:
    """Return the figures of a batch of events and of the queue, as Dagster's metadata."""
    return {
        "received": report.received,
        "taken": report.taken,
        "ingested": report.ingested,
        "duplicates": report.duplicates,
        "quarantined": report.quarantined,
        "ignored": report.ignored,
        "objects_written": report.objects_written,
        "slowest_seconds": round(report.slowest_seconds, 3),
        "queued_now": stats.queued,
        "queue_age_seconds": round(stats.age(datetime.now(UTC)), 1),
    }


def quarantine_result(stats: QueueStats, quarantined: Sequence[tuple[str, datetime, str]]) -> dg.AssetCheckResult:
    """Return the result of `quarantine_is_empty`, with the newest events in quarantine."""
    lines = ["| event | received (UTC) | reason |", "|---|---|---|"]
    lines += [
        f"| {event_id} | {received_at:%Y-%m-%d %H:%M:%S} | {reason} |" for event_id, received_at, reason in quarantined
    ]
    text = (
        "Some events could not be loaded: see the reasons. Set `requeue_quarantined` in a run's config to try again."
        if quarantined
        else None
    )
    return dg.AssetCheckResult(
        asset_key=WEBHOOK_EVENTS,
        check_name="quarantine_is_empty",
        passed=stats.quarantined == 0,
        severity=dg.AssetCheckSeverity.WARN,
        description=text,
        metadata={
            "quarantined": stats.quarantined,
            "newest": dg.MetadataValue.md("\n".join(lines) if quarantined else "none"),
        },
    )
