"""Incremental builds write only changed rows; a changed dbt project builds everything again."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import duckdb
import pytest

from orchestration.config.settings import Settings
from orchestration.pipeline import dbt_runner
from orchestration.pipeline.builder import run_plan
from orchestration.pipeline.dbt_runner import DBT_PROJECT_DIR, TABLES_AND_TESTS, ModelsFailed, invoke_dbt
from orchestration.pipeline.plan import load_plan
from orchestration.setup.pipeline import make_build_options
from orchestration.simulator import DEFAULT_API_KEY, SimulatedAccount, SimulatorServer
from orchestration.warehouse.connection import open_warehouse
from tests.conftest import MakeSettings
from tests.support import pipeline
from tests.support.built_folder import BuiltFolder
from tests.support.full_models import find_full_refresh_differences
from tests.support.load_ledger import record_new_loads
from tests.support.truth import Rows, read_models, read_tables

DAY = 86_400
PARTS = (
    "staging",
    "+int_payment_intents_summarized",
    "int_payment_intents_changed+1",
    "int_retry_windows",
    "int_retry_signals int_retries_evaluated",
    "int_charge_evidence",
    "payment_attempts",
    "int_charges_inferred_from_events int_payment_intents_linked",
)
OF_ONE_ORDER = """json_object('metadata', json_object('order_id', epoch(created)::BIGINT // 259200))"""
"""Everything that began within the same three days."""

OF_ANOTHER = """json_object('customer', other -> '$.customer', 'amount', other -> '$.amount')"""
"""The customer and amount of another payment; not its order."""

OF_ONE_CARD = """json_object('amount', 700, 'currency', 'usd',
    'payment_method_details', json_object('card', json_object('fingerprint', 'shared')))"""
OF_NO_CARD = """'{"payment_method_details": null}'"""

DECLINED = "(changed.payload ->> '$.status') = 'failed'"
ALONE = """(changed.payload ->> '$.payment_intent') IN (
    SELECT payload ->> '$.payment_intent' FROM raw_stripe.charges GROUP BY ALL HAVING count(*) = 1)"""

STAMPED = ("payment_attempts", "payment_intents", "payment_intent_status_history")


@pytest.fixture(scope="module")
def server() -> Iterator[SimulatorServer]:
    with SimulatorServer(SimulatedAccount(seed=31, payments=200, days=60, tie_order="shuffled")) as server:
        yield server


@pytest.fixture(scope="module")
def built(server: SimulatorServer, built_folder: BuiltFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the data folder of a synced account whose models are built."""
    folder = built_folder.copy(tmp_path_factory.mktemp("built"))
    settings = Settings(stripe_api_key=DEFAULT_API_KEY, stripe_api_base=server.url, recoup_data_dir=folder)  # type: ignore[arg-type]
    pipeline.extract(settings)
    pipeline.build(settings)
    return settings.warehouse_path


@pytest.fixture
def settings(built: Path, server: SimulatorServer, make_settings: MakeSettings) -> Settings:
    """Return settings of a copy of that folder for one test."""
    settings = make_settings(server)
    settings.warehouse_path.parent.mkdir()
    shutil.copy(built, settings.warehouse_path)
    return settings


def ask(settings: Settings, query: str) -> Rows:
    with duckdb.connect(str(settings.warehouse_path), read_only=True) as connection:
        return connection.execute(query).fetchall()


def change(settings: Settings, statement: str) -> None:
    with open_warehouse(settings.warehouse_path) as connection:
        connection.execute(statement)


def test_a_build_writes_only_changed_rows(server: SimulatorServer, settings: Settings) -> None:
    before = read_tables(settings.warehouse_path)
    pipeline.build(settings)
    assert read_tables(settings.warehouse_path) == before, "nothing was loaded"
    ((newest,),) = ask(settings, "SELECT max(_load_id) FROM marts.payment_attempts")
    server.account.now += DAY
    assert pipeline.extract(settings).written
    pipeline.build(settings)
    touched = f"SELECT count(*) FROM intermediate.int_payment_intents_changed WHERE _load_id > {newest}"
    ((touched_count,),) = ask(settings, touched)
    for table in STAMPED:
        counted = f"SELECT count(DISTINCT payment_intent_id) FROM marts.{table} WHERE _load_id > {newest}"
        ((written,),) = ask(settings, counted)
        assert 0 < written < 4 * touched_count, table
    ((payments,),) = ask(settings, "SELECT count(*) FROM marts.payment_intents")
    assert touched_count < payments / 4


def test_a_build_completes_a_partial_build(server: SimulatorServer, settings: Settings, tmp_path: Path) -> None:
    """Build some models only, as after a failure in the middle or by a manual dbt run."""
    for selection in PARTS:
        server.account.now += DAY
        pipeline.extract(settings)
        assert invoke_dbt(make_build_options(settings), ["run", "--select", *selection.split()]).success
    pipeline.build(settings)
    assert find_full_refresh_differences(settings, tmp_path / "rebuilt") == []


def patch(settings: Settings, table: str, what: str, which: str) -> None:
    """Load some objects again with changed fields, and build."""
    change(
        settings,
        f"""UPDATE raw_stripe.{table} AS changed
            SET payload = json_merge_patch(json_merge_patch(payload, '{{"metadata": null}}'), {what}),
                _load_id = (SELECT nextval('sync.load_ids'))
            FROM (
                SELECT id, lead(payload, 1, payload) OVER (ORDER BY hash(id)) AS other FROM raw_stripe.{table}
            ) AS neighbours
            WHERE changed.id = neighbours.id AND {which}""",
    )
    with open_warehouse(settings.warehouse_path) as connection:
        record_new_loads(connection, table)
        plan = load_plan(make_build_options(settings))
        run_plan(connection, replace(plan, tests=()))  # the changed objects need not be consistent


def test_payments_that_leave_an_order_or_card_leave_no_rows_behind(settings: Settings, tmp_path: Path) -> None:
    """Check payments that join and leave an order, and attempts that leave a card and so change the rest."""
    patch(settings, "payment_intents", OF_ONE_ORDER, "hash(changed.id) % 2 = 0")
    patch(settings, "charges", OF_ONE_CARD, f"(hash(changed.id) % 2 = 0 OR {DECLINED})")
    patch(settings, "payment_intents", OF_ANOTHER, "hash(changed.id) % 6 = 0")
    patch(settings, "charges", OF_NO_CARD, f"hash(changed.id) % 3 = 0 AND {DECLINED} AND {ALONE}")
    assert find_full_refresh_differences(settings, tmp_path / "rebuilt") == []


def test_a_changed_dbt_project_builds_everything_again(settings: Settings) -> None:
    before = read_models(settings)
    change(settings, "UPDATE marts.payment_intents SET status = 'canceled'")
    pipeline.build(settings)
    assert read_models(settings) != before, "no load changed these rows"
    change(settings, "UPDATE sync.model_builds SET fingerprint = 'another text'")
    pipeline.build(settings)
    assert read_models(settings) == before


def test_tables_from_a_release_without_load_ids_are_built_again(settings: Settings) -> None:
    before = read_models(settings)
    with open_warehouse(settings.warehouse_path) as connection:
        connection.execute("DELETE FROM sync.model_builds; DELETE FROM sync.loads; CREATE TABLE sync.builds (i INT)")
        for schema, table in connection.execute(
            """SELECT schema_name, table_name FROM duckdb_columns()
               WHERE column_name = '_load_id' AND schema_name IN ('staging', 'intermediate', 'marts')"""
        ).fetchall():
            connection.execute(f"ALTER TABLE {schema}.{table} DROP COLUMN _load_id")
    pipeline.build(settings)
    assert read_models(settings) == before


def test_rows_that_fail_a_test_stop_every_build_until_they_are_corrected(
    server: SimulatorServer, settings: Settings
) -> None:
    before = read_tables(settings.warehouse_path)
    server.account.now += DAY
    pipeline.extract(settings)
    twice = "SELECT * REPLACE (1000000 AS _load_id) FROM marts.payment_attempts LIMIT 1"
    change(settings, f"INSERT INTO marts.payment_attempts {twice}")
    broken = read_tables(settings.warehouse_path)
    for _ in range(2):
        with pytest.raises(ModelsFailed, match="unique_combination_of_columns_payment_attempts") as failed:
            pipeline.build(settings)
        assert "Nothing was changed" in str(failed.value)
        assert read_tables(settings.warehouse_path) == broken, "a build is one transaction"
    change(settings, "DELETE FROM marts.payment_attempts")
    with pytest.raises(ModelsFailed, match="no_row_is_lost_on_the_way_to_the_marts"):
        pipeline.build(settings)
    assert invoke_dbt(make_build_options(settings), ["build", "--full-refresh", *TABLES_AND_TESTS]).success
    pipeline.build(settings)
    after = read_tables(settings.warehouse_path)
    assert after["sync.model_builds"] != before["sync.model_builds"]
    assert ask(settings, "SELECT count(*) FROM sync.loads WHERE build_id IS NULL") == [(0,)]


def test_the_next_build_tests_rows_of_a_manual_dbt_run(
    settings: Settings,
) -> None:
    assert invoke_dbt(make_build_options(settings), ["run", "--select", "payment_attempts"]).success
    change(
        settings,
        """UPDATE marts.payment_attempts
           SET attempt_number = 9, _load_id = (SELECT max(build_id) FROM sync.model_builds)
           WHERE attempt_number = 1""",
    )
    with pytest.raises(ModelsFailed, match="attempts_are_numbered_without_gaps_in_time_order"):
        pipeline.build(settings)


def test_a_manual_dbt_run_reaches_the_downstream_models_in_the_next_build(
    settings: Settings,
) -> None:
    before = read_models(settings)
    for table in ("intermediate.int_payment_attempts_unioned", "marts.payment_attempts"):
        change(settings, f"UPDATE {table} SET amount = amount + 1")
    mended = ["run", "--full-refresh", "--select", "int_payment_attempts_unioned"]
    assert invoke_dbt(make_build_options(settings), mended).success
    pipeline.build(settings)
    assert read_models(settings) == before


def test_descriptions_belong_to_the_project_and_readmes_do_not() -> None:
    files = {path.relative_to(DBT_PROJECT_DIR).as_posix() for path in dbt_runner._project_files()}
    assert {"models/columns.md", "dbt_project.yml", "seeds/currencies.csv", "profiles.yml"} <= files
    assert not {"README.md", "DECISIONLOG.md"} & files


def test_a_manual_dbt_test_tests_all_rows(settings: Settings) -> None:
    change(settings, "UPDATE marts.payment_attempts SET attempt_number = attempt_number + 1 WHERE attempt_number > 1")
    pipeline.build(settings)
    found = invoke_dbt(make_build_options(settings), ["test", "--select", "payment_attempts"])
    assert not found.success
