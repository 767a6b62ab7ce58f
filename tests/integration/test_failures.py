"""Failures as a user sees them: an exit code, few lines, no traceback and no key, whatever is wrong."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from orchestration.config.settings import PROJECT_ROOT, Settings
from orchestration.setup.registry import make_integrations
from tests.support.processes import RECOUP
from tests.support.run_command import CommandResult, run_recoup

ONE_SCREEN = 24
BODY = "51QzXwVuKpRmNhGqTb7"
KEY = f"rk_test_{BODY}"
PLAIN = [name for name, field in Settings.model_fields.items() if "SecretStr" not in str(field.annotation)]


def assert_one_sentence(result: CommandResult, code: int = 1) -> None:
    """Check what every failure must have."""
    assert result.code == code, result.screen
    assert 0 < len(result.screen.splitlines()) <= ONE_SCREEN
    assert "Traceback" not in result.screen
    assert BODY not in result.screen


@pytest.mark.parametrize("key", [KEY, f" 'SK_LIVE_{BODY}' ", f"key: whsec_{BODY}", f"rk_live_51Qz\n  XwVuKpRm{BODY}"])
@pytest.mark.parametrize(
    "command",
    [
        ["connect", "--name", "{}"],
        ["connect", "--name", "shop", "--description", "{}"],
        ["connect", "--name", "shop", "--connected", "{}"],
        ["connect", "--name", "shop", "--account-id", "{}"],
        ["connect", "--app", "--name", "shop", "--description", "{}"],
        ["connect", "{}"],
        ["check", "{}"],
        ["sync", "{}"],
        ["query", "{}"],
        ["query", "select 1", "--csv", "{}"],
        ["integrations", "rename", "shop", "{}"],
        ["integrations", "set-key", "shop", "{}"],
        ["webhooks", "secret", "shop", "{}"],
        ["--key={}"],
    ],
    ids=" ".join,
)
def test_a_key_in_an_argument_is_refused_and_stored_nowhere(command: list[str], key: str, tmp_path: Path) -> None:
    result = run_recoup(*(each.format(key) for each in command), typed=KEY, RECOUP_DATA_DIR=str(tmp_path / "data"))
    assert_one_sentence(result, 2)
    assert "Roll it" in result.text
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("name", PLAIN)
def test_a_key_in_a_setting_that_is_shown_is_refused(name: str, tmp_path: Path) -> None:
    result = run_recoup("integrations", "list", **{"RECOUP_DATA_DIR": str(tmp_path), name.upper(): KEY})
    assert_one_sentence(result)
    assert name.upper() in result.text


def test_a_key_stored_in_a_description_is_not_listed(tmp_path: Path, holding_secrets: set[Path]) -> None:
    holding_secrets.add(tmp_path / "integrations.toml")
    (tmp_path / "integrations.toml").write_text(f'[shop]\ndescription = "ours {KEY}"\n')
    for command in (("list",), ("show", "shop")):
        result = run_recoup("integrations", *command, RECOUP_DATA_DIR=str(tmp_path))
        assert (result.code, BODY in result.screen, "ours (a key, not shown: roll it)" in result.text) == (
            0,
            False,
            True,
        )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("RECOUP_QUEUE_URL", f"postgresql://user@{place}") for place in ("host:abc/db", "[::1/db", "host:99999/db")),
        *((name, "http://[::1") for name in ("STRIPE_API_BASE", "RECOUP_WEBHOOK_BASE_URL", "STRIPE_APP_CLIENT_ID")),
        *((name, "x" * 5_000) for name in ("RECOUP_DATA_DIR", "RECOUP_SECRETS_DIR", "RECOUP_WEBHOOK_EVENTS")),
        *((name, "nan") for name in ("RECOUP_READ_SHARE", "RECOUP_QUEUE_DAYS", "RECOUP_HISTORY_DAYS")),
        *((name, "often") for name in ("RECOUP_SYNC_CRON", "RECOUP_READ_SHARE", "RECOUP_QUEUE_DAYS")),
        ("RECOUP_WEBHOOK_EVENTS", "\udc80"),
        ("STRIPE_API_KEYS", "[]"),
        ("STRIPE_WEBHOOK_SECRETS", "{"),
    ],
)
def test_an_invalid_setting_is_one_sentence(name: str, value: str, tmp_path: Path) -> None:
    assert_one_sentence(run_recoup("integrations", "list", **{"RECOUP_DATA_DIR": str(tmp_path), name: value}))


COMMANDS = [
    ["demo", "--payments", "50"],
    ["dagster-home"],
    ["dbt", "ls"],
    ["ingest"],
    ["webhooks", "enable"],
    ["webhooks", "status"],
    ["dev"],
    ["serve"],
    ["receive"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("folder", ["/proc/nosuch/data", "/dev/null"])
def test_a_data_folder_that_cannot_be_created_is_one_sentence(folder: str, command: list[str]) -> None:
    result = run_recoup(*command, RECOUP_DATA_DIR=folder)
    assert_one_sentence(result)
    assert folder.removesuffix("/data") in result.text


DEMO_STATE = '{"seed": 1, "payments": 5, "now": 0}'


def test_a_damaged_demo_state_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "demo").mkdir()
    clocks = ("null", "-5", "1e400", "9" * 20, '"17"', "true")
    shops = (f'{{"seed": 1, "payments": 5, "now": 2000000000, "shop": {shop}}}' for shop in ('"nosuch"', "null", "[]"))
    texts = ("{", "[]", '{"seed": 1}', "[" * 9_999, *(DEMO_STATE.replace("0", clock) for clock in clocks), *shops)
    for text in texts:
        (tmp_path / "demo" / "simulator.json").write_text(text)
        result = run_recoup("demo", "--payments", "50", RECOUP_DATA_DIR=str(tmp_path))
        assert_one_sentence(result)
        assert "Delete the demo's folder" in result.text


def test_an_integration_whose_secrets_cannot_be_copied_is_not_renamed(tmp_path: Path) -> None:
    (tmp_path / "integrations.toml").write_text("[shop]\n")
    (tmp_path / "secrets" / "shop").mkdir(parents=True)
    os.mkfifo(tmp_path / "secrets" / "shop" / "pipe")
    result = run_recoup("integrations", "rename", "shop", "store", RECOUP_DATA_DIR=str(tmp_path))
    assert_one_sentence(result)
    assert re.search(r"cannot be copied: [^\[\]()]*named pipe", result.text)
    assert [each.name for each in make_integrations(Settings(recoup_data_dir=tmp_path)).all()] == ["shop"]


def test_removing_the_integration_of_the_variable_is_refused_without_a_question(tmp_path: Path) -> None:
    result = run_recoup(
        "integrations", "remove", "default", typed="y\n", RECOUP_DATA_DIR=str(tmp_path), STRIPE_API_KEY=KEY
    )
    assert_one_sentence(result)
    assert result.text == "`default` is the integration of STRIPE_API_KEY: change the variable instead."


def run(command: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[bytes]:
    """Run a line of bash in which `recoup` is the command."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("STRIPE_", "RECOUP_"))}
    environment = own | {"RECOUP_DATA_DIR": str(folder), "COLUMNS": "80"} | variables
    script = f'recoup() {{ "{RECOUP[0]}" {RECOUP[1]} "{RECOUP[2]}" "$@"; }}\n{command}'
    return subprocess.run(["bash", "-c", script], env=environment, capture_output=True, check=False, timeout=120)


