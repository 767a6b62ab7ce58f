"""Start, watch and end `recoup serve` for benchmarks, on a synced account.

What is sent to it belongs to `webhooks` and `soak`.
"""

import os
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import SecretStr

from orchestration.cli.demo import FIRST_DAYS, SimulatorState
from orchestration.config.settings import PROJECT_ROOT, Settings
from orchestration.simulator import DEFAULT_API_KEY, OPENED_AT
from tests.support import pipeline
from tests.support.processes import RECOUP, find_free_port

PAYMENTS: Final = int(os.environ.get("RECOUP_BENCH_PAYMENTS", "20000"))
ACCOUNT: Final = SimulatorState(seed=1, payments=PAYMENTS, now=OPENED_AT + FIRST_DAYS * 86_400)
"""The account that is synced before webhook events are sent. A build costs more the longer the history is."""

_SHUTDOWN_SECONDS: Final = 60.0
_ROLES: Final = {
    "dagster_daemon": "daemon",
    "dagster._daemon": "daemon",
    "dagster-daemon": "daemon",
    "orchestration.cli.ui": "webserver",
    "execute_run": "run",
    "execute_step": "run",
    "multiprocessing": "run",
    "code-server": "code server's proxy",
    " grpc ": "code server",
    "orchestration.cli.dagster_dev": "parent of Dagster",
}
"""Part of a command line, and the role of its process. The first matching part decides."""


class ServeEnded(RuntimeError):
    """Raised if `recoup serve` has ended by itself. The text has its exit code and its last output."""


@dataclass(frozen=True)
class Served:
    """`recoup serve` while it runs."""

    process: "subprocess.Popen[bytes]"
    receiver_port: int
    output: Path

    def check(self) -> None:
        """Raise ServeEnded if `recoup serve` no longer runs."""
        if (code := self.process.poll()) is not None:
            raise ServeEnded(f"recoup serve has ended (exit code {code}): {self.output.read_text()[-1_000:]}")

    def pids(self) -> dict[int, str]:
        """Return its processes with their roles; empty without /proc."""
        return {pid: _role(pid) for pid in list_descendants(self.process.pid)} | {self.process.pid: "receiver"}


@contextmanager
def serve(settings: Settings, variables: Mapping[str, str]) -> Iterator[Served]:
    """Run `recoup serve` on the data folder while the context lasts, and end all its processes.

    It has its own session, so that Ctrl-C reaches it only through this context.
    """
    port = find_free_port()
    output = settings.recoup_data_dir.with_name(f"{settings.recoup_data_dir.name}.serve.log")
    command = [*RECOUP, "serve", "--port", str(find_free_port()), "--receiver-port", str(port)]
    environment = {**os.environ, "RECOUP_DATA_DIR": str(settings.recoup_data_dir), **variables}
    with output.open("wb") as log:
        process = subprocess.Popen(
            command, env=environment, cwd=PROJECT_ROOT, stdout=log, stderr=log, start_new_session=True
        )
    try:
        yield Served(process, port, output)
    finally:
        _stop(process)


def _stop(process: "subprocess.Popen[bytes]") -> None:
    """Interrupt `recoup serve`, wait for it, and kill its remaining processes."""
    family = {pid: _started_at(pid) for pid in list_descendants(process.pid)}
    process.send_signal(signal.SIGINT)
    deadline = time.monotonic() + _SHUTDOWN_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        with suppress(KeyboardInterrupt, subprocess.TimeoutExpired):  # a second Ctrl-C does not leave it running
            process.wait(1)
    process.kill()
    process.wait()
    for pid, started_at in family.items():
        if started_at is not None and _started_at(pid) == started_at:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def sync_build_publish(settings: Settings) -> None:
    """Sync the account in full, build its models and publish them."""
    pipeline.extract(settings)
    pipeline.build(settings)
    pipeline.publish_marts(settings)


def settings_for(url: str, folder: Path) -> Settings:
    """Return the settings for a simulated account at this address."""
    return Settings(stripe_api_key=SecretStr(DEFAULT_API_KEY), stripe_api_base=url, recoup_data_dir=folder)


def wait_until(
    condition: Callable[[], bool], served: Served | None = None, *, seconds: float = 120.0, every: float = 0.2
) -> None:
    """Wait until the condition is met, checking it `every` so many seconds.

    Raises:
        ServeEnded: `recoup serve` ended before.
        TimeoutError: the condition was not met within `seconds`.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if served is not None:
            served.check()
        if time.monotonic() > deadline:
            raise TimeoutError(f"The condition was not met within {seconds:.0f} seconds.")
        time.sleep(every)


def has_ticked(settings: Settings) -> bool:
    """Return whether a tick has ended, so that all of Dagster's processes run."""
    ended = "SELECT count(*) FROM job_ticks WHERE status IN ('SKIPPED', 'SUCCESS')"
    return bool(_count(settings.dagster_home / "schedules" / "schedules.db", ended))


def batch_count(settings: Settings) -> int:
    """Return how many batches of webhook events the sensor has reported."""
    reported = "SELECT count(*) FROM event_logs WHERE run_id = '' AND asset_key LIKE '%webhook_events%'"
    return _count(settings.dagster_home / "event_log.db", reported)


def _count(path: Path, query: str) -> int:
    """Count rows of one of Dagster's databases; 0 before it exists."""
    if not path.exists():
        return 0
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=30)) as connection:
        try:
            return int(connection.execute(query).fetchone()[0])
        except sqlite3.OperationalError:
            return 0


def list_descendants(pid: int) -> list[int]:
    """Return the ids of all child processes of a process, and of their children; empty without /proc."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*"):
        if (fields := _stat(int(path.name))) is not None:
            children.setdefault(int(fields[1]), []).append(int(path.name))
    found = list(children.get(pid, ()))
    for each in found:
        found += children.get(each, ())
    return found


def cpu_seconds(pid: int) -> float:
    """Return the CPU time (user and system) of a running process; 0 if it has ended or there is no /proc."""
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") if fields else 0.0


def resident_bytes(pid: int) -> int:
    """Return the resident memory of a running process; 0 if it has ended or there is no /proc."""
    fields = _stat(pid)
    return int(fields[21]) * os.sysconf("SC_PAGE_SIZE") if fields else 0


def _started_at(pid: int) -> str | None:
    fields = _stat(pid)
    return fields[19] if fields else None


def _stat(pid: int) -> list[str] | None:
    """Return the fields of /proc/<pid>/stat from the state on, the third in its documentation."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


def _role(pid: int) -> str:
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return "ended"
    return next((role for part, role in _ROLES.items() if part in command), f"other: {command[:60]}")
