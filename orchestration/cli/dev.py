"""`recoup dev`: Dagster's webserver and daemon, with a home that keeps its history."""

import os
import shutil
import signal
import subprocess
import sys
from contextlib import AbstractContextManager, nullcontext
from importlib import resources
from pathlib import Path

from orchestration.settings import PROJECT_ROOT, Settings


def prepare_dagster_home(settings: Settings) -> Path:
    """The folder for DAGSTER_HOME, with Recoup's instance settings in it."""
    settings.dagster_home.mkdir(parents=True, exist_ok=True)
    template = resources.files("orchestration").joinpath("dagster.yaml")
    with resources.as_file(template) as path:
        shutil.copyfile(path, settings.dagster_home / "dagster.yaml")
    return settings.dagster_home


def run_dagster_dev(settings: Settings, *, port: int, speed: float, payments: int) -> int:
    """Run `dagster dev` until interrupted and return its exit code. Without a key it gets the simulated account."""
    home = prepare_dagster_home(settings)
    with _account(settings, speed, payments) as used:
        assert used.stripe_api_key is not None
        environment = {
            **os.environ,
            "DAGSTER_HOME": str(home),
            "STRIPE_API_KEY": used.stripe_api_key.get_secret_value(),
            "STRIPE_API_BASE": used.stripe_api_base,
            "RECOUP_DATA_DIR": str(used.recoup_data_dir),
            "PYTHONWARNINGS": "ignore",
        }
        return _run([sys.executable, "-m", "dagster", "dev", "-w", "workspace.yaml", "-p", str(port)], environment)


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
