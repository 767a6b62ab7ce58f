"""Dagster resources: the warehouse, opened so that a failure cannot leave it locked."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import duckdb
from dagster_duckdb import DuckDBResource

from orchestration.warehouse.connection import open_warehouse

WAREHOUSE_POOL: Final = "warehouse"
"""Pool of the steps that write to the warehouse. It has one slot (dagster.yaml)."""


class WarehouseResource(DuckDBResource):
    """dagster-duckdb's resource, with connections from `open_warehouse`.

    The original resource has two faults here. It keeps the file locked while an exception that passed through it
    exists. It also opens the file with its own configuration, and DuckDB refuses two configurations in one process.
    """

    @contextmanager
    def get_connection(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """Yield a connection for writing, and close it when the context ends."""
        with open_warehouse(Path(self.database)) as connection:
            yield connection
