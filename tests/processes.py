"""What tests start as processes: the `recoup` command, a port for it, and a kill at the edge of a transaction."""

import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import duckdb

from orchestration.warehouse.connection import transaction

RECOUP = [sys.executable, "-c", "from orchestration.cli import main; main()"]


def free_port() -> int:
    """A port of the loopback interface that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


class Edges:
    """Counts the edges of transactions and of wrapped calls, and kills its process at the edge of a given number."""

    def __init__(self, killed_at: int) -> None:
        self._killed_at, self._count = killed_at, 0

    def pass_one(self) -> None:
        """Count an edge."""
        self._count += 1
        if self._count == self._killed_at:
            os.kill(os.getpid(), signal.SIGKILL)

    @contextmanager
    def transaction(self, connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
        """Stand in for `transaction`: an edge before it, before its commit, and after it."""
        self.pass_one()
        with transaction(connection):
            yield
            self.pass_one()
        self.pass_one()

    def around(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """Return the call with an edge before and after it."""

        def edged(*arguments: Any, **options: Any) -> Any:
            self.pass_one()
            result = call(*arguments, **options)
            self.pass_one()
            return result

        return edged
