"""The compiled plan of the dbt project: its SQL, its graph and its tests, for builds without dbt.

dbt is the only source of the SQL. It compiles each state of the project once (var is_plan), without the warehouse. The
plan is stored in a file and is valid until the project, this module, or a version of dbt or DuckDB changes.
"""

import hashlib
from dataclasses import asdict, dataclass
from graphlib import TopologicalSorter
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import orjson

from orchestration.base.files import replace_file
from orchestration.pipeline.dbt_runner import (
    DBT_PROJECT_DIR,
    BuildOptions,
    ModelsFailed,
    compile_project,
    failure_text,
    project_fingerprint,
)

_COMPILERS: Final = ("dbt-core", "dbt-adapters", "dbt-duckdb", "duckdb")
_PROFILE: Final = "profiles.yml"


@dataclass(frozen=True)
class PlannedModel:
    """A model and how to build it.

    `parents` are dbt's ids. `measured` names timestamp columns. For each of them, later models read the oldest value
    among the new rows of this model. `tombstone` is a condition: a new row that meets it deletes the rows of its key,
    and is not inserted.
    """

    id: str
    schema: str
    name: str
    materialized: str
    strategy: str | None
    unique_key: tuple[str, ...]
    tombstone: str | None
    measured: tuple[str, ...]
    parents: tuple[str, ...]
    sql: str


@dataclass(frozen=True)
class PlannedTest:
    """A data test. `query` returns one row: the number of failures, whether it warns, whether it fails."""

    id: str
    name: str
    is_blocking: bool
    parents: tuple[str, ...]
    query: str


@dataclass(frozen=True)
class Plan:
    """All models in the order of the graph, and all data tests.

    `fingerprint` identifies the project's files. `key` identifies the files and the versions that compiled them.
    `sources` maps dbt's ids to schema and name of raw tables and seeds. `settings` are the DuckDB settings of dbt's
    profile.
    """

    key: str
    fingerprint: str
    settings: dict[str, str]
    sources: dict[str, tuple[str, str]]
    models: tuple[PlannedModel, ...]
    tests: tuple[PlannedTest, ...]


def load_plan(options: BuildOptions) -> Plan:
    """Return the plan of the current project; compile it if no current plan is stored.

    Raises:
        ModelsFailed: the project cannot be compiled.
    """
    plan = stored_plan(options)
    if plan is None:
        plan = _compile(options, project_fingerprint())
        _write(_path(options.target_dir), plan)
    return plan


def stored_plan(options: BuildOptions) -> Plan | None:
    """Return the stored plan if it is current, else None."""
    plan = _read(_path(options.target_dir))
    key = _key(project_fingerprint(), options.warehouse_path.name)
    return plan if plan is not None and plan.key == key else None


def _path(target_dir: Path) -> Path:
    return target_dir / "plan.json"


def _key(fingerprint: str, database: str) -> str:
    """Return a hash of everything that the plan depends on.

    These are the project, the compiling versions, this file, and the warehouse's file name, which is in the SQL.
    """
    versions = [f"{name} {metadata.version(name)}" for name in _COMPILERS]
    parts = [fingerprint, *versions, database, Path(__file__).read_text(encoding="utf-8")]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _read(path: Path) -> Plan | None:
    """Return the plan stored in a file, or None if the file is missing or not readable by this version."""
    try:
        stored = orjson.loads(path.read_bytes())
        return Plan(
            stored["key"],
            stored["fingerprint"],
            stored["settings"],
            {name: (schema, table) for name, (schema, table) in stored["sources"].items()},
            tuple(PlannedModel(**{name: _tuple(value) for name, value in each.items()}) for each in stored["models"]),
            tuple(PlannedTest(**{name: _tuple(value) for name, value in each.items()}) for each in stored["tests"]),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _write(path: Path, plan: Plan) -> None:
    replace_file(path, orjson.dumps(asdict(plan)))


def _compile(options: BuildOptions, fingerprint: str) -> Plan:
    result, manifest = compile_project(options)
    if not result.success:
        raise ModelsFailed(failure_text(result, options.log_dir))
    results = [each.node for each in result.result.results]
    nodes = {node.unique_id: node for node in results if _is_planned(node)}
    parents = {name: _parents(node, manifest) for name, node in nodes.items()}
    order = TopologicalSorter(parents).static_order()
    compiled = [nodes[name] for name in order if name in nodes]
    return Plan(
        _key(fingerprint, options.warehouse_path.name),
        fingerprint,
        _duckdb_settings(),
        {name: (source.schema, source.identifier) for name, source in manifest.sources.items()}
        | {name: (node.schema, node.alias) for name, node in manifest.nodes.items() if node.resource_type == "seed"},
        tuple(_model(node, parents[node.unique_id]) for node in compiled if node.resource_type == "model"),
        tuple(_test(node, parents[node.unique_id]) for node in compiled if node.resource_type == "test"),
    )


def _is_planned(node: Any) -> bool:
    return bool(
        node.resource_type == "test" or (node.resource_type == "model" and node.config.materialized != "ephemeral")
    )


def _parents(node: Any, manifest: Any) -> tuple[str, ...]:
    """Return the nodes that the node reads. The SQL of an ephemeral model is part of its children, with its parents."""
    parents: dict[str, None] = {}
    for name in node.depends_on.nodes:
        parent = manifest.nodes.get(name)
        is_ephemeral = parent is not None and parent.config.materialized == "ephemeral"
        parents |= dict.fromkeys(_parents(parent, manifest) if is_ephemeral else (name,))
    return tuple(parents)


def _model(node: Any, parents: tuple[str, ...]) -> PlannedModel:
    config, key = node.config, node.config.unique_key or ()
    return PlannedModel(
        id=node.unique_id,
        schema=node.schema,
        name=node.alias,
        materialized=config.materialized,
        strategy=config.incremental_strategy if config.materialized == "incremental" else None,
        unique_key=(key,) if isinstance(key, str) else tuple(key),
        tombstone=config.meta.get("tombstone"),
        measured=tuple(config.meta.get("measured", ())),
        parents=parents,
        sql=node.compiled_code,
    )


def _test(node: Any, parents: tuple[str, ...]) -> PlannedTest:
    """Build the test's query as dbt does (dbt-core: macro get_test_sql)."""
    config = node.config
    limit = f"limit {config.limit}" if config.limit else ""
    return PlannedTest(
        id=node.unique_id,
        name=node.name,
        is_blocking=config.severity.upper() == "ERROR",
        parents=parents,
        query=f"""select {config.fail_calc}, {config.fail_calc} {config.warn_if}, {config.fail_calc} {config.error_if}
from (
{node.compiled_code}
{limit}
) as failures""",
    )


def _duckdb_settings() -> dict[str, str]:
    """Return the DuckDB settings of dbt's profile except the memory limit, which depends on the machine."""
    import yaml  # type: ignore[import-untyped]

    profiles = yaml.safe_load((DBT_PROJECT_DIR / _PROFILE).read_text(encoding="utf-8"))
    target = profiles["recoup"]["outputs"][profiles["recoup"]["target"]]
    return {name: str(value) for name, value in target.get("settings", {}).items() if name != "memory_limit"}
