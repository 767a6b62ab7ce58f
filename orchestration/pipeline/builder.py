"""Build the models: with the compiled plan in one transaction, or with dbt if the plan cannot run.

dbt builds everything at the first build, after a change of the project, and if a table is missing. Otherwise the plan
runs: models, then tests, all in one transaction over one set of loads. If a blocking test fails, the transaction is
rolled back. Models and tests whose inputs have not changed are skipped.
"""

from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

import duckdb

from orchestration.base.errors import RecoupError
from orchestration.pipeline.dbt_runner import (
    TABLES_AND_TESTS,
    BuildOptions,
    EventCallback,
    ModelsFailed,
    WarehouseLocked,
    build_with_dbt,
    failure_text,
    invoke_dbt,
    is_warehouse_locked,
    project_fingerprint,
)
from orchestration.pipeline.plan import Plan, PlannedModel, PlannedTest, load_plan
from orchestration.warehouse.connection import open_warehouse, request_access, small_batch_options, transaction
from orchestration.warehouse.ledger import (
    CompleteBuild,
    begin_build,
    complete_build,
    delete_complete_build,
    find_incomplete_build,
    has_incomplete_builds,
    hash_streams,
    last_complete_build,
    record_changed_table,
    tables_of_incomplete_builds,
    tables_with_open_loads,
)

_MAX_ATTEMPTS: Final = 5
"""Number of attempts to run dbt. Each waits until no other process has the warehouse open."""

_SHOWN_FAILURES: Final = 8
_NEW_ROWS: Final = "plan_new_rows"
"""Temporary table of a model's new rows."""

Observe = Callable[[str], None]
"""Called with the name of each model or test when it is done."""


@dataclass(frozen=True)
class DataTestOutcome:
    """The result of a data test. `status` is pass, warn or fail."""

    id: str
    name: str
    status: str
    failure_count: int


@dataclass
class Build:
    """The result of a build.

    `nodes` counts the nodes of each kind that are up to date (`model`, `test`; after a build with dbt also `seed`).
    `rows_written` counts the rows written to each changed model, by dbt's id. `tests` has the tests that were run. Both
    are empty after a build with dbt, for which `is_full` is true.
    """

    nodes: dict[str, int] = field(default_factory=dict)
    rows_written: dict[str, int] = field(default_factory=dict)
    tests: list[DataTestOutcome] = field(default_factory=list)
    is_full: bool = False


class DataTestsFailed(ModelsFailed):
    """Blocking tests failed, and no table was changed. `outcomes` has the result of each test that ran."""

    def __init__(self, outcomes: Sequence[DataTestOutcome]) -> None:
        failed = [outcome for outcome in outcomes if outcome.status == "fail"]
        lines = [f"{each.name}: {each.failure_count:,} rows fail" for each in failed[:_SHOWN_FAILURES]]
        more = [f"… and {len(failed) - _SHOWN_FAILURES} more"] if len(failed) > _SHOWN_FAILURES else []
        super().__init__(
            "\n".join([f"{len(failed)} of {len(outcomes)} tests failed:", *lines, *more, _NOTHING_CHANGED])
        )
        self.outcomes = outcomes


class PlanUnusable(RecoupError):
    """The plan cannot run before dbt has built everything. The message says why."""


def build(
    options: BuildOptions,
    *,
    callback: EventCallback | None = None,
    observe: Observe = lambda name: None,
) -> Build:
    """Build and test all models: with the plan if it can run, else with dbt. `callback` gets dbt's log events.

    Raises:
        ModelsFailed: a model or a blocking test failed.
        WarehouseError: as `open_warehouse`.
    """
    with suppress(PlanUnusable):
        return build_by_plan(options, observe=observe)
    return build_in_full(options, callback)


def build_by_plan(options: BuildOptions, *, observe: Observe = lambda name: None) -> Build:
    """Build what has changed since the last complete build with the plan, in one transaction.

    Raises:
        PlanUnusable: dbt must build everything first.
        ModelsFailed: a model or a blocking test failed; no table was changed.
        WarehouseError: as `open_warehouse`.
    """
    with open_warehouse(options.warehouse_path, options=connection_options(options)) as connection:
        _complete_build_of(connection, project_fingerprint())
        plan = load_plan(options)
        check_plan(connection, plan)
        return run_plan(connection, plan, observe=observe)


def connection_options(options: BuildOptions) -> dict[str, Any]:
    """Return the DuckDB options for a build with the plan."""
    return {"memory_limit": options.memory_limit, **small_batch_options(options.warehouse_path)}


def build_in_full(options: BuildOptions, callback: EventCallback | None = None) -> Build:
    """Build everything with dbt from all raw rows, then compile the plan for later builds.

    Raises:
        ModelsFailed: a node failed. The next build builds everything again.
        WarehouseError: as `open_warehouse`.
    """
    for _ in range(_MAX_ATTEMPTS - 1):
        with suppress(WarehouseLocked):
            return _build_in_full_once(options, callback)
    return _build_in_full_once(options, callback)


