"""`recoup query`: SQL on the published file, as a table on the screen or as a file."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import duckdb
import pandas as pd
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from orchestration.settings import Settings

SHOWN_ROWS: Final = 50
SHOWN_RECORDS: Final = 10
_UNLIMITED: Final = 10_000
"""Columns of characters where nobody looks at a screen: a pipe gets every line whole."""


class QueryRefused(Exception):
    """The query cannot be answered. The text says why."""


def run_query(settings: Settings, sql: str, *, csv: Path | None, parquet: Path | None) -> None:
    """Run `sql` read-only on the published file; print the result, or write it where asked.

    Raises:
        QueryRefused: there is no published file yet, or DuckDB rejects the query.
    """
    with open_published(settings) as connection:
        try:
            relation = connection.sql(sql)
        except duckdb.Error as error:
            raise QueryRefused(str(error)) from None
        if relation is None:
            raise QueryRefused("That is not a query: give a SELECT, or FROM marts.<table>.")
        try:
            frame = relation.to_arrow_table().to_pandas(types_mapper=pd.ArrowDtype)
        except duckdb.Error as error:
            raise QueryRefused(str(error)) from None
    if csv:
        frame.to_csv(csv, index=False)
    if parquet:
        frame.to_parquet(parquet, index=False)
    written = [str(path) for path in (csv, parquet) if path]
    if written:
        print(f"{len(frame):,} rows written to {', '.join(written)}")
    else:
        _print(frame)


def open_published(settings: Settings) -> duckdb.DuckDBPyConnection:
    """The analysts' file, read-only.

    Raises:
        QueryRefused: there is none yet.
    """
    if not settings.published_path.exists():
        raise QueryRefused(f"{settings.published_path} does not exist yet. Run `recoup sync` or `recoup demo` first.")
    return duckdb.connect(str(settings.published_path), read_only=True)


def _print(frame: pd.DataFrame) -> None:
    """As a table, or, where that is too wide for the terminal, row by row with a line for each column."""
    console = Console() if sys.stdout.isatty() else Console(width=_UNLIMITED)
    shown = frame.head(SHOWN_ROWS)
    table = _as_table(shown)
    if Console(width=_UNLIMITED).measure(table).maximum > console.width:
        shown = frame.head(SHOWN_RECORDS)
        for number, row in enumerate(shown.astype(object).itertuples(index=False), start=1):
            console.print(f"row {number}", style="bold")
            console.print(_as_record([str(name) for name in frame.columns], row))
    else:
        console.print(table)
    rest = len(frame) - len(shown)
    if rest > 0:
        console.print(f"… and {rest:,} more rows; --csv or --parquet write all of them.")


def _as_table(frame: pd.DataFrame) -> Table:
    table = Table(header_style="bold", box=None, pad_edge=False)
    for name, values in frame.items():
        numeric = pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)
        table.add_column(str(name), justify="right" if numeric else "left", no_wrap=True)
    for row in frame.astype(object).itertuples(index=False):
        table.add_row(*(_cell(value) for value in row))
    return table


def _as_record(names: list[str], values: Iterable[Any]) -> Table:
    record = Table(show_header=False, box=None, pad_edge=False)
    for name, value in zip(names, values, strict=True):
        record.add_row(name, _cell(value))
    return record


def _cell(value: Any) -> str:
    return "" if pd.isna(value) is True else escape(str(value))
