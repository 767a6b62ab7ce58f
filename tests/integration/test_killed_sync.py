"""A run that is killed leaves whole pages, and the next run ends where an undisturbed one ends."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestration.config.settings import Settings
from orchestration.simulator import DEFAULT_API_KEY, SimulatedAccount, SimulatorServer
from tests.conftest import MakeSettings
from tests.support import pipeline
from tests.support.built_folder import BuiltFolder
from tests.support.processes import RECOUP
from tests.support.truth import read_tables

DAY = 86_400
OF_THE_RUN = {"_loaded_at", "_load_id", "load_id", "_updated_at"}
"""Columns that may differ: the time of this machine, and the load that wrote a row."""

_OF_EACH_RUN = {
    "sync.reads",
    "sync.loads",
    "sync.model_builds",
    "sync.model_tables",
    "sync.published_file",
    "sync.published_tables",
}
"""Tables about the runs themselves: requests, loads, builds, published files. All others must be equal."""


@pytest.fixture(scope="module")
def server() -> Iterator[SimulatorServer]:
    with SimulatorServer(SimulatedAccount(seed=11, payments=700, days=60)) as running:
        yield running


@pytest.fixture(scope="module")
def undisturbed(server: SimulatorServer, built_folder: BuiltFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the data folder of an account that was synced without a kill."""
    folder = built_folder.copy(tmp_path_factory.mktemp("undisturbed"))
    run(Settings(stripe_api_key=DEFAULT_API_KEY, stripe_api_base=server.url, recoup_data_dir=folder))  # type: ignore[arg-type]
    return folder


def run(settings: Settings) -> None:
    pipeline.extract(settings)
    pipeline.build(settings)
    pipeline.publish_marts(settings)


def kill_when(settings: Settings, is_time: Callable[[], bool]) -> None:
    """Start `recoup sync` and kill it as soon as the condition is met."""
    assert settings.stripe_api_key is not None
    process = subprocess.Popen(
        [*RECOUP, "sync"],
        env=os.environ
        | {
            "STRIPE_API_KEY": settings.stripe_api_key.get_secret_value(),
            "STRIPE_API_BASE": settings.stripe_api_base,
            "RECOUP_DATA_DIR": str(settings.recoup_data_dir),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    while not is_time() and process.poll() is None:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    result, _ = process.communicate()
    assert process.returncode == -signal.SIGKILL, f"the sync ended before it was killed: {result.decode()}"


@pytest.mark.parametrize("requests", [2, 13])
def test_a_sync_killed_while_it_reads_resumes(
    requests: int, server: SimulatorServer, undisturbed: Path, make_settings: MakeSettings
) -> None:
    settings = make_settings(server, built=True)
    server.requests.clear()
    server.limits.change(latency=0.03)
    try:
        kill_when(settings, lambda: server.requests.total >= requests)
    finally:
        server.limits.change(latency=0.0)
    run(settings)
    assert_same(settings, undisturbed)


def test_a_sync_killed_while_it_builds_the_models_resumes(
    server: SimulatorServer, undisturbed: Path, make_settings: MakeSettings
) -> None:
    settings = make_settings(server)
    log = settings.dbt_log_dir / "dbt.log"
    kill_when(settings, lambda: log.exists() and "model marts.payment_attempts" in log.read_text(encoding="utf-8"))
    assert not settings.published_path.exists()
    run(settings)
    assert_same(settings, undisturbed)


def test_a_later_sync_killed_twice_resumes(make_settings: MakeSettings) -> None:
    account = SimulatedAccount(seed=12, payments=700, days=60)
    with SimulatorServer(account) as server:
        settings, reference = make_settings(server, built=True), make_settings(server, folder="reference", built=True)
        run(settings)
        run(reference)
        account.now += 5 * DAY
        run(reference)
        for requests in (2, 3):
            server.requests.clear()
            server.limits.change(latency=0.03)
            kill_when(settings, lambda requests=requests: server.requests.total >= requests)  # type: ignore[misc]
        server.limits.change(latency=0.0)
        run(settings)
    assert_same(settings, reference.recoup_data_dir)


def assert_same(settings: Settings, folder: Path) -> None:
    for path in (settings.warehouse_path, settings.published_path):
        found, expected = (read_tables(each, without=OF_THE_RUN) for each in (path, folder / path.name))
        for tables in (found, expected):
            for name in _OF_EACH_RUN & tables.keys():
                del tables[name]
        assert {name: len(rows) for name, rows in found.items()} == {n: len(rows) for n, rows in expected.items()}
        assert [name for name in expected if found[name] != expected[name]] == []
