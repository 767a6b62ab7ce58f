"""Run dbt in this process.

Belongs here: calling dbt, and turning its failures into messages. Does not: the models' SQL (`dbt_project`) and their
Dagster assets (`assets/models.py`).
"""

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from orchestration.base.errors import RecoupError
from orchestration.base.files import url_safe_path

DBT_PROJECT_DIR: Final = Path(__file__).resolve().parents[2] / "dbt_project"

EventCallback = Callable[[Any], None]
"""Called with each of dbt's structured log events."""

TABLES_AND_TESTS: Final = ("--exclude-resource-type", "unit_test", "--exclude-resource-type", "exposure")
"""Options that limit a build to tables and data tests. The project's own test suite runs dbt's unit tests."""

_SHOWN_FAILURES: Final = 8
_LOCK_MESSAGE: Final = "Could not set lock"
"""Part of DuckDB's message if another process has the file open."""
_WRONG_VAR_PREFIX: Final = "The dbt var "
"""Prefix of the message about a wrong var (macro checked_var)."""
_PARSED_SUFFIXES: Final = frozenset({".sql", ".yml", ".yaml", ".csv", ".md"})
"""Suffixes of the project's files that dbt parses."""


@dataclass(frozen=True)
class BuildOptions:
    """The paths and the memory limit of a build.

    Attributes:
        warehouse_path: The DuckDB file of the raw tables and the models.
        target_dir: The folder of dbt's compiled SQL and artifacts, and of the compiled plan.
        log_dir: The folder of dbt's log files.
        memory_limit: The memory limit in DuckDB's notation, such as `3072MiB`.
    """

    warehouse_path: Path
    target_dir: Path
    log_dir: Path
    memory_limit: str


class ModelsFailed(RecoupError):
    """A model or a test failed. The message names it. The published file has not changed."""


class WarehouseLocked(ModelsFailed):
    """Another process opened the warehouse first, so that no table was built."""


def run_dbt_command(options: BuildOptions, arguments: Sequence[str]) -> int:
    """Run a dbt command on the warehouse, print dbt's output, and return its exit code."""
    environment = os.environ | {
        "RECOUP_WAREHOUSE_PATH": _path_for_dbt(options.warehouse_path),
        "RECOUP_BUILD_MEMORY": options.memory_limit,
        "DBT_PROJECT_DIR": str(DBT_PROJECT_DIR),
        "DBT_PROFILES_DIR": str(DBT_PROJECT_DIR),
        "DBT_TARGET_PATH": str(options.target_dir),
        "DBT_LOG_PATH": str(options.log_dir),
    }
    options.warehouse_path.parent.mkdir(parents=True, exist_ok=True)
    dbt = [sys.executable, "-c", "from dbt.cli.main import cli; cli(prog_name='recoup dbt')"]
    return subprocess.run([*dbt, *arguments], env=environment, check=False).returncode


def invoke_dbt(options: BuildOptions, arguments: Sequence[str], callbacks: Sequence[EventCallback] = ()) -> Any:
    """Run a dbt command on the warehouse and return dbt's own result, successful or not.

    The project is parsed once per process, and again after one of its files has changed. Logs go to the data folder. No
    artifacts are written except compiled SQL. Nothing is printed.
    """
    parse, manifest = _parse(options)
    if manifest is None:
        return parse
    return _invoke(options, ["--no-write-json", *arguments], callbacks, manifest=manifest)


def compile_project(options: BuildOptions) -> tuple[Any, Any]:
    """Compile all models and data tests for the plan without the warehouse; return dbt's result and manifest."""
    parse, manifest = _parse(options)
    if manifest is None:
        return parse, None
    arguments = ["--no-write-json", "compile", "--vars", "{is_plan: true}"]
    with _empty_warehouse(options) as beside:
        return _invoke(options, arguments, manifest=manifest, warehouse=beside), manifest


def _parse(options: BuildOptions) -> tuple[Any, Any]:
    """Return dbt's result and manifest; the manifest is None if the project cannot be parsed."""
    global _parsed
    state = (options.warehouse_path.name, _project_files())
    if _parsed is None or _parsed[0] != state:
        with _empty_warehouse(options) as beside:
            parse = _invoke(options, ["--no-write-json", "parse"], warehouse=beside)
        if not parse.success:
            return parse, None
        _parsed = state, parse.result
    # A copy: dbt keeps the SQL of ephemeral models in its manifest, and would use it again in the next command.
    return None, _parsed[1].deepcopy()


@contextmanager
def _empty_warehouse(options: BuildOptions) -> Iterator[Path]:
    """Yield a path where no warehouse exists, with the file name of the real one, since dbt's SQL contains the name."""
    options.target_dir.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=options.target_dir) as beside:
        yield Path(beside) / options.warehouse_path.name


_parsed: tuple[tuple[str, dict[Path, int]], Any] | None = None
"""The warehouse's file name and the project's files at the last parse, and dbt's manifest, which depends on both."""


