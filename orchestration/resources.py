"""Dagster resources: the warehouse, opened so that a failure cannot leave it locked."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import duckdb
from dagster_duckdb import DuckDBResource

from orchestration.warehouse.connection import WarehouseError, open_warehouse

WAREHOUSE_POOL: Final = "warehouse"
"""Pool of the steps that write to the warehouse. It has one slot (dagster.yaml)."""


class WarehouseResource(DuckDBResource):
    """dagster-duckdb's resource, with connections from `open_warehouse`.

    It is the only way in which assets, checks, jobs and sensors reach the warehouse.

    The original resource has two faults here. It keeps the file locked while an exception that passed through it
    exists. It also opens the file with its own configuration, and DuckDB refuses two configurations in one process.
    """

    @property
    def path(self) -> Path:
        """Absolute path of the warehouse's file. The pipeline's steps open it with their own options.

        Raises:
            WarehouseError: the database is not a file.
        """
        if self.database.startswith((":", "md:", "motherduck:")):
            raise WarehouseError(f"The warehouse must be a file, not {self.database}: set another `database`.")
        return Path(os.path.realpath(Path(self.database).expanduser()))

    @contextmanager
    def get_connection(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """Yield a connection for writing, and close it when the context ends."""
        with open_warehouse(self.path) as connection:
            yield connection
