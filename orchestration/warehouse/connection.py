"""Opening the warehouse file: one writer at a time, a bounded wait for it, and a plain sentence when it stays busy.

Who waits for the file holds a shared lock on another one beside it, so that whoever works on the warehouse for a long
time can see it, and give way.
"""

import fcntl
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from importlib import resources
from pathlib import Path
from typing import Any, Final

import duckdb

from orchestration.base.errors import RecoupError
from orchestration.warehouse.damage import is_damaged_file, is_damaged_wal, is_text, repair_lock, repair_wal
from orchestration.warehouse.rows import OBJECT_TABLES

CONFIG: Final[dict[str, Any]] = {"storage_compatibility_version": "v1.5.0"}
"""Every opener in one process must use the same. The version keeps files readable by 1.5 when 2.0 writes them."""

DEFAULT_WAIT_SECONDS: Final = 120.0
"""Seconds to wait for another writer: longer than a build of the models takes on a large account's increment."""


_IS_LOCKED: Final = "Could not set lock"
_POLL_SECONDS: Final = 0.05
"""Seconds between two tries to open a file that is taken."""


class WarehouseError(RecoupError):
    """The warehouse file cannot be used. The text is for the reader: what is wrong, what to do."""


class WarehouseBusy(WarehouseError):
    """Another process holds the file."""


class WarehouseDamaged(WarehouseError):
    """The file itself is damaged. The text names the command that starts a new one."""


LOADING_OPTIONS: Final[dict[str, Any]] = {"memory_limit": "128MB", "threads": 1, "checkpoint_threshold": "32MB"}
"""DuckDB while rows are loaded. Left alone it keeps in memory what it has written, up to most of what the machine has:
the more, the larger the account. The batches of a load are too small for a second thread, which the readers need. A
checkpoint compresses the newest rows anew, so there is one for each 32 MB instead of 16; a killed run leaves as much to
be replayed, which takes the next one a second."""


_SMALL_WAREHOUSE_BYTES: Final = 256_000_000


def small_batch_options(path: Path) -> dict[str, Any]:
    """Return the options of DuckDB for a build after a few changed rows.

    Its statements are so short that a second thread costs more than it helps: on 20,000 payments a cycle took 1.9 CPU
    seconds with one thread and 2.9 with two. In a large warehouse the scans of whole tables are worth all threads.
    """
    is_small = not path.exists() or path.stat().st_size < _SMALL_WAREHOUSE_BYTES
    return {"threads": 1} if is_small else {}


@contextmanager
def open_warehouse(
    path: Path, *, wait: float = DEFAULT_WAIT_SECONDS, options: Mapping[str, Any] | None = None
) -> Iterator[duckdb.DuckDBPyConnection]:
    """The warehouse, opened for writing, its raw tables there. Closed on leaving, whatever happens.

    `options` are set for this connection: DuckDB's own, by their names.

    Raises:
        WarehouseBusy: another process still holds it after `wait` seconds.
        WarehouseDamaged: the file is damaged.
        WarehouseError: the file is not a DuckDB database, or of a newer DuckDB.

    A damaged log beside the file is moved aside, and the warehouse opened without the damaged part.
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
    """The warehouse of a step that works for long and mostly waits for others, such as a sync.

    It is opened when it is used, and given up at a pause if somebody else waits for it. Nothing may be under way then:
    no transaction, and no result that was not fetched.
    """

    def __init__(
        self, path: Path, *, wait: float = DEFAULT_WAIT_SECONDS, options: Mapping[str, Any] | None = None
    ) -> None:
        self._path, self._wait, self._options = path, wait, options
        self._exit_stack = ExitStack()
        self._connection: duckdb.DuckDBPyConnection | None = None

    @property
    def connection(self) -> duckdb.DuckDBPyConnection:
        """The open warehouse.

        Raises:
            WarehouseBusy, WarehouseError: as `open_warehouse`.
        """
        if self._connection is None:
            _yield_to_waiters(self._path, self._wait)
            opened = open_warehouse(self._path, wait=self._wait, options=self._options)
            self._connection = self._exit_stack.enter_context(opened)
        return self._connection

    def pause(self) -> None:
        """Give way, if somebody waits. The next use opens it again."""
        if self._connection is not None and _has_waiters(self._path):
            self.close()

    def close(self) -> None:
        """Give it up in any case."""
        self._connection = None
        self._exit_stack.close()

    @contextmanager
    def exclusive(self, name: str) -> Iterator[None]:
        """Nobody else does what has this name on this warehouse while the context lasts.

        Raises:
            WarehouseBusy: somebody still does after the wait.
        """
        self._path.parent.mkdir(parents=True, exist_ok=True)
        deadline = time.monotonic() + self._wait
        with self._path.with_name(f".{name.replace(' ', '_')}.lock").open("w") as lock:
            while not _try_lock(lock.fileno(), fcntl.LOCK_EX):
                if time.monotonic() > deadline:
                    raise WarehouseBusy(f"Another {name} is under way. Wait for it to end; nothing is lost.")
                time.sleep(_POLL_SECONDS)
            yield


@contextmanager
def request_access(path: Path) -> Iterator[None]:
    """Whoever works on the warehouse for long gives way, and does not come back, while the context lasts."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _waiters_path(path).open("w") as lock:
        _try_lock(lock.fileno(), fcntl.LOCK_SH)
        yield


def _waiters_path(path: Path) -> Path:
    return path.with_name(f".{path.name}.wanted")


def _has_waiters(path: Path) -> bool:
    with _waiters_path(path).open("w") as lock:
        return not _try_lock(lock.fileno(), fcntl.LOCK_EX)


def _yield_to_waiters(path: Path, wait: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + wait
    while _has_waiters(path) and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)


def _try_lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


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
    """The connection; or, where another process holds the file, what DuckDB says of it."""
    connection = _open(path)
    if isinstance(connection, str) and is_damaged_wal(connection):
        with repair_lock(path):
            connection = _open(path)  # another process may have mended it in the meantime
            for is_first_try in (True, False):
                if not (isinstance(connection, str) and is_damaged_wal(connection)):
                    break
                repair_wal(path, connection, is_first_try=is_first_try)
                connection = _open(path)
    if not isinstance(connection, str) or _IS_LOCKED in connection:
        return connection
    if is_damaged_file(connection, path):
        raise WarehouseDamaged(damaged_text(path))
    remedy = " Move it elsewhere; the next `recoup sync` makes a new one." if is_text(path) or path.is_dir() else ""
    raise WarehouseError(f"{path} cannot be opened as a DuckDB database: {connection}{remedy}")


def damaged_text(path: Path) -> str:
    """Return the sentence for a person whose warehouse is damaged."""
    return (
        f"{path} is damaged. `recoup repair` moves it aside and starts a new one; the next `recoup sync` then reads "
        "everything from Stripe again."
    )


def _open(path: Path) -> duckdb.DuckDBPyConnection | str:
    """The connection, or the first line of what DuckDB says."""
    try:
        return duckdb.connect(str(path), config=CONFIG)
    except duckdb.Error as error:
        return _first_line(error)


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
