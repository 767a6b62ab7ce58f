"""`recoup dev`: Dagster's webserver and daemon, with a home that keeps the run history."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from importlib import resources
from pathlib import Path
from typing import IO, Final

from orchestration.base.errors import RecoupError
from orchestration.base.files import url_safe_path
from orchestration.base.locks import try_lock
from orchestration.cli.folder import demo_settings, is_connected
from orchestration.config.settings import PROJECT_ROOT, Settings

_STOP_SECONDS: Final = 20.0
"""Time in which Dagster must end its processes. Then they are killed."""

_LOCK_POLL_SECONDS: Final = 0.1


class AlreadyRunning(RecoupError):
    """Dagster already runs on this data folder. The text says what to do."""


class PortTaken(RecoupError):
    """The port of the UI cannot be used. The text names it."""


def prepare_dagster_home(home: Path) -> Path:
    """Create the folder for DAGSTER_HOME with Recoup's instance settings, and return its path."""
    home.mkdir(parents=True, exist_ok=True)
    template = resources.files("orchestration").joinpath("dagster.yaml")
    with resources.as_file(template) as path:
        shutil.copyfile(path, home / "dagster.yaml")
    return url_safe_path(home)


@contextmanager
def prevent_second_dagster(settings: Settings) -> Iterator[IO[str]]:
    """Prevent a second Dagster on this folder while the context lasts, and yield a lock for Dagster's processes.

    Kill the processes of an earlier Dagster whose parent was killed. Also mark the runs that such a Dagster left
    unfinished as failed. Otherwise they would count as running forever, and block other runs and the webhook queue.

    Raises:
        AlreadyRunning: another process runs Dagster on this home.
    """
    home = prepare_dagster_home(settings.dagster_home)
    with (home / "recoup.lock").open("w") as own, (home / "processes.lock").open("a+") as lock:
        if not try_lock(own) or not _kill_leftover_dagster(lock):
            raise AlreadyRunning(
                f"Another `recoup dev` or `recoup serve` already uses {settings.recoup_data_dir}. End it first, or set "
                "RECOUP_DATA_DIR to another folder."
            )
        with _dagster_home(home):
            _prepare_instance(home, settings)
        yield lock


def _kill_leftover_dagster(lock: IO[str]) -> bool:
    """Kill the processes of an earlier Dagster without a parent, then lock the file that they kept locked.

    Return False if the file is still locked after `_STOP_SECONDS`. The file contains the number of their process
    group. No other group can have that number while one of these processes exists.
    """
    deadline = time.monotonic() + _STOP_SECONDS
    while not try_lock(lock):
        lock.seek(0)
        if group := lock.read().strip():  # empty while Dagster starts
            with suppress(ProcessLookupError):
                os.killpg(int(group), signal.SIGKILL)
        if time.monotonic() > deadline:
            return False
        time.sleep(_LOCK_POLL_SECONDS)
    lock.truncate(0)
    return True


@contextmanager
def _dagster_home(home: Path) -> Iterator[None]:
    """Set DAGSTER_HOME while the context lasts. dagster.yaml uses it for the folder of the event log."""
    before = dict(os.environ)
    os.environ.update(DAGSTER_HOME=str(home))
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _prepare_instance(home: Path, settings: Settings) -> None:
    """Mark unfinished runs as failed, since no process works on them, and store what the UI needs from the start.

    The list of partitions would otherwise be empty until the first tick of a sensor, and the first run would warn that
    no webhook events were ever loaded.

    This also creates Dagster's databases, before several processes would do so at once, and reports a damaged one
    here instead of in each process.
    """
    import dagster as dg

    from orchestration.accounts.registry import IntegrationError
    from orchestration.assets.webhooks import first_materialization
    from orchestration.partitions import PARTITIONS_NAME, integration_names
    from orchestration.sensors import UNFINISHED

    with dg.DagsterInstance.from_config(str(home)) as instance:
        instance.all_asset_keys()  # reads the event log
        for run in instance.get_runs(dg.RunsFilter(statuses=UNFINISHED)):
            instance.report_run_failed(run, "Dagster was stopped during this run.")
            instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
        with suppress(IntegrationError):  # the sensor of partitions reports it
            instance.add_dynamic_partitions(PARTITIONS_NAME, integration_names(settings))
        if (first := first_materialization(instance)) is not None:
            instance.report_runless_asset_event(first)


