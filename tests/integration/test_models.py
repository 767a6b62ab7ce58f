"""The dbt project: its unit tests, invariants that notice wrong tables, empty warehouses, descriptions."""

import itertools
import json
import re
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import duckdb
import pytest
import yaml  # type: ignore[import-untyped]

from orchestration.base.account import AccountKey
from orchestration.config.settings import Settings
from orchestration.pipeline.dbt_runner import (
    DBT_PROJECT_DIR,
    TABLES_AND_TESTS,
    ensure_manifest,
    failure_text,
    invoke_dbt,
    run_dbt_command,
)
from orchestration.pipeline.plan import load_plan
from orchestration.setup.pipeline import make_build_options
from orchestration.simulator import SimulatedAccount, SimulatorServer
from orchestration.stripe_api import API_VERSION
from orchestration.warehouse import rows as rows_module
from orchestration.warehouse.connection import open_warehouse
from orchestration.warehouse.load import Loader
from orchestration.warehouse.rows import event_row
from tests.support import pipeline
from tests.support.built_folder import make_once
from tests.support.full_models import find_full_refresh_differences, load_full_models

GOOD = {"pass", "success", "warn"}

CLOCK = re.compile(r"\b(now|current_timestamp|current_date|current_time|today|get_current_\w+|localtimestamp)\b", re.I)

