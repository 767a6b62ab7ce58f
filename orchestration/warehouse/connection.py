"""Open the warehouse file for one writer at a time, with a bounded wait and a plain error message.

A process that waits for the warehouse holds a shared lock on a second file beside it. A process that works on the
warehouse for a long time checks that lock, and releases the warehouse if another process waits.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from importlib import resources
from pathlib import Path
from typing import Any, Final

import duckdb

from orchestration.base.errors import RecoupError
from orchestration.base.locks import try_lock
from orchestration.warehouse.damage import is_damaged_file, is_damaged_wal, is_text, repair_lock, repair_wal
from orchestration.warehouse.rows import OBJECT_TABLES

CONFIG: Final[dict[str, Any]] = {"storage_compatibility_version": "v1.5.0"}
"""Options of every connection: within one process they must be the same.

The storage version keeps files readable by DuckDB 1.5 if DuckDB 2.0 writes them.
"""

DEFAULT_WAIT_SECONDS: Final = 120.0
"""Seconds to wait for another writer. An incremental build of a large account takes less."""

_LOCK_MESSAGE: Final = "Could not set lock"
"""Part of DuckDB's message if another process has the file open."""

_POLL_SECONDS: Final = 0.05
"""Seconds between two attempts to open a file that another process has open."""


class WarehouseError(RecoupError):
    """The warehouse file cannot be used. The message says what is wrong and what to do."""


class WarehouseBusy(WarehouseError):
    """Another process has the warehouse open."""


class WarehouseDamaged(WarehouseError):
    """The warehouse file is damaged. The message names the command that starts a new one."""


LOADING_OPTIONS: Final[dict[str, Any]] = {"memory_limit": "128MB", "threads": 1, "checkpoint_threshold": "32MB"}
"""DuckDB options for loading rows.

- `memory_limit`: without a limit, DuckDB keeps written data in memory, up to most of the machine's memory.
- `threads`: the batches of a load are too small to gain from a second thread, and the readers need it.
- `checkpoint_threshold`: each checkpoint compresses the newest rows again, so there is one per 32 MB instead of 16 MB.
  After a killed run, the next run replays up to 32 MB of log, which takes one second.
"""

_SMALL_WAREHOUSE_BYTES: Final = 256_000_000
"""Size below which a build runs faster on one thread."""


def small_batch_options(path: Path) -> dict[str, Any]:
    """Return the DuckDB options for a build after a few changed rows.

    The statements of such a build are so short that a second thread costs more than it saves: with 20,000 payments, a
    build took 1.9 CPU seconds on one thread and 2.9 on two. In a large warehouse, scans of whole tables gain from all
    threads.
    """
    is_small = not path.exists() or path.stat().st_size < _SMALL_WAREHOUSE_BYTES
    return {"threads": 1} if is_small else {}


@contextmanager
def open_warehouse(
    path: Path, *, wait: float = DEFAULT_WAIT_SECONDS, options: Mapping[str, Any] | None = None
) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open the warehouse for writing, create missing raw tables, and close it when the context ends.

    A damaged log beside the file is moved aside, and the warehouse is opened without the damaged part.

    Args:
        path: The warehouse file.
        wait: Seconds to wait for another process to release the file.
        options: DuckDB settings of this connection, by name.

    Raises:
        WarehouseBusy: another process still has the file open after `wait` seconds.
        WarehouseDamaged: the file is damaged.
        WarehouseError: the file is not a DuckDB database, or a newer DuckDB wrote it.
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


