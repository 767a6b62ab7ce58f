"""A warehouse that the test itself holds open, to look into it between syncs."""

from collections.abc import Iterator
from contextlib import contextmanager

import duckdb

from orchestration.warehouse.connection import Warehouse


class HeldWarehouse(Warehouse):
    """The test's own connection. Nobody waits for it."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection

    def pause(self) -> None:
        """Nothing to do."""

    @contextmanager
    def exclusive(self, name: str) -> Iterator[None]:
        """Whoever holds the connection sees to that."""
        yield
