"""Publish the analysts' file: write marts and seeds to a new file, which then replaces the current one in one step.

Once a live payment is known, `marts` holds live mode and `marts_test` holds test mode, so that no query has to filter.
Until then `marts` holds test mode.

A reader that has the old file open keeps reading the complete old file. A reader that opens it later reads the new one.

If the published file has not been changed by another program, it is copied, and only changed rows are replaced in the
copy. The result equals a file built from scratch: row counts are compared, and a table whose count differs is copied
completely.
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
_MODE_SCHEMA: Final = "marts"
_MAX_GROWTH: Final = 2
"""Growth factor beyond which the file is built from scratch, because replaced rows leave unused space in it."""

_READ_WRITE_MODE: Final = 0o666

_MODES_QUERY: Final = """SELECT coalesce(bool_or(livemode), false), coalesce(bool_or(NOT livemode), false)
                   FROM raw_stripe.payment_intents"""
_TABLES_QUERY: Final = """
SELECT table_schema, table_name, coalesce(changed_by, 0), coalesce(replaced_by, 0), unique_key
FROM information_schema.tables LEFT JOIN sync.model_tables USING (table_schema, table_name)
WHERE table_catalog = current_database() AND table_schema IN (SELECT unnest(?)) ORDER BY ALL
"""


@dataclass(frozen=True)
class PublishedFile:
    """The published file: row counts by table (such as `marts.recovery_episodes`) and size in bytes.

    `rows_written` counts the rows that this call wrote. `is_new` is false if no new file was necessary.
    """

    path: Path
    rows: dict[str, int]
    size: int
    rows_written: int
    is_new: bool


@dataclass(frozen=True)
class _Copy:
    """A table to publish: the rows of a warehouse table that meet `where` go to the schema `to_schema` of the file.

    `changed_by` is the build that last changed a row of the table. `replaced_by` is the build that last replaced all
    rows. 0 means that the build is not known.
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
    """Publish the marts and seeds of the open warehouse, with their comments, to the file `path`.

    If `path` is a symbolic link, its target is replaced. The new file gets the mode and the group of the old one.
    Crash-safe: an interrupted call leaves the old file or the new one, and the next call completes the work.
    """
    link, path = path, Path(os.path.realpath(path)) if path.is_symlink() else path
    path.parent.mkdir(parents=True, exist_ok=True)
    if link != path:
        _remove(wal_of(link))
    copies = list(_tables_to_publish(connection))
    known = _known_versions(connection, path, copies)
    if known is not None and all(known.get(copy.title) == copy.changed_by > 0 for copy in copies):
        if not _is_damaged(connection, path):
            return PublishedFile(path, _counts(connection, copies), path.stat().st_size, 0, is_new=False)
        known = None
    for leftover in path.parent.glob(f"{escape(path.name)}.*.tmp*"):  # from a killed process: one publishes at a time
        _remove(leftover)
    try:
        return _publish(connection, path, copies, known)
    except duckdb.Error:
        if known is None:
            raise
        return _publish(connection, path, copies, None)  # the copied file was damaged, or this raises the same error


def _publish(
    connection: duckdb.DuckDBPyConnection, path: Path, copies: Sequence[_Copy], known: dict[str, int] | None
) -> PublishedFile:
    """Write changes since the `known` versions to a copy of the file, or everything to a new file; then replace it."""
    new_path = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        if known is not None:
            shutil.copyfile(path, new_path)
        written, rows = _write_tables(connection, new_path, copies, known or {})
        size = new_path.stat().st_size
        _copy_permissions(path, new_path)
        _fsync(new_path)
        if path.is_dir():  # a container creates a folder for a file that it cannot mount
            _remove(path)
        _remove(wal_of(path))  # left by a killed program that had opened the old file for writing
        os.replace(new_path, path)
        _remove(wal_of(path))  # a program that still has the old file open may have written a new log
        _fsync(path.parent)
    finally:
        _remove(new_path)
        _remove(wal_of(new_path))
    _record_published_file(connection, path, copies, is_whole=known is None)
    return PublishedFile(path, rows, size, written, is_new=True)


def _is_damaged(connection: duckdb.DuckDBPyConnection, path: Path) -> bool:
    """Return whether the published file is damaged. A file that another program has locked is not."""
    try:
        connection.execute(f"ATTACH {_literal(str(path))} AS published (READ_ONLY)")
    except duckdb.Error as error:
        return is_damaged_wal(str(error)) or is_damaged_file(str(error), path, is_known=True)
    connection.execute("DETACH published")
    return False


def _copy_permissions(path: Path, new_path: Path) -> None:
    """Give the new file the mode and group of the file that it replaces, so that the group keeps its access."""
    try:
        old = path.stat()
    except FileNotFoundError:
        return
    with suppress(PermissionError):  # this user is not in the old file's group: the new file is not shared with a group
        if new_path.stat().st_gid != old.st_gid:
            os.chown(new_path, -1, old.st_gid)
        new_path.chmod(stat.S_IMODE(old.st_mode) & _READ_WRITE_MODE)


