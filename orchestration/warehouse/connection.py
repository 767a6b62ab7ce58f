"""Opening the warehouse file: one writer at a time, a bounded wait for it, and a plain sentence when it stays busy."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any, Final

import duckdb

from orchestration.warehouse.rows import OBJECT_TABLES

CONFIG: Final[dict[str, Any]] = {"storage_compatibility_version": "v1.5.0"}
"""Every opener in one process must use the same. The version keeps files readable by 1.5 when 2.0 writes them."""

DEFAULT_WAIT: Final = 120.0
"""Seconds to wait for another writer: longer than a build of the models takes on a large account's increment."""


class WarehouseError(Exception):
    """The warehouse file cannot be used. The text is for the reader: what is wrong, what to do."""


class WarehouseBusy(WarehouseError):
    """Another process holds the file."""


FOR_LOADING: Final[dict[str, Any]] = {"memory_limit": "128MB", "threads": 1, "checkpoint_threshold": "32MB"}
"""DuckDB while rows are loaded. Left alone it keeps in memory what it has written, up to most of what the machine has:
the more, the larger the account. The batches of a load are too small for a second thread, which the readers need. A
checkpoint compresses the newest rows anew, so there is one for each 32 MB instead of 16; a killed run leaves as much to
be replayed, which takes the next one a second."""


@contextmanager
def open_warehouse(
    path: Path, *, wait: float = DEFAULT_WAIT, options: Mapping[str, Any] | None = None
) -> Iterator[duckdb.DuckDBPyConnection]:
    """The warehouse, opened for writing, its raw tables there. Closed on leaving, whatever happens.

    `options` are set for this connection: DuckDB's own, by their names.

    Raises:
        WarehouseBusy: another process still holds it after `wait` seconds.
        WarehouseError: the file is not a DuckDB database, or of a newer DuckDB.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = _connect(path, wait)
    try:
        for name, value in (options or {}).items():
            connection.execute(f"SET {name} = ?", [value])
        create_tables(connection)
        yield connection
    finally:
        connection.close()


def create_tables(connection: duckdb.DuckDBPyConnection) -> None:
    """The raw tables, where they are not there yet."""
    schema, object_table = (
        resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
        for name in ("schema.sql", "object_table.sql")
    )
    connection.execute(schema)
    for table in OBJECT_TABLES:
        connection.execute(object_table.format(table=table))


def _connect(path: Path, wait: float) -> duckdb.DuckDBPyConnection:
    deadline = time.monotonic() + wait
    while True:
        try:
            return duckdb.connect(str(path), config=CONFIG)
        except duckdb.IOException as error:
            if "Could not set lock" not in str(error):
                raise WarehouseError(f"{path} cannot be opened as a DuckDB database: {_first_line(error)}") from None
            if time.monotonic() > deadline:
                raise WarehouseBusy(
                    f"{path} is held by another process: {_first_line(error)} Wait for that run to end, or close the "
                    "program that has the file open. Analysts open recovery.duckdb, which is never locked."
                ) from None
            time.sleep(0.2)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0].removeprefix("IO Error: ")


@contextmanager
def transaction(connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """All or nothing: rows and the checkpoint that vouches for them."""
    connection.execute("BEGIN")
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")
