"""What the UI shows of a table: its row count and a few rows."""

from collections.abc import Mapping
from typing import Any, Final

import duckdb
from dagster import MetadataValue

PREVIEW_ROWS: Final = 5


def table_metadata(
    connection: duckdb.DuckDBPyConnection, relation: str, *, columns: str = "*", order_by: str | None = None
) -> Mapping[str, Any]:
    """Row count and a Markdown preview of a table or view, for Dagster's metadata."""
    counted = connection.execute(f"SELECT count(*) FROM {relation}").fetchone()
    assert counted is not None
    order = f"ORDER BY {order_by}" if order_by else ""
    cursor = connection.execute(f"SELECT {columns} FROM {relation} {order} LIMIT {PREVIEW_ROWS}")
    names = [column[0] for column in cursor.description or []]
    return {
        "dagster/row_count": MetadataValue.int(counted[0]),
        "preview": MetadataValue.md(_markdown(names, cursor.fetchall())),
    }


def _markdown(names: list[str], rows: list[tuple[Any, ...]]) -> str:
    lines = [names, ["---"] * len(names), *[[_cell(value) for value in row] for row in rows]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: Any) -> str:
    return "" if value is None else str(value).replace("|", "\\|").replace("\n", " ")
