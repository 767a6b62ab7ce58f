"""Previews for Dagster's UI: the row count and first rows of a table, and a chart of counts by day."""

from base64 import b64encode
from collections.abc import Mapping
from datetime import date, timedelta
from typing import Any, Final

import duckdb
from dagster import MetadataValue

PREVIEW_ROWS: Final = 5
_CHART_WIDTH: Final = 720
_CHART_HEIGHT: Final = 120


def table_metadata(
    connection: duckdb.DuckDBPyConnection, relation: str, *, columns: str = "*", order_by: str | None = None
) -> Mapping[str, Any]:
    """Return the row count and a Markdown preview of a table or view, as Dagster's metadata."""
    row_count = connection.execute(f"SELECT count(*) FROM {relation}").fetchone()
    assert row_count is not None
    order = f"ORDER BY {order_by}" if order_by else ""
    cursor = connection.execute(f"SELECT {columns} FROM {relation} {order} LIMIT {PREVIEW_ROWS}")
    names = [column[0] for column in cursor.description or []]
    return {
        "dagster/row_count": MetadataValue.int(row_count[0]),
        "preview": MetadataValue.md(_markdown(names, cursor.fetchall())),
    }


def days_chart(counts: Mapping[int, int]) -> str:
    """Return a bar chart as an image in Markdown. The keys of `counts` are days since 1970-01-01 (UTC)."""
    if not counts:
        return "Nothing was read."
    first, last = min(counts), max(counts)
    highest, width = max(counts.values()), _CHART_WIDTH / (last - first + 1)
    bars = "".join(
        f"<rect x='{(day - first) * width:.1f}' y='{_CHART_HEIGHT * (1 - count / highest):.1f}' "
        f"width='{max(width - 0.5, 0.5):.1f}' height='{_CHART_HEIGHT * count / highest:.1f}' fill='#4f43dd'/>"
        for day, count in sorted(counts.items())
    )
    size = f"width='{_CHART_WIDTH}' height='{_CHART_HEIGHT}'"
    image = f"<svg xmlns='http://www.w3.org/2000/svg' {size}>{bars}</svg>"
    total, days = sum(counts.values()), f"{_date(first)} to {_date(last)}"
    caption = f"{total:,} objects and events, created {days} (UTC), at most {highest:,} a day"
    return f"{caption}\n\n![{caption}](data:image/svg+xml;base64,{b64encode(image.encode()).decode()})"


def _date(days: int) -> str:
    return str(date(1970, 1, 1) + timedelta(days))


def _markdown(names: list[str], rows: list[tuple[Any, ...]]) -> str:
    lines = [names, ["---"] * len(names), *[[_cell(value) for value in row] for row in rows]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: Any) -> str:
    return "" if value is None else str(value).replace("|", "\\|").replace("\n", " ")
