"""Delete Dagster's history of Recoup's runs that is older than RECOUP_HISTORY_DAYS.

This module decides what is deleted from Dagster's home, and when. The job and its schedule are in `jobs` and
`schedules`, the command is in `cli/clean.py`. The queue of webhook events deletes its own rows (`RECOUP_QUEUE_DAYS`).

This module does not import Dagster, and works whether Dagster runs or not: it opens Dagster's SQLite files directly, in
short transactions. Their layout is that of the pinned version. A test compares the result with what Dagster reads.
"""

import fcntl
import os
import shutil
import sqlite3
import uuid
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from orchestration.warehouse.connection import WarehouseBusy, open_warehouse
from orchestration.warehouse.ledger import delete_closed_loads

SKIPPED_TICK_DAYS: Final = 1.0
"""Age at which skipped ticks are deleted. An idle sensor writes one every five seconds, 17,280 a day."""

LOG_MAX_BYTES: Final = 10_000_000
"""Size at which `dagster.log` is rotated."""

LOG_MAX_FILES: Final = 3
"""Number of rotated files that are kept."""

EVENT_LOG: Final = "event_log.db"
"""Name of the file in Dagster's home that holds the events of all runs (`dagster.yaml`)."""

_BATCH_ROWS: Final = 2_000
"""Number of rows deleted in one transaction. It takes about 20 ms, for which Dagster's writers wait."""

_VACUUM_PAGES: Final = 2_000
"""Number of pages returned to the disk in one transaction: 8 MB."""

_MAX_FULL_VACUUM_BYTES: Final = 1_000_000_000
"""Size up to which a file is rewritten as a whole. Writers wait for it; Dagster's give up after 30 seconds."""

_INCREMENTAL: Final = 2
"""SQLite's code of the `auto_vacuum` mode that returns free pages in steps."""

_BUSY_SECONDS: Final = 30.0
"""Time to wait for a lock of SQLite."""

_CHOOSE_OLD_CHECKS: Final = """
CREATE TEMP TABLE old_checks AS
SELECT id FROM asset_check_executions
WHERE create_timestamp < :before
  AND run_id NOT IN (SELECT run_id FROM runs_db.runs)
  AND id NOT IN (SELECT max(id) FROM asset_check_executions GROUP BY asset_key, check_name, partition)
  AND id NOT IN (
      SELECT max(id) FROM asset_check_executions WHERE evaluation_event IS NOT NULL
      GROUP BY asset_key, check_name, partition
  )
"""

_CHOOSE_OLD_EVENTS: Final = """
CREATE TEMP TABLE old_events AS
SELECT id FROM event_logs
WHERE timestamp < :before
  AND run_id NOT IN (SELECT run_id FROM runs_db.runs)
  AND id NOT IN (
      SELECT max(id) FROM event_logs
      WHERE dagster_event_type IN ('ASSET_MATERIALIZATION', 'ASSET_OBSERVATION') AND asset_key IS NOT NULL
      GROUP BY asset_key, dagster_event_type, partition
  )
  AND id NOT IN (
      SELECT evaluation_event_storage_id FROM asset_check_executions
      WHERE evaluation_event_storage_id IS NOT NULL AND id NOT IN (SELECT id FROM temp.old_checks)
  )
"""
"""Events without a run have the run id '', which no run has."""

_CHOOSE_OLD_RUNS: Final = """
CREATE TEMP TABLE old_runs AS
SELECT id FROM runs
WHERE status IN ('SUCCESS', 'FAILURE', 'CANCELED')
  AND coalesce(end_time, CAST(strftime('%s', update_timestamp) AS REAL)) < :before
"""

_CHOOSE_OLD_RUN_TAGS: Final = """
CREATE TEMP TABLE old_run_tags AS SELECT id FROM run_tags WHERE run_id NOT IN (SELECT run_id FROM runs)
"""

_CHOOSE_OLD_TICKS: Final = """
CREATE TEMP TABLE old_ticks AS
SELECT id FROM job_ticks
WHERE (timestamp < :before OR (timestamp < :skipped_before AND status = 'SKIPPED'))
  AND id NOT IN (SELECT max(id) FROM job_ticks GROUP BY job_origin_id, selector_id)
"""


@dataclass(frozen=True)
class CleanReport:
    """The numbers of what one cleaning deleted."""

    run_count: int = 0
    event_count: int = 0
    tick_count: int = 0
    load_count: int = 0
    file_count: int = 0
    bytes_freed: int = 0

    def __add__(self, other: "CleanReport") -> "CleanReport":
        """Add the numbers of two reports."""
        return CleanReport(
            self.run_count + other.run_count,
            self.event_count + other.event_count,
            self.tick_count + other.tick_count,
            self.load_count + other.load_count,
            self.file_count + other.file_count,
            self.bytes_freed + other.bytes_freed,
        )


