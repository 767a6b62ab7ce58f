"""Repair: finds damaged databases in the data folder and replaces them.

This module decides how damage is found, what is moved aside, and what is saved from it. Damage that is repaired when a
file is opened is in `warehouse/damage.py`, the command is in `cli/repair.py`.

Every byte is read, which takes about a minute for 10 GB. Nothing is deleted.
"""

import fcntl
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final

import duckdb

from orchestration.base.errors import RecoupError
from orchestration.base.locks import try_lock
from orchestration.maintenance.history import EVENT_LOG
from orchestration.warehouse.connection import WarehouseBusy, WarehouseDamaged, open_warehouse, request_access
from orchestration.warehouse.damage import is_damaged_file, is_damaged_wal, is_text, move_aside, wal_of

_SQLITE_COMPANIONS: Final = ("-wal", "-shm", "-journal")
_SQLITE_DAMAGE_MESSAGES: Final = ("malformed", "not a database", "disk I/O error")
_WAITING_EVENTS: Final = """
SELECT integration, event_id, payload, received_at, account_id FROM webhook_queue NOT INDEXED
WHERE state <> 'done' ORDER BY seq
"""


class NotRepairable(RecoupError):
    """A file that cannot be repaired. The text says why and what to do."""


@dataclass(frozen=True)
class RepairedDatabase:
    """A damaged database that was repaired.

    Attributes:
        path: The database.
        moved_to: Where its damaged files are now.
        remark: What the new database contains, or how it is filled.
    """

    path: Path
    moved_to: Sequence[Path]
    remark: str


@dataclass(frozen=True)
class Databases:
    """The databases of a data folder. `queue` is None if the webhook queue is not a SQLite file."""

    warehouse: Path
    published: Path
    queue: Path | None
    dagster_home: Path


def repair(databases: Databases) -> Iterator[RepairedDatabase]:
    """Read all databases of the data folder, move damaged ones aside, and yield each as soon as it is repaired.

    A database that cannot be repaired does not stop the others. It is reported at the end. After an interruption, call
    this function again. A damaged write-ahead log of the warehouse is repaired when the warehouse is opened.

    Raises:
        NotRepairable: A process holds a damaged file, or a file is not a database. The text has one line for each.
    """
    problems: list[str] = []
    repairs = (
        partial(_repair_warehouse, databases.warehouse),
        partial(_repair_published, databases.published),
        *([partial(_repair_queue, databases.queue)] if databases.queue else []),
        partial(_repair_history, databases.dagster_home),
    )
    for repair_one in repairs:
        try:
            yield from repair_one()
        except RecoupError as error:
            problems.append(str(error))
    if problems:
        raise NotRepairable("\n".join(problems))


def _repair_warehouse(path: Path) -> Sequence[RepairedDatabase]:
    if not path.exists() or not _is_warehouse_damaged(path):
        return ()
    with request_access(path), path.open("rb+") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # DuckDB's own lock
        except BlockingIOError:
            raise WarehouseBusy(
                f"{path} is damaged, but another process has it open. End that process first."
            ) from None
        moved = move_aside(path, wal_of(path))
    with open_warehouse(path):
        pass
    return [
        RepairedDatabase(
            path, moved, "A new, empty database replaces it; `recoup sync` reads everything from Stripe again."
        )
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
    """Read all tables. DuckDB verifies the checksum of each block when it reads it."""
    tables = connection.execute(
        "SELECT schema_name, table_name FROM duckdb_tables() WHERE database_name = current_database() AND NOT temporary"
    ).fetchall()
    for schema, table in tables:
        connection.table(f'"{schema}"."{table}"').set_alias("rows").aggregate("bit_xor(hash(rows))").fetchall()


def _repair_published(path: Path) -> Sequence[RepairedDatabase]:
    if not path.exists() or not _is_published_damaged(path):
        return ()
    path = path.resolve()
    return [RepairedDatabase(path, move_aside(path, wal_of(path)), "The next `recoup sync` publishes it again.")]


def _is_published_damaged(path: Path) -> bool:
    try:
        with duckdb.connect(str(path), read_only=True) as connection:
            _read_all(connection)
    except duckdb.Error as error:
        return is_damaged_wal(str(error)) or is_damaged_file(str(error), path, is_known=True)
    return False


def _repair_queue(path: Path) -> Sequence[RepairedDatabase]:
    """Replace a damaged queue with a new one that holds the readable events that were not loaded yet.

    A receiver that has the damaged file open notices that it was moved. It refuses deliveries until then, which Stripe
    repeats.
    """
    if not _is_sqlite_damaged(path):
        return ()
    from orchestration.webhooks.queue import Delivery, Queue  # imports SQLAlchemy, which is slow

    rows = _readable_events(path)
    moved = move_aside(path, *_companions(path))
    with closing(Queue(f"sqlite:///{path}")) as queue:
        queue.put([Delivery(name, event_id, text, at, account) for name, event_id, text, at, account in rows])
    remark = f"A new queue holds the {len(rows):,} waiting events that could be read; `recoup sync` reads the others."
    return [RepairedDatabase(path, moved, remark)]


def _readable_events(path: Path) -> list[tuple[str, str, str, datetime, str | None]]:
    rows: list[tuple[str, str, str, datetime, str | None]] = []
    with suppress(sqlite3.Error), closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
        cursor = connection.execute(_WAITING_EVENTS)
        for name, event_id, payload, received_at, account in cursor:
            rows.append((name, event_id, payload, datetime.fromisoformat(received_at).replace(tzinfo=UTC), account))
    return rows


def _repair_history(home: Path) -> Sequence[RepairedDatabase]:
    paths = [home / EVENT_LOG, home / "history" / "runs.db", home / "schedules" / "schedules.db"]
    damaged = [path for path in paths if _is_sqlite_damaged(path)]
    if not damaged:
        return ()
    with (home / "recoup.lock").open("w") as lock:
        if not try_lock(lock):
            raise NotRepairable(f"{damaged[0]} is damaged. End `recoup serve` or `recoup dev`, then run: recoup repair")
        remark = "Dagster creates a new one when it starts; earlier runs are no longer shown."
        return [RepairedDatabase(path, move_aside(path, *_companions(path)), remark) for path in damaged]


def _companions(path: Path) -> list[Path]:
    """Return the paths of the files that SQLite keeps beside a database."""
    return [path.with_name(path.name + suffix) for suffix in _SQLITE_COMPANIONS]


def _is_sqlite_damaged(path: Path) -> bool:
    """Return whether a SQLite file is damaged. SQLite itself ignores a damaged write-ahead log.

    Raises:
        NotRepairable: The file is a text or a folder, or cannot be read.
    """
    if not path.exists() or not path.stat().st_size:
        return False
    if path.is_dir():
        raise NotRepairable(f"{path} is a folder. Move it elsewhere; the database is created when it is needed.")
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True, timeout=30)) as connection:
            return bool(connection.execute("PRAGMA quick_check(1)").fetchone() != ("ok",))
    except sqlite3.DatabaseError as error:
        if not any(message in str(error) for message in _SQLITE_DAMAGE_MESSAGES):
            raise NotRepairable(f"{path} cannot be read: {error}.") from None
    if is_text(path):
        raise NotRepairable(f"{path} is not a database. Move it elsewhere; a new one is created when it is needed.")
    return True