def _build_in_full_once(options: BuildOptions, callback: EventCallback | None) -> Build:
    fingerprint = project_fingerprint()
    with open_warehouse(options.warehouse_path) as connection:  # creates the raw tables; waits for other writers
        delete_complete_build(connection)
        streams = hash_streams(connection)
    with request_access(options.warehouse_path):
        nodes = build_with_dbt(options, fingerprint, [callback] if callback else [])
    with open_warehouse(options.warehouse_path) as connection, transaction(connection):
        is_same = hash_streams(connection) == streams  # if not, another process changed checkpoints before dbt started
        build_id = find_incomplete_build(connection, fingerprint)
        complete_build(connection, build_id, fingerprint, streams=streams if is_same else None)
    load_plan(options)
    return Build(nodes, is_full=True)


def build_some(options: BuildOptions, arguments: Sequence[str], callback: EventCallback) -> None:
    """Build and test with dbt the nodes that `arguments` select. The build is incomplete: it closes no load.

    Raises:
        ModelsFailed: a node failed.
        WarehouseError: as `open_warehouse`.
    """
    for _ in range(_MAX_ATTEMPTS):
        with open_warehouse(options.warehouse_path):
            pass  # waits for other writers
        with request_access(options.warehouse_path):
            result = invoke_dbt(options, ["build", *TABLES_AND_TESTS, *arguments], [callback])
        if not is_warehouse_locked(result):
            break
    if not result.success:
        raise ModelsFailed(failure_text(result, options.log_dir))


def check_plan(connection: duckdb.DuckDBPyConnection, plan: Plan) -> None:
    """Check that the plan can run on these tables.

    Raises:
        PlanUnusable: the plan cannot run.
    """
    _complete_build_of(connection, plan.fingerprint)
    if missing := _missing_tables(connection, plan):
        raise PlanUnusable(f"Tables are missing: {', '.join(missing)}.")


def run_plan(connection: duckdb.DuckDBPyConnection, plan: Plan, *, observe: Observe = lambda name: None) -> Build:
    """Run a plan that `check_plan` accepted, in one transaction.

    Raises:
        ModelsFailed: a model or a blocking test failed; no table was changed.
    """
    streams = hash_streams(connection)
    changed = _changed_inputs(connection, plan, streams)
    if not changed and not has_incomplete_builds(connection):
        return _unchanged(plan)
    for name, value in plan.settings.items():
        connection.execute(f"SET {name} = '{value}'")
    with transaction(connection):
        run = _Run(connection, plan, changed, observe)
        run.build_models()
        run.run_tests()
        complete_build(connection, run.build_id, plan.fingerprint, streams=streams)
    return run.build


def _complete_build_of(connection: duckdb.DuckDBPyConnection, fingerprint: str) -> CompleteBuild:
    last = last_complete_build(connection)
    if last is None or last.fingerprint != fingerprint:
        raise PlanUnusable("The tables were not built from this state of the dbt project.")
    return last


def _unchanged(plan: Plan) -> Build:
    return Build({"model": len(plan.models), "test": len(plan.tests)})


def _missing_tables(connection: duckdb.DuckDBPyConnection, plan: Plan) -> list[str]:
    existing = set(connection.execute("SELECT table_schema, table_name FROM information_schema.tables").fetchall())
    return [model.name for model in plan.models if (model.schema, model.name) not in existing]


def _changed_inputs(connection: duckdb.DuckDBPyConnection, plan: Plan, streams: str) -> set[str]:
    """Return dbt's ids of the nodes with rows that no complete build includes.

    These are sources with open loads, and models and seeds that an incomplete build wrote, such as dbt run by hand.
    """
    tables = {("raw_stripe", name) for name in tables_with_open_loads(connection)} | tables_of_incomplete_builds(
        connection
    )
    if _complete_build_of(connection, plan.fingerprint).streams != streams:
        tables |= {("sync", "streams"), ("sync", "quarantine")}
    models = {model.id: (model.schema, model.name) for model in plan.models}
    return {name for name, table in (plan.sources | models).items() if table in tables}


