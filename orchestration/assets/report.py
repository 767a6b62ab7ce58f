"""The report page as an asset, downstream of the analysts' file."""

from pathlib import Path
from typing import Any, Final

import dagster as dg

from orchestration.assets.groups import PUBLISHED_GROUP
from orchestration.assets.publish import RECOVERY
from orchestration.config.settings import Settings
from orchestration.report import ChangesInvalid, ReportFile, ReportUnavailable, find_reports, write_reports

REPORT: Final = dg.AssetKey(["published", "report"])


def report_asset(settings: Settings, *, freshness: dg.FreshnessPolicy) -> dg.AssetsDefinition:
    """Return the asset `published/report`, which replaces the page of each mode."""

    @dg.asset(
        key=REPORT,
        group_name=PUBLISHED_GROUP,
        deps=[RECOVERY],
        kinds={"html"},
        owners=settings.owners,
        freshness_policy=freshness,
        description="One HTML page for each mode: what failed, what came back, what to do today. `recoup dev` and "
        "`recoup serve` show it at /report.",
    )
    def report() -> dg.MaterializeResult[Any]:
        return dg.MaterializeResult(metadata=report_now(settings.published_path))

    return report


def report_now(published_path: Path) -> dict[str, Any]:
    """Write the page of each mode, and return the metadata of `published/report`.

    Raises:
        dagster.Failure: The analysts' file or `changes.csv` cannot be used.
    """
    try:
        return _figures(write_reports(published_path))
    except (ReportUnavailable, ChangesInvalid) as error:
        raise dg.Failure(description=str(error), allow_retries=False) from None


def report_figures(published_path: Path) -> dict[str, Any] | None:
    """Return the metadata of the pages that were written before, or None if there are none."""
    found = find_reports(published_path)
    return _figures(found) if found else None


def _figures(reports: list[ReportFile]) -> dict[str, Any]:
    return {
        "paths": dg.MetadataValue.md("\n".join(f"- {each.path}" for each in reports) or "No account yet."),
        "size_bytes": sum(each.size for each in reports),
    }
