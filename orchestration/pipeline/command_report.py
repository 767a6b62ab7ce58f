"""The report that a command leaves for Dagster: what it read, built and published.

A command does not import Dagster, which takes longer than most syncs. It writes a file instead. When Dagster runs, its
sensor `command_sensor` reads the file and shows what the command did. The newest 50 files are kept, so that several
instances of Dagster can read them.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter, ValidationError

from orchestration.base.files import replace_file
from orchestration.pipeline.builder import Build
from orchestration.sync import SyncReport
from orchestration.warehouse.publish import PublishedFile
from orchestration.webhooks.ingest import IngestReport

_MAX_FILES: Final = 50
"""Number of reports that are kept."""


@dataclass
class CommandReport:
    """The report of one command.

    Attributes:
        syncs: reports of the integrations that were synced, by name.
        ingested: webhook events that were loaded. None if the queue was not read.
        build: the models that were built, and the tests that ran. None if no build began.
        is_built: whether the build succeeded.
        published: the published file. None if the command did not publish.
    """

    syncs: dict[str, SyncReport] = field(default_factory=dict)
    ingested: IngestReport | None = None
    build: Build | None = None
    is_built: bool = False
    published: PublishedFile | None = None


def write_report(folder: Path, report: CommandReport) -> None:
    """Write the report to a new file in the folder, and delete the oldest files.

    Raises:
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    content = TypeAdapter(CommandReport).dump_json(report)
    replace_file(folder / f"{time.time_ns():020}.json", content)
    for old in _files(folder)[:-_MAX_FILES]:
        old.unlink(missing_ok=True)


def read_reports(folder: Path, *, after: str) -> tuple[CommandReport, str]:
    """Return one report that combines the new files, and the name of the newest file.

    The report has the newest sync of each integration, and the newest build. If there is no new file, it is empty and
    the name is `after`.

    Args:
        folder: The folder of the reports.
        after: Name of the last file that was read before, or an empty text.
    """
    merged = CommandReport()
    for path in _files(folder):
        if path.name <= after:
            continue
        after = path.name
        if (report := _read(path)) is not None:
            merged = CommandReport(
                merged.syncs | report.syncs,
                report.ingested or merged.ingested,
                report.build or merged.build,
                report.is_built if report.build else merged.is_built,
                report.published or merged.published,
            )
    return merged, after


def _read(path: Path) -> CommandReport | None:
    """Return the report, or None if the file was deleted meanwhile, is damaged, or is from another version."""
    try:
        return TypeAdapter(CommandReport).validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


def _files(folder: Path) -> Sequence[Path]:
    return sorted(folder.glob("*.json"))
