"""A warehouse on a connection that the test keeps open, so that it can read the tables between syncs."""

from collections.abc import Iterator
from contextlib import contextmanager

import duckdb

from orchestration.warehouse.connection import Warehouse


class BorrowedWarehouse(Warehouse):
    """Use the test's own connection. No other process waits for it."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection

    def pause(self) -> None:
        """Do nothing, since no process waits for the connection."""

    @contextmanager
    def exclusive(self, name: str) -> Iterator[None]:
        """Do nothing, since the test is the only user of the connection."""
        yield
