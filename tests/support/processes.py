"""Processes that tests start, inspect, wait for and kill: the `recoup` command, a sync, Dagster."""

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
from tests.support import pipeline
from orchestration.config.settings import Settings
pipeline.extract(Settings(), integration=sys.argv[1])
"""

RECOUP = [sys.executable, "-c", "from orchestration.cli import main; main()"]


def find_free_port() -> int:
    """Return a port of the loopback interface that no process listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextmanager
def run_sync_process(
    server: SimulatorServer, folder: Path, integration: str = "default"
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a sync in its own process, and kill the process at the end of the context."""
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


def wait_until(condition: Callable[[], Any], seconds: float) -> Any:
    """Return the first true result of `condition`.

    Raises:
        AssertionError: `condition` was not true within so many seconds.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.2)
    raise AssertionError(f"The condition was not met within {seconds} s.")


def is_dagster_up(url: str) -> bool:
    """Return whether Dagster's UI answers at the address."""
    try:
        return requests.get(f"{url}/server_info", timeout=5).ok
    except requests.RequestException:
        return False


def list_parents() -> dict[int, int]:
    """Return the id of each running process with the id of its parent."""
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid=,stat="], capture_output=True, text=True, check=True)
    rows = [line.split() for line in listed.stdout.splitlines()]
    return {int(pid): int(parent) for pid, parent, state in rows if not state.startswith("Z")}


def list_descendants(pid: int) -> set[int]:
    """Return the ids of all child processes of a process, and of their children."""
    found, parents = {pid}, list_parents()
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {pid}


class KillPoints:
    """Points before and after transactions and calls. The process is killed as it reaches point number `killed_at`."""

    def __init__(self, killed_at: int) -> None:
        self._killed_at, self._count = killed_at, 0

    def reach(self) -> None:
        """Count a point, and kill the process if its number is `killed_at`."""
        self._count += 1
        if self._count == self._killed_at:
            os.kill(os.getpid(), signal.SIGKILL)

    @contextmanager
    def transaction(self, connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
        """Replace `transaction`, with a point before it, before its commit, and after it."""
        self.reach()
        with transaction(connection):
            yield
            self.reach()
        self.reach()

    def wrap(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """Return the call with a point before and after it."""

        def wrapped(*arguments: Any, **options: Any) -> Any:
            self.reach()
            result = call(*arguments, **options)
            self.reach()
            return result

        return wrapped
