"""The raw tables as assets: one step reads them all, because the events decide what changes in each."""

from collections.abc import Iterator
from typing import Any, Final

import dagster as dg

from orchestration import pipeline
from orchestration.assets.preview import table_metadata
from orchestration.resources import WAREHOUSE_POOL, WarehouseResource
from orchestration.settings import Settings
from orchestration.stripe_api import StripeApiError
from orchestration.sync import Progress, SyncReport
from orchestration.warehouse.connection import WarehouseError

_DESCRIPTIONS: Final = {
    "payment_intents": "Every PaymentIntent in its newest known state, as Stripe's JSON without personal fields.",
    "charges": "Every Charge (one attempt to move money) in its newest known state.",
    "refunds": "Every Refund in its newest known state.",
    "disputes": "Every Dispute in its newest known state. A late bank return is one, too.",
    "events": "Every event about the four kinds of object, once each. Stripe lists events for 30 days only.",
    "last_payment_errors": "Failures that made no charge, as far as a listing still showed them.",
}
_FEEDS: Final = {
    "payment_intents": ("payment_intents", "payment_intent_events"),
    "charges": ("charges", "charge_events"),
    "refunds": ("refunds", "charge_events"),
    "disputes": ("disputes", "charge_events"),
    "events": ("payment_intent_events", "charge_events"),
    "last_payment_errors": ("payment_intents",),
}
"""The streams of `sync.streams` that a table rests on."""

_LOGGED_EVERY: Final = 25
"""Pages between two progress lines in the run's log: about one in every ten seconds at Stripe's latency."""

_EXPECTED_FAILURES: Final = (StripeApiError, WarehouseError, pipeline.KeyMissing)


def extract_asset(settings: Settings) -> dg.AssetsDefinition:
    """The assets `stripe/*` and `sync/streams`."""

    @dg.multi_asset(
        name="extract",
        group_name="raw",
        pool=WAREHOUSE_POOL,
        specs=[
            *[_spec("stripe", table, text) for table, text in _DESCRIPTIONS.items()],
            _spec("sync", "streams", "How far each stream is known: checkpoints and watermarks."),
        ],
        check_specs=[
            dg.AssetCheckSpec("key_may_read_it", asset=["stripe", table], description="The API key has the permission.")
            for table in _DESCRIPTIONS
        ],
    )
    def extract(context: dg.AssetExecutionContext, warehouse: WarehouseResource) -> Iterator[Any]:
        """Read what changed at Stripe into the raw tables."""
        try:
            report = pipeline.extract(settings, _ProgressLog(context))
        except _EXPECTED_FAILURES as error:
            raise dg.Failure(description=str(error), allow_retries=not isinstance(error, pipeline.KeyMissing)) from None
        with warehouse.get_connection() as connection:
            for table in _DESCRIPTIONS:
                preview = table_metadata(
                    connection, f"raw_stripe.{table}", columns="* EXCLUDE (payload)", order_by="_load_id DESC"
                )
                yield dg.MaterializeResult(
                    asset_key=["stripe", table],
                    metadata={**_table_figures(report, table), **preview},
                    check_results=[_readable(report, table)],
                )
            streams = table_metadata(connection, "sync.streams", order_by="stream")
            yield dg.MaterializeResult(asset_key=["sync", "streams"], metadata={**_run_figures(report), **streams})

    return extract


def _spec(schema: str, table: str, description: str) -> dg.AssetSpec:
    return dg.AssetSpec([schema, table], description=description, kinds={"stripe", "duckdb"})


class _ProgressLog:
    def __init__(self, context: dg.AssetExecutionContext) -> None:
        self._log, self._pages = context.log, 0

    def __call__(self, progress: Progress) -> None:
        self._pages += 1
        if self._pages % _LOGGED_EVERY == 0:
            rows = sum(counts.read for counts in progress.counts.values())
            self._log.info(f"{progress.stream}: {rows:,} rows read in {progress.requests.requests:,} requests")


def _table_figures(report: SyncReport, table: str) -> dict[str, Any]:
    counts = report.counts.get(table)
    through = [report.streams[stream].complete_through for stream in _FEEDS[table] if stream in report.streams]
    known = [instant for instant in through if instant is not None]
    figures: dict[str, Any] = {
        "rows_read": counts.read if counts else 0,
        "rows_written": counts.written if counts else 0,
        "rows_unchanged": counts.unchanged + counts.outdated if counts else 0,
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
        "read_again": report.reread,
        "vanished": report.vanished,
        "listed_anew": ", ".join(report.relisted) or "nothing",
        "missing_permissions": ", ".join(sorted(set(report.missing.values()))) or "none",
    } | _data_through(report)


def _data_through(report: SyncReport) -> dict[str, Any]:
    if report.data_through is None:
        return {}
    return {"data_through": dg.MetadataValue.timestamp(float(report.data_through))}


def _readable(report: SyncReport, table: str) -> dg.AssetCheckResult:
    missing = {report.missing[stream] for stream in _FEEDS[table] if stream in report.missing}
    text = f"The key lacks {', '.join(sorted(missing))}: this table is incomplete." if missing else None
    return dg.AssetCheckResult(
        passed=not missing,
        asset_key=["stripe", table],
        check_name="key_may_read_it",
        severity=dg.AssetCheckSeverity.WARN,
        description=text,
    )
