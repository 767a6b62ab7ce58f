"""Previews for Dagster's UI: the row count and first rows of a table, and a chart of counts by day."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import Any, Final

import duckdb
from dagster import MetadataValue

PREVIEW_ROWS: Final = 5
MAX_INLINE_CHARACTERS: Final = 999
"""Most characters of Markdown that Dagster's UI shows in place. Instead of a longer text, it shows a link."""

_MAX_CELL_CHARACTERS: Final = 28
_UNINFORMATIVE: Final = ("account_id", "livemode")
"""Columns that have the same value in most rows. They come last in a preview."""

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
        "preview": MetadataValue.md(preview(names, cursor.fetchall())),
    }


def preview(names: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> str:
    """Return as many columns as the UI shows in place, as a Markdown table.

    The first id comes first, then columns with values in these rows, then the other ids.
    """
    order = sorted(range(len(names)), key=lambda index: (_rank(names, rows, index), index))
    table = ""
    for count in range(1, len(order) + 1):
        shown = order[:count]
        longer = markdown_table([names[i] for i in shown], [[row[i] for i in shown] for row in rows])
        if len(longer) > MAX_INLINE_CHARACTERS:
            break
        table = longer
    return table


def _rank(names: Sequence[str], rows: Sequence[tuple[Any, ...]], index: int) -> int:
    """Return the place of a column in a preview by its kind, from 0 (first) to 4 (last)."""
    name = names[index]
    if name.startswith("_") or name in _UNINFORMATIVE:
        return 4
    if rows and all(row[index] is None for row in rows):
        return 3
    is_id = name == "id" or name.endswith("_id")
    first_id = next((each for each in names if each.endswith("id") and each not in _UNINFORMATIVE), None)
    return 0 if name == first_id else 2 if is_id else 1


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


def markdown_table(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Return a table in Markdown. Long values are cut."""
    lines = [names, ["---"] * len(names), *[[_cell(value) for value in row] for row in rows]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: Any) -> str:
    text = "" if value is None else str(value).replace("\n", " ")
    if len(text) > _MAX_CELL_CHARACTERS:
        text = text[: _MAX_CELL_CHARACTERS - 1] + "…"
    return text.replace("|", "\\|")
