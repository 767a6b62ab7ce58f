"""What assets are given: the warehouse, opened so that a failure can never leave it locked."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import duckdb
from dagster_duckdb import DuckDBResource

from orchestration.warehouse.connection import open_warehouse

WAREHOUSE_POOL: Final = "warehouse"
"""Steps that write the warehouse take a slot of this pool; there is one (dagster.yaml)."""


class WarehouseResource(DuckDBResource):
    """dagster-duckdb's resource on `open_warehouse`.

    The original keeps the file locked for as long as an exception that passed through it is alive, and opens it with a
    configuration of its own, which DuckDB refuses beside any other in the same process.
    """

    @contextmanager
    def get_connection(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """The warehouse, opened for writing and closed on leaving."""
        with open_warehouse(Path(self.database)) as connection:
            yield connection
