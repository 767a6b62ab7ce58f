"""The analysts' file: marts and seeds, made beside the current file, which it then replaces in one step.

Once a live payment is known, `marts` holds live mode and `marts_test` test mode, so that nobody has to filter. Until
then `marts` holds test mode.

A reader that has the old file open keeps its complete old snapshot; a reader that opens it afterwards sees the new one.

If nobody has changed the published file, it is copied, and only rows that changed since are replaced in the copy. The
result equals a file made from nothing: the numbers of rows are compared, and a table whose number differs is copied
whole.
"""

import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from typing import Final

import duckdb

from orchestration.warehouse.connection import CONFIG, transaction
from orchestration.warehouse.damage import is_damaged_file, is_damaged_wal, wal_of

PUBLISHED_SCHEMAS: Final = ("marts", "seeds")
_SCHEMA_OF_A_MODE: Final = "marts"
_LARGEST_GROWTH: Final = 2
"""Growth factor at which the file is made from nothing again, since replaced rows leave free space behind."""

_READ_AND_WRITE: Final = 0o666

_MODES: Final = """SELECT coalesce(bool_or(livemode), false), coalesce(bool_or(NOT livemode), false)
                   FROM raw_stripe.payment_intents"""
_TABLES: Final = """
SELECT table_schema, table_name, coalesce(changed_by, 0), coalesce(replaced_by, 0), unique_key
FROM information_schema.tables LEFT JOIN sync.model_tables USING (table_schema, table_name)
WHERE table_catalog = current_database() AND table_schema IN (SELECT unnest(?)) ORDER BY ALL
"""


@dataclass(frozen=True)
class PublishedFile:
    """Describe the published file: rows by table (`marts.recovery_episodes`), and its size in bytes.

    `rows_written` counts the rows that were written again. `is_new` is false if no new file was needed.
    """

    path: Path
    rows: dict[str, int]
    size: int
    rows_written: int
    is_new: bool


@dataclass(frozen=True)
class _Copy:
    """Say which rows (`where`) of a warehouse table go to which schema of the file.

    `changed_by` is the build that last changed any row of the table, `replaced_by` the one that last replaced all rows.
    0 means that the build is not known.
    """

    schema: str
    table: str
    to_schema: str
    where: str
    changed_by: int
    replaced_by: int
    unique_key: Sequence[str]

    @property
    def source(self) -> str:
        return f"{_name(self.schema)}.{_name(self.table)}"

    @property
    def target(self) -> str:
        return f"published.{_name(self.to_schema)}.{_name(self.table)}"

    @property
    def title(self) -> str:
        return f"{self.to_schema}.{self.table}"


def publish(connection: duckdb.DuckDBPyConnection, path: Path) -> PublishedFile:
    """Publish marts and seeds of the open warehouse, with comments, as the file `path`.

    If `path` is a link, the file that it names is replaced. The new file gets the mode and the group of the old one.
    Crash-safe: an interrupted call leaves the old file or the new one, and the next call completes the work.
    """
    link, path = path, Path(os.path.realpath(path)) if path.is_symlink() else path
    path.parent.mkdir(parents=True, exist_ok=True)
    if link != path:
        _remove(wal_of(link))
    copies = list(_copies(connection))
    known = _known_versions(connection, path, copies)
    if known is not None and all(known.get(copy.title) == copy.changed_by > 0 for copy in copies):
        if not _is_damaged(connection, path):
            return PublishedFile(path, _counts(connection, copies), path.stat().st_size, 0, is_new=False)
        known = None
    for leftover in path.parent.glob(f"{escape(path.name)}.*.tmp*"):  # of a killed publisher: there is one at a time
        _remove(leftover)
    try:
        return _publish(connection, path, copies, known)
    except duckdb.Error:
        if known is None:
            raise
        return _publish(connection, path, copies, None)  # the copied file was damaged, or the warehouse fails again


