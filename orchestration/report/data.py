"""Read what the report shows from the analysts' file: one dataset for each file in `queries/`."""

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import duckdb

from orchestration.base.errors import RecoupError

_MARTS: Final = "marts."
"""Schema of the marts in the queries. If the file has live and test data, the test data are in `marts_test`."""


class ReportUnavailable(RecoupError):
    """The report cannot be written. The text says why, and what to do."""


def queries() -> Mapping[str, str]:
    """Return the SQL of each dataset by name."""
    folder = files("orchestration.report") / "queries"
    found = sorted(folder.iterdir(), key=lambda path: path.name)
    return {path.name.removesuffix(".sql"): path.read_text(encoding="utf-8") for path in found}


def read_modes(published: Path) -> Sequence[bool]:
    """Return the modes that the file has data of: True for live mode, False for test mode.

    Raises:
        ReportUnavailable: The file is missing or cannot be read.
    """
    with _open(published) as connection:
        rows = connection.execute("SELECT DISTINCT livemode FROM marts.data_coverage").fetchall()
        modes = {bool(livemode) for (livemode,) in rows}
        return sorted(modes | ({False} if _has_test_schema(connection) else set()), reverse=True)


def read_data(published: Path, *, livemode: bool) -> dict[str, Any]:
    """Return the datasets of one mode: for each its SQL, its columns and its rows.

    Raises:
        ReportUnavailable: The file is missing or cannot be read.
    """
    with _open(published) as connection:
        schema = "marts_test." if not livemode and _has_test_schema(connection) else _MARTS
        return {name: _dataset(connection, sql.replace(_MARTS, schema).strip()) for name, sql in queries().items()}


def _dataset(connection: duckdb.DuckDBPyConnection, sql: str) -> dict[str, Any]:
    cursor = connection.execute(sql)
    columns = [column[0] for column in cursor.description or ()]
    return {"sql": sql, "columns": columns, "rows": [[_plain(value) for value in row] for row in cursor.fetchall()]}


def _plain(value: Any) -> Any:
    """Return a value in a form that JSON can hold. Times get the suffix Z, since they are UTC."""
    if isinstance(value, datetime):
        return value.isoformat() + "Z"
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    return value


def _has_test_schema(connection: duckdb.DuckDBPyConnection) -> bool:
    query = "SELECT count(*) FROM information_schema.tables WHERE table_schema = 'marts_test'"
    ((count,),) = connection.execute(query).fetchall()
    return bool(count)


def _open(published: Path) -> duckdb.DuckDBPyConnection:
    if not published.exists():
        raise ReportUnavailable(f"{published} does not exist yet. Run `recoup sync`, or `recoup demo`, and try again.")
    try:
        return duckdb.connect(str(published), read_only=True)
    except duckdb.Error as error:
        raise ReportUnavailable(f"{published} cannot be read: {error}") from None
