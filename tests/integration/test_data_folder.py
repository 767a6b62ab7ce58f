"""The data folder: any name, damaged or locked files, a full disk, and permissions."""

import os
import resource
import shutil
import sqlite3
import stat
import subprocess
import sys
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest

from orchestration.cli.dev import prepare_dagster_home
from orchestration.config.settings import Settings
from orchestration.simulator import DEFAULT_API_KEY, SimulatedAccount, SimulatorServer
from orchestration.webhooks.queue import Delivery, Queue
from tests.support.built_folder import BuiltFolder
from tests.support.processes import RECOUP

COUNT = "select count(*) as n from marts.recovery_episodes"
HOLD = """
import duckdb, sys
connection = duckdb.connect(sys.argv[1])
print("open", flush=True)
sys.stdin.readline()
"""

DAMAGED_TEXTS = (b"", bytes(500), b'{"a": [1, ')
"""Contents of damaged files: empty, zeroed and torn."""


@dataclass
class CommandResult:
    """The exit code of a command and what it printed."""

    code: int
    text: str


class Folder:
    """A data folder and the command that works on it."""

    def __init__(self, path: Path, server: SimulatorServer) -> None:
        self.path = path
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("STRIPE_", "RECOUP_"))},
            "STRIPE_API_KEY": DEFAULT_API_KEY,
            "STRIPE_API_BASE": server.url,
            "RECOUP_DATA_DIR": str(path),
            "COLUMNS": "1000",
        }

    def run(self, *arguments: str, before: Callable[[], None] | None = None) -> CommandResult:
        done = subprocess.run(
            [*RECOUP, *arguments],
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
            preexec_fn=before,
        )
        assert "Traceback" not in done.stdout + done.stderr, done.stderr
        return CommandResult(done.returncode, " ".join((done.stdout + done.stderr).split()))

    def synced(self) -> str:
        """Sync successfully and return the number of episodes."""
        result = self.run("sync")
        assert result.code == 0, result.text
        return self.episodes()

    def episodes(self) -> str:
        result = self.run("query", COUNT)
        assert result.code == 0, result.text
        return result.text

    @property
    def settings(self) -> Settings:
        return Settings(recoup_data_dir=self.path)


@pytest.fixture(scope="module")
def server() -> Iterator[SimulatorServer]:
    with SimulatorServer(SimulatedAccount(seed=34, payments=120, days=45)) as running:
        yield running