def _publish(
    connection: duckdb.DuckDBPyConnection, path: Path, copies: Sequence[_Copy], known: dict[str, int] | None
) -> PublishedFile:
    """Write the changes since the `known` versions to a copy of the file, or everything to a new one; then replace."""
    beside = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        if known is not None:
            shutil.copyfile(path, beside)
        written, rows = _fill(connection, beside, copies, known or {})
        size = beside.stat().st_size
        _take_permissions(path, beside)
        _to_disk(beside)
        if path.is_dir():  # as a container makes for a file that it cannot mount
            _remove(path)
        _remove(wal_of(path))  # left by a killed program that had opened the old file for writing
        os.replace(beside, path)
        _remove(wal_of(path))  # a program that still has the old file open may have written a new log
        _to_disk(path.parent)
    finally:
        _remove(beside)
        _remove(wal_of(beside))
    _remember(connection, path, copies, is_whole=known is None)
    return PublishedFile(path, rows, size, written, is_new=True)


def _is_damaged(connection: duckdb.DuckDBPyConnection, path: Path) -> bool:
    """Return whether the head of the published file is damaged. A file that another program holds is not."""
    try:
        connection.execute(f"ATTACH {_literal(str(path))} AS published (READ_ONLY)")
    except duckdb.Error as error:
        return is_damaged_wal(str(error)) or is_damaged_file(str(error), path, is_known=True)
    connection.execute("DETACH published")
    return False


def _take_permissions(path: Path, beside: Path) -> None:
    """Give the new file the mode and the group of the file that it replaces, so that a group keeps its access."""
    try:
        old = path.stat()
    except FileNotFoundError:
        return
    with suppress(PermissionError):  # of a group that this user is not in: the file is not shared with another one then
        if beside.stat().st_gid != old.st_gid:
            os.chown(beside, -1, old.st_gid)
        beside.chmod(stat.S_IMODE(old.st_mode) & _READ_AND_WRITE)


def _to_disk(path: Path) -> None:
    """Make the content of a file, or the names in a folder, outlive a loss of power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    """Remove a file, or an empty folder that somebody made by mistake. A folder with content is left, as an error."""
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    path.unlink(missing_ok=True)


def _copies(warehouse: duckdb.DuckDBPyConnection) -> Iterator[_Copy]:
    ((has_live, has_test),) = warehouse.execute(_MODES).fetchall()
    for schema, table, changed, replaced, key in warehouse.execute(_TABLES, [list(PUBLISHED_SCHEMAS)]).fetchall():
        versions = (changed, replaced, key or ())
        if schema != _SCHEMA_OF_A_MODE or not has_live:
            yield _Copy(schema, table, schema, "true", *versions)
            continue
        yield _Copy(schema, table, schema, "livemode", *versions)
        if has_test:
            yield _Copy(schema, table, f"{schema}_test", "NOT livemode", *versions)


def _known_versions(warehouse: duckdb.DuckDBPyConnection, path: Path, copies: Sequence[_Copy]) -> dict[str, int] | None:
    """Return the build that last changed each table of the file, or None if the file must be made from nothing.

    It must be if it is not the file that was published last, if it holds other tables, or if it has grown too much.
    """
    rows = warehouse.execute("SELECT identity, first_size FROM sync.published_file").fetchall()
    if not rows or rows[0][0] != _identity(path) or path.stat().st_size > _LARGEST_GROWTH * rows[0][1]:
        return None
    known = warehouse.execute("SELECT title, condition, changed_by FROM sync.published_tables").fetchall()
    if {copy.title: copy.where for copy in copies} != {title: where for title, where, _ in known}:
        return None
    return {title: changed_by for title, _, changed_by in known}


def _identity(path: Path) -> str | None:
    """Return a text that changes with the file, or None if the file is missing or has a log beside it."""
    if wal_of(path).exists():
        return None
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return f"{found.st_ino} {found.st_size} {found.st_mtime_ns}"


def _remember(warehouse: duckdb.DuckDBPyConnection, path: Path, copies: Sequence[_Copy], *, is_whole: bool) -> None:
    with transaction(warehouse):
        rows = warehouse.execute("SELECT first_size FROM sync.published_file").fetchall()
        first_size = path.stat().st_size if is_whole or not rows else rows[0][0]
        warehouse.execute("DELETE FROM sync.published_file")
        warehouse.execute("DELETE FROM sync.published_tables")
        warehouse.execute("INSERT INTO sync.published_file VALUES (?, ?)", [_identity(path), first_size])
        for copy in copies:
            warehouse.execute(
                "INSERT INTO sync.published_tables VALUES (?, ?, ?)", [copy.title, copy.where, copy.changed_by]
            )


def _counts(warehouse: duckdb.DuckDBPyConnection, copies: Sequence[_Copy]) -> dict[str, int]:
    return {copy.title: _count(warehouse, f"{copy.source} WHERE {copy.where}") for copy in copies}


def _fill(
    warehouse: duckdb.DuckDBPyConnection, beside: Path, copies: Sequence[_Copy], known: dict[str, int]
) -> tuple[int, dict[str, int]]:
    """Write changed rows to the file `beside`; return how many were written, and how many rows each table has."""
    version = CONFIG["storage_compatibility_version"]
    warehouse.execute(f"ATTACH {_literal(str(beside))} AS published (STORAGE_VERSION {_literal(version)})")
    try:
        with transaction(warehouse):
            written = sum(_bring_up(warehouse, copy, known.get(copy.title)) for copy in copies)
        rows = {copy.title: _count(warehouse, copy.target) for copy in copies}
    finally:
        warehouse.execute("DETACH published")
    return written, rows


def _bring_up(warehouse: duckdb.DuckDBPyConnection, copy: _Copy, version: int | None) -> int:
    """Make a table of the file equal to the warehouse's table; return how many rows were written."""
    if version is not None and version == copy.changed_by > 0:
        return 0
    is_kept = version is not None and 0 < copy.replaced_by <= version and copy.unique_key
    if is_kept and (written := _replace_changed(warehouse, copy, version or 0)) is not None:
        return written
    return _copy_whole(warehouse, copy)


