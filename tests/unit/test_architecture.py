"""The structure of the package: which component may import which, and what no file may do."""

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
DAGSTER = {"definitions", "assets", "checks", "jobs", "partitions", "schedules", "sensors", "resources"}
"""Components that may import Dagster: the files at the root, and one folder."""
MAY_IMPORT = {
    "base": set(),
    "config": {"base"},
    "warehouse": {"base"},
    "stripe_api": {"base", "config"},
    "sync": {"base", "stripe_api", "warehouse"},
    "webhooks": {"base", "warehouse"},
    "accounts": {"base", "config", "stripe_api", "webhooks"},
    "pipeline": {"accounts", "base", "stripe_api", "sync", "warehouse", "webhooks"},
    "setup": {"accounts", "base", "config", "pipeline"},
    "web": {"accounts", "base", "config", "report", "setup", "stripe_api", "webhooks"},
    "maintenance": {"base", "warehouse", "webhooks"},
    "report": {"base"},
    "simulator.world": set(),
    "simulator.stripe": {"simulator.world"},
    "simulator.server": {"simulator.stripe", "simulator.world"},
    "simulator": {"simulator.server", "simulator.world"},
}
"""Components, and which others each may import. Dagster and `cli` may import all but the simulator."""
SETTINGS_READERS = {
    "config/settings.py",
    "setup/connections.py",
    "setup/pipeline.py",
    "setup/registry.py",
    "web/app.py",
}
"""Files of engines that may import the settings: those that make values from them, and the start of the web server.

Dagster's files and `cli` may, too. Everything else takes values.
"""
COMMANDS_WITH_SETTINGS = {"cli/app.py", "cli/demo.py", "cli/dev.py", "cli/folder.py", "cli/live.py", "cli/serve.py"}
"""Files of `cli` whose functions may take the settings: they choose the data folder, or start processes with it."""
MADE_BY_SETUP = {
    "AppAuthorization",
    "BuildOptions",
    "Integrations",
    "PipelineInputs",
    "StripeConnections",
    "WebhookEndpoints",
}
"""Classes that only `setup` constructs."""
REPORTED_OTHERWISE = {"NotAnEvent", "InvalidPayload", "SignatureRefused", "Stopped"}
"""Exceptions that never reach a person: the receiver or the sync engine handles them."""


def component(path: Path) -> str:
    """Return the component of a file: its folder, or the file itself at the root. The simulator has several."""
    return _component(["orchestration", *path.relative_to(PACKAGE).with_suffix("").parts])


def _component(names: Sequence[str]) -> str:
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


def components_imported(path: Path) -> set[str]:
    found = {_component(name.split(".")) for name in imported(path) if name.startswith("orchestration.")}
    return found - {component(path)}


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
def test_a_module_imports_only_what_its_component_may(path: Path) -> None:
    if path == PACKAGE / "__init__.py":
        assert not list(imported(path))
        return
    if component(path) in MAY_IMPORT:
        assert components_imported(path) <= MAY_IMPORT[component(path)]
    else:
        assert component(path) in DAGSTER | {"cli"}, "add the component to MAY_IMPORT"
    if component(path) != "cli" and not component(path).startswith("simulator"):
        assert not [name for name in components_imported(path) if name.startswith("simulator")]
    if component(path) not in DAGSTER | {"cli"}:
        assert not [name for name in imported(path) if name.split(".")[0].startswith("dagster")]
    if component(path) not in DAGSTER | {"cli"} and path.relative_to(PACKAGE).as_posix() not in SETTINGS_READERS:
        assert not [name for name in imported(path) if name.startswith("orchestration.config.settings")]


