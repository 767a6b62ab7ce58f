"""`recoup query`: SQL on the published file, as a table on the screen or as a file."""

import re
import sys
from collections.abc import Iterable, Sequence
from math import isnan
from pathlib import Path
from typing import Any, Final

import duckdb
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from orchestration.base.errors import RecoupError
from orchestration.base.files import user_file_permissions
from orchestration.cli.tables import print_trimmed
from orchestration.config.settings import Settings
from orchestration.warehouse.damage import is_damaged_file, is_damaged_wal, wal_of

SHOWN_ROWS: Final = 50
SHOWN_RECORDS: Final = 10
_UNLIMITED: Final = 10_000
"""Columns of characters where nobody looks at a screen: a pipe gets every line whole."""
_INTEGERS: Final = ("tinyint", "smallint", "integer", "bigint", "hugeint")
_NUMERIC: Final = frozenset({*_INTEGERS, *(f"u{name}" for name in _INTEGERS), "float", "double", "decimal", "bignum"})
"""DuckDB's types whose values are aligned to the right."""

_SHOW_TABLES: Final = re.compile(r"\s*show\s+tables\s*;?\s*", re.I)
"""DuckDB would list the tables of its schema `main`, where none is published."""
_TABLES: Final = """
SELECT schema_name || '.' || table_name AS "table", estimated_size AS "rows"
FROM duckdb_tables()
ORDER BY schema_name NOT IN ('marts', 'marts_test'), schema_name, table_name
"""

_HOLDER: Final = re.compile(r"held in .*?(PID \d+)")
"""The process in DuckDB's message about a file that another process has open."""


class QueryRefused(RecoupError):
    """The query cannot be answered. The text says why."""


def run_query(settings: Settings, sql: str, *, csv: Path | None, parquet: Path | None) -> None:
    """Run `sql` read-only on the published file; print the result, or write it to the given files.

    Raises:
        QueryRefused: there is no published file yet, or DuckDB rejects the query.
    """
    with open_published(settings) as connection:
        try:
            relation = connection.sql(_TABLES if _SHOW_TABLES.fullmatch(sql) else sql)
            if relation is None:
                raise QueryRefused("That is not a query: give a SELECT, or FROM marts.<table>.")
            if csv or parquet:
                with user_file_permissions():
                    _write(relation, csv, parquet)
            else:
                _print(relation)
        except duckdb.Error as error:
            if is_damaged_file(str(error), settings.published_path):
                raise QueryRefused(_damaged_rows(settings.published_path)) from None
            raise QueryRefused(str(error)) from None


def _damaged_rows(path: Path) -> str:
    """Return the sentence for a file whose head is whole, so that only reading all of it shows the damage."""
    return f"{path} is damaged. `recoup repair` moves it aside, and the next `recoup sync` publishes it again."


def _write(relation: duckdb.DuckDBPyRelation, csv: Path | None, parquet: Path | None) -> None:
    import pandas as pd  # half a second of CPU, which a result on the screen does not need

    frame = relation.to_arrow_table().to_pandas(types_mapper=pd.ArrowDtype)
    if csv:
        frame.to_csv(csv, index=False)
    if parquet:
        frame.to_parquet(parquet, index=False)
    written = [str(path) for path in (csv, parquet) if path]
    print(f"{len(frame):,} rows written to {', '.join(written)}")


def open_published(settings: Settings) -> duckdb.DuckDBPyConnection:
    """The analysts' file, read-only.

    Raises:
        QueryRefused: there is none yet, or another program holds or has damaged it.
    """
    if not settings.published_path.exists():
        raise QueryRefused(f"{settings.published_path} does not exist yet. Run `recoup sync` or `recoup demo` first.")
    try:
        return duckdb.connect(str(settings.published_path), read_only=True)
    except duckdb.Error as error:
        raise QueryRefused(_refusal(settings.published_path, str(error))) from None


def _refusal(path: Path, message: str) -> str:
    if "Could not set lock" in message:
        found = _HOLDER.search(message)
        holder = f" ({found.group(1)})" if found else ""
        return f"Another program{holder} has {path} open for writing. Close it there, or open it read-only."
    if is_damaged_wal(message):
        return (
            f"Another program has left {wal_of(path).name} beside {path}, which does not belong to it. Close that "
            "program; `recoup sync` then publishes the file again."
        )
    if is_damaged_file(message, path, is_known=True):
        return f"{path} is damaged. `recoup sync` publishes it again."
    return f"{path} cannot be opened: {message.splitlines()[0].removeprefix('IO Error: ')}"


def _print(relation: duckdb.DuckDBPyRelation) -> None:
    """Print a table or, if that is too wide for the terminal, each row with a line for each column."""
    console = Console() if sys.stdout.isatty() else Console(width=_UNLIMITED)
    rows = relation.limit(SHOWN_ROWS + 1).fetchall()
    shown = rows[:SHOWN_ROWS]
    table = _as_table(relation, shown)
    if Console(width=_UNLIMITED).measure(table).maximum > console.width:
        shown = rows[:SHOWN_RECORDS]
        for number, row in enumerate(shown):
            if number:
                console.print()
            print_trimmed(console, _as_record(relation.columns, row))
    else:
        print_trimmed(console, table)
    rest = _row_count(relation, rows) - len(shown)
    if rest > 0:
        console.print(f"… and {rest:,} more rows; --csv or --parquet write all of them.")


def _row_count(relation: duckdb.DuckDBPyRelation, fetched: Sequence[tuple[Any, ...]]) -> int:
    """Return how many rows the result has. DuckDB counts them if more exist than were fetched."""
    if len(fetched) <= SHOWN_ROWS:
        return len(fetched)
    return int(relation.aggregate("count(*)").fetchall()[0][0])


def _as_table(relation: duckdb.DuckDBPyRelation, rows: Iterable[Iterable[Any]]) -> Table:
    table = Table(header_style="bold", box=None, pad_edge=False)
    for name, kind in zip(relation.columns, relation.types, strict=True):
        table.add_column(escape(name), justify="right" if kind.id in _NUMERIC else "left", no_wrap=True)
    for row in rows:
        table.add_row(*(_cell(value) for value in row))
    return table


def _as_record(names: Iterable[str], values: Iterable[Any]) -> Table:
    record = Table(show_header=False, box=None, pad_edge=False)
    for name, value in zip(names, values, strict=True):
        record.add_row(f"{escape(name)}:", _cell(value))
    return record


def _cell(value: Any) -> str:
    is_nan = isinstance(value, float) and isnan(value)
    return "" if value is None or is_nan else escape(str(value))
