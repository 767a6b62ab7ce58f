"""`recoup report`: write the report page, and open it in the browser."""

import webbrowser
from pathlib import Path

from orchestration.base.files import user_file_permissions
from orchestration.report import ReportFile, report_path, write_report, write_reports


def run_report(published: Path, *, out: Path | None, livemode: bool | None, is_opened: bool) -> None:
    """Write the report of the data folder, or of one mode to the file `out`, and print where it is.

    Args:
        published: The analysts' file.
        out: A file to write instead of those in the data folder.
        livemode: The mode to show. None means each mode; with `out`, live mode if there is live data, else test mode.
        is_opened: Whether to open the first page in the browser.

    Raises:
        ReportUnavailable, ChangesInvalid, OSError: As `write_report`.
    """
    reports = _write(published, out, livemode)
    print_reports(reports)
    if is_opened and not webbrowser.open(reports[0].path.resolve().as_uri()):
        print("No browser was found. Open the file yourself.")


def _write(published: Path, out: Path | None, livemode: bool | None) -> list[ReportFile]:
    if out is not None:
        with user_file_permissions():
            return [write_report(published, out.absolute(), livemode=livemode)]
    if livemode is not None:
        return [write_report(published, report_path(published.parent, livemode=livemode), livemode=livemode)]
    return write_reports(published)


def print_reports(reports: list[ReportFile]) -> None:
    """Print the path of each page."""
    for report in reports:
        mode = "live" if report.livemode else "test"
        print(f"Report ({mode} mode, {report.size / 2**20:.1f} MiB): {report.path}")
