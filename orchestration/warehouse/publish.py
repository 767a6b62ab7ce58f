"""The analysts' file: marts and seeds, built beside and swapped in whole.

Once a live payment is known, `marts` holds what is of live mode and `marts_test` what is of test mode: nobody has to
remember a filter. Until then `marts` is of test mode.

A reader that has the old file open keeps its complete old snapshot; whoever opens it afterwards sees the new one.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import duckdb

from orchestration.warehouse.connection import CONFIG

PUBLISHED_SCHEMAS: Final = ("marts", "seeds")
_OF_A_MODE: Final = "marts"

_MODES: Final = """SELECT coalesce(bool_or(livemode), false), coalesce(bool_or(NOT livemode), false)
                   FROM raw_stripe.payment_intents"""


@dataclass(frozen=True)
class Published:
    """What was published: rows by table (`marts.recovery_episodes`), and the file's size in bytes."""

    path: Path
    rows: dict[str, int]
    size: int


def publish(connection: duckdb.DuckDBPyConnection, path: Path) -> Published:
    """Copy marts and seeds, with their comments, from the open warehouse to a new file, and swap that in for `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    _remove(beside)
    try:
        rows = _copy(connection, beside)
        size = beside.stat().st_size
        os.replace(beside, path)
    finally:
        _remove(beside)
    return Published(path, rows, size)


def _remove(path: Path) -> None:
    for leftover in (path, path.with_name(f"{path.name}.wal")):
        leftover.unlink(missing_ok=True)


def _copy(warehouse: duckdb.DuckDBPyConnection, beside: Path) -> dict[str, int]:
    copies = list(_copies(warehouse))
    version = CONFIG["storage_compatibility_version"]
    warehouse.execute(f"ATTACH {_literal(str(beside))} AS published (STORAGE_VERSION {_literal(version)})")
    try:
        rows = {
            f"{to_schema}.{table}": _copy_table(warehouse, schema, table, to_schema, where)
            for schema, table, to_schema, where in copies
        }
    finally:
        warehouse.execute("DETACH published")
    return rows


def _copies(warehouse: duckdb.DuckDBPyConnection) -> Iterator[tuple[str, str, str, str]]:
    """Schema and table, the schema to copy it to, and a condition on its rows."""
    ((has_live, has_test),) = warehouse.execute(_MODES).fetchall()
    tables = warehouse.execute(
        """SELECT table_schema, table_name FROM information_schema.tables
           WHERE table_catalog = current_database() AND table_schema IN (SELECT unnest(?)) ORDER BY ALL""",
        [list(PUBLISHED_SCHEMAS)],
    ).fetchall()
    for schema, table in tables:
        if schema != _OF_A_MODE or not has_live:
            yield schema, table, schema, ""
            continue
        yield schema, table, schema, "WHERE livemode"
        if has_test:
            yield schema, table, f"{schema}_test", "WHERE NOT livemode"


def _copy_table(warehouse: duckdb.DuckDBPyConnection, schema: str, table: str, to_schema: str, where: str) -> int:
    target = f"published.{_name(to_schema)}.{_name(table)}"
    warehouse.execute(f"CREATE SCHEMA IF NOT EXISTS published.{_name(to_schema)}")
    warehouse.execute(f"CREATE TABLE {target} AS FROM {_name(schema)}.{_name(table)} {where}")
    for statement in _comments(warehouse, schema, table, target):
        warehouse.execute(statement)
    row = warehouse.execute(f"SELECT count(*) FROM {target}").fetchone()
    assert row is not None
    return int(row[0])


def _comments(warehouse: duckdb.DuckDBPyConnection, schema: str, table: str, target: str) -> list[str]:
    """dbt's descriptions, which it keeps as comments on tables, views and columns."""
    where = "WHERE database_name = current_database() AND schema_name = ? AND comment IS NOT NULL AND"
    of_table = warehouse.execute(
        f"""SELECT comment FROM duckdb_tables() {where} table_name = ?
            UNION ALL SELECT comment FROM duckdb_views() {where} view_name = ?""",
        [schema, table, schema, table],
    ).fetchall()
    of_columns = warehouse.execute(
        f"SELECT column_name, comment FROM duckdb_columns() {where} table_name = ?", [schema, table]
    ).fetchall()
    return [f"COMMENT ON TABLE {target} IS {_literal(comment)}" for (comment,) in of_table] + [
        f"COMMENT ON COLUMN {target}.{_name(column)} IS {_literal(comment)}" for column, comment in of_columns
    ]


def _name(identifier: str) -> str:
    return '"' + identifier.replace('"', '""') + '"'


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
