"""`recoup dev`: Dagster's webserver and daemon, with a home that keeps its history."""

import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from importlib import resources
from pathlib import Path
from typing import IO, Final

from orchestration.base.errors import RecoupError
from orchestration.cli.folder import demo_settings, is_connected
from orchestration.config.settings import PROJECT_ROOT, Settings, url_safe_path

_STOP_SECONDS: Final = 20.0
"""What Dagster gets to end its processes; then they are killed."""

_LOCK_POLL_SECONDS: Final = 0.1


class AlreadyRunning(RecoupError):
    """Dagster runs on this data folder already. The text says what to do."""


class PortTaken(RecoupError):
    """The UI's port is taken. The text says which."""


def prepare_dagster_home(settings: Settings) -> Path:
    """The folder for DAGSTER_HOME, with Recoup's instance settings in it."""
    settings.dagster_home.mkdir(parents=True, exist_ok=True)
    template = resources.files("orchestration").joinpath("dagster.yaml")
    with resources.as_file(template) as path:
        shutil.copyfile(path, settings.dagster_home / "dagster.yaml")
    return url_safe_path(settings.dagster_home)


@contextmanager
def only_dagster(settings: Settings) -> Iterator[IO[str]]:
    """Keep others from running Dagster on this home while the context lasts. Yield a lock for Dagster's processes.

    If the process that started an earlier Dagster was killed, what is left of that Dagster is killed, too. Runs whose
    processes were killed together with an earlier Dagster are ended: nobody else ever would, and one that is under way
    for ever keeps the warehouse's slot, and keeps the webhook queue from being worked off.

    Raises:
        AlreadyRunning: somebody does.
    """
    home = prepare_dagster_home(settings)
    with (home / "recoup.lock").open("w") as own, (home / "processes.lock").open("a+") as lock:
        if not _is_locked(own) or not _take_over(lock):
            raise AlreadyRunning(
                f"Another `recoup dev` or `recoup serve` works on {settings.recoup_data_dir}. End it first, or set "
                "RECOUP_DATA_DIR to another folder."
            )
        with _dagster_home(home):
            _end_orphans(home)
        yield lock


def _is_locked(file: IO[str]) -> bool:
    """Lock the file and return True, or return False if another process holds the lock."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _take_over(lock: IO[str]) -> bool:
    """Lock the file that Dagster's own processes hold, and kill those that do so without a parent.

    The file names their process group. No other group can have that number while one of them lives.
    """
    deadline = time.monotonic() + _STOP_SECONDS
    while not _is_locked(lock):
        lock.seek(0)
        if group := lock.read().strip():  # empty for as long as Dagster is being started
            with suppress(ProcessLookupError):
                os.killpg(int(group), signal.SIGKILL)
        if time.monotonic() > deadline:
            return False
        time.sleep(_LOCK_POLL_SECONDS)
    lock.truncate(0)
    return True


@contextmanager
def _dagster_home(home: Path) -> Iterator[None]:
    """Set DAGSTER_HOME while the context lasts: dagster.yaml names the event log's folder by it."""
    before = dict(os.environ)
    os.environ.update(DAGSTER_HOME=str(home))
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _end_orphans(home: Path) -> None:
    """End runs that no process works on. Also creates Dagster's databases, before several processes would at once.

    A damaged one is an error here, rather than in each process of Dagster's.
    """
    import dagster as dg

    from orchestration.sensors import UNFINISHED

    with dg.DagsterInstance.from_config(str(home)) as instance:
        instance.all_asset_keys()  # reads the event log
        for run in instance.get_runs(dg.RunsFilter(statuses=UNFINISHED)):
            instance.report_run_failed(run, "Dagster was stopped while this run was under way.")
            instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)


def run_dagster_dev(settings: Settings, *, port: int, speed: float, payments: int) -> int:
    """Run `dagster dev` until interrupted and return its exit code. Without a key it gets the simulated account."""
    is_demo = not is_connected(settings)
    folder = demo_settings(settings) if is_demo else settings
    with only_dagster(folder) as lock, _account(folder, speed, payments, is_demo=is_demo) as used:
        with dagster_dev(used, port, lock) as dagster, suppress(KeyboardInterrupt):
            dagster.wait()
        return dagster.returncode


@contextmanager
def dagster_dev(
    settings: Settings, port: int, lock: IO[str], *, log: Path | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """`dagster dev` (UI, daemon and code server in one) while the context lasts; its output goes to `log`, if given.

    It has a session of its own, so that Ctrl-C reaches it through us alone: a run that the terminal interrupts as well
    may hang for ever. What it leaves behind is killed; a run that dies so loses nothing. If we are killed, it ends by
    itself (`dagster_dev`). A closed terminal ends us as SIGTERM does.

    Raises:
        PortTaken: something else listens there.
    """
    _check_free(port)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell has it ignored, and Dagster inherits
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:  # nohup ignores it
        signal.signal(signal.SIGHUP, lambda *_: signal.raise_signal(signal.SIGTERM))
    its, ours = os.pipe()  # Dagster reads the end of file when we end
    dev = ["dev", "-w", "workspace.yaml", "-p", str(port)]
    command = [sys.executable, "-m", "orchestration.cli.dagster_dev", str(its), str(lock.fileno()), *dev]
    with log.open("ab") if log else nullcontext() as output:
        process = subprocess.Popen(
            command,
            env=_environment(settings),
            cwd=PROJECT_ROOT,
            stdout=output,
            stderr=output,
            pass_fds=[its, lock.fileno()],
            start_new_session=True,
        )
    os.close(its)
    try:
        yield process
    finally:
        _stop(process)
        os.close(ours)


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
    deadline = time.monotonic() + _STOP_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        with suppress(KeyboardInterrupt, subprocess.TimeoutExpired):
            process.wait(deadline - time.monotonic())
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _check_free(port: int) -> None:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError as error:
        raise PortTaken(
            f"Port {port} cannot be used for the UI: {error.strerror}. Choose another with --port."
        ) from None


def _environment(settings: Settings) -> dict[str, str]:
    """What Dagster's processes need to see the same settings."""
    of_settings = {"STRIPE_API_BASE": settings.stripe_api_base, "RECOUP_DATA_DIR": str(settings.recoup_data_dir)}
    if settings.stripe_api_key is not None:
        of_settings["STRIPE_API_KEY"] = settings.stripe_api_key.get_secret_value()
    if settings.stripe_account_id is not None:
        of_settings["STRIPE_ACCOUNT_ID"] = settings.stripe_account_id
    if settings.recoup_queue_url is None:  # whatever else `.env` says
        of_settings["RECOUP_QUEUE_URL"] = "sqlite"
    if settings.recoup_ui_hosts is not None:
        of_settings["RECOUP_UI_HOSTS"] = settings.recoup_ui_hosts
    return {
        **os.environ,
        **of_settings,
        "DAGSTER_HOME": str(url_safe_path(settings.dagster_home)),
        "PYTHONWARNINGS": "ignore",
    }


def _account(settings: Settings, speed: float, payments: int, *, is_demo: bool) -> AbstractContextManager[Settings]:
    if not is_demo:
        return nullcontext(settings)
    from orchestration.cli.demo import simulated_account

    print(f"No account is connected: this is the simulated one, in {settings.recoup_data_dir}.", flush=True)
    return simulated_account(settings, payments=payments, days=0, seed=1, speed=speed)
