"""Compare each command's screen in a terminal of 80 columns with screens.txt.

After an intended change, `make screens` writes the file again. Read its difference before you commit it.
"""

import os
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from orchestration.simulator import SimulatedAccount, SimulatorServer
from tests.integration.connect.conftest import ELSEWHERE, EXPIRED, GOOD, KEYS, LACKING, REVOKED, UNKNOWN
from tests.support.built_folder import BuiltFolder
from tests.support.leaks import find_leaks
from tests.support.run_command import CommandResult, run_recoup

SCREENS = Path(__file__).parent / "screens.txt"
IS_WRITTEN = os.environ.get("RECOUP_WRITE_SCREENS") == "1"

HELP = (
    "",
    *("connect", "check", "sync", "ingest", "demo", "dev", "serve", "receive", "query", "report", "clean", "repair"),
    *("dagster-home", "integrations", "webhooks"),
    *(f"integrations {each}" for each in ("list", "show", "discover", "set-key", "rename", "remove")),
    *(f"webhooks {each}" for each in ("enable", "secret", "test", "status", "requeue")),
)
"""Commands whose help is shown. The help of `recoup dbt` is dbt's own."""

COMMANDS: tuple[tuple[str, str], ...] = (
    ("sync", ""),
    ("integrations list", ""),
    ("connect --name shop", "not a key"),
    ("connect --name shop", UNKNOWN),
    ("connect --name shop", EXPIRED),
    ("connect --name shop", REVOKED),
    ("connect --name shop", ELSEWHERE),
    ("connect --name shop", "pk_test_51QzXwVuKpRmNhGqTb7publ"),
    ("connect --name shop", "whsec_51QzXwVuKpRmNhGqTb7sign"),
    ("connect --name shop", "acct_1QzXwVuKpRmNhGqTb7acct"),
    ("connect --name lacking", LACKING),
    ("connect --name shop", GOOD),
    ("query 'select 1'", ""),
    ("check", ""),
    ("sync", ""),
    ("sync", ""),
    ("query 'show tables'", ""),
    ("query 'from marts.link_audit select topic, subject, counted order by all limit 3'", ""),
    ("query 'select nothing'", ""),
    ("webhooks enable shop", ""),
    ("webhooks status", ""),
    ("webhooks requeue", ""),
    ("webhooks test", ""),
    ("ingest", ""),
    ("integrations show shop", ""),
    ("integrations discover shop", ""),
    ("integrations rename shop store", ""),
    ("integrations set-key store", GOOD),
    ("integrations list", ""),
    ("clean", ""),
    ("repair", ""),
    ("dagster-home", ""),
    ("integrations remove store", "yes\n"),
    ("nosuch", ""),
    ("sync --created-from yesterday", ""),
)
"""Commands in the order in which they are run on one data folder, with what is piped into each."""


@pytest.fixture
def server() -> Iterator[SimulatorServer]:
    with SimulatorServer(SimulatedAccount(seed=34, payments=200, days=45), keys=KEYS) as running:
        yield running


@pytest.fixture
def folder() -> Iterator[Path]:
    """Return a data folder whose path has always the same length, since screens wrap after it."""
    with TemporaryDirectory(prefix="recoup-", dir="/tmp") as folder:
        yield Path(folder, "data")


def hide_what_varies(text: str, server: SimulatorServer, folder: Path) -> str:
    """Replace paths, addresses, tokens and times by names."""
    for found, name in ((str(folder), "DATA"), (server.url, "STRIPE"), (f"{Path(sys.executable).parent}/", "")):
        text = text.replace(found, name)
    text = re.sub(r"/webhooks/stripe/[\w-]{20,}", "/webhooks/stripe/TOKEN", text)
    text = re.sub(r"\b\d+(\.\d+)? s\b", "N s", text)
    text = re.sub(r"\S*bin/recoup ", "recoup ", text)  # where the shell does not find it
    return re.sub(r"\b20\d\d-\d\d-\d\d \d\d:\d\d(:\d\d)?( UTC)?", "YYYY-MM-DD hh:mm", text)


def show(command: str, result: CommandResult) -> str:
    code = f"exit code {result.code}\n" if result.code else ""
    return f"$ recoup {command}".rstrip() + f"\n{result.screen.strip(chr(10))}\n{code}"


def test_every_screen_is_the_one_in_the_file(server: SimulatorServer, built_folder: BuiltFolder, folder: Path) -> None:
    built_folder.copy(folder)
    folder.chmod(0o700)
    variables = {"STRIPE_API_BASE": server.url, "RECOUP_DATA_DIR": str(folder)}
    screens = [show(f"{each} --help".strip(), run_recoup(*each.split(), "--help")) for each in HELP]
    for command, typed in COMMANDS:
        screens.append(show(command, run_recoup(*shlex.split(command), typed=typed, **variables)))
    assert find_leaks(folder, except_for={folder / "secrets"}) == {}
    found = hide_what_varies("\n".join(screens), server, folder)
    if IS_WRITTEN:
        SCREENS.write_text(found, encoding="utf-8")
    assert found.splitlines() == SCREENS.read_text(encoding="utf-8").splitlines(), "make screens writes them again"