def clean_history(home: Path, warehouse_path: Path, *, now: datetime, keep_days: float) -> CleanReport:
    """Delete history older than `keep_days`, and return how much was deleted.

    It can run at any time, also while Dagster runs, and again after a crash. Unfinished runs are kept, and so is the
    newest event of each asset, partition and check. Nothing is deleted if Dagster's home does not exist.

    Args:
        home: Dagster's home.
        warehouse_path: The warehouse, whose ledger of loads is cleaned, too.
        now: The current time, with a time zone.
        keep_days: Number of days for which history is kept.
    """
    before = now - timedelta(days=keep_days)
    return (
        _clean_runs(home, before)
        + _clean_events(home, before)
        + _clean_ticks(home, before, now - timedelta(days=SKIPPED_TICK_DAYS))
        + _clean_ledger(warehouse_path, before)
        + _clean_run_folders(home, before)
        + _remove_former_event_logs(home)
        + rotate_log(home / "dagster.log")
    )


def _clean_ledger(warehouse_path: Path, before: datetime) -> CleanReport:
    """Delete old entries of loads that are in the models. If the warehouse is busy, the next cleaning deletes them."""
    if not warehouse_path.exists():
        return CleanReport()
    try:
        with open_warehouse(warehouse_path) as connection:
            return CleanReport(load_count=delete_closed_loads(connection, before=before))
    except WarehouseBusy:
        return CleanReport()


def rotate_log(path: Path, *, max_bytes: int = LOG_MAX_BYTES, max_files: int = LOG_MAX_FILES) -> CleanReport:
    """Rotate a log that is too large: copy it to `<name>.1`, after renaming `.1` to `.2`, and so on.

    The log is emptied, not replaced, so that processes that have it open for appending continue to write to it. Lines
    written between copying and emptying are lost. Only the last `max_bytes` are copied.
    """
    with suppress(FileNotFoundError, BlockingIOError), path.open("rb+") as log:
        fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the job, the command and `recoup serve` rotate the same file
        size = os.fstat(log.fileno()).st_size
        if size <= max_bytes:
            return CleanReport()
        older = [path.with_name(f"{path.name}.{number}") for number in range(1, max_files + 1)]
        dropped = older[-1].stat().st_size if older[-1].exists() else 0
        for source, target in zip(reversed(older[:-1]), reversed(older[1:]), strict=True):
            with suppress(FileNotFoundError):
                os.replace(source, target)
        log.seek(size - max_bytes)
        with older[0].open("wb") as copy:
            shutil.copyfileobj(log, copy)
        log.truncate(0)
        return CleanReport(file_count=1 if dropped else 0, bytes_freed=dropped + size - max_bytes)
    return CleanReport()


def _clean_runs(home: Path, before: datetime) -> CleanReport:
    """Delete old finished runs. `_clean_events` then deletes their events, which no longer belong to a run."""

    def clean(connection: sqlite3.Connection) -> CleanReport:
        connection.execute(_CHOOSE_OLD_RUNS, {"before": before.timestamp()})
        run_count = _delete(connection, "runs", "old_runs")
        connection.execute(_CHOOSE_OLD_RUN_TAGS)
        _delete(connection, "run_tags", "old_run_tags")
        return CleanReport(run_count=run_count)

    return _clean_database(_runs_path(home), {"runs", "run_tags"}, clean)


def _clean_events(home: Path, before: datetime) -> CleanReport:
    """Delete old events of deleted runs and events without a run, except the newest of each asset."""

    def clean(connection: sqlite3.Connection) -> CleanReport:
        connection.execute("ATTACH ? AS runs_db", [f"{_runs_path(home).as_uri()}?mode=ro"])
        parameters = {"before": _sql_time(before)}
        connection.execute(_CHOOSE_OLD_CHECKS, parameters)
        connection.execute(_CHOOSE_OLD_EVENTS, parameters)
        connection.execute("DETACH runs_db")
        _delete(connection, "asset_event_tags", "old_events", key="event_id")
        event_count = _delete(connection, "event_logs", "old_events")
        _delete(connection, "asset_check_executions", "old_checks")
        return CleanReport(event_count=event_count)

    if not _has_tables(_runs_path(home), {"runs"}):
        return CleanReport()
    return _clean_database(home / EVENT_LOG, {"event_logs", "asset_check_executions", "asset_event_tags"}, clean)


