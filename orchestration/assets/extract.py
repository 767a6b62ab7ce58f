"""The raw tables as assets. One step reads them all, because one feed of events says what changed in each table.

Each integration is a partition, which is synced, fails and is retried on its own.
"""

import time
from collections.abc import Iterator
from math import isfinite
from typing import Any, Final

import dagster as dg
from pydantic import Field

from orchestration import pipeline
from orchestration.accounts import clients
from orchestration.accounts.registry import IntegrationError
from orchestration.assets.preview import days_chart, table_metadata
from orchestration.config.settings import Settings
from orchestration.partitions import IntegrationPartitions
from orchestration.resources import WarehouseResource
from orchestration.setup.connections import make_connections
from orchestration.stripe_api import StripeApiError
from orchestration.sync import Progress, SyncReport, SyncRequest
from orchestration.warehouse.connection import WarehouseError

_DESCRIPTIONS: Final = {
    "payment_intents": "The latest version of every PaymentIntent, as Stripe's JSON without personal fields.",
    "charges": "The latest version of every Charge, which is one attempt to move money.",
    "refunds": "The latest version of every Refund.",
    "disputes": "The latest version of every Dispute, including late returns by banks.",
    "events": "Every event about these four kinds of object, once. Stripe keeps events for 30 days.",
    "last_payment_errors": "Failures without a charge, if the PaymentIntent still showed them when it was read.",
}
POLL_REQUESTS: Final = "requests_of_a_poll"
READ_ALLOWANCE: Final = "read_allowance_of_30_days"
"""Names of the metadata of `sync/streams` from which the schedule computes the interval between syncs."""

_FEEDS: Final = {
    "payment_intents": ("payment_intents", "payment_intent_events"),
    "charges": ("charges", "charge_events"),
    "refunds": ("refunds", "charge_events"),
    "disputes": ("disputes", "charge_events"),
    "events": ("payment_intent_events", "charge_events"),
    "last_payment_errors": ("payment_intents",),
}
"""The streams of `sync.streams` from which each table is read."""

_QUARANTINE_STREAMS: Final = {"events": ("payment_intent_events", "charge_events"), "last_payment_errors": ()}
"""The streams of a table in `sync.quarantine`. A table that is missing here has one stream of the same name."""

_PROGRESS_INTERVAL_SECONDS: Final = 10.0
"""Time between two reports of progress in the events of a run."""

_EXPECTED_FAILURES: Final = (StripeApiError, WarehouseError, clients.KeyMissing, IntegrationError, ValueError)
_NON_RETRYABLE_ERRORS: Final = (clients.KeyMissing, IntegrationError)
"""Errors that another attempt cannot fix."""


class ExtractConfig(dg.Config):
    """Options of a run: what to read again besides the changes."""

    full_refresh: bool = Field(default=False, description="Read the whole history again. Nothing is deleted.")
    created_from: str | None = Field(
        default=None,
        description="Read objects again that were created at or after this date or time, such as 2026-01-31 (UTC).",
    )
    created_until: str | None = Field(
        default=None, description="Read only objects again that were created before this date or time (UTC)."
    )


def extract_asset(settings: Settings) -> dg.AssetsDefinition:
    """Return the assets `stripe/*` and `sync/*`, with a partition for each integration."""

    @dg.multi_asset(
        name="extract",
        group_name="raw",
        partitions_def=IntegrationPartitions(settings),
        specs=[
            *[_spec("stripe", table, text) for table, text in _DESCRIPTIONS.items()],
            _spec("sync", "streams", "How far each stream has been read: checkpoints and watermarks."),
            _spec(
                "sync",
                "quarantine",
                "Objects that could not be read, with the reason. Each sync tries some of them again.",
            ),
        ],
        check_specs=[
            dg.AssetCheckSpec(
                "key_has_permission",
                asset=["stripe", table],
                description="The API key has the permission to read this table's objects.",
            )
            for table in _DESCRIPTIONS
        ],
    )
    def extract(
        context: dg.AssetExecutionContext, warehouse: WarehouseResource, config: ExtractConfig
    ) -> Iterator[Any]:
        """Read what changed at Stripe into the raw tables."""
        try:
            request = SyncRequest.of(**config.model_dump())
            report = pipeline.extract(
                make_connections(settings),
                warehouse.path,
                _ProgressEvents(context),
                integration=context.partition_key,
                request=request,
            )
        except _EXPECTED_FAILURES as error:
            raise dg.Failure(
                description=str(error), allow_retries=not isinstance(error, _NON_RETRYABLE_ERRORS)
            ) from None
        with warehouse.get_connection() as connection:
            for table in _DESCRIPTIONS:
                preview = table_metadata(
                    connection, f"raw_stripe.{table}", columns="* EXCLUDE (payload)", order_by="_load_id DESC"
                )
                yield dg.MaterializeResult(
                    asset_key=["stripe", table],
                    metadata={**_table_figures(report, table), **preview},
                    check_results=[_permission_result(report, table)],
                )
            streams = table_metadata(connection, "sync.streams", order_by="stream")
            yield dg.MaterializeResult(asset_key=["sync", "streams"], metadata={**_run_figures(report), **streams})
            quarantine = table_metadata(connection, "sync.quarantine", order_by="last_seen_at DESC")
            yield dg.MaterializeResult(asset_key=["sync", "quarantine"], metadata=quarantine)

    return extract


