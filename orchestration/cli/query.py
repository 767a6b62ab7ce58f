"""`recoup query`: SQL on the published file, as a table on the screen or as a file."""

from pathlib import Path

import duckdb
import pandas as pd
from rich.console import Console
from rich.table import Table

from orchestration.settings import Settings

SHOWN_ROWS = 50


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
            frame = relation.df()
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
    console = Console()
    shown = frame.head(SHOWN_ROWS)
    table = Table(header_style="bold", box=None, pad_edge=False)
    for name, values in shown.items():
        numeric = pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)
        table.add_column(str(name), justify="right" if numeric else "left", overflow="fold")
    for row in shown.astype(object).itertuples(index=False):
        table.add_row(*("" if pd.isna(value) is True else str(value) for value in row))
    console.print(table)
    rest = len(frame) - len(shown)
    if rest > 0:
        console.print(f"… and {rest:,} more rows; --csv or --parquet write all of them.")