def _invoke(
    options: BuildOptions,
    arguments: Sequence[str],
    callbacks: Sequence[EventCallback] = (),
    *,
    manifest: Any = None,
    target: Path | None = None,
    warehouse: Path | None = None,
) -> Any:
    from dbt.adapters.duckdb.connections import DuckDBConnectionManager
    from dbt.cli.main import dbtRunner

    where = ["--project-dir", str(DBT_PROJECT_DIR), "--profiles-dir", str(DBT_PROJECT_DIR)]
    quiet = ["--log-level", "none", "--log-level-file", "info", "--log-path", str(options.log_dir)]
    into = ["--target-path", str(target or options.target_dir)]
    options.warehouse_path.parent.mkdir(parents=True, exist_ok=True)
    path = _path_for_dbt(warehouse or options.warehouse_path)
    with _environment(RECOUP_WAREHOUSE_PATH=path, RECOUP_BUILD_MEMORY=options.memory_limit):
        try:
            result = dbtRunner(manifest, list(callbacks)).invoke([*quiet, *arguments, *where, *into])
        finally:
            DuckDBConnectionManager.close_all_connections()  # type: ignore[no-untyped-call]
    if isinstance(result.exception, KeyboardInterrupt):
        raise result.exception
    return result


def _path_for_dbt(warehouse: Path) -> str:
    """Return the path of a warehouse in the form that dbt-duckdb accepts."""
    return str(url_safe_path(warehouse.parent) / warehouse.name)


def build_with_dbt(options: BuildOptions, fingerprint: str, callbacks: Sequence[EventCallback] = ()) -> dict[str, int]:
    """Build and test seeds and models from all raw rows; return the number of nodes of each kind that passed.

    dbt adds the build to the ledger with `fingerprint`. The caller marks it as complete.

    Raises:
        ModelsFailed: a node failed. dbt skipped the nodes that depend on it.
        WarehouseLocked: another process opened the warehouse first.
    """
    arguments = ["build", *TABLES_AND_TESTS, "--full-refresh", "--vars", f"{{fingerprint: '{fingerprint}'}}"]
    result = invoke_dbt(options, arguments, callbacks)
    if is_warehouse_locked(result):
        raise WarehouseLocked(f"Another process opened {options.warehouse_path} first. Run the command again.")
    if not result.success:
        raise ModelsFailed(failure_text(result, options.log_dir))
    nodes: dict[str, int] = {}
    for node in result.result.results:
        kind = str(node.node.resource_type)
        nodes[kind] = nodes.get(kind, 0) + 1
    return nodes


def is_warehouse_locked(result: Any) -> bool:
    """Return whether dbt did nothing because another process had the warehouse open."""
    return _LOCK_MESSAGE in str(result.exception)


def ensure_manifest(options: BuildOptions) -> Path:
    """Return the path of dbt's manifest; parse the project if one of its files is newer.

    Dagster loads its definitions from the manifest.

    Raises:
        ModelsFailed: the project cannot be parsed.
    """
    manifest = options.target_dir / "manifest.json"
    if _is_whole(manifest) and manifest.stat().st_mtime_ns > max(_project_files().values()):
        return manifest
    options.target_dir.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=options.target_dir) as beside:
        result = _invoke(options, ["parse"], target=Path(beside))
        if not result.success:
            raise ModelsFailed(failure_text(result, options.log_dir))
        os.replace(Path(beside) / "manifest.json", manifest)
    return manifest


def _is_whole(manifest: Path) -> bool:
    """Return whether the file exists and is complete. After a power failure it may be empty or contain zeros."""
    content = manifest.read_bytes().strip() if manifest.exists() else b""
    return content.startswith(b"{") and content.endswith(b"}")


def project_fingerprint() -> str:
    """Return the SHA-256 of the project's files, including vars and seeds: a change of any file may change tables."""
    digest = hashlib.sha256()
    for path in sorted(_project_files()):
        digest.update(f"{path.relative_to(DBT_PROJECT_DIR)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _project_files() -> dict[Path, int]:
    """Return the files that dbt parses, with the time of their last change in nanoseconds."""
    files = (
        path for path in DBT_PROJECT_DIR.rglob("*") if path.suffix in _PARSED_SUFFIXES and "target" not in path.parts
    )
    return {path: path.stat().st_mtime_ns for path in files if not _is_for_people(path)}


def _is_for_people(path: Path) -> bool:
    """Return whether dbt does not read the file: the README and the decision log at the project's root."""
    return path.suffix == ".md" and path.parent == DBT_PROJECT_DIR


def failure_text(result: Any, log_dir: Path) -> str:
    """Return a message of at most one screen that names the failed nodes."""
    nodes = getattr(result.result, "results", None) or []
    failed = [node for node in nodes if str(node.status) in ("error", "fail", "runtime error")]
    if not failed:
        return f"dbt could not start: {_reason(result.exception)}"
    lines = [f"{node.node.name}: {_first_line(node.message)}" for node in failed[:_SHOWN_FAILURES]]
    more = [f"… and {len(failed) - _SHOWN_FAILURES} more"] if len(failed) > _SHOWN_FAILURES else []
    where = (
        f"dbt's log: {log_dir / 'dbt.log'}. The published file has not changed.\n"
        "If rows were changed by hand, `recoup dbt build --full-refresh` restores them."
    )
    return "\n".join([f"{len(failed)} of {len(nodes)} dbt nodes failed:", *lines, *more, where])


def _reason(exception: object) -> str:
    """Return dbt's message without the stack of macros. For a wrong var, return only the line that names it."""
    lines = [line.strip() for line in str(exception).splitlines()]
    message = [line for line in lines if line and not line.startswith(("> in macro", "> called by"))]
    return next((line for line in message if line.startswith(_WRONG_VAR_PREFIX)), "\n".join(message))


def _first_line(message: str | None) -> str:
    return " ".join((message or "no message").split())[:300]


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    """Set environment variables while the context is open, since dbt's profile reads only the process's environment."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
