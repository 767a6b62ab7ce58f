"""The report: one self-contained HTML page for each mode, with the figures and charts of the analysts' file.

`queries/` has the SQL of each dataset, and `page/` the HTML, the styles and the code that draws the charts. The page
contains ids and aggregates, and no personal data.
"""

from dataclasses import dataclass
from pathlib import Path

from orchestration.base.files import replace_file
from orchestration.report.changes import ChangesInvalid, read_changes
from orchestration.report.data import ReportUnavailable, read_data, read_modes
from orchestration.report.page import render_page

__all__ = ["ChangesInvalid", "ReportFile", "ReportUnavailable", "write_report"]


@dataclass(frozen=True)
class ReportFile:
    """A written page: its path, its mode and its size in bytes."""

    path: Path
    livemode: bool
    size: int


def write_report(
    published: Path, path: Path, *, livemode: bool | None = None, changes: Path | None = None
) -> ReportFile:
    """Write the report of one mode to a file, which is replaced atomically.

    Args:
        published: The analysts' file.
        path: The file to write.
        livemode: The mode to show. None means live mode if the file has live data, and test mode otherwise.
        changes: A CSV file of dated changes to draw as lines (`read_changes`). It need not exist.

    Raises:
        ReportUnavailable: The analysts' file is missing or cannot be read.
        ChangesInvalid: The file of changes is not valid.
        OSError: The page cannot be written. An older page is still there.
    """
    modes = read_modes(published)
    mode = livemode if livemode is not None else (modes or [False])[0]
    dated = read_changes(changes or path.with_name("changes.csv"))
    page = render_page({**read_data(published, livemode=mode), "changes": dated}, livemode=mode).encode()
    replace_file(path, page)
    return ReportFile(path, mode, len(page))