class _Run:
    """One run of a plan, in the caller's transaction."""

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, plan: Plan, changed: Collection[str], observe: Observe
    ) -> None:
        self.build_id, first = begin_build(connection)
        self.build = _unchanged(plan)
        self._connection, self._plan, self._changed, self._observe = connection, plan, set(changed), observe
        all_sql = "".join(model.sql for model in plan.models)
        self._models_to_count = {model.name for model in plan.models if f"'new_rows_of_{model.name}'" in all_sql}
        self._set("build_id", str(self.build_id))
        self._set("first_load_id", str(first))

    def build_models(self) -> None:
        """Write the models whose inputs have changed, in the order of the graph."""
        for model in self._plan.models:
            if not self._changed.isdisjoint(model.parents):
                self._build(model)
                self._observe(model.name)
            self._set_measures(model)

    def _build(self, model: PlannedModel) -> None:
        try:
            is_changed = model.materialized == "view" or self._write(model)
        except duckdb.Error as error:
            raise ModelsFailed(_model_error(model, error)) from None
        if is_changed:
            self._changed.add(model.id)

    def run_tests(self) -> None:
        """Run the tests whose inputs have changed.

        Raises:
            DataTestsFailed: a blocking test failed.
        """
        for test in self._plan.tests:
            if not self._changed.isdisjoint(test.parents):
                self.build.tests.append(self._outcome(test))
                self._observe(test.name)
        if any(outcome.status == "fail" for outcome in self.build.tests):
            raise DataTestsFailed(self.build.tests)

    def _write(self, model: PlannedModel) -> bool:
        """Write the model's new rows; return whether the table changed."""
        relation = f'"{model.schema}"."{model.name}"'
        self._connection.execute(f"CREATE OR REPLACE TEMP TABLE {_NEW_ROWS} AS {model.sql}")
        try:
            written = (
                self._replace_all(relation) if model.materialized == "table" else self._replace_changed(relation, model)
            )
        finally:
            with suppress(duckdb.Error):
                self._connection.execute(f"DROP TABLE IF EXISTS {_NEW_ROWS}")
        if written is None:
            return False
        key = model.unique_key if model.materialized == "incremental" else ()
        record_changed_table(self._connection, self.build_id, (model.schema, model.name), key)
        self.build.rows_written[model.id] = written
        return True

    def _replace_all(self, relation: str) -> int | None:
        """Replace all rows of a table; return None if they are the same as before.

        They are the same if the row counts are equal and no row remains after subtracting the old rows from the new.
        """
        columns = ", ".join(f'"{name}"' for name in self._columns(relation))
        new, old = f"SELECT {columns} FROM {_NEW_ROWS}", f"SELECT {columns} FROM {relation}"
        (counts,) = self._rows(f"SELECT (SELECT count(*) FROM {_NEW_ROWS}), (SELECT count(*) FROM {relation})")
        if counts[0] == counts[1] and not self._rows(f"({new} EXCEPT ALL {old}) LIMIT 1"):
            return None
        self._connection.execute(f"DELETE FROM {relation}")
        return self._count(f"INSERT INTO {relation} BY NAME FROM {_NEW_ROWS}")

    def _replace_changed(self, relation: str, model: PlannedModel) -> int | None:
        """Replace rows by the model's strategy (dbt_project/macros/strategies.sql); return None if nothing changed."""
        if model.strategy == "replace_loads":
            deleted = self._count(f"DELETE FROM {relation} WHERE _load_id >= getvariable('first_load_id')")
        else:
            keys = ", ".join(model.unique_key)
            deleted = self._count(f"DELETE FROM {relation} WHERE ({keys}) IN (SELECT {keys} FROM {_NEW_ROWS})")
        where = f"WHERE ({model.tombstone}) IS NOT TRUE" if model.tombstone else ""
        inserted = self._count(f"INSERT INTO {relation} BY NAME FROM {_NEW_ROWS} {where}")
        return inserted if deleted or inserted else None

    def _set_measures(self, model: PlannedModel) -> None:
        """Set the session variables that later models read: the number of new rows and their oldest instants.

        Rows that an incomplete build wrote are also new to this build.
        """
        new = f'FROM "{model.schema}"."{model.name}" WHERE {_IS_NEW}'
        if model.name in self._models_to_count:
            self._set(f"new_rows_of_{model.name}", f"(SELECT count(*) {new})")
        for column in model.measured:
            self._set(
                f"oldest_{column}_of_{model.name}",
                f"(SELECT coalesce(min(coalesce({column}, TIMESTAMP '1970-01-01')), TIMESTAMP 'infinity') {new})",
            )

    def _outcome(self, test: PlannedTest) -> DataTestOutcome:
        try:
            ((failures, is_warning, is_failure),) = self._rows(test.query)
        except duckdb.Error as error:
            raise ModelsFailed(_test_error(test, error)) from None
        status = "fail" if test.is_blocking and is_failure else "warn" if is_warning else "pass"
        return DataTestOutcome(test.id, test.name, status, int(failures or 0))

    def _columns(self, relation: str) -> list[str]:
        cursor = self._connection.execute(f"FROM {relation} LIMIT 0")
        names = [column[0] for column in cursor.description or ()]
        cursor.fetchall()
        return names

    def _set(self, name: str, value: str) -> None:
        self._connection.execute(f"SET VARIABLE {name} = {value}")

    def _count(self, statement: str) -> int:
        ((count,),) = self._rows(statement)
        return int(count)

    def _rows(self, query: str) -> Sequence[tuple[Any, ...]]:
        return self._connection.execute(query).fetchall()


_IS_NEW: Final = "_load_id >= getvariable('first_load_id')"
_NOTHING_CHANGED: Final = (
    "Nothing was changed: the tables and the published file are as before.\n"
    "If rows were changed by hand, `recoup dbt build --full-refresh` restores them."
)


def _model_error(model: PlannedModel, error: duckdb.Error) -> str:
    return f"Model {model.name} failed: {_first_line(error)}\n{_NOTHING_CHANGED}"


def _test_error(test: PlannedTest, error: duckdb.Error) -> str:
    return f"Test {test.name} could not run: {_first_line(error)}\n{_NOTHING_CHANGED}"


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
