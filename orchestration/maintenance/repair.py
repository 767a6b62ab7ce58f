"""Repair: which of the data folder's databases are damaged, and a new start for those that are.

Belongs here: how damage is found, what is moved aside, and what is saved from it. Does not: what is mended by itself
when a file is opened (`warehouse/damage.py`) or the command (`cli/repair.py`).

Every byte is read, which takes a minute for some 10 GB. Nothing is deleted.
"""

import fcntl
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import duckdb

from orchestration.base.errors import RecoupError
from orchestration.config.settings import Settings
from orchestration.maintenance.history import EVENT_LOG
from orchestration.warehouse.connection import WarehouseBusy, WarehouseDamaged, open_warehouse, request_access
from orchestration.warehouse.damage import is_damaged_file, is_damaged_wal, is_text, move_aside, wal_of

_SQLITE_COMPANIONS: Final = ("-wal", "-shm", "-journal")
_DAMAGED_SQLITE: Final = ("malformed", "not a database", "disk I/O error")
_WAITING: Final = """SELECT integration, event_id, payload, received_at, account_id FROM webhook_queue NOT INDEXED
                     WHERE state <> 'done' ORDER BY seq"""


class NotRepairable(RecoupError):
    """Report a file that cannot be repaired. The text says why and what to do."""


@dataclass(frozen=True)
class Repaired:
    """Describe a damaged database: where its files are now, and what the new one holds or how it is filled."""

    path: Path
    moved_to: Sequence[Path]
    remark: str


def repair(settings: Settings) -> Iterator[Repaired]:
    """Read all databases of the data folder and move those that are damaged aside, with the files beside them.

    Yield each as soon as it is repaired. One that cannot be repaired keeps none of the others from it, and is reported
    at the end. Call it again after an interruption. A damaged log of the warehouse is mended when that is opened.

    Raises:
        NotRepairable: a process holds a damaged file, or a file is no database. The text has a line for each.
    """
    problems: list[str] = []
    for repair_one in (_repair_warehouse, _repair_published, _repair_queue, _repair_history):
        try:
            yield from repair_one(settings)
        except RecoupError as error:
            problems.append(str(error))
    if problems:
        raise NotRepairable("\n".join(problems))


def _repair_warehouse(settings: Settings) -> Sequence[Repaired]:
    path = settings.warehouse_path
    if not path.exists() or not _is_warehouse_damaged(path):
        return ()
    with request_access(path), path.open("rb+") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # DuckDB's own lock
        except BlockingIOError:
            raise WarehouseBusy(
                f"{path} is damaged, but another process has it open. Close that program first."
            ) from None
        moved = move_aside(path, wal_of(path))
    with open_warehouse(path):
        pass
    return [
        Repaired(path, moved, "A new, empty one is in its place; `recoup sync` reads everything from Stripe again.")
    ]


def _is_warehouse_damaged(path: Path) -> bool:
    try:
        with open_warehouse(path) as connection:
            _read_all(connection)
    except WarehouseDamaged:
        return True
    except duckdb.Error as error:
        if not is_damaged_file(str(error), path):
            raise
        return True
    return False


def _read_all(connection: duckdb.DuckDBPyConnection) -> None:
    """Read all tables, so that DuckDB compares the checksum of each block."""
    tables = connection.execute(
        "SELECT schema_name, table_name FROM duckdb_tables() WHERE database_name = current_database() AND NOT temporary"
    ).fetchall()
    for schema, table in tables:
        connection.table(f'"{schema}"."{table}"').set_alias("rows").aggregate("bit_xor(hash(rows))").fetchall()


def _repair_published(settings: Settings) -> Sequence[Repaired]:
    path = settings.published_path
    if not path.exists() or not _is_published_damaged(path):
        return ()
    path = path.resolve()
    return [Repaired(path, move_aside(path, wal_of(path)), "The next `recoup sync` publishes it again.")]


def _is_published_damaged(path: Path) -> bool:
    try:
        with duckdb.connect(str(path), read_only=True) as connection:
            _read_all(connection)
    except duckdb.Error as error:
        return is_damaged_wal(str(error)) or is_damaged_file(str(error), path, is_known=True)
    return False


def _repair_queue(settings: Settings) -> Sequence[Repaired]:
    """Start a new queue with the events of the damaged one that can still be read and were not loaded.

    A receiver that has the damaged file open notices that it was moved, and Stripe sends again what it refused then.
    """
    path = settings.queue_path
    if settings.recoup_queue_url is not None or not _is_sqlite_damaged(path):
        return ()
    from orchestration.webhooks.queue import Delivery, Queue  # with sqlalchemy

    rows = _readable_events(path)
    moved = move_aside(path, *_companions(path))
    with closing(Queue(settings.queue_url)) as queue:
        queue.put([Delivery(name, event_id, text, at, account) for name, event_id, text, at, account in rows])
    remark = f"A new one holds the {len(rows):,} waiting events that could be read; `recoup sync` reads the others."
    return [Repaired(path, moved, remark)]


def _readable_events(path: Path) -> list[tuple[str, str, str, datetime, str | None]]:
    rows: list[tuple[str, str, str, datetime, str | None]] = []
    with suppress(sqlite3.Error), closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
        cursor = connection.execute(_WAITING)
        for name, event_id, payload, received_at, account in cursor:
            rows.append((name, event_id, payload, datetime.fromisoformat(received_at).replace(tzinfo=UTC), account))
    return rows


def _repair_history(settings: Settings) -> Sequence[Repaired]:
    home = settings.dagster_home
    paths = [home / EVENT_LOG, home / "history" / "runs.db", home / "schedules" / "schedules.db"]
    damaged = [path for path in paths if _is_sqlite_damaged(path)]
    if not damaged:
        return ()
    with (home / "recoup.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise NotRepairable(
                f"{damaged[0]} is damaged. End `recoup serve` or `recoup dev`, and repair again."
            ) from None
        remark = "Dagster makes a new one when it starts; earlier runs are not shown any more."
        return [Repaired(path, move_aside(path, *_companions(path)), remark) for path in damaged]


def _companions(path: Path) -> list[Path]:
    return [path.with_name(path.name + suffix) for suffix in _SQLITE_COMPANIONS]


def _is_sqlite_damaged(path: Path) -> bool:
    """Return whether a SQLite file is damaged. SQLite itself ignores a torn log beside it.

    Raises:
        NotRepairable: the file is a text or a folder, or may not be read.
    """
    if not path.exists() or not path.stat().st_size:
        return False
    if path.is_dir():
        raise NotRepairable(f"{path} is a folder. Move it elsewhere; a database is made when it is needed.")
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True, timeout=30)) as connection:
            return bool(connection.execute("PRAGMA quick_check(1)").fetchone() != ("ok",))
    except sqlite3.DatabaseError as error:
        if not any(words in str(error) for words in _DAMAGED_SQLITE):
            raise NotRepairable(f"{path} cannot be read: {error}.") from None
    if is_text(path):
        raise NotRepairable(f"{path} is not a database. Move it elsewhere; a new one is made when it is needed.")
    return True
