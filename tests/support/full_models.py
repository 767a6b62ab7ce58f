"""Build all models from all raw rows without dbt, to compare with tables that were built in parts.

`dbt run --full-refresh` takes ten CPU seconds. This runs the SQL that dbt compiles for it, which takes one.
`test_models.py` checks that both give the same tables.
"""

import fcntl
import shutil
from collections.abc import Sequence
from pathlib import Path

import orjson

from orchestration.config.settings import Settings
from orchestration.pipeline import dbt_runner, plan
from orchestration.setup.pipeline import make_build_options
from orchestration.warehouse.connection import open_warehouse
from tests.support.truth import Rows, read_rows

FullModels = Sequence[tuple[str, str]]
"""Each model's table with the SQL that builds all of it, in the order of the graph."""


def load_full_models(settings: Settings) -> FullModels:
    """Return the full SQL of each model. It is compiled by dbt once for all workers, beside their shared plan."""
    options = make_build_options(settings)
    planned = plan.load_plan(options)
    path = plan._path(options.target_dir).with_name("full_models.json")
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        kept = orjson.loads(path.read_bytes()) if path.exists() else {}
        if kept.get("key") != planned.key:
            kept = {"key": planned.key, "models": _compile(options, planned)}
            path.write_bytes(orjson.dumps(kept))
    return [(table, sql) for table, sql in kept["models"]]


def _compile(options: dbt_runner.BuildOptions, planned: plan.Plan) -> FullModels:
    _, manifest = dbt_runner._parse(options)
    with dbt_runner._empty_warehouse(options) as beside:
        arguments = ["--no-write-json", "compile", "--select", "resource_type:model"]
        result = dbt_runner._invoke(options, arguments, manifest=manifest, warehouse=beside)
    sql = {each.node.unique_id: each.node.compiled_code for each in result.result.results}
    return [(f"{m.schema}.{m.name}", sql[m.id]) for m in planned.models if m.materialized != "view"]


def build_all_rows(settings: Settings, folder: Path) -> tuple[dict[str, Rows], dict[str, Rows]]:
    """Return the rows of each model as they are and as a build of everything makes them, in a copy in `folder`."""
    models = load_full_models(settings)
    copy = settings.model_copy(update={"recoup_data_dir": folder})
    folder.mkdir()
    shutil.copy(settings.warehouse_path, copy.warehouse_path)
    tables = [table for table, _ in models]
    with open_warehouse(copy.warehouse_path) as connection:
        # Rows are few: threads cost more than they save.
        connection.execute("SET TimeZone = 'UTC'; SET threads = 1")
        built = read_rows(connection, without={"_load_id"}, only=tables)
        connection.execute("BEGIN")
        for table, sql in models:
            connection.execute(f"CREATE OR REPLACE TABLE {table} AS {sql}")
        expected = read_rows(connection, without={"_load_id"}, only=tables)
        connection.execute("ROLLBACK")
    shutil.rmtree(folder)
    return built, expected


def find_full_refresh_differences(settings: Settings, folder: Path) -> list[str]:
    """Return the models whose rows differ from a build of everything, which is made in `folder`."""
    built, expected = build_all_rows(settings, folder)
    return [table for table in expected if built[table] != expected[table]]