class Warehouse:
    """A warehouse connection for a long step that mostly waits for something else, such as a sync.

    The file is opened at the first use. `pause` releases it if another process waits for it.
    """

    def __init__(
        self, path: Path, *, wait: float = DEFAULT_WAIT_SECONDS, options: Mapping[str, Any] | None = None
    ) -> None:
        self._path, self._wait, self._options = path, wait, options
        self._exit_stack = ExitStack()
        self._connection: duckdb.DuckDBPyConnection | None = None

    @property
    def connection(self) -> duckdb.DuckDBPyConnection:
        """Return the open connection; open the file if necessary.

        Raises:
            WarehouseBusy, WarehouseError: as `open_warehouse`.
        """
        if self._connection is None:
            _yield_to_waiters(self._path, self._wait)
            opened = open_warehouse(self._path, wait=self._wait, options=self._options)
            self._connection = self._exit_stack.enter_context(opened)
        return self._connection

    def pause(self) -> None:
        """Close the file if another process waits for it. The next use opens it again.

        The caller must have ended its transaction and fetched all results.
        """
        if self._connection is not None and _has_waiters(self._path):
            self.close()

    def close(self) -> None:
        """Close the file. The next use opens it again."""
        self._connection = None
        self._exit_stack.close()

    @contextmanager
    def exclusive(self, name: str) -> Iterator[None]:
        """Hold the lock `name` of this warehouse, so that one process at a time does the task of this name.

        Raises:
            WarehouseBusy: another process still holds the lock after the wait.
        """
        self._path.parent.mkdir(parents=True, exist_ok=True)
        deadline = time.monotonic() + self._wait
        with self._path.with_name(f".{name.replace(' ', '_')}.lock").open("w") as lock:
            while not try_lock(lock):
                if time.monotonic() > deadline:
                    raise WarehouseBusy(f"Another {name} is under way. Wait for it to end; nothing is lost.")
                time.sleep(_POLL_SECONDS)
            yield


@contextmanager
def request_access(path: Path) -> Iterator[None]:
    """Ask long-running steps to release the warehouse, and not to open it again, while this context is open."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _waiters_path(path).open("w") as lock:
        try_lock(lock, is_shared=True)
        yield


def _waiters_path(path: Path) -> Path:
    return path.with_name(f".{path.name}.wanted")


def _has_waiters(path: Path) -> bool:
    with _waiters_path(path).open("w") as lock:
        return not try_lock(lock)


def _yield_to_waiters(path: Path, wait: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + wait
    while _has_waiters(path) and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)


def create_tables(connection: duckdb.DuckDBPyConnection) -> None:
    """Create the raw tables and bookkeeping tables that do not exist yet."""
    schema, object_table = (
        resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
        for name in ("schema.sql", "object_table.sql")
    )
    connection.execute(schema)
    for table in OBJECT_TABLES:
        connection.execute(object_table.format(table=table))


def _connect(path: Path, wait: float) -> duckdb.DuckDBPyConnection:
    connection = _try_to_connect(path)
    if not isinstance(connection, str):
        return connection
    deadline = time.monotonic() + wait
    with request_access(path):
        while isinstance(connection := _try_to_connect(path), str):
            if time.monotonic() > deadline:
                raise WarehouseBusy(
                    f"{path} is held by another process: {connection} Wait for that run to end, or close the program "
                    "that has the file open. Analysts open recovery.duckdb, which is never locked."
                )
            time.sleep(_POLL_SECONDS)
    return connection


def _try_to_connect(path: Path) -> duckdb.DuckDBPyConnection | str:
    """Return the connection, or DuckDB's message if another process has the file open."""
    connection = _open(path)
    if isinstance(connection, str) and is_damaged_wal(connection):
        with repair_lock(path):
            connection = _open(path)  # another process may have repaired it in the meantime
            for is_first_try in (True, False):
                if not (isinstance(connection, str) and is_damaged_wal(connection)):
                    break
                repair_wal(path, connection, is_first_try=is_first_try)
                connection = _open(path)
    if not isinstance(connection, str) or _LOCK_MESSAGE in connection:
        return connection
    if is_damaged_file(connection, path):
        raise WarehouseDamaged(damaged_text(path))
    remedy = " Move it elsewhere; the next `recoup sync` makes a new one." if is_text(path) or path.is_dir() else ""
    raise WarehouseError(f"{path} cannot be opened as a DuckDB database: {connection}{remedy}")


def damaged_text(path: Path) -> str:
    """Return the message for a person whose warehouse is damaged."""
    return (
        f"{path} is damaged. `recoup repair` moves it aside and starts a new one; the next `recoup sync` then reads "
        "everything from Stripe again."
    )


def _open(path: Path) -> duckdb.DuckDBPyConnection | str:
    """Return the connection, or the first line of DuckDB's error message."""
    try:
        return duckdb.connect(str(path), config=CONFIG)
    except duckdb.Error as error:
        return _first_line(error)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0].removeprefix("IO Error: ")


@contextmanager
def transaction(connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """Commit when the context ends; roll back if it raises. Rows and their checkpoint are written together."""
    connection.execute("BEGIN")
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")
