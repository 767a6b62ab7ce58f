"""The report page as an asset, downstream of the analysts' file."""

from pathlib import Path
from typing import Any, Final

import dagster as dg

from orchestration.assets.publish import RECOVERY
from orchestration.report import ChangesInvalid, ReportUnavailable, write_reports

REPORT: Final = dg.AssetKey(["published", "report"])


def report_asset(published_path: Path) -> dg.AssetsDefinition:
    """Return the asset `published/report`, which replaces the page of each mode."""

    @dg.asset(
        key=REPORT,
        group_name="published",
        deps=[RECOVERY],
        kinds={"html"},
        description="One HTML page for each mode: what failed, what came back, what to do today. `recoup serve` shows "
        "it at /report.",
    )
    def report() -> dg.MaterializeResult[Any]:
        try:
            written = write_reports(published_path)
        except (ReportUnavailable, ChangesInvalid) as error:
            raise dg.Failure(description=str(error), allow_retries=False) from None
        return dg.MaterializeResult(
            metadata={
                "paths": dg.MetadataValue.md("\n".join(f"- {each.path}" for each in written) or "No account yet."),
                "size_bytes": sum(each.size for each in written),
            }
        )

    return report
