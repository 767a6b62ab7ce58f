"""What the UI shows of a table: its row count and a few rows."""

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


def days_chart(counts: Mapping[int, int]) -> str:
    """Bars of counts by day (days since 1970, UTC), as an image in Markdown; the scale is in the caption."""
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
    total, days = sum(counts.values()), f"{_day(first)} to {_day(last)}"
    caption = f"{total:,} objects and events created {days}, at most {highest:,} a day (UTC)"
    return f"{caption}\n\n![{caption}](data:image/svg+xml;base64,{b64encode(image.encode()).decode()})"


def _day(days: int) -> str:
    return str(date(1970, 1, 1) + timedelta(days))


def _markdown(names: list[str], rows: list[tuple[Any, ...]]) -> str:
    lines = [names, ["---"] * len(names), *[[_cell(value) for value in row] for row in rows]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: Any) -> str:
    return "" if value is None else str(value).replace("|", "\\|").replace("\n", " ")
