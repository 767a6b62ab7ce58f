"""The analysts' file as an asset. A run publishes it only after every model was built and every test passed."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import dagster as dg

from orchestration import pipeline
from orchestration.assets.groups import PUBLISHED_GROUP
from orchestration.assets.preview import markdown_table
from orchestration.config.settings import Settings
from orchestration.pipeline.headline import CurrencyFigures
from orchestration.resources import WAREHOUSE_POOL, WarehouseResource
from orchestration.warehouse.connection import WarehouseError
from orchestration.warehouse.publish import PublishedFile

RECOVERY: Final = dg.AssetKey(["published", "recovery"])


def publish_asset(
    settings: Settings, marts: Sequence[dg.AssetKey], *, freshness: dg.FreshnessPolicy
) -> dg.AssetsDefinition:
    """Return the asset `published/recovery`, which replaces the analysts' file with the current marts and seeds."""

    @dg.asset(
        key=RECOVERY,
        group_name=PUBLISHED_GROUP,
        deps=list(marts),
        kinds={"duckdb"},
        owners=settings.owners,
        pool=WAREHOUSE_POOL,
        freshness_policy=freshness,
        description="recovery.duckdb, the file for analysts, with all marts and seeds. It can be read at any time.",
    )
    def recovery(warehouse: WarehouseResource) -> dg.MaterializeResult[Any]:
        return dg.MaterializeResult(metadata=publish_now(warehouse, settings.published_path))

    return recovery


def publish_now(warehouse: WarehouseResource, published_path: Path) -> dict[str, Any]:
    """Publish the analysts' file, and return the metadata of `published/recovery`.

    Raises:
        dagster.Failure: the warehouse cannot be used.
    """
    try:
        published = pipeline.publish_marts(warehouse.path, published_path)
        headline = pipeline.published_headline(warehouse.path)
    except WarehouseError as error:
        raise dg.Failure(description=str(error)) from None
    return published_figures(published, headline)


def published_figures(published: PublishedFile, headline: pipeline.Headline) -> dict[str, Any]:
    """Return the recovery figures and the size of the published file, as Dagster's metadata.

    Each number has a plot in the UI. The numbers of a currency end in its code, such as `at_risk_EUR`, and their
    amounts are in the currency's major unit.
    """
    return {
        "recovery_rate": dg.MetadataValue.md(_rates_text(headline.rates)),
        "by_currency": dg.MetadataValue.md(_currencies_table(headline.currencies)),
        **_plotted_figures(headline.currencies),
        "path": dg.MetadataValue.path(str(published.path)),
        "size_bytes": published.size,
        "rows_written": published.rows_written,
        "dagster/row_count": sum(published.rows.values()),
        "tables": dg.MetadataValue.json(published.rows),
    }


def _plotted_figures(currencies: Sequence[CurrencyFigures]) -> dict[str, float]:
    figures: dict[str, float] = {}
    for each in currencies:
        code = each.currency.upper()
        if each.rate is not None:
            figures[f"recovery_rate_matured_{code}"] = round(each.rate, 4)
        for name in ("at_risk", "recovered_net", "in_recovery"):
            figures[f"{name}_{code}"] = float(each.amount(getattr(each, name)))
    return figures


def _currencies_table(currencies: Sequence[CurrencyFigures]) -> str:
    if not currencies:
        return "There are no failed payments yet."
    rows = [
        [
            each.currency.upper(),
            "" if each.rate is None else f"{100 * each.rate:.1f} %",
            *(f"{each.amount(minor):,.{each.exponent or 0}f}" for minor in (each.at_risk, each.recovered_net)),
            f"{each.amount(each.in_recovery):,.{each.exponent or 0}f}",
        ]
        for each in currencies
    ]
    return markdown_table(["currency", "recovery rate, matured", "at risk", "recovered, net", "in recovery"], rows)


def _rates_text(rates: Sequence[pipeline.RecoveryRate]) -> str:
    """Return a line of Markdown for each account and mode."""
    lines = [
        f"- {rate.account_id} ({'live' if rate.livemode else 'test'} mode): {rate.title} {rate}; strict {rate.strict}"
        if rate.share is not None
        else f"- {rate.account_id} ({'live' if rate.livemode else 'test'} mode): {rate}"
        for rate in rates
        if rate.is_all_currencies
    ]
    return "\n".join(lines) or "There are no failed payments yet."