def _replace_changed(warehouse: duckdb.DuckDBPyConnection, copy: _Copy, version: int) -> int | None:
    """Replace the rows that builds after `version` wrote; return how many, or None if the number of rows still differs.

    If all rows of a key are gone from the warehouse, no changed row says so. Only the number of rows shows it, so such
    keys are looked up only if the numbers differ.
    """
    keys = ", ".join(map(_name, copy.unique_key))
    changed = f"{copy.source} WHERE _load_id > {version} AND {copy.where}"
    warehouse.execute(
        f"DELETE FROM {copy.target} WHERE ({keys}) IN (SELECT {keys} FROM {copy.source} WHERE _load_id > {version})"
    )
    ((written,),) = warehouse.execute(f"INSERT INTO {copy.target} BY NAME FROM {changed}").fetchall()
    expected = _count(warehouse, f"{copy.source} WHERE {copy.where}")
    if _count(warehouse, copy.target) != expected:
        warehouse.execute(
            f"DELETE FROM {copy.target} WHERE ({keys}) NOT IN (SELECT {keys} FROM {copy.source} WHERE {copy.where})"
        )
    return int(written) if _count(warehouse, copy.target) == expected else None


def _copy_whole(warehouse: duckdb.DuckDBPyConnection, copy: _Copy) -> int:
    warehouse.execute(f"CREATE SCHEMA IF NOT EXISTS published.{_name(copy.to_schema)}")
    ((written,),) = warehouse.execute(
        f"CREATE OR REPLACE TABLE {copy.target} AS FROM {copy.source} WHERE {copy.where}"
    ).fetchall()
    for statement in _comments(warehouse, copy):
        warehouse.execute(statement)
    return int(written)


def _count(warehouse: duckdb.DuckDBPyConnection, source: str) -> int:
    ((count,),) = warehouse.execute(f"SELECT count(*) FROM {source}").fetchall()
    return int(count)


def _comments(warehouse: duckdb.DuckDBPyConnection, copy: _Copy) -> list[str]:
    """Return the statements that copy dbt's descriptions, which are comments on tables, views and columns."""
    where = "WHERE database_name = current_database() AND schema_name = ? AND comment IS NOT NULL AND"
    of_table = warehouse.execute(
        f"""SELECT comment FROM duckdb_tables() {where} table_name = ?
            UNION ALL SELECT comment FROM duckdb_views() {where} view_name = ?""",
        [copy.schema, copy.table] * 2,
    ).fetchall()
    of_columns = warehouse.execute(
        f"SELECT column_name, comment FROM duckdb_columns() {where} table_name = ?", [copy.schema, copy.table]
    ).fetchall()
    return [f"COMMENT ON TABLE {copy.target} IS {_literal(comment)}" for (comment,) in of_table] + [
        f"COMMENT ON COLUMN {copy.target}.{_name(column)} IS {_literal(comment)}" for column, comment in of_columns
    ]


def _name(identifier: str) -> str:
    return '"' + identifier.replace('"', '""') + '"'


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
