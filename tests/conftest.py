"""What every test needs: no setting of the person who runs it, and settings that point at a simulated account."""

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
ENOUGH = 4 * 1024**3
"""Bytes: several times what the tests leave lying about at one time."""


def pytest_configure() -> None:
    """Folders of tests are in memory where there is enough of it: half the time of Dagster's tests is SQLite's fsync.

    A shell that runs the tests in the background has SIGINT ignored, by every process they start as well.
    """
    if MEMORY.is_dir() and os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > ENOUGH:
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
    """The longest first, so that none of them is still running when the other workers have nothing left to do."""
    items.sort(key=lambda item: not item.nodeid.startswith(LONGEST))


@pytest.fixture(autouse=True)
def _no_personal_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the environment nor a .env file of the checkout reaches a test."""
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setitem(Settings.model_config, "env_file", None)


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of this session, which all workers share."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session", autouse=True)
def _one_plan(shared_folder: Path) -> Iterator[Path]:
    """All data folders of all tests keep the compiled plan in one file: it depends on the dbt project alone."""
    shared = shared_folder / "plan.json"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(plan, "_path", lambda settings: shared)
        yield shared


@pytest.fixture(scope="session")
def built_folder(shared_folder: Path, _one_plan: Path) -> BuiltFolder:
    """A data folder built on empty tables, to be copied: made once for all workers."""
    return ensure_built_folder(shared_folder, _one_plan)


@pytest.fixture(scope="session", autouse=True)
def _no_pace() -> Iterator[None]:
    """Who reads the simulated account in this process need not keep to the pace that Stripe allows."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(client, "Governor", lambda *, livemode, wait: Governor(livemode=livemode, wait=lambda _: None))
        yield


@pytest.fixture
def holding_secrets() -> set[Path]:
    """Files or folders of a test that may hold secrets: what it adds is not looked through."""
    return set()


@pytest.fixture(autouse=True)
def _no_secret_is_left(request: pytest.FixtureRequest, holding_secrets: set[Path]) -> Iterator[None]:
    """No key and no signing secret is in the test's folder when it has ended, but where secrets are kept."""
    folder = request.getfixturevalue("tmp_path") if "tmp_path" in request.fixturenames else None
    yield
    if folder is not None:
        assert find_leaks(folder, except_for=holding_secrets) == {}


@pytest.fixture(scope="session", autouse=True)
def _no_secret_is_left_in_shared_folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The same for folders that several tests share, at the end of them all."""
    yield
    shared = [path for path in tmp_path_factory.getbasetemp().iterdir() if not path.name.startswith("test_")]
    assert {path.name: found for path in shared if path.is_dir() and (found := find_leaks(path))} == {}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that passes, and whose output or log shows a secret, has failed."""
    report = yield
    shown = find_secrets("".join((report.capstdout, report.capstderr, report.caplog)).encode())
    if report.passed and shown:
        report.outcome, report.longrepr = "failed", f"A secret was shown: {', '.join(shown)}"
    return report


@pytest.fixture
def make_settings(tmp_path: Path, request: pytest.FixtureRequest) -> MakeSettings:
    """Settings that point at a simulated account; state in a folder of the test's own.

    If `built`, the folder begins as a copy of the template: the models are built on empty tables.
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
    """A PostgreSQL server; its folder is short, since the path of a socket may have a hundred letters at most."""
    with tempfile.TemporaryDirectory(prefix="recoup-pg-") as folder, Postgres(Path(folder)) as server:
        yield server