CORRUPTIONS = {
    "failed_payments_are_in_exactly_one_status": [
        "DELETE FROM marts.recovery_episodes WHERE episode_id = (SELECT min(episode_id) FROM marts.recovery_episodes)",
        "UPDATE marts.recovery_episodes SET at_risk_amount = at_risk_amount + 1 WHERE recovery_status = 'recovered'",
    ],
    "no_more_is_recovered_than_was_at_risk": [
        "UPDATE marts.recovery_episodes SET recovered_amount = at_risk_amount + 1",
        "UPDATE marts.recovery_episodes SET recovered_amount_net = -1",
        "UPDATE marts.recovery_episodes SET recovered_amount = at_risk_amount, recovered_amount_net = at_risk_amount",
    ],
    "attempts_are_numbered_without_gaps_in_time_order": [
        "UPDATE marts.payment_attempts SET attempt_number = attempt_number + 1 WHERE attempt_number > 1",
        "UPDATE marts.payment_attempts SET attempted_at = '2000-01-01' WHERE attempt_number = 2",
        "UPDATE marts.payment_attempts SET episode_attempt_number = 1",
        "UPDATE marts.payment_attempts SET episode_attempt_number = NULL",
    ],
    "recovering_attempts_succeeded_after_the_first_failure": [
        "UPDATE marts.recovery_episodes SET recovering_attempt_id = 'ch_other' WHERE recovering_attempt_id IS NOT NULL",
        "UPDATE marts.recovery_episodes SET first_succeeded_at = first_failed_at - INTERVAL 1 SECOND",
        "UPDATE marts.recovery_episodes SET recovery_status = 'in_recovery'",
        "UPDATE marts.recovery_episodes SET recovering_payment_intent_id = 'pi_other'",
    ],
    "episodes_hold_each_payment_once": [
        "INSERT INTO marts.payment_intents FROM marts.payment_intents LIMIT 1",
        "UPDATE marts.payment_intents SET episode_position = 2",
        "UPDATE marts.payment_intents SET episode_id = (SELECT min(episode_id) FROM marts.payment_intents)",
        "UPDATE marts.payment_intents SET order_key = payment_intent_id WHERE episode_position > 1",
        "UPDATE marts.payment_intents SET amount = amount + 1 WHERE episode_position > 1",
    ],
    "succeeded_payments_have_one_succeeded_charge": [
        "UPDATE marts.payment_attempts SET outcome = 'failed' WHERE outcome = 'succeeded'",
        "UPDATE marts.payment_attempts SET captured_amount = captured_amount + 1",
    ],
    "every_charge_of_a_payment_is_one_attempt": [
        "DELETE FROM marts.payment_attempts WHERE charge_id = (SELECT min(charge_id) FROM marts.payment_attempts)",
        "INSERT INTO marts.payment_attempts FROM marts.payment_attempts WHERE charge_id IS NOT NULL LIMIT 1",
    ],
    "accounts_modes_and_currencies_never_mix": [
        "UPDATE marts.payment_attempts SET currency = 'xxx'",
        "UPDATE marts.payment_attempts SET livemode = NOT livemode",
        "UPDATE marts.payment_attempts SET account_id = 'acct_other'",
    ],
    "the_curve_ends_at_the_matured_rate": [
        "UPDATE marts.recovery_curve SET cumulative_incidence = 0 WHERE day_number = 30",
        "UPDATE marts.recovery_curve SET cumulative_incidence = 1.1",
        "UPDATE marts.recovery_curve SET cumulative_incidence_lower = 1",
        "DELETE FROM marts.recovery_curve WHERE day_number = 30",
    ],
    "activity_reconciles_with_episodes": [
        "DELETE FROM marts.recovery_activity_daily WHERE activity_date = '2026-03-01'",
        "UPDATE marts.recovery_activity_daily SET recovered_count = recovered_count + 1",
        "UPDATE marts.recovery_activity_daily SET new_at_risk_amount = 0, recovered_at_risk_amount = 0",
        "UPDATE marts.recovery_activity_daily SET reversed_amount = reversed_amount + 1",
    ],
    "histories_end_in_the_current_status": [
        "UPDATE marts.payment_intent_status_history SET transition_number = 2",
        "UPDATE marts.payment_intent_status_history SET status = 'processing' WHERE is_current",
        "UPDATE marts.payment_intent_status_history SET left_at = left_at + INTERVAL 1 SECOND",
        "DELETE FROM marts.payment_intent_status_history WHERE is_current",
    ],
    "retry_budgets_count_only_what_was_not_approved": [
        "UPDATE marts.card_retry_budgets SET budget_left = counted_limit WHERE counted_30d > 0",
        "UPDATE marts.payment_attempts SET outcome = 'succeeded'",
        "UPDATE marts.card_retry_budgets SET is_blocked = TRUE, next_allowed_at = NULL",
    ],
    "reasons_and_retries_add_up_to_attempts": [
        "DELETE FROM marts.decline_reasons WHERE failure_code = 'insufficient_funds'",
        "UPDATE marts.decline_reasons SET first_failure_count = 0",
        "UPDATE marts.retry_performance SET succeeded_count = succeeded_count + 1",
    ],
    "cohorts_add_up_to_episodes": [
        "UPDATE marts.recovery_cohorts SET recovered_strict_count = recovered_strict_count + 1",
        "UPDATE marts.recovery_cohorts SET recovered_amount = recovered_amount + 1",
        "DELETE FROM marts.recovery_cohorts WHERE currency = (SELECT min(currency) FROM marts.recovery_cohorts)",
    ],
    "rates_add_up_to_episodes": [
        "UPDATE marts.recovery_rates SET recovered_count = recovered_count + 1",
        "UPDATE marts.recovery_rates SET at_risk_amount = at_risk_amount + 1",
        "UPDATE marts.recovery_rates SET lost_count_to_date = lost_count_to_date + 1 WHERE is_all_currencies",
        "UPDATE marts.recovery_rates SET recovery_rate = recovery_rate_to_date",
        "UPDATE marts.recovery_rates SET recovery_rate_upper = recovery_rate_upper - 0.001 WHERE failed_count > 0",
        "UPDATE marts.recovery_rates SET recovery_rate_strict_lower = NULL",
        "UPDATE marts.recovery_rates SET failed_count = failed_count + 100 WHERE period = 'last_30_days'",
        "DELETE FROM marts.recovery_rates WHERE is_all_currencies",
    ],
    "link_audit_adds_up_to_episodes": [
        "DELETE FROM marts.link_audit WHERE subject = 'none' AND measure = 'episodes'",
        "DELETE FROM marts.recovery_episodes WHERE NOT is_in_scope",
        "DELETE FROM marts.recovery_episodes WHERE recovery_status = 'lost_expired' AND link_tier = 'none'",
        "UPDATE marts.link_audit SET counted = counted + 1 WHERE subject = 'card' AND measure = 'recovered_episodes'",
        "UPDATE marts.link_audit SET out_of = out_of + 1 WHERE measure = 'episodes'",
        "UPDATE marts.link_audit SET subject = 'card' WHERE subject = 'order' AND measure = 'recovered_episodes'",
        "UPDATE marts.payment_intents SET predecessor_id = NULL WHERE link_confidence = 'high'",
        "UPDATE marts.link_audit SET counted = counted - 1 WHERE subject = 'strict'",
        "UPDATE marts.link_audit SET counted = counted - 1 WHERE subject = 'up_to' AND link_confidence = 'low'",
        "UPDATE marts.link_audit SET counted = out_of WHERE topic = 'rates_by_tier' AND subject = 'order_part'",
        "UPDATE marts.link_audit SET counted = out_of WHERE subject = 'up_to' AND link_confidence = 'exact'",
        "UPDATE marts.link_audit SET counted = out_of + 1 WHERE measure = 'within_the_gap_in_doubt'",
    ],
    "no_row_is_lost_on_the_way_to_the_marts": [
        "DELETE FROM marts.payment_attempts WHERE charge_id = (SELECT min(charge_id) FROM marts.payment_attempts)",
        "INSERT INTO marts.payment_intents FROM marts.payment_intents LIMIT 1",
    ],
    "every_loaded_row_reaches_the_models": [
        "DELETE FROM staging.stg_stripe__refunds WHERE hash(refund_id) % 5 = 0",
        "UPDATE staging.stg_stripe__disputes SET _load_id = _load_id - 1",
        "INSERT INTO staging.stg_stripe__events FROM staging.stg_stripe__events LIMIT 1",
        "UPDATE staging.stg_stripe__charges SET account_id = 'acct_other'",
        "UPDATE marts.data_coverage SET refund_count = refund_count - 1",
    ],
    "one_retry_rule_holds_at_a_time": [
        "UPDATE seeds.network_retry_rules SET valid_to = NULL",
        "UPDATE seeds.network_retry_rules SET valid_to = '2025-01-01' WHERE rule_id = 'visa_category_2_to_4_15'",
        "DELETE FROM seeds.network_retry_rules WHERE region = 'global' AND network = 'mastercard'",
    ],
}