def _takes_settings(node: ast.AST) -> bool:
    """Return whether a function has a parameter for the settings, or a class a field for them."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
        arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        return any(each.arg == "settings" or _is_settings(each.annotation) for each in arguments)
    return isinstance(node, ast.AnnAssign) and _is_settings(node.annotation)


def _is_settings(annotation: ast.expr | None) -> bool:
    return annotation is not None and re.search(r"\bSettings\b", ast.unparse(annotation)) is not None


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_edges_take_the_settings(path: Path) -> None:
    """Check that functions take values, so that a signature shows what is used. `setup` reads the settings."""
    name = path.relative_to(PACKAGE).as_posix()
    if component(path) in DAGSTER or name in SETTINGS_READERS | COMMANDS_WITH_SETTINGS:
        return
    assert [node.lineno for node in ast.walk(ast.parse(path.read_text())) if _takes_settings(node)] == []  # type: ignore[attr-defined]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_accounts_are_loaded_at_edges_only(path: Path) -> None:
    """Check that engines get the registry and the connections as arguments. Only `reload` makes a new registry."""
    calls = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    names = {call.id for call in calls if isinstance(call, ast.Name)}
    if component(path) != "setup" and path != PACKAGE / "accounts" / "registry.py":
        assert names & MADE_BY_SETUP == set()
    if component(path) not in DAGSTER | {"cli", "setup"} and path != PACKAGE / "web" / "app.py":
        assert not [name for name in imported(path) if name.startswith("orchestration.setup")]


def test_only_dagster_files_are_at_the_root() -> None:
    assert {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"} | {"assets"} == DAGSTER


def test_there_are_no_import_cycles() -> None:
    graph = {path: modules_imported(path) - {path} for path in FILES}
    assert list(TopologicalSorter(graph).static_order())


def test_every_public_exception_is_a_recoup_error() -> None:
    """The simulator answers with its own errors over HTTP, as Stripe does."""
    classes = [
        node
        for path in FILES
        if not component(path).startswith("simulator")
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
def test_every_module_has_a_docstring_and_a_specific_name(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert path.stem not in {"utils", "helpers", "common", "misc"}


def test_the_package_docstring_names_every_component() -> None:
    text = (PACKAGE / "__init__.py").read_text(encoding="utf-8")
    names = {component(path).split(".")[0] for path in FILES} - {"__init__"}
    assert [name for name in sorted(names) if name not in text] == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_the_settings_read_the_environment(path: Path) -> None:
    """Exempt are dbt_runner.py, which passes the environment to dbt, and app.py, which asks about the terminal."""
    source = path.read_text(encoding="utf-8")
    assert "os.getenv" not in source
    if path.name not in {"dbt_runner.py", "app.py"}:
        assert "os.environ.get" not in source
        assert "os.environ[" not in source


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_file_calls_a_method_that_duckdb_2_removed(path: Path) -> None:
    """Relations lost fetchone(); cursors lost arrow() and pl()."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Call):
            called = node.value.func
            name = called.attr if isinstance(called, ast.Attribute) else ""
            assert not (name == "sql" and node.attr in {"fetchone", "fetchmany", "execute"})
            assert not (name == "execute" and node.attr in {"arrow", "pl", "fetch_arrow_table", "fetch_record_batch"})


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_file_uses_a_private_name_of_a_library(path: Path) -> None:
    """A private name may change in any release. `os._exit` and the methods of named tuples are documented."""
    source = path.read_text(encoding="utf-8")
    assert not re.findall(r"\b(?:dagster|stripe|duckdb|dbt)\w*\._[a-z]\w*", source)
    assert not [name for name in imported(path) if re.search(r"(^|\.)_[a-z]", name)]
    nodes = list(ast.walk(ast.parse(source)))
    defined = {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)}
    used = {
        ast.unparse(node)
        for node in nodes
        if isinstance(node, ast.Attribute) and re.match(r"_[a-z]", node.attr) and node.attr not in defined
    }
    assert not {name for name in used if not re.match(r"(self|cls)\._\w+$|os\._exit$|.*\._(replace|asdict)$", name)}


@pytest.mark.parametrize("path", [path for path in FILES if component(path) in DAGSTER], ids=lambda path: path.name)
def test_dagster_reaches_the_warehouse_only_by_its_resource(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert "open_warehouse" not in source or path.name == "resources.py"
    assert ".warehouse_path" not in source or path.name == "definitions.py"


def test_dependencies_are_exactly_the_imported_packages() -> None:
    """`pip install recoup` installs only what runs. Dependencies that only other libraries import are named here."""
    project = tomllib.loads((PROJECT_ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = {re.split(r"[^\w-]", each)[0] for each in project["dependencies"]}
    providers = packages_distributions()
    used: set[str] = set()
    for path in FILES:
        for module in {name.split(".")[0] for name in imported(path)} - {"orchestration"} - sys.stdlib_module_names:
            names = {re.sub(r"[_.]", "-", each).lower() for each in providers[module]}
            assert names & declared, f"{path} imports {module}, which is not a dependency"
            used |= names
    assert declared - used == {"httptools", "pyobsplot", "pytz", "uvloop"}, "libraries import these, or a file is read"


def test_pyproject_has_no_section_that_makes_dagster_ignore_workspace_yaml() -> None:
    project = tomllib.loads((PROJECT_ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert not {"dagster", "dg"} & set(project["tool"])