def _spec(schema: str, table: str, description: str) -> dg.AssetSpec:
    return dg.AssetSpec([schema, table], description=description, kinds={"stripe", "duckdb"})


class _ProgressEvents:
    """Callback that reports the progress of a long sync, as observations of `sync/streams` in the events of the run."""

    def __init__(self, context: dg.AssetExecutionContext) -> None:
        self._context, self._started_at, self._reported_at = context, time.monotonic(), time.monotonic()

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        if now - self._reported_at < _PROGRESS_INTERVAL_SECONDS:
            return
        self._reported_at = now
        rows = sum(counts.read for counts in progress.counts.values())
        figures: dict[str, Any] = {
            "stream": progress.stream,
            "rows_read": rows,
            "rows_per_second": round(rows / (now - self._started_at)),
            "requests": progress.requests.requests,
            "rate_limited": progress.requests.rate_limited,
        }
        if isfinite(progress.pages_left):
            figures["requests_left"] = round(progress.pages_left)
        self._context.log_event(dg.AssetObservation(["sync", "streams"], metadata=figures))


def _table_figures(report: SyncReport, table: str) -> dict[str, Any]:
    counts = report.counts.get(table)
    watermarks = [report.streams[stream].complete_through for stream in _FEEDS[table] if stream in report.streams]
    known = [instant for instant in watermarks if instant is not None]
    figures: dict[str, Any] = {
        "rows_read": counts.read if counts else 0,
        "rows_written": counts.written if counts else 0,
        "rows_unchanged": counts.unchanged + counts.outdated if counts else 0,
        "rows_quarantined": sum(
            report.quarantined.get(stream, 0) for stream in _QUARANTINE_STREAMS.get(table, (table,))
        ),
    }
    return (
        figures
        | ({"watermark": dg.MetadataValue.timestamp(float(max(known)))} if known else {})
        | _data_through(report)
    )


def _run_figures(report: SyncReport) -> dict[str, Any]:
    return {
        "account": report.account.account_id,
        "livemode": report.account.livemode,
        "requests": report.requests.requests,
        "requests_repeated": report.requests.retries,
        "rate_limited": report.requests.rate_limited,
        "objects_reread": report.reread_count,
        "objects_missing_at_stripe": report.vanished_count,
        "quarantined": sum(report.quarantined.values()),
        "streams_listed_again": ", ".join(report.relisted_feeds) or "none",
        "missing_permissions": ", ".join(sorted(set(report.missing.values()))) or "none",
        "feed_lag_seconds": report.feed_lag_seconds or 0,
        "objects_read_by_day": dg.MetadataValue.md(days_chart(report.read_by_day)),
        **_read_budget(report),
    } | _data_through(report)


def _read_budget(report: SyncReport) -> dict[str, Any]:
    if report.budget is None:
        return {}
    return {
        "reads_in_30_days": report.budget.used,
        READ_ALLOWANCE: report.budget.allowance,
        "read_share": round(report.budget.used_share, 4),
        POLL_REQUESTS: report.budget.poll_requests,
    }


def _data_through(report: SyncReport) -> dict[str, Any]:
    if report.data_through is None:
        return {}
    return {"data_through": dg.MetadataValue.timestamp(float(report.data_through))}


def _permission_result(report: SyncReport, table: str) -> dg.AssetCheckResult:
    missing = {report.missing[stream] for stream in _FEEDS[table] if stream in report.missing}
    text = (
        f"This table is incomplete, because the key lacks {', '.join(sorted(missing))}. Add the permission at Stripe."
        if missing
        else None
    )
    return dg.AssetCheckResult(
        passed=not missing,
        asset_key=["stripe", table],
        check_name="key_has_permission",
        severity=dg.AssetCheckSeverity.WARN,
        description=text,
    )