def run_dagster_dev(settings: Settings, *, port: int, speed: float, payments: int) -> int:
    """Run Dagster until interrupted, and return its exit code.

    Use the simulated account if no account is connected.
    """
    is_demo = not is_connected(settings)
    folder = demo_settings(settings) if is_demo else settings
    with prevent_second_dagster(folder) as lock, _account_settings(folder, speed, payments, is_demo=is_demo) as used:
        with dagster_dev(dagster_environment(used), port, lock) as dagster, suppress(KeyboardInterrupt):
            dagster.wait()
        return dagster.returncode


@contextmanager
def dagster_dev(
    environment: Mapping[str, str], port: int, lock: IO[str], *, log: Path | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run Dagster (UI, daemon and code server) while the context lasts, and yield the process that runs these.

    Dagster has its own session, so that only this process passes Ctrl-C on to it. A run that the terminal interrupts
    as well may hang forever. Processes that remain at the end are killed; a run that is killed loses no data. If this
    process is killed, Dagster ends on its own (`orchestration.cli.dagster_dev`). A closed terminal has the effect of
    SIGTERM.

    Args:
        environment: Environment of Dagster's processes (`dagster_environment`).
        port: Port of the UI.
        lock: Lock from `prevent_second_dagster`, which Dagster's processes keep open.
        log: File to which Dagster's output is appended. Default: this process's output.

    Raises:
        PortTaken: the port cannot be used.
    """
    _check_free(port)
    # A shell may start a background job with SIGINT ignored, which Dagster would inherit.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:  # nohup ignores it
        signal.signal(signal.SIGHUP, lambda *_: signal.raise_signal(signal.SIGTERM))
    read_end, write_end = os.pipe()  # Dagster reads the end of file when this process ends
    command = [sys.executable, "-m", "orchestration.cli.dagster_dev", str(read_end), str(lock.fileno()), str(port)]
    with log.open("ab") if log else nullcontext() as output:
        process = subprocess.Popen(
            command,
            env=environment,
            cwd=PROJECT_ROOT,
            stdout=output,
            stderr=output,
            pass_fds=[read_end, lock.fileno()],
            start_new_session=True,
        )
    os.close(read_end)
    try:
        yield process
    finally:
        _stop(process)
        os.close(write_end)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Interrupt Dagster, and kill what remains of its process group after `_STOP_SECONDS`."""
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


def dagster_environment(settings: Settings) -> dict[str, str]:
    """Return the environment with which Dagster's processes get the same settings."""
    variables = {"STRIPE_API_BASE": settings.stripe_api_base, "RECOUP_DATA_DIR": str(settings.recoup_data_dir)}
    if settings.stripe_api_key is not None:
        variables["STRIPE_API_KEY"] = settings.stripe_api_key.get_secret_value()
    if settings.stripe_account_id is not None:
        variables["STRIPE_ACCOUNT_ID"] = settings.stripe_account_id
    if settings.recoup_queue_url is None:  # overrides a value in `.env`
        variables["RECOUP_QUEUE_URL"] = "sqlite"
    if settings.recoup_ui_hosts is not None:
        variables["RECOUP_UI_HOSTS"] = settings.recoup_ui_hosts
    return {
        **os.environ,
        **variables,
        "DAGSTER_HOME": str(url_safe_path(settings.dagster_home)),
        "PYTHONWARNINGS": "ignore",
    }


def _account_settings(
    settings: Settings, speed: float, payments: int, *, is_demo: bool
) -> AbstractContextManager[Settings]:
    if not is_demo:
        return nullcontext(settings)
    from orchestration.cli.demo import simulated_account

    print(f"No account is connected. This is the simulated account, in {settings.recoup_data_dir}.", flush=True)
    return simulated_account(settings, payments=payments, days=0, seed=1, speed=speed)
