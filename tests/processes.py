"""Processes that tests start: the `recoup` command, a sync, a kill at a transaction's edge, waiting and looking."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import requests

from orchestration.simulator import DEFAULT_API_KEY, SimulatorServer
from orchestration.warehouse.connection import transaction

_EXTRACT = """
import sys
from orchestration import pipeline
from orchestration.config.settings import Settings
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


def until(happened: Callable[[], Any], seconds: float) -> Any:
    """What `happened` returns as soon as that is true."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := happened():
            return found
        time.sleep(0.2)
    raise AssertionError(f"it did not happen within {seconds} s")


def answers(url: str) -> bool:
    """Return whether Dagster's UI answers there."""
    try:
        return requests.get(f"{url}/server_info", timeout=5).ok
    except requests.RequestException:
        return False


def parents() -> dict[int, int]:
    """Return the parent of each process that runs."""
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid=,stat="], capture_output=True, text=True, check=True)
    rows = [line.split() for line in listed.stdout.splitlines()]
    return {int(pid): int(parent) for pid, parent, state in rows if not state.startswith("Z")}


def descendants(pid: int) -> set[int]:
    """Return the processes that this one has started, and those that they have started."""
    found, known = {pid}, parents()
    while more := {each for each, parent in known.items() if parent in found} - found:
        found |= more
    return found - {pid}


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
