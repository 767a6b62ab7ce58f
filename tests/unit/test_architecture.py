"""The house as its map says it is: who may import whom, and what no file of it does."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator, Sequence
from graphlib import TopologicalSorter
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from orchestration.config.settings import PROJECT_ROOT

PACKAGE = PROJECT_ROOT / "orchestration"
FILES = sorted(PACKAGE.rglob("*.py"))
DAGSTER = {"definitions", "assets", "checks", "jobs", "schedules", "sensors", "resources"}
"""What may import Dagster: the files at the root, and one folder."""
MAY_IMPORT = {
    "base": set(),
    "config": {"base"},
    "warehouse": {"base"},
    "stripe_api": {"base", "config"},
    "sync": {"base", "stripe_api", "warehouse"},
    "webhooks": {"base", "warehouse"},
    "accounts": {"base", "config", "stripe_api", "webhooks"},
    "pipeline": {"accounts", "base", "config", "stripe_api", "sync", "warehouse", "webhooks"},
    "web": {"accounts", "base", "config", "stripe_api", "webhooks"},
    "maintenance": {"base", "config", "warehouse", "webhooks"},
    "simulator.world": set(),
    "simulator.stripe": {"simulator.world"},
    "simulator.server": {"simulator.stripe", "simulator.world"},
    "simulator": {"simulator.server", "simulator.world"},
}
"""Rooms, and which others each may import. Dagster and `cli` may import all but the simulator."""
SETTINGS_READERS = {"accounts", "pipeline", "web", "maintenance", "config"}
"""Engines that may import the settings; the others take values."""
REPORTED_OTHERWISE = {"NotAnEvent", "InvalidPayload", "SignatureRefused", "Stopped"}
"""Exceptions that never reach a person: the receiver or the sync engine handles them."""


def room(path: Path) -> str:
    """Return the room of a file: its folder, or itself at the root; the simulator's folders are rooms of their own."""
    return _room(["orchestration", *path.relative_to(PACKAGE).with_suffix("").parts])


def _room(names: Sequence[str]) -> str:
    if names[1] == "simulator" and len(names) > 2 and (PACKAGE / "simulator" / names[2]).is_dir():
        return ".".join(names[1:3])
    return names[1]


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            assert node.module is not None
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def rooms_imported(path: Path) -> set[str]:
    inside = {_room(name.split(".")) for name in imported(path) if name.startswith("orchestration.")}
    return inside - {room(path)}


def modules_imported(path: Path) -> set[Path]:
    """Return the files of the project that a file imports."""
    found = set()
    for name in imported(path):
        parts = name.split(".")
        for end in (len(parts), len(parts) - 1):
            module = PROJECT_ROOT.joinpath(*parts[:end])
            if parts[0] == "orchestration" and module.with_suffix(".py").is_file():
                found.add(module.with_suffix(".py"))
            elif parts[0] == "orchestration" and end == len(parts) and (module / "__init__.py").is_file():
                found.add(module / "__init__.py")
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_only_what_its_room_may(path: Path) -> None:
    if path == PACKAGE / "__init__.py":
        assert not list(imported(path))
        return
    if room(path) in MAY_IMPORT:
        assert rooms_imported(path) <= MAY_IMPORT[room(path)]
    else:
        assert room(path) in DAGSTER | {"cli"}, "a room that the map does not have"
    if room(path) != "cli" and not room(path).startswith("simulator"):
        assert not [name for name in rooms_imported(path) if name.startswith("simulator")]
    if room(path) not in DAGSTER | {"cli"}:
        assert not [name for name in imported(path) if name.split(".")[0].startswith("dagster")]
    if room(path) not in SETTINGS_READERS | DAGSTER | {"cli"}:
        assert not [name for name in imported(path) if name.startswith("orchestration.config.settings")]


def test_a_file_at_the_root_is_dagster() -> None:
    assert {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"} | {"assets"} == DAGSTER


def test_no_module_imports_itself_through_others() -> None:
    graph = {path: modules_imported(path) - {path} for path in FILES}
    assert list(TopologicalSorter(graph).static_order())


def test_every_public_exception_is_a_recoup_error() -> None:
    """The simulator answers with its own errors over HTTP, as Stripe does."""
    classes = [
        node
        for path in FILES
        if not room(path).startswith("simulator")
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
    names = {room(path).split(".")[0] for path in FILES} - {"__init__"}
    assert [name for name in sorted(names) if name not in text] == []


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
