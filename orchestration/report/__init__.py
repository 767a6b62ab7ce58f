"""The report: one self-contained HTML page for each mode, with the figures and charts of the analysts' file.

`queries/` has the SQL of each dataset, and `page/` the HTML, the styles and the code that draws the charts. The page
contains ids and aggregates, and no personal data.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from orchestration.base.files import replace_file
from orchestration.report.changes import ChangesInvalid, read_changes
from orchestration.report.data import ReportUnavailable, read_data, read_modes
from orchestration.report.page import render_page

__all__ = [
    "ChangesInvalid",
    "ReportFile",
    "ReportUnavailable",
    "current_reports",
    "find_reports",
    "report_path",
    "write_report",
    "write_reports",
]

CHANGES_NAME: Final = "changes.csv"
"""Name of the file beside the analysts' file in which a business writes what it changed, and when."""


@dataclass(frozen=True)
class ReportFile:
    """A written page: its path, its mode and its size in bytes."""

    path: Path
    livemode: bool
    size: int


def report_path(folder: Path, *, livemode: bool) -> Path:
    """Return the path of a mode's page in the data folder."""
    return folder / f"report_{'live' if livemode else 'test'}.html"


def find_reports(published: Path) -> list[ReportFile]:
    """Return the pages that exist beside the analysts' file. Live mode comes first."""
    paths = {livemode: report_path(published.parent, livemode=livemode) for livemode in (True, False)}
    return [ReportFile(path, mode, path.stat().st_size) for mode, path in paths.items() if path.exists()]


def current_reports(published: Path) -> list[ReportFile]:
    """Return the pages, or none if one of them is older than the analysts' file or there is no such file."""
    if not published.exists():
        return []
    written, reports = published.stat().st_mtime_ns, find_reports(published)
    return reports if all(report.path.stat().st_mtime_ns >= written for report in reports) else []


def write_reports(published: Path) -> list[ReportFile]:
    """Write the page of each mode that the analysts' file has data of, beside that file. Live mode comes first.

    Raises:
        ReportUnavailable, ChangesInvalid, OSError: As `write_report`.
    """
    modes = read_modes(published)
    for mode in {True, False} - set(modes):  # the page of data that are no longer there
        report_path(published.parent, livemode=mode).unlink(missing_ok=True)
    return [write_report(published, report_path(published.parent, livemode=mode), livemode=mode) for mode in modes]


def write_report(published: Path, path: Path, *, livemode: bool | None = None) -> ReportFile:
    """Write the page of one mode to a file, which is replaced atomically.

    Args:
        published: The analysts' file. The file `changes.csv` beside it may hold dated changes.
        path: The file to write.
        livemode: The mode to show. None means live mode if the file has live data, and test mode otherwise.

    Raises:
        ReportUnavailable: The analysts' file is missing, cannot be read, or has no data of this mode. Or `path` is a
            folder.
        ChangesInvalid: The file of changes is not valid.
        OSError: The page cannot be written. An older page is still there.
    """
    modes = read_modes(published)
    mode = livemode if livemode is not None else (modes or [False])[0]
    if mode not in modes and livemode is not None:
        raise ReportUnavailable(f"{published} has no data of {'live' if mode else 'test'} mode.")
    if path.is_dir():
        raise ReportUnavailable(f"{path} is a folder. Name a file in it, such as {path / 'report.html'}.")
    changes = read_changes(published.with_name(CHANGES_NAME))
    page = render_page({**read_data(published, livemode=mode), "changes": changes}, livemode=mode).encode()
    replace_file(path, page)
    return ReportFile(path, mode, len(page))
