"""`recoup dev`: Dagster's webserver and daemon, with a home that keeps its history."""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib import resources
from pathlib import Path

from orchestration.settings import PROJECT_ROOT, Settings


class AlreadyRunning(Exception):
    """Dagster runs on this data folder already. The text says what to do."""


def prepare_dagster_home(settings: Settings) -> Path:
    """The folder for DAGSTER_HOME, with Recoup's instance settings in it."""
    settings.dagster_home.mkdir(parents=True, exist_ok=True)
    template = resources.files("orchestration").joinpath("dagster.yaml")
    with resources.as_file(template) as path:
        shutil.copyfile(path, settings.dagster_home / "dagster.yaml")
    return settings.dagster_home


@contextmanager
def only_dagster(settings: Settings) -> Iterator[None]:
    """Nobody else runs Dagster on this home while the context lasts.

    Runs whose processes were killed together with an earlier Dagster are ended: nobody else ever would, and one that is
    under way for ever keeps the warehouse's slot, and keeps the webhook queue from being worked off.

    Raises:
        AlreadyRunning: somebody does.
    """
    home = prepare_dagster_home(settings)
    with (home / "recoup.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyRunning(
                f"Another `recoup dev` or `recoup serve` works on {settings.recoup_data_dir}. End it first, or set "
                "RECOUP_DATA_DIR to another folder."
            ) from None
        _end_orphans(home)
        yield


def _end_orphans(home: Path) -> None:
    if not (home / "history").exists():
        return
    import dagster as dg

    ended = (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)
    unfinished = [status for status in dg.DagsterRunStatus if status not in ended]
    with dg.DagsterInstance.from_config(str(home)) as instance:
        for run in instance.get_runs(dg.RunsFilter(statuses=unfinished)):
            instance.report_run_failed(run, "Dagster was stopped while this run was under way.")
            instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)


def run_dagster_dev(settings: Settings, *, port: int, speed: float, payments: int) -> int:
    """Run `dagster dev` until interrupted and return its exit code. Without a key it gets the simulated account."""
    with only_dagster(settings), _account(settings, speed, payments) as used:
        return _run(dagster_command(port), dagster_environment(used))


def dagster_command(port: int) -> list[str]:
    """UI, daemon and code server in one."""
    return [sys.executable, "-m", "dagster", "dev", "-w", "workspace.yaml", "-p", str(port)]


def dagster_environment(settings: Settings) -> dict[str, str]:
    """What Dagster's processes need to see the same settings, in a home of Recoup's that is prepared here."""
    home = prepare_dagster_home(settings)
    of_settings = {"STRIPE_API_BASE": settings.stripe_api_base, "RECOUP_DATA_DIR": str(settings.recoup_data_dir)}
    if settings.stripe_api_key is not None:
        of_settings["STRIPE_API_KEY"] = settings.stripe_api_key.get_secret_value()
    return {**os.environ, **of_settings, "DAGSTER_HOME": str(home), "PYTHONWARNINGS": "ignore"}


def _account(settings: Settings, speed: float, payments: int) -> AbstractContextManager[Settings]:
    if settings.stripe_api_key is not None:
        return nullcontext(settings)
    from orchestration.cli.demo import simulated_account

    print("No STRIPE_API_KEY is set: using the simulated account.", flush=True)
    return simulated_account(settings, payments=payments, days=0, seed=1, speed=speed)


def _run(command: list[str], environment: dict[str, str]) -> int:
    """Wait for a child that ends by the same signals as we do.

    A shell without job control starts its background children with SIGINT ignored, and Dagster would inherit that.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(command, env=environment, cwd=PROJECT_ROOT)
    signal.signal(signal.SIGTERM, lambda *_: process.send_signal(signal.SIGINT))
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            continue  # the terminal has told the child as well