def _fsync(path: Path) -> None:
    """Write the content of a file, or the entries of a folder, to disk, so that they survive a power failure."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    """Delete a file or an empty folder. A folder that is not empty raises OSError."""
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    path.unlink(missing_ok=True)


def _tables_to_publish(warehouse: duckdb.DuckDBPyConnection) -> Iterator[_Copy]:
    ((has_live, has_test),) = warehouse.execute(_MODES_QUERY).fetchall()
    for schema, table, changed, replaced, key in warehouse.execute(_TABLES_QUERY, [list(PUBLISHED_SCHEMAS)]).fetchall():
        versions = (changed, replaced, key or ())
        if schema != _MODE_SCHEMA or not has_live:
            yield _Copy(schema, table, schema, "true", *versions)
            continue
        yield _Copy(schema, table, schema, "livemode", *versions)
        if has_test:
            yield _Copy(schema, table, f"{schema}_test", "NOT livemode", *versions)


def _known_versions(warehouse: duckdb.DuckDBPyConnection, path: Path, copies: Sequence[_Copy]) -> dict[str, int] | None:
    """Return the build that last changed each table of the file, or None if the file must be built from scratch.

    It must be if it is not the file that was published last, if its tables differ, or if it has grown too much.
    """
    rows = warehouse.execute("SELECT identity, first_size FROM sync.published_file").fetchall()
    if not rows or rows[0][0] != _identity(path) or path.stat().st_size > _MAX_GROWTH * rows[0][1]:
        return None
    known = warehouse.execute("SELECT title, condition, changed_by FROM sync.published_tables").fetchall()
    if {copy.title: copy.where for copy in copies} != {title: where for title, where, _ in known}:
        return None
    return {title: changed_by for title, _, changed_by in known}


def _identity(path: Path) -> str | None:
    """Return a text that changes whenever the file changes, or None if the file is missing or has a log beside it."""
    if wal_of(path).exists():
        return None
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return f"{found.st_ino} {found.st_size} {found.st_mtime_ns}"


def _record_published_file(
    warehouse: duckdb.DuckDBPyConnection, path: Path, copies: Sequence[_Copy], *, is_whole: bool
) -> None:
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


def _write_tables(
    warehouse: duckdb.DuckDBPyConnection, new_path: Path, copies: Sequence[_Copy], known: dict[str, int]
) -> tuple[int, dict[str, int]]:
    """Write changed rows to the file `new_path`; return the number of written rows, and the row count of each table."""
    version = CONFIG["storage_compatibility_version"]
    warehouse.execute(f"ATTACH {_literal(str(new_path))} AS published (STORAGE_VERSION {_literal(version)})")
    try:
        with transaction(warehouse):
            written = sum(_update_table(warehouse, copy, known.get(copy.title)) for copy in copies)
        rows = {copy.title: _count(warehouse, copy.target) for copy in copies}
    finally:
        warehouse.execute("DETACH published")
    return written, rows


def _update_table(warehouse: duckdb.DuckDBPyConnection, copy: _Copy, version: int | None) -> int:
    """Make a table of the file equal to the warehouse's table; return the number of written rows."""
    if version is not None and version == copy.changed_by > 0:
        return 0
    is_kept = version is not None and 0 < copy.replaced_by <= version and copy.unique_key
    if is_kept and (written := _replace_changed(warehouse, copy, version or 0)) is not None:
        return written
    return _copy_whole(warehouse, copy)


def _replace_changed(warehouse: duckdb.DuckDBPyConnection, copy: _Copy, version: int) -> int | None:
    """Replace the rows that builds after `version` wrote; return their number, or None if row counts still differ.

    If the warehouse no longer has any row of a key, no changed row shows this, only the row count. Such keys are
    searched for only if the counts differ.
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
    table_comments = warehouse.execute(
        f"""SELECT comment FROM duckdb_tables() {where} table_name = ?
            UNION ALL SELECT comment FROM duckdb_views() {where} view_name = ?""",
        [copy.schema, copy.table] * 2,
    ).fetchall()
    column_comments = warehouse.execute(
        f"SELECT column_name, comment FROM duckdb_columns() {where} table_name = ?", [copy.schema, copy.table]
    ).fetchall()
    return [f"COMMENT ON TABLE {copy.target} IS {_literal(comment)}" for (comment,) in table_comments] + [
        f"COMMENT ON COLUMN {copy.target}.{_name(column)} IS {_literal(comment)}" for column, comment in column_comments
    ]


def _name(identifier: str) -> str:
    return '"' + identifier.replace('"', '""') + '"'


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
