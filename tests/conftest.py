"""Fixtures of every test: isolated settings, a simulated account to point at, and the search for leaked secrets."""

import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from orchestration.config.settings import Settings
from orchestration.pipeline import plan
from orchestration.simulator import DEFAULT_API_KEY, SimulatorServer
from orchestration.stripe_api import client
from orchestration.stripe_api.rate_limits import Governor
from tests.support.built_folder import BuiltFolder, ensure_built_folder
from tests.support.leaks import find_leaks, find_secrets
from tests.support.postgres import Postgres

MakeSettings = Callable[..., Settings]


MEMORY = Path("/dev/shm")
REQUIRED_BYTES = 4 * 1024**3
"""Several times what the tests keep on disk at one time."""


def pytest_configure() -> None:
    """Put the tests' folders in memory if it is large enough: SQLite's fsync is half the time of Dagster's tests.

    A shell that runs the tests in the background makes every process that they start ignore SIGINT. The default is
    restored here.
    """
    if MEMORY.is_dir() and os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > REQUIRED_BYTES:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


LONGEST = (
    "tests/property/",
    "tests/integration/test_truth.py",
    "tests/integration/test_shop_rates.py",
    "tests/integration/test_dev_ui.py",
    "tests/integration/test_dagster_process.py",
    "tests/integration/test_data_folder.py",
    "tests/integration/test_webhooks_killed.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the longest tests first, so that no worker is left with one of them at the end."""
    items.sort(key=lambda item: not item.nodeid.startswith(LONGEST))


@pytest.fixture(autouse=True)
def _no_personal_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the environment and the .env file of the checkout out of every test."""
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setitem(Settings.model_config, "env_file", None)


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of this session, which all workers share."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session", autouse=True)
def _shared_plan(shared_folder: Path) -> Iterator[Path]:
    """Keep one compiled plan for all data folders, since it depends only on the dbt project."""
    shared = shared_folder / "plan.json"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(plan, "_path", lambda target_dir: shared)
        yield shared


@pytest.fixture(scope="session")
def built_folder(shared_folder: Path, _shared_plan: Path) -> BuiltFolder:
    """Return a data folder to copy, built on empty tables once for all workers."""
    return ensure_built_folder(shared_folder, _shared_plan)


@pytest.fixture(scope="session", autouse=True)
def _no_rate_limit() -> Iterator[None]:
    """Read the simulated account in this process without Stripe's rate limit."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(client, "Governor", lambda *, livemode, wait: Governor(livemode=livemode, wait=lambda _: None))
        yield


@pytest.fixture
def holding_secrets() -> set[Path]:
    """Return a set to which a test adds the files and folders that may hold secrets."""
    return set()


@pytest.fixture(autouse=True)
def _no_secret_is_left(request: pytest.FixtureRequest, holding_secrets: set[Path]) -> Iterator[None]:
    """Fail if a test leaves a key or signing secret in its folder, except where secrets are kept."""
    folder = request.getfixturevalue("tmp_path") if "tmp_path" in request.fixturenames else None
    yield
    if folder is not None:
        assert find_leaks(folder, except_for=holding_secrets) == {}


@pytest.fixture(scope="session", autouse=True)
def _no_secret_is_left_in_shared_folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Fail if any key or signing secret is left in a folder that several tests share."""
    yield
    shared = [path for path in tmp_path_factory.getbasetemp().iterdir() if not path.name.startswith("test_")]
    assert {path.name: found for path in shared if path.is_dir() and (found := find_leaks(path))} == {}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail a passed test whose output or log shows a secret."""
    report = yield
    shown = find_secrets("".join((report.capstdout, report.capstderr, report.caplog)).encode())
    if report.passed and shown:
        report.outcome, report.longrepr = "failed", f"A secret was shown: {', '.join(shown)}"
    return report


@pytest.fixture
def make_settings(tmp_path: Path, request: pytest.FixtureRequest) -> MakeSettings:
    """Return a function that makes settings for a simulated account, with a data folder of the test's own.

    If `built`, the data folder begins as a copy of the built folder, whose models are built on empty tables.
    """

    def make(
        server: SimulatorServer, *, key: str = DEFAULT_API_KEY, folder: str = "data", built: bool = False
    ) -> Settings:
        if built:
            request.getfixturevalue("built_folder").copy(tmp_path / folder)
        return Settings(stripe_api_key=SecretStr(key), stripe_api_base=server.url, recoup_data_dir=tmp_path / folder)

    return make


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """Run a PostgreSQL server. Its folder is short because a socket's path may have only about 100 characters."""
    with tempfile.TemporaryDirectory(prefix="recoup-pg-") as folder, Postgres(Path(folder)) as server:
        yield server
