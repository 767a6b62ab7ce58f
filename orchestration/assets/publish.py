"""The analysts' file as an asset. A run publishes it only after every model was built and every test passed."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import dagster as dg

from orchestration import pipeline
from orchestration.resources import WAREHOUSE_POOL, WarehouseResource
from orchestration.warehouse.connection import WarehouseError
from orchestration.warehouse.publish import PublishedFile

RECOVERY: Final = dg.AssetKey(["published", "recovery"])


def publish_asset(published_path: Path, marts: Sequence[dg.AssetKey]) -> dg.AssetsDefinition:
    """Return the asset `published/recovery`, which replaces the analysts' file with the current marts and seeds."""

    @dg.asset(
        key=RECOVERY,
        group_name="published",
        deps=list(marts),
        kinds={"duckdb"},
        pool=WAREHOUSE_POOL,
        description="recovery.duckdb, the file for analysts, with all marts and seeds. It can be read at any time.",
    )
    def recovery(warehouse: WarehouseResource) -> dg.MaterializeResult[Any]:
        try:
            published = pipeline.publish_marts(warehouse.path, published_path)
            rates = pipeline.recovery_rates(warehouse.path)
        except WarehouseError as error:
            raise dg.Failure(description=str(error)) from None
        return dg.MaterializeResult(
            metadata={**published_figures(published, rates), "tables": dg.MetadataValue.json(published.rows)}
        )

    return recovery


def published_figures(published: PublishedFile, rates: Sequence[pipeline.RecoveryRate]) -> dict[str, Any]:
    """Return the published file's figures and the recovery rate of each account, as Dagster's metadata."""
    return {
        "recovery_rate": dg.MetadataValue.md(_rates_text(rates)),
        "path": dg.MetadataValue.path(str(published.path)),
        "size_bytes": published.size,
        "rows_written": published.rows_written,
        "dagster/row_count": sum(published.rows.values()),
    }


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