def _clean_ticks(home: Path, before: datetime, skipped_before: datetime) -> CleanReport:
    """Delete old ticks of schedules and sensors. The newest of each is kept, because Dagster continues from it."""

    def clean(connection: sqlite3.Connection) -> CleanReport:
        parameters = {"before": _sql_time(before), "skipped_before": _sql_time(skipped_before)}
        connection.execute(_CHOOSE_OLD_TICKS, parameters)
        return CleanReport(tick_count=_delete(connection, "job_ticks", "old_ticks"))

    return _clean_database(home / "schedules" / "schedules.db", {"job_ticks"}, clean)


def _clean_database(path: Path, tables: set[str], clean: Callable[[sqlite3.Connection], CleanReport]) -> CleanReport:
    """Run `clean` on a database that has these tables, and return the freed space to the disk."""
    if not _has_tables(path, tables):
        return CleanReport()
    size_before = _database_bytes(path)
    with closing(_connect(path)) as connection:
        report = clean(connection)
        _return_free_space(connection)
    return report + CleanReport(bytes_freed=max(0, size_before - _database_bytes(path)))


def _connect(path: Path) -> sqlite3.Connection:
    """Open an existing database. Each statement is its own transaction."""
    return sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True, timeout=_BUSY_SECONDS, isolation_level=None)


def _has_tables(path: Path, tables: set[str]) -> bool:
    if not path.exists():
        return False
    with closing(_connect(path)) as connection:
        return tables <= {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def _database_bytes(path: Path) -> int:
    files = [path, path.with_name(path.name + "-wal")]
    return sum(file.stat().st_size for file in files if file.exists())


def _delete(connection: sqlite3.Connection, table: str, id_table: str, *, key: str = "id") -> int:
    """Delete the rows whose ids are in a temporary table, in short transactions, and return their number."""
    (last,) = connection.execute(f"SELECT coalesce(max(rowid), 0) FROM temp.{id_table}").fetchone()
    count = 0
    for first in range(1, last + 1, _BATCH_ROWS):
        batch = f"SELECT id FROM temp.{id_table} WHERE rowid BETWEEN {first} AND {first + _BATCH_ROWS - 1}"
        count += connection.execute(f"DELETE FROM main.{table} WHERE {key} IN ({batch})").rowcount
    return count


def _return_free_space(connection: sqlite3.Connection) -> None:
    """Return free pages to the disk in short steps. A file that is not in this mode yet is rewritten if it is small."""
    with suppress(sqlite3.OperationalError):  # locked for too long; the next cleaning tries again
        (mode,) = connection.execute("PRAGMA auto_vacuum").fetchone()
        if mode != _INCREMENTAL:
            (size,) = connection.execute(
                "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()"
            ).fetchone()
            if size > _MAX_FULL_VACUUM_BYTES:
                return
            connection.execute(f"PRAGMA auto_vacuum = {_INCREMENTAL}")
            connection.execute("VACUUM")
        free, before = _free_pages(connection), None
        while free and free != before:
            connection.execute(f"PRAGMA incremental_vacuum({_VACUUM_PAGES})").fetchall()
            free, before = _free_pages(connection), free
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def _free_pages(connection: sqlite3.Connection) -> int:
    (count,) = connection.execute("PRAGMA freelist_count").fetchone()
    return int(count)


def _runs_path(home: Path) -> Path:
    return home / "history" / "runs.db"


def _sql_time(instant: datetime) -> str:
    """Format a time as in Dagster's columns: UTC, without a time zone."""
    return instant.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")


def _clean_run_folders(home: Path, before: datetime) -> CleanReport:
    """Remove the folders with outputs and captured logs of deleted runs. Each is named after its run."""
    storage = home / "storage"
    folders = [path for path in storage.iterdir() if _is_run_id(path.name)] if storage.exists() else []
    if not folders or not _has_tables(_runs_path(home), {"runs"}):
        return CleanReport()
    with closing(_connect(_runs_path(home))) as connection:
        known = {row[0] for row in connection.execute("SELECT run_id FROM runs")}
    removed = CleanReport()
    for folder in folders:
        with suppress(FileNotFoundError):
            if folder.name not in known and folder.stat().st_mtime < before.timestamp():
                removed += _remove_folder(folder)
    return removed


def _remove_former_event_logs(home: Path) -> CleanReport:
    """Remove the event logs of former versions, one file per run. Nothing reads them any more."""
    former = home / "history" / "runs"
    return _remove_folder(former) if former.exists() and (home / EVENT_LOG).exists() else CleanReport()


def _remove_folder(folder: Path) -> CleanReport:
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    shutil.rmtree(folder, ignore_errors=True)
    return CleanReport(file_count=len(sizes), bytes_freed=sum(sizes))


def _is_run_id(name: str) -> bool:
    try:
        return str(uuid.UUID(name)) == name
    except ValueError:
        return False
