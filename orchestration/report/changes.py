"""Read `changes.csv`: what the business changed, and when. The report draws a dated line for each row."""

import csv
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any, Final

from orchestration.base.errors import RecoupError

_COLUMNS: Final = ["date", "label"]


class ChangesInvalid(RecoupError):
    """`changes.csv` cannot be used. The text says where the fault is, and what is valid."""


def read_changes(path: Path) -> dict[str, Any]:
    """Return the dated changes as a dataset, or an empty one if there is no file.

    Args:
        path: A UTF-8 CSV file with the columns `date` (2026-01-31) and `label`.

    Raises:
        ChangesInvalid: The file is not UTF-8 text, or a row is not valid.
    """
    rows = list(_rows(path)) if path.exists() else []
    return {"sql": f"The file {path.name}: {','.join(_COLUMNS)}", "columns": _COLUMNS, "rows": sorted(rows)}


def _rows(path: Path) -> Iterator[list[str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, skipinitialspace=True, strict=True)
            if reader.fieldnames is not None and list(reader.fieldnames)[:2] != _COLUMNS:
                raise ChangesInvalid(f"{path}: the first line must be `date,label`.")
            for row in reader:
                if None in row:
                    raise ChangesInvalid(
                        f"{path}, line {reader.line_num}: more than two columns. Put a label with a comma in quotes."
                    )
                yield [_day(path, reader.line_num, row["date"]), (row["label"] or "").strip()]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ChangesInvalid(f"{path} is not a CSV file in UTF-8: {error}") from None


def _day(path: Path, line: int, text: str | None) -> str:
    try:
        return date.fromisoformat((text or "").strip()).isoformat()
    except ValueError:
        raise ChangesInvalid(f"{path}, line {line}: {text!r} is not a date. Write it like 2026-01-31.") from None