@pytest.fixture(scope="module")
def synced(server: SimulatorServer, built_folder: BuiltFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = Folder(built_folder.copy(tmp_path_factory.mktemp("synced") / "data"), server)
    folder.synced()
    return folder.path


@pytest.fixture
def folder(synced: Path, server: SimulatorServer, tmp_path: Path) -> Folder:
    """Return a data folder after a sync."""
    return Folder(Path(shutil.copytree(synced, tmp_path / "data")), server)


def put_event(settings: Settings, number: int) -> None:
    payload = f'{{"id": "evt_{number}", "object": "event", "type": "payment_intent.x"}}'
    with closing(Queue(settings.queue_url)) as queue:
        queue.put([Delivery("default", f"evt_{number}", payload, datetime.now(UTC), "acct_1")])


NASTY = "a%b%41#&+'\"; $x{{y}}{z}[1]*\\ü"


@pytest.mark.parametrize(
    "name",
    [
        "100% %41/[a]*{b}{{c}}{% d %} back\\slash",
        'a#b&c+d ;$HOME/it\'s "it"',
        "/".join(unicodedata.normalize(form, "Zürich") for form in ("NFC", "NFD")),
    ],
)
def test_the_data_folder_may_have_any_name(
    name: str, server: SimulatorServer, built_folder: BuiltFolder, tmp_path: Path
) -> None:
    folder = Folder(built_folder.copy(tmp_path / "outside" / name), server)
    put_event(folder.settings, 1)
    folder.synced()
    assert "quarantined 1" in folder.run("webhooks", "status").text.replace("  ", " ")
    assert folder.run("clean").code == 0
    assert list_files_outside(folder.path, tmp_path / "outside") == []
    home = prepare_dagster_home(folder.settings.dagster_home)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("DAGSTER_HOME", str(home))
        with dg.DagsterInstance.from_config(str(home)) as instance:
            assert not instance.get_runs()
    assert (folder.path / "dagster" / "history" / "runs.db").exists()
    assert (folder.path / "dagster" / "event_log.db").exists()
    assert list_files_outside(folder.path, tmp_path / "outside") == []


def list_files_outside(folder: Path, root: Path) -> list[Path]:
    """Return what is in `root` and neither the folder, nor in it, nor above it."""
    return [path for path in root.rglob("*") if folder not in (path, *path.parents) and path not in folder.parents]


def test_dbt_builds_in_a_folder_with_a_strange_name(server: SimulatorServer, tmp_path: Path) -> None:
    folder = Folder(tmp_path / "outside" / NASTY, server)
    assert folder.synced().endswith(folder.episodes())
    assert folder.run("dbt", "compile", "--select", "recovery_cohorts").code == 0
    assert [path.name for path in (tmp_path / "outside").iterdir()] == [NASTY]


def test_a_folder_that_duckdb_cannot_write_to_is_refused(server: SimulatorServer, tmp_path: Path) -> None:
    result = Folder(tmp_path / "a?b", server).run("sync")
    assert result.code == 1
    assert "RECOUP_DATA_DIR: DuckDB cannot write to a path with a ? in it" in result.text


@pytest.fixture
def _opened_elsewhere(folder: Folder) -> Iterator[None]:
    """Open the published file for writing in another process."""
    command = [sys.executable, "-c", HOLD, str(folder.settings.published_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "open\n"
        yield
        holder.communicate("close\n")


@pytest.mark.usefixtures("_opened_elsewhere")
def test_a_published_file_open_elsewhere_does_not_stop_a_sync(folder: Folder) -> None:
    result = folder.run("query", COUNT)
    assert result.code == 1
    assert "has " + str(folder.settings.published_path) + " open for writing." in result.text
    result = folder.run("sync")
    assert result.code == 0
    assert "Failed payments of acct_" in result.text
    assert folder.run("integrations", "list").code == 0


@pytest.mark.parametrize("content", [b"", bytes(50_000), b"a text" * 10_000], ids=["empty", "zeroed", "text"])
def test_a_damaged_published_file_is_published_again(content: bytes, folder: Folder) -> None:
    before = folder.episodes()
    folder.settings.published_path.write_bytes(content)
    result = folder.run("query", COUNT)
    assert (result.code, result.text.endswith("is damaged. Publish it again: recoup sync")) == (1, True)
    assert folder.synced() == before


def test_a_sync_continues_after_a_power_loss(folder: Folder) -> None:
    before = folder.episodes()
    script = (
        "import os, sys; from pathlib import Path; from orchestration.warehouse.connection import open_warehouse\n"
        "with open_warehouse(Path(sys.argv[1])) as warehouse:\n"
        '    warehouse.execute("CREATE TABLE sync.something AS SELECT 1 AS a")\n'
        "    os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", script, str(folder.settings.warehouse_path)], check=False)
    wal = folder.path / "warehouse.duckdb.wal"
    wal.write_bytes(wal.read_bytes() + bytes(4096))
    result = folder.run("sync")
    assert result.code == 0, result.text
    assert "warehouse.duckdb.wal was damaged and is now" in result.text
    assert "`recoup sync` reads from Stripe what is missing." in result.text
    assert folder.episodes() == before


@pytest.mark.parametrize("content", [b"", bytes(100_000)], ids=["empty", "zeroed"])
def test_a_damaged_warehouse_is_replaced_by_repair_and_read_again(content: bytes, folder: Folder) -> None:
    before, warehouse = folder.episodes(), folder.settings.warehouse_path
    warehouse.write_bytes(content)
    result = folder.run("sync")
    assert result.code == 1
    assert f"{warehouse} is damaged. `recoup repair` moves it aside" in result.text
    assert folder.episodes() == before, "analysts have their file"
    result = folder.run("repair")
    assert result.code == 0, result.text
    (aside,) = folder.path.glob("warehouse.duckdb.damaged-*")
    assert aside.read_bytes() == content
    assert str(aside) in result.text
    assert folder.synced() == before
    assert "All databases in" in folder.run("repair").text


GARBAGE = b"\x9c\xfe\x07\xb1" * 2_000


def test_repair_moves_all_destroyed_databases_aside_at_once(folder: Folder) -> None:
    """Check files cut within their first bytes and headers overwritten with garbage: one call repairs and names all."""
    before, settings = folder.episodes(), folder.settings
    folder.run("webhooks", "status")
    cut = {settings.warehouse_path: GARBAGE, settings.queue_path: b"SQLite for", settings.published_path: b"\x9c\xfe"}
    history = settings.dagster_home / "history" / "runs.db"
    history.parent.mkdir(parents=True)
    for path, content in {**cut, history: GARBAGE}.items():
        path.write_bytes(content + path.read_bytes()[64:] if path == settings.warehouse_path else content)
    result = folder.run("sync")
    assert (result.code, "`recoup repair` moves it aside" in result.text) == (1, True)
    result = folder.run("repair")
    assert (result.code, result.text.count("was damaged.")) == (0, 4)
    assert folder.synced() == before


def test_a_failed_repair_still_lists_what_was_repaired(folder: Folder) -> None:
    folder.settings.queue_path.write_text("a text that somebody put here\n")
    folder.settings.warehouse_path.write_bytes(b"")
    result = folder.run("repair")
    assert result.code == 1
    assert f"{folder.settings.warehouse_path} was damaged." in result.text
    assert "webhook_queue.sqlite is not a database. Move it elsewhere" in result.text
    assert "All databases" not in result.text


def test_a_folder_in_place_of_a_file_is_named_or_replaced(folder: Folder) -> None:
    """Check the folder that a container creates for a mounted file that does not exist."""
    settings, before = folder.settings, folder.episodes()
    for path in (settings.queue_path, settings.published_path):
        path.unlink(missing_ok=True)
        path.mkdir()
    for command in (["webhooks", "status"], ["repair"]):
        result = folder.run(*command)
        assert (result.code, str(settings.queue_path) in result.text, "folder" in result.text) == (1, True, True)
    settings.queue_path.rmdir()
    assert folder.synced() == before
    settings.published_path.unlink()
    (settings.published_path / "notes").mkdir(parents=True)
    result = folder.run("sync")
    assert result.code == 1
    assert (
        f"{settings.published_path} cannot be used: directory not empty. There is a folder in the place of"
        in result.text
    )


def test_circular_symbolic_links_are_named(folder: Folder, server: SimulatorServer, tmp_path: Path) -> None:
    folder.settings.published_path.unlink()
    folder.settings.published_path.symlink_to("recovery.duckdb")
    (tmp_path / "circle").symlink_to("circle")
    for result in (folder.run("sync"), Folder(tmp_path / "circle", server).run("webhooks", "status")):
        assert result.code == 1
        assert "cannot be used: " in result.text


def test_damage_deep_in_a_file_is_found(folder: Folder) -> None:
    """Check damaged blocks of rows, which opening does not read."""
    before, settings = folder.episodes(), folder.settings
    for path in (settings.warehouse_path, settings.published_path):
        content = bytearray(path.read_bytes())
        for at in range(12_288 + 5_000, len(content), 262_144):
            content[at : at + 64] = bytes(range(64))
        path.write_bytes(content)
    assert folder.run("repair").text.count("was damaged.") == 2
    assert folder.synced() == before


def test_a_damaged_queue_is_replaced_with_the_events_that_can_be_read(folder: Folder) -> None:
    settings = folder.settings
    for number in range(400):
        put_event(settings, number)
    with closing(sqlite3.connect(settings.queue_path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    content = bytearray(settings.queue_path.read_bytes())
    content[len(content) - 8_192 :] = b"\xff" * 8_192
    settings.queue_path.write_bytes(content)
    result = folder.run("repair")
    assert result.code == 0, result.text
    assert "webhook_queue.sqlite was damaged. A new queue holds" in result.text
    (aside,) = folder.path.glob("webhook_queue.sqlite.damaged-*")
    assert aside.read_bytes() == bytes(content)
    with closing(Queue(settings.queue_url)) as queue:
        assert 0 < queue.stats().queued <= 400


@pytest.mark.parametrize("content", [bytes(20_000), b"SQLite format 3\0" + b"\x17" * 20_000], ids=["zeroed", "garbage"])
@pytest.mark.parametrize("name", ["webhook_queue.sqlite", "dagster/history/runs.db"])
def test_a_damaged_sqlite_file_is_named_with_its_remedy(name: str, content: bytes, folder: Folder) -> None:
    path = folder.path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    result = folder.run("webhooks", "status") if name.startswith("webhook") else folder.run("clean")
    assert result.code == 1
    assert "recoup repair" in result.text
    assert folder.run("repair").code == 0
    assert [each.read_bytes() for each in path.parent.glob(f"{path.name}.damaged-*")] == [content]
    assert folder.run("webhooks", "status").code == folder.run("clean").code == 0


def test_a_file_that_is_no_database_is_not_repaired(folder: Folder) -> None:
    for path in (folder.settings.queue_path, folder.settings.warehouse_path):
        path.write_text("a text that somebody put here\n" * 100)
        result = folder.run("repair")
        assert result.code == 1
        assert str(path) in result.text
        path.unlink()
    assert not list(folder.path.glob("*.damaged-*"))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("dbt/target/plan.json", bytes(500)),
        *[(name, text) for name in ("dbt/target/manifest.json", "integrations.toml") for text in DAMAGED_TEXTS],
    ],
)
def test_other_damaged_files_are_created_again_or_named(name: str, content: bytes, folder: Folder) -> None:
    path = folder.path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    result = folder.run("sync")
    assert result.code == 0 or str(path) in result.text


def test_a_full_disk_loses_nothing(folder: Folder) -> None:
    before = folder.episodes()
    largest = max(path.stat().st_size for path in folder.path.rglob("*") if path.is_file())
    (folder.path / "webhook_queue.sqlite").unlink(missing_ok=True)
    folder.settings.published_path.unlink()

    def fill() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest // 4, largest // 4))

    result = folder.run("sync", "--full-refresh", before=fill)
    assert result.code == 1
    assert not list(folder.path.glob("*.damaged-*")), "a full disk is not damage"
    assert folder.synced() == before


def drop_the_right_to_write_everywhere() -> None:
    """Make root subject to permissions, as any other user is."""
    import ctypes

    for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
        ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP


def test_a_read_only_file_is_named_and_not_called_damaged(folder: Folder) -> None:
    wal = folder.path / "warehouse.duckdb.wal"
    folder.settings.warehouse_path.chmod(0o400)
    result = folder.run("sync", before=drop_the_right_to_write_everywhere)
    assert result.code == 1
    assert "ermission denied" in result.text
    assert not list(folder.path.glob("*.damaged-*"))
    assert not wal.exists()


def open_to_others(folder: Path) -> list[str]:
    return [
        str(path.relative_to(folder.parent))
        for path in (folder, *folder.rglob("*"))
        if not path.is_symlink() and path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO)
    ]


def set_the_usual_umask() -> None:
    os.umask(0o022)


def test_only_the_owner_can_open_the_folder_but_results_follow_the_umask(
    server: SimulatorServer, tmp_path: Path
) -> None:
    folder = Folder(tmp_path / "data", server)
    put = tmp_path / "result.csv"
    assert folder.run("demo", "--payments", "50", before=set_the_usual_umask).code == 0
    assert folder.run("dagster-home", before=set_the_usual_umask).code == 0
    assert folder.run("ingest", before=set_the_usual_umask).code == 0
    assert open_to_others(folder.path) == []
    assert folder.run("query", COUNT, "--csv", str(put), before=set_the_usual_umask).code == 0
    assert stat.S_IMODE(put.stat().st_mode) == 0o644


def test_an_older_folder_is_closed_and_a_shared_file_stays_shared(folder: Folder) -> None:
    for path in (folder.path, *folder.path.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    result = folder.run("query", COUNT)
    assert "Other users of this machine could read" in result.text
    assert open_to_others(folder.path) == []
    folder.path.chmod(0o710)
    folder.settings.published_path.chmod(0o640)
    folder.settings.published_path.open("ab").write(b"\0")  # so that it is published again
    folder.synced()
    assert set(open_to_others(folder.path)) == {"data", "data/recovery.duckdb"}
    assert stat.S_IMODE(folder.settings.published_path.stat().st_mode) == 0o640


def test_a_folder_with_other_files_keeps_its_mode(folder: Folder) -> None:
    other = folder.path / "of somebody else"
    other.touch()
    for path in (folder.path, *folder.path.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    folder.run("query", COUNT)
    assert set(open_to_others(folder.path)) == {"data", "data/of somebody else"}