@pytest.fixture(scope="module")
def built(shared_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Return the settings of a synced account whose models are built by dbt, once for all workers."""
    made = make_once(shared_folder, "built_models", sync_and_build)
    folder = tmp_path_factory.mktemp("built")
    return Settings(recoup_data_dir=Path(shutil.copytree(made, folder, dirs_exist_ok=True)))


def sync_and_build(folder: Path) -> None:
    with SimulatorServer(SimulatedAccount(seed=21, payments=600, days=90)) as server:
        settings = Settings(
            stripe_api_key="rk_test_simulated_account_reads_everything",  # type: ignore[arg-type]
            stripe_api_base=server.url,
            recoup_data_dir=folder,
        )
        pipeline.extract(settings)
    assert pipeline.build(settings).is_full


def statuses(settings: Settings, *arguments: str) -> dict[str, str]:
    """Return dbt's status of each node of a command."""
    done = invoke_dbt(make_build_options(settings), arguments)
    assert done.exception is None, done.exception
    nodes = [result for result in done.result.results if result.node.resource_type != "operation"]
    return {result.node.name: str(result.status) for result in nodes}


def test_the_unit_tests_of_the_models_pass(built: Settings) -> None:
    found = statuses(built, "test", "--select", "test_type:unit")
    assert found
    assert [name for name, status in found.items() if status != "pass"] == []


def test_dbt_by_hand_builds_every_model_again_from_new_rows(built: Settings, tmp_path: Path) -> None:
    copy = Settings(recoup_data_dir=tmp_path)
    shutil.copy(built.warehouse_path, copy.warehouse_path)
    found = statuses(copy, "build", *TABLES_AND_TESTS)
    assert {name: status for name, status in found.items() if status not in GOOD} == {}
    models = {path.stem for path in (DBT_PROJECT_DIR / "models").rglob("*.sql")}
    assert {name for name in models if "ephemeral" not in model_text(name)} <= set(found)


def model_text(name: str) -> str:
    (path,) = (DBT_PROJECT_DIR / "models").rglob(f"{name}.sql")
    return path.read_text(encoding="utf-8")


def test_every_invariant_has_a_corruption_to_notice() -> None:
    assert set(CORRUPTIONS) == {path.stem for path in (DBT_PROJECT_DIR / "tests").glob("*.sql")}


@pytest.fixture(scope="module")
def invariants(built: Settings) -> dict[str, str]:
    """Return the SQL of each invariant, compiled by dbt once, since `dbt test` takes two CPU seconds each time."""
    done = invoke_dbt(make_build_options(built), ["compile", "--select", "test_type:singular"])
    assert done.success, failure_text(done, built.dbt_log_dir)
    return {result.node.name: result.node.compiled_code for result in done.result.results}


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_an_invariant_holds_and_notices_each_corruption(
    name: str, built: Settings, invariants: dict[str, str], tmp_path: Path
) -> None:
    query = f"SELECT count(*) FROM ({invariants[name]})"
    warehouse = Path(shutil.copyfile(built.warehouse_path, tmp_path / "warehouse.duckdb"))
    with open_warehouse(warehouse) as connection:
        for setting, value in load_plan(make_build_options(built)).settings.items():
            connection.execute(f"SET {setting} = '{value}'")
        assert connection.execute(query).fetchall() == [(0,)]
        for corruption in CORRUPTIONS[name]:
            connection.execute("BEGIN")
            connection.execute(corruption)
            assert connection.execute(query).fetchall() != [(0,)], corruption
            connection.execute("ROLLBACK")


def test_models_build_on_empty_tables_and_again(tmp_path: Path) -> None:
    settings = Settings(recoup_data_dir=tmp_path)
    for _ in range(2):
        pipeline.build(settings)
    published = pipeline.publish_marts(settings)
    assert published.rows["marts.recovery_episodes"] == 0


def test_only_the_watermark_is_used_as_the_current_time(built: Settings) -> None:
    compiled = list((built.dbt_target_dir / "compiled" / "recoup" / "models").rglob("*.sql"))
    assert len(compiled) > 15
    for path in compiled:
        sql = re.sub(r"--.*", "", path.read_text(encoding="utf-8"))
        assert not CLOCK.search(sql), path.name


def test_every_mart_column_has_a_description(built: Settings) -> None:
    pipeline.publish_marts(built)
    with duckdb.connect(str(built.published_path), read_only=True) as connection:
        silent = connection.execute(
            """SELECT table_name, column_name FROM duckdb_columns()
               WHERE schema_name IN ('marts', 'seeds') AND coalesce(trim(comment), '') = ''"""
        ).fetchall()
        tables = connection.execute(
            "SELECT table_name FROM duckdb_tables() WHERE coalesce(comment, '') = ''"
        ).fetchall()
    assert silent == []
    assert tables == []


def test_raw_rows_in_any_order_give_the_same_tables(built: Settings, tmp_path: Path) -> None:
    copy = built.model_copy(update={"recoup_data_dir": tmp_path})
    shutil.copyfile(built.warehouse_path, copy.warehouse_path)
    with open_warehouse(copy.warehouse_path) as connection:
        for (table,) in connection.execute(
            "SELECT table_name FROM duckdb_tables() WHERE schema_name = 'raw_stripe'"
        ).fetchall():
            connection.execute(
                f"CREATE TEMP TABLE rows_of AS FROM raw_stripe.{table} ORDER BY hash(raw_stripe.{table})"
            )
            connection.execute(f"DELETE FROM raw_stripe.{table}")
            connection.execute(f"INSERT INTO raw_stripe.{table} FROM rows_of; DROP TABLE rows_of")
    assert find_full_refresh_differences(copy, tmp_path / "again") == []


def test_the_full_sql_of_the_models_gives_the_tables_of_a_build_by_dbt(built: Settings, tmp_path: Path) -> None:
    """Check what other tests rely on: `find_full_refresh_differences` does what `dbt run --full-refresh` does."""
    assert find_full_refresh_differences(built, tmp_path / "again") == []
    with open_warehouse(built.warehouse_path) as connection:
        assert {table for table, _ in load_full_models(built)} == {
            f"{schema}.{name}"
            for schema, name in connection.execute(
                """SELECT schema_name, table_name FROM duckdb_tables()
                   WHERE schema_name IN ('staging', 'intermediate', 'marts')"""
            ).fetchall()
        }


def test_totals_do_not_depend_on_the_reporting_time_zone(built: Settings, tmp_path: Path) -> None:
    """Check that only figures by day depend on it."""
    copy = built.model_copy(update={"recoup_data_dir": tmp_path})
    shutil.copyfile(built.warehouse_path, copy.warehouse_path)
    zone = ("--vars", "{reporting_time_zone: Pacific/Auckland}")
    assert set(statuses(copy, "build", *TABLES_AND_TESTS, "--full-refresh", *zone).values()) <= GOOD
    (here, dated_here), (there, dated_there) = (totals(each.warehouse_path) for each in (built, copy))
    assert here == there
    assert dated_here != dated_there


def totals(warehouse: Path) -> tuple[list[Any], list[Any]]:
    """Return the totals of the cohorts, days and episodes, and the cohorts by day."""
    measures = "count(*), sum(at_risk_amount), sum(recovered_amount), sum(recovered_amount_net)"
    with duckdb.connect(str(warehouse), read_only=True) as connection:
        ask = connection.execute
        summed = ask(
            f"SELECT currency, recovery_status, {measures} FROM marts.recovery_episodes GROUP BY ALL ORDER BY ALL"
        )
        totals = summed.fetchall()
        for table in ("recovery_cohorts", "recovery_activity_daily", "retry_performance", "decline_reasons"):
            sums = f"SELECT currency, sum(COLUMNS('.*_(count|amount)$')) FROM marts.{table} GROUP BY ALL ORDER BY ALL"
            if table == "recovery_activity_daily":
                sums = sums.replace("'.*_(", "'^(new_at_risk|recovered|expired|canceled|reversed).*_(")
            totals += ask(sums).fetchall()
        days = ask("SELECT first_failed_date, sum(failed_count) FROM marts.recovery_cohorts GROUP BY ALL ORDER BY ALL")
        return totals, days.fetchall()


def test_every_measure_and_rate_of_the_semantic_layer_equals_the_marts(built: Settings) -> None:
    manifest = json.loads(ensure_manifest(make_build_options(built)).read_text(encoding="utf-8"))
    with duckdb.connect(str(built.warehouse_path), read_only=True) as connection:
        ask = connection.execute
        found = {}
        for model in manifest["semantic_models"].values():
            table = f"marts.{model['name']}"
            for column in (*model["dimensions"], *model["entities"]):
                ask(f"SELECT {column['expr'] or column['name']} FROM {table}")
            for measure in model["measures"]:
                ((found[measure["name"]],),) = ask(f"SELECT {aggregate(measure)} FROM {table}").fetchall()
        ((failed, recovered, strict, open_count),) = ask(
            """SELECT sum(failed_count) FILTER (is_matured), sum(recovered_count) FILTER (is_matured),
                sum(recovered_strict_count) FILTER (is_matured), sum(in_recovery_count) FROM marts.recovery_cohorts"""
        ).fetchall()
        ((rates_failed, rates_recovered, rates_strict),) = ask(
            """SELECT failed_count, recovered_count, recovered_strict_count FROM marts.recovery_rates
               WHERE period = 'all_time' AND is_all_currencies"""
        ).fetchall()
        ((retries, succeeded),) = ask(
            "SELECT sum(retry_count), sum(succeeded_count) FROM marts.retry_performance"
        ).fetchall()
    assert all(value is not None for value in found.values()), found
    assert found["matured_failed_count"] >= failed > 0, "a day's cohort has matured when its last payment has"
    assert found["matured_recovered_count"] >= recovered >= strict
    assert (found["matured_failed_count"], found["matured_recovered_count"]) == (rates_failed, rates_recovered)
    assert found["matured_recovered_strict_count"] == rates_strict
    assert found["in_recovery_count"] == open_count
    assert (found["retry_count"], found["retry_succeeded_count"]) == (retries, succeeded)
    rates = [metric for metric in manifest["metrics"].values() if metric["type"] == "ratio"]
    assert len(rates) > 8
    for metric in rates:
        over, under = (metric["type_params"][part]["name"] for part in ("numerator", "denominator"))
        assert 0 < found[over] < found[under], metric["name"]


def aggregate(measure: dict[str, Any]) -> str:
    """Return a measure as MetricFlow computes it, in DuckDB's SQL."""
    expression = measure["expr"] or measure["name"]
    kinds = {"sum": "sum({})", "average": "avg({})", "count_distinct": "count(DISTINCT {})"}
    if measure["agg"] == "percentile":
        return f"quantile_cont({expression}, {measure['agg_params']['percentile']})"
    return kinds[measure["agg"]].format(expression)


WHOLE: list[Any] = ["30", "x", None, [], {}, True, -1, 1.5, 10**30, float("nan")]
NUMBER: list[Any] = ["0.8", None, [1], {}, False, -0.1, float("inf")]
TEXT: list[Any] = [5, None, [], {}, True]
KEYS: list[Any] = ["order_id", 5, None, {"a": 1}, [5], [None], [["a"]], [""], ["a", "A"], ['a"b'], True]
SWITCH: list[Any] = ["true", "", 1, None, []]
WRONG: dict[str, tuple[str, list[Any]]] = {
    "recovery_window_days": ("a whole number from 0 to 3650", WHOLE),
    "recovery_link_metadata_keys": ("a list of different names", KEYS),
    "link_gap_days": ("a whole number from 0 to 3650", WHOLE),
    "link_span_days": ("a whole number from 0 to 3650", WHOLE),
    "guest_link_gap_days": ("a whole number from 0 to 3650", WHOLE),
    "explicit_link_gap_days": ("a whole number from 0 to 3650", WHOLE),
    "link_pause_seconds": ("a whole number from 0 to 86400", WHOLE),
    "authentication_abandoned_after_hours": ("a whole number from 0 to 87600", WHOLE),
    "reporting_time_zone": ("the IANA name of a time zone", [*TEXT, "", "Europe/Atlantis", "UTC'"]),
    "network_fee_region": ("br, ca, europe, us", [*TEXT, "mars", "US"]),
    "network_fee_country": ("two capital letters", [*TEXT, "us", "USA", "U'"]),
    "card_testing_max_usd": ("a number from 0", NUMBER),
    "card_testing_window_minutes": ("a whole number from 1 to 1440", [*WHOLE, 0]),
    "card_testing_card_count": ("a whole number from 1", WHOLE),
    "card_testing_declined_share": ("a number from 0 to 1", [*NUMBER, 80]),
    "card_testing_tiny_max_usd": ("a number from 0", NUMBER),
    "card_testing_tiny_window_minutes": ("a whole number from 1 to 1440", [*WHOLE, 0]),
    "card_testing_tiny_card_count": ("a whole number from 1", WHOLE),
    "exclude_card_testing": ("true or false", SWITCH),
    "recovery_retry_metadata_keys": ("a list of different names", KEYS),
    "owner_name": ("text", TEXT),
    "owner_email": ("text", TEXT),
    "is_plan": ("true or false", SWITCH),
    "fingerprint": ("text", TEXT),
}
PROJECT_VARS: dict[str, Any] = yaml.safe_load((DBT_PROJECT_DIR / "dbt_project.yml").read_text())["vars"]


def with_vars(values: dict[str, Any], *command: str) -> list[str]:
    return [*command, "--vars", yaml.safe_dump(values, sort_keys=False)]


@pytest.mark.parametrize("name", PROJECT_VARS)
def test_an_invalid_var_is_explained_with_its_name_rule_and_value(name: str, built: Settings) -> None:
    """Check one value of each var, of different types. The next test checks which values are refused."""
    rule, wrong = WRONG[name]
    value = "x" * 500 if wrong is SWITCH else wrong[list(PROJECT_VARS).index(name) % len(wrong)]
    done = invoke_dbt(
        make_build_options(built), with_vars({name: value}, "run", "--select", "int_sync_streams_pivoted")
    )
    assert not done.success, value
    message = failure_text(done, built.dbt_log_dir)
    assert message.startswith(f"dbt could not start: The dbt var {name} must be {rule}"), message
    shown = json.dumps(value)
    assert message.endswith(f". It is {shown if len(shown) < 60 else shown[:59] + '…'}."), message


def test_each_var_has_a_rule_that_accepts_its_default_and_rejects_other_types(built: Settings) -> None:
    assert list(PROJECT_VARS) == list(WRONG)
    values = {name: [*wrong, PROJECT_VARS[name]] for name, (_, wrong) in WRONG.items()}
    inline = """{% for name, values in var('values').items() %}{% for value in values -%}
        {{ name }} {{ is_var_valid(value, var_rules()[name]) }}
    {% endfor %}{% endfor %}"""
    done = invoke_dbt(make_build_options(built), with_vars({"values": values}, "compile", "--inline", inline))
    assert done.success, failure_text(done, built.dbt_log_dir)
    message = [line.split() for line in done.result.results[0].node.compiled_code.splitlines() if line.strip()]
    expected = [
        [name, str(position == len(each) - 1)] for name, each in values.items() for position in range(len(each))
    ]
    assert message == expected


def test_dbt_parses_a_project_with_invalid_vars_and_then_explains_them(
    built: Settings, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Check that invalid vars do not break the parse.

    Otherwise Dagster would have no definitions, and dbt would show Jinja's error.
    """
    settings = Settings(recoup_data_dir=tmp_path)
    shutil.copy(built.warehouse_path, settings.warehouse_path)
    first, fourth = ({name: wrong[nth % len(wrong)] for name, (_, wrong) in WRONG.items()} for nth in (0, 3))
    assert run_dbt_command(make_build_options(settings), with_vars(first, "parse")) == 0
    capfd.readouterr()
    assert run_dbt_command(make_build_options(settings), with_vars(fourth, "build")) != 0, "a build parses, too"
    message = capfd.readouterr().out
    assert message.count("The dbt var ") == 1, message


def test_models_read_vars_only_through_the_checking_macro() -> None:
    files = [each for folder in ("models", "macros", "tests") for each in (DBT_PROJECT_DIR / folder).rglob("*.sql")]
    assert [each.name for each in files if re.search(r"\bvar\(", each.read_text())] == ["check_vars.sql"]


def test_metadata_keys_are_optional(built: Settings) -> None:
    """Check that orders are then identified by invoices and order references alone."""
    values: dict[str, Any] = {"recovery_link_metadata_keys": [], "recovery_retry_metadata_keys": []}
    done = invoke_dbt(
        make_build_options(built), with_vars(values, "build", "--select", "stg_stripe__payment_intents", "--empty")
    )
    assert done.success, failure_text(done, built.dbt_log_dir)


def test_only_models_that_other_groups_build_on_are_open_to_them(built: Settings) -> None:
    manifest = json.loads(ensure_manifest(make_build_options(built)).read_text(encoding="utf-8"))
    models = {name: node for name, node in manifest["nodes"].items() if node["resource_type"] == "model"}
    readers: dict[str, set[str]] = {name: set() for name in models}
    for node in models.values():
        for parent in set(node["depends_on"]["nodes"]) & models.keys():
            readers[parent].add(node["group"])
    expected = {
        name: {"marts": "public", "intermediate": "protected" if readers[name] - {node["group"]} else "private"}.get(
            node["fqn"][1], "protected"
        )
        for name, node in models.items()
    }
    assert {name: node["access"] for name, node in models.items()} == expected
    assert {node["group"] for node in models.values()} == {group["name"] for group in manifest["groups"].values()}
    owners = [each["owner"]["name"] for kind in ("groups", "exposures") for each in manifest[kind].values()]
    assert set(owners) == {PROJECT_VARS["owner_name"]}


def test_the_readme_lists_the_models_whose_unique_key_is_not_the_key_of_a_row(built: Settings) -> None:
    manifest = json.loads(ensure_manifest(make_build_options(built)).read_text(encoding="utf-8"))
    models = [node for node in manifest["nodes"].values() if node["resource_type"] == "model"]
    row_keys = {
        test["attached_node"]: test["test_metadata"]["kwargs"]["combination_of_columns"]
        for test in manifest["nodes"].values()
        if (test.get("test_metadata") or {}).get("name") == "unique_combination_of_columns"
    }
    keyed = {node["unique_id"]: node for node in models if node["config"]["unique_key"]}
    several = {node["name"] for name, node in keyed.items() if node["config"]["unique_key"] != row_keys[name]}
    (paragraph,) = re.findall(
        r"\*\*`unique_key` names(.*?)In all other models", (DBT_PROJECT_DIR / "README.md").read_text(), re.S
    )
    assert several == {word for word in re.findall(r"`(\w+)`", paragraph) if word != "merge"}
    with duckdb.connect(str(built.warehouse_path), read_only=True) as connection:
        for name in keyed.keys() - {node["unique_id"] for node in models if node["name"] in several}:
            key = ", ".join(keyed[name]["config"]["unique_key"])
            table = keyed[name]["relation_name"].split(".", 1)[1]
            assert not connection.execute(f"SELECT {key} FROM {table} GROUP BY ALL HAVING count(*) > 1").fetchall()


def test_source_freshness_works(built: Settings) -> None:
    assert set(statuses(built, "source", "freshness").values()) == {"pass"}


def test_the_manifest_is_parsed_again_only_after_a_change(built: Settings) -> None:
    def stamp() -> Any:
        return ensure_manifest(make_build_options(built)).stat().st_mtime_ns

    first = stamp()
    assert stamp() == first


STRANGE: list[Any] = [
    10**14,
    -(10**14),
    2**63 - 1,
    1.5,
    1e300,
    "abc",
    "",
    {},
    [],
    True,
    None,
    {"id": 5},
    "x" * 999,
    "\x00",
]


def test_strange_payloads_do_not_stop_the_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Check that one impossible event does not block the marts for good.

    The rows are stored as by a version without checks, whose warehouse is still built.
    """
    monkeypatch.setattr(rows_module, "_reject_if", lambda fault: None)
    fields = ["currency", "status", "canceled_at", "latest_charge", "customer", "amount_received", "last_payment_error"]
    fields += ["invoice", "capture_method", "payment_method", "cancellation_reason", "amount_capturable"]
    fields += ["next_action", "payment_method_types"]
    settings = Settings(recoup_data_dir=tmp_path)
    error = {"code": "card_declined", "charge": "ch_1", "payment_method": {"id": "pm_1", "type": "card"}}
    rows = []
    for number, (field, value) in enumerate(itertools.product(fields, STRANGE)):
        intent = {"id": f"pi_{number}", "object": "payment_intent", "amount": 500, "created": 1_767_225_600}
        intent |= {"currency": "eur", "status": "requires_payment_method", "last_payment_error": error, field: value}
        event = {"id": f"evt_{number}", "object": "event", "created": 1_767_225_601, "data": {"object": intent}}
        with suppress(TypeError):  # what does not fit into a row was quarantined before
            rows.append(event_row(event | {"type": "payment_intent.payment_failed"}, "webhook"))
    with open_warehouse(settings.warehouse_path) as connection:
        Loader(connection, AccountKey("acct_1", False), API_VERSION).load_events(rows)
    pipeline.build(settings)