@pytest.mark.parametrize(
    ("command", "variables", "code"),
    [
        ("recoup check", {"PYTHONIOENCODING": "ascii"}, 1),
        ("recoup check", {"PYTHONIOENCODING": "iso-8859-1"}, 1),
        ("recoup check", {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, 1),
        ("recoup nosuch", {"PYTHONIOENCODING": "ascii", "TERM": "dumb", "NO_COLOR": "1"}, 2),
        ("recoup sync --nosuch", {"COLUMNS": "40"}, 2),
        ("set -o pipefail; recoup integrations list | grep 'No account'", {"COLUMNS": "0"}, 0),
        ("set -o pipefail; recoup --help | tail -9", {"PYTHONIOENCODING": "ascii"}, 0),
        ("set -o pipefail; recoup --help | tail -9", {"PYTHONIOENCODING": "iso-8859-1"}, 0),
        ("recoup --help | head -1", {}, 0),
        ("recoup clean | true", {}, 0),
        ("recoup check >&-", {}, 1),
        ("recoup check 2>&-", {}, 1),
        ("recoup clean >&-", {}, 0),
        ("recoup clean >/dev/full", {}, 1),
        ("recoup connect <&-", {}, 1),
        ("recoup webhooks secret <&-", {}, 1),
        ("recoup integrations remove nosuch <&-", {}, 1),
    ],
)
def test_a_limited_terminal_causes_no_traceback(
    command: str, variables: dict[str, str], code: int, tmp_path: Path
) -> None:
    done = run(command, tmp_path, **variables)
    result = (done.stdout + done.stderr).decode("utf-8", "replace")
    assert done.returncode == code, result
    assert "Traceback" not in result
    assert "Error" not in result.replace("─ Error ─", "").replace("- Error -", "")
    assert len(result.splitlines()) <= ONE_SCREEN


KEPT = {
    "README.md",
    "secrets/shop/api_key",
    "integrations.toml",
    "webhook_queue.sqlite",
    "webhook_queue.sqlite-wal",
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a copy of the Makefile beside a data folder with every kind of file."""
    shutil.copy(PROJECT_ROOT / "Makefile", tmp_path)
    for name in ("secrets/shop/api_key", "demo/warehouse.duckdb", "dagster/history/runs.db", "dbt/target/plan.json"):
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name).write_text("x")
    for name in [
        "README.md",
        "integrations.toml",
        "webhook_queue.sqlite",
        "webhook_queue.sqlite-wal",
        "recovery.duckdb",
        "warehouse.duckdb",
        ".warehouse.duckdb.lock",
    ]:
        (tmp_path / "data" / name).write_text("x")
    return tmp_path


def make(project: Path, target: str, typed: str = "") -> tuple[int, str, set[str]]:
    done = subprocess.run(["make", target], cwd=project, input=typed, capture_output=True, text=True, check=False)
    left = {str(each.relative_to(project / "data")) for each in project.glob("data/**/*") if each.is_file()}
    return done.returncode, done.stdout, left


def test_make_clean_keeps_data_that_stripe_no_longer_has_and_says_so(project: Path) -> None:
    code, result, left = make(project, "clean")
    assert (code, left) == (0, KEPT)
    for kept in ("secrets", "integrations.toml", "webhook_queue.sqlite"):
        assert f"Kept: data/{kept}\n" in result
    assert api_key_of(project) == "x"


def api_key_of(project: Path) -> str:
    return (project / "data" / "secrets" / "shop" / "api_key").read_text()


@pytest.mark.parametrize("typed", ["", "no\n", "y\n", "YES please\n"])
def test_everything_is_deleted_only_after_confirmation(typed: str, project: Path) -> None:
    code, result, left = make(project, "cleanall", typed)
    assert code != 0
    assert "Nothing was deleted." in result
    assert left > KEPT
    code, result, left = make(project, "cleanall", "yes\n")
    assert (code, left) == (0, {"README.md"})
