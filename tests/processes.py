"""Processes that tests start: the `recoup` command, a port for it, a sync, and a kill at the edge of a transaction."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb

from orchestration.simulator import DEFAULT_API_KEY, SimulatorServer
from orchestration.warehouse.connection import transaction

_EXTRACT = """
import sys
from orchestration import pipeline
from orchestration.settings import Settings
pipeline.extract(Settings(), integration=sys.argv[1])
"""

RECOUP = [sys.executable, "-c", "from orchestration.cli import main; main()"]


def free_port() -> int:
    """A port of the loopback interface that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


@contextmanager
def extracting(
    server: SimulatorServer, folder: Path, integration: str = "default"
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a sync in a process of its own, and kill it if it has not ended with the context."""
    variables: Mapping[str, str] = {
        "STRIPE_API_KEY": DEFAULT_API_KEY if integration == "default" else "",
        "STRIPE_API_BASE": server.url,
        "RECOUP_DATA_DIR": str(folder),
        "PYTHONPATH": ":".join(sys.path),
    }
    process = subprocess.Popen([sys.executable, "-c", _EXTRACT, integration], env=variables)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


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
