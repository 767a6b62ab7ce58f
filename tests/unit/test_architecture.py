"""The house as its map says it is: who may import whom, and what no file of it does."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from orchestration.config.settings import PROJECT_ROOT

PACKAGE = PROJECT_ROOT / "orchestration"
FILES = sorted(PACKAGE.rglob("*.py"))
ENGINES = {"stripe_api", "sync", "warehouse", "webhooks", "simulator"}
MAY_IMPORT = {
    "errors": set(),
    "lenient_json": set(),
    "stripe_api": {"credentials", "lenient_json"},
    "warehouse": {"lenient_json"},
    "sync": {"stripe_api", "warehouse"},
    "webhooks": {"lenient_json", "warehouse"},
    "simulator": set(),
    "pipeline": {"app_tokens", "integrations", "settings", "stripe_api", "sync", "warehouse", "webhooks"},
    "integrations": {"credentials", "secret_files", "settings", "webhooks"},
    "app_tokens": {"integrations", "secret_files", "settings", "stripe_api"},
    "app_connect": {"app_tokens", "integrations", "pipeline", "secret_files", "settings", "stripe_api"},
    "app_page": {"app_connect", "app_tokens", "integrations", "settings", "stripe_api"},
    "secret_files": set(),
    "history": {"settings", "warehouse"},
    "repair": {"history", "settings", "warehouse", "webhooks"},
    "settings": {"credentials"},
    "credentials": set(),
}
"""Rooms whose imports of other rooms are limited. All may import `errors`. `cli` alone, and the tests, may import the
simulator."""
REPORTED_OTHERWISE = {"NotAnEvent", "Rejected", "SignatureRefused", "Stopped"}
"""Exceptions that never reach a person: the receiver or the sync engine handles them."""


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            assert node.module is not None
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def rooms_imported(path: Path) -> set[str]:
    inside = {name.split(".")[1] for name in imported(path) if name.startswith("orchestration.")}
    return inside - {room(path)}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_only_what_its_room_may(path: Path) -> None:
    if room(path) in MAY_IMPORT:
        assert rooms_imported(path) <= MAY_IMPORT[room(path)] | {"errors"}
    if room(path) != "cli":
        assert "simulator" not in rooms_imported(path)
    if room(path) in ENGINES:
        assert not [name for name in imported(path) if name.split(".")[0].startswith("dagster")]


def test_every_public_exception_is_a_recoup_error() -> None:
    """The simulator answers with its own errors over HTTP, as Stripe does."""
    classes = [
        node
        for path in FILES
        if room(path) != "simulator"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    ]
    bases = {node.name: {base.id for base in node.bases if isinstance(base, ast.Name)} for node in classes}
    expected, added = {"RecoupError"}, {"RecoupError"}
    while added:
        added = {name for name, names in bases.items() if names & expected} - expected
        expected |= added
    raised = {name for name, names in bases.items() if names & {"Exception", "ValueError", "RuntimeError"}}
    assert {"StripeApiError", "SecretRefused", "WarehouseBusy", "NotSaved"} <= expected
    assert raised - expected == REPORTED_OTHERWISE


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_says_what_it_is_for(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert path.stem not in {"utils", "helpers", "common", "misc"}


def test_the_map_names_every_room() -> None:
    text = (PACKAGE / "__init__.py").read_text(encoding="utf-8")
    assert [name for name in sorted({room(path) for path in FILES} - {"__init__"}) if name not in text] == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_the_settings_read_the_environment(path: Path) -> None:
    """The whole environment for a child process, dbt's own variable for it, and the terminal are no settings."""
    source = path.read_text(encoding="utf-8")
    assert "os.getenv" not in source
    if path.name not in {"dbt_runner.py", "app.py"}:
        assert "os.environ.get" not in source
        assert "os.environ[" not in source


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_is_asked_of_duckdb_that_its_version_2_refuses(path: Path) -> None:
    """A relation has no fetchone() any more, and a cursor no arrow() or pl()."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Call):
            called = node.value.func
            name = called.attr if isinstance(called, ast.Attribute) else ""
            assert not (name == "sql" and node.attr in {"fetchone", "fetchmany", "execute"})
            assert not (name == "execute" and node.attr in {"arrow", "pl", "fetch_arrow_table", "fetch_record_batch"})


def test_every_package_that_is_imported_is_a_dependency_and_no_tool_is() -> None:
    """`pip install recoup` brings what runs and nothing else; what only a process needs is named here."""
    project = tomllib.loads((PROJECT_ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = {re.split(r"[^\w-]", each)[0] for each in project["dependencies"]}
    providers = packages_distributions()
    used: set[str] = set()
    for path in FILES:
        for module in {name.split(".")[0] for name in imported(path)} - {"orchestration"} - sys.stdlib_module_names:
            names = {re.sub(r"[_.]", "-", each).lower() for each in providers[module]}
            assert names & declared, f"{path} imports {module}, which is no dependency"
            used |= names
    assert declared - used == {"httptools", "pytz", "uvloop"}, "run or imported by libraries"


def test_dagster_is_not_led_past_workspace_yaml() -> None:
    project = tomllib.loads((PROJECT_ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert not {"dagster", "dg"} & set(project["tool"])


def test_definitions_load_in_a_fresh_interpreter_without_a_key(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from orchestration.definitions import defs; print(len(defs.resolve_all_job_defs()))"],
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "RECOUP_DATA_DIR": str(tmp_path / "data")},
        cwd=PROJECT_ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 2
