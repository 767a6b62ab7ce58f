"""`recoup query`: run SQL on the published file, and print the result or write it to a file."""

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
from orchestration.warehouse.damage import is_damaged_file, is_damaged_wal, wal_of

SHOWN_ROWS: Final = 50
SHOWN_RECORDS: Final = 10
_UNLIMITED_WIDTH: Final = 10_000
"""Columns of output that is not a terminal, so that no line is wrapped."""
_INTEGERS: Final = ("tinyint", "smallint", "integer", "bigint", "hugeint")
_NUMERIC: Final = frozenset({*_INTEGERS, *(f"u{name}" for name in _INTEGERS), "float", "double", "decimal", "bignum"})
"""DuckDB types whose values are aligned to the right."""

_SHOW_TABLES: Final = re.compile(r"\s*show\s+tables\s*;?\s*", re.I)
"""The statement that is replaced by `_TABLES`. DuckDB would list only its schema `main`, which is empty here."""
_TABLES: Final = """
SELECT schema_name || '.' || table_name AS "table", estimated_size AS "rows"
FROM duckdb_tables()
ORDER BY schema_name NOT IN ('marts', 'marts_test'), schema_name, table_name
"""

_HOLDER: Final = re.compile(r"held in .*?(PID \d+)")
"""Pattern of the process in DuckDB's message about a file that another process has open."""


class QueryRefused(RecoupError):
    """The query cannot be run. The text says why."""


def run_query(path: Path, sql: str, *, csv: Path | None, parquet: Path | None) -> None:
    """Run `sql` on the published file at `path`, and print the result or write it to the given files.

    Raises:
        QueryRefused: there is no published file yet, or DuckDB rejects the query.
    """
    with open_published(path) as connection:
        try:
            relation = connection.sql(_TABLES if _SHOW_TABLES.fullmatch(sql) else sql)
            if relation is None:
                raise QueryRefused("This statement returns no rows. Use SELECT, or FROM marts.<table>.")
            if csv or parquet:
                with user_file_permissions():
                    _write(relation, csv, parquet)
            else:
                _print(relation)
        except duckdb.Error as error:
            if is_damaged_file(str(error), path):
                raise QueryRefused(_damage_message(path)) from None
            raise QueryRefused(str(error)) from None


def _damage_message(path: Path) -> str:
    """Return the message for a file that can be opened, but whose rows are damaged."""
    return f"{path} is damaged. Move it aside with `recoup repair`, then publish it again: recoup sync"


def _write(relation: duckdb.DuckDBPyRelation, csv: Path | None, parquet: Path | None) -> None:
    import pandas as pd  # the import takes half a second of CPU, and printing does not need it

    frame = relation.to_arrow_table().to_pandas(types_mapper=pd.ArrowDtype)
    if csv:
        frame.to_csv(csv, index=False)
    if parquet:
        frame.to_parquet(parquet, index=False)
    written = [str(path) for path in (csv, parquet) if path]
    print(f"Wrote {len(frame):,} rows to {', '.join(written)}")


def open_published(path: Path) -> duckdb.DuckDBPyConnection:
    """Return a read-only connection to the published file.

    Raises:
        QueryRefused: the file does not exist yet, is damaged, or another program has it open for writing.
    """
    if not path.exists():
        raise QueryRefused(f"{path} does not exist yet. Run `recoup sync` or `recoup demo` first.")
    try:
        return duckdb.connect(str(path), read_only=True)
    except duckdb.Error as error:
        raise QueryRefused(_open_error_message(path, str(error))) from None


def _open_error_message(path: Path, message: str) -> str:
    if "Could not set lock" in message:
        found = _HOLDER.search(message)
        holder = f" ({found.group(1)})" if found else ""
        return f"Another program{holder} has {path} open for writing. Close it there, or open it read-only."
    if is_damaged_wal(message):
        return (
            f"Another program has left {wal_of(path).name} beside {path}. Close that program, then publish the file "
            "again: recoup sync"
        )
    if is_damaged_file(message, path, is_known=True):
        return f"{path} is damaged. Publish it again: recoup sync"
    return f"{path} cannot be opened: {message.splitlines()[0].removeprefix('IO Error: ')}"


def _print(relation: duckdb.DuckDBPyRelation) -> None:
    """Print a table. If it is too wide for the terminal, print each row with a line for each column."""
    console = Console(highlight=False) if sys.stdout.isatty() else Console(width=_UNLIMITED_WIDTH)
    rows = relation.limit(SHOWN_ROWS + 1).fetchall()
    shown = rows[:SHOWN_ROWS]
    table = _as_table(relation, shown)
    if Console(width=_UNLIMITED_WIDTH).measure(table).maximum > console.width:
        shown = rows[:SHOWN_RECORDS]
        for number, row in enumerate(shown):
            if number:
                console.print()
            print_trimmed(console, _as_record(relation.columns, row))
    else:
        print_trimmed(console, table)
    rest = _row_count(relation, rows) - len(shown)
    if rest > 0:
        console.print(f"… and {rest:,} more rows. To write all rows to a file, add --csv or --parquet.")


def _row_count(relation: duckdb.DuckDBPyRelation, fetched: Sequence[tuple[Any, ...]]) -> int:
    """Return the number of rows of the result. Ask DuckDB for it only if there are more than were fetched."""
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
