"""Runs of the jobs on a real instance, against the simulated account over HTTP."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from pydantic import SecretStr

from orchestration.cli.run import run_pipeline
from orchestration.config.settings import Settings
from orchestration.definitions import build_defs
from orchestration.resources import WarehouseResource
from orchestration.setup.pipeline import make_pipeline_inputs
from orchestration.simulator import DEFAULT_API_KEY, PERSONAL_MARKERS, SimulatedAccount, SimulatorServer
from orchestration.warehouse.connection import open_warehouse
from tests.conftest import MakeSettings
from tests.support.load_ledger import record_new_loads

NOT_CHARGES = ["payment_intent_read", "dispute_read", "event_read", "accounts_kyc_id_numbers_read"]


@pytest.fixture(scope="module")
def server() -> Iterator[SimulatorServer]:
    account = SimulatedAccount(seed=34, payments=300, days=45)
    with SimulatorServer(account, keys={DEFAULT_API_KEY: None, "rk_test_lacking": NOT_CHARGES}) as running:
        yield running


def run(
    instance: dg.DagsterInstance, settings: Settings, job: str = "sync_stripe", *, integration: str = "default"
) -> dg.ExecuteInProcessResult:
    found = build_defs(settings=settings).resolve_job_def(job)
    partition = integration if job == "sync_stripe" else None
    return found.execute_in_process(instance=instance, partition_key=partition, raise_on_error=False)


def metadata(instance: dg.DagsterInstance, *path: str) -> dict[str, Any]:
    event = instance.get_latest_materialization_event(dg.AssetKey(path))
    assert event is not None, path
    assert event.asset_materialization is not None
    return {name: value.value for name, value in event.asset_materialization.metadata.items()}


def failures(result: dg.ExecuteInProcessResult) -> str:
    """Return the error messages of the failed steps."""
    return "\n".join(
        str(event.step_failure_data.user_failure_data.description)
        for event in result.all_events
        if event.is_step_failure and event.step_failure_data.user_failure_data
    )


def checks(result: dg.ExecuteInProcessResult) -> dict[str, bool]:
    return {
        f"{'/'.join(each.asset_key.path)}:{each.check_name}": each.passed
        for each in result.get_asset_check_evaluations()
    }


def test_a_sync_reports_its_figures_and_a_second_one_changes_nothing(
    instance: dg.DagsterInstance, server: SimulatorServer, make_settings: MakeSettings
) -> None:
    settings = make_settings(server)
    result = run(instance, settings)
    assert result.success
    reported = metadata(instance, "stripe", "payment_intents")
    assert reported["rows_read"] >= reported["rows_written"] == reported["dagster/row_count"] > 250
    assert reported["data_through"] == reported["watermark"] == server.account.now
    assert reported["preview"].startswith("| id |")
    assert len(reported["preview"]) < 1_000, "Dagster's UI hides a longer text behind a link"
    of_run = metadata(instance, "sync", "streams")
    assert of_run["requests"] > 6
    assert of_run["missing_permissions"] == "none"
    assert metadata(instance, "marts", "recovery_episodes")["dagster/row_count"] > 10
    published = metadata(instance, "published", "recovery")
    assert published["path"] == str(settings.published_path)
    assert_plotted_figures(settings, published)
    (record,) = instance.get_run_records(dg.RunsFilter(run_ids=[result.run_id]))
    assert record.dagster_run.tags["recoup/account"] == server.account.id
    with open_warehouse(settings.warehouse_path) as connection:
        ((share, failed),) = connection.execute(
            """SELECT recovery_rate, failed_count FROM marts.recovery_rates
               WHERE period = 'all_time' AND is_all_currencies"""
        ).fetchall()
    assert f"(test mode): 30-day recovery rate {100 * share:.1f} % (" in published["recovery_rate"]
    assert f" of {failed} matured failed payments; strict " in published["recovery_rate"]
    evaluated = checks(result)
    assert all(evaluated.values())
    assert "marts/recovery_episodes:failed_payments_are_in_exactly_one_status" in evaluated
    assert "stripe/charges:key_has_permission" in evaluated

    assert run(instance, settings).success
    for table in ("payment_intents", "charges", "refunds", "disputes", "events"):
        assert metadata(instance, "stripe", table)["rows_written"] == 0
    assert metadata(instance, "sync", "streams")["requests"] == 3


def assert_plotted_figures(settings: Settings, published: dict[str, Any]) -> None:
    """Check the numbers by currency against recovery_episodes."""
    with open_warehouse(settings.warehouse_path) as connection:
        rows = connection.execute(
            """SELECT upper(currency), sum(at_risk_amount) / 10 ** any_value(exponent),
                   sum(recovered_amount_net) / 10 ** any_value(exponent)
               FROM marts.recovery_episodes JOIN seeds.currencies ON code = currency
               WHERE is_in_scope GROUP BY 1 ORDER BY count(*) DESC LIMIT 2"""
        ).fetchall()
    for currency, at_risk, net in rows:
        assert published[f"at_risk_{currency}"] == pytest.approx(float(at_risk))
        assert published[f"recovered_net_{currency}"] == pytest.approx(float(net))
        assert 0 <= published[f"recovery_rate_matured_{currency}"] <= 1
    header = published["by_currency"].splitlines()[0]
    assert header == "| currency | recovery rate, matured | at risk | recovered, net | in recovery |"


def test_a_sync_from_the_command_line_is_reported_to_dagster(
    instance: dg.DagsterInstance, server: SimulatorServer, make_settings: MakeSettings
) -> None:
    settings = make_settings(server)
    run_pipeline(make_pipeline_inputs(settings))
    defs = build_defs(settings=settings)
    sensor = defs.resolve_sensor_def("command_sensor")
    resources = {"warehouse": WarehouseResource(database=str(settings.warehouse_path))}
    cursor = None
    for _ in range(2):
        context = dg.build_sensor_context(instance=instance, cursor=cursor, definitions=defs, resources=resources)
        tick = sensor.evaluate_tick(context)
        cursor = tick.cursor
        for event in tick.asset_events:
            instance.report_runless_asset_event(event)
    assert tick.asset_events == [], "a second tick reports nothing again"
    graph = defs.resolve_asset_graph()
    known = {key for key in graph.materializable_asset_keys if instance.get_latest_materialization_event(key)}
    assert graph.materializable_asset_keys - known == set()
    summaries = instance.event_log_storage.get_asset_check_summary_records(list(graph.asset_check_keys))
    records = {key: each.last_check_execution_record for key, each in summaries.items()}
    assert [key for key, record in records.items() if record is None or record.status.value != "SUCCEEDED"] == []
    assert metadata(instance, "published", "recovery")["path"] == str(settings.published_path)


def test_a_folder_that_cannot_be_written_does_not_fail_a_sync(
    server: SimulatorServer, make_settings: MakeSettings
) -> None:
    settings = make_settings(server, built=True)
    settings.dagster_home.write_text("a file in the way of the folder")
    assert run_pipeline(make_pipeline_inputs(settings))


def test_runs_leave_no_warning_secret_or_personal_data(
    instance: dg.DagsterInstance,
    server: SimulatorServer,
    make_settings: MakeSettings,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    run(instance, make_settings(server, built=True))
    run(instance, make_settings(server, key="rk_test_unknown_key_of_somebody"))
    logged = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert [text for text in logged if "check" in text.lower() or "observation" in text.lower()] == []
    contents = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert len(contents) > 100_000
    for secret in (DEFAULT_API_KEY, "unknown_key_of_somebody", "_secret_", *PERSONAL_MARKERS):
        assert secret.encode() not in contents, secret


def test_rebuild_marts_needs_no_stripe(
    instance: dg.DagsterInstance, server: SimulatorServer, make_settings: MakeSettings
) -> None:
    settings = make_settings(server, built=True)
    assert run(instance, settings).success
    offline = settings.model_copy(update={"stripe_api_key": None, "stripe_api_base": "http://127.0.0.1:9"})
    settings.published_path.unlink()
    assert run(instance, offline, "rebuild_marts").success
    assert settings.published_path.exists()
    before = settings.published_path.stat()
    assert run(instance, offline, "rebuild_marts").success
    after = settings.published_path.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns), "nothing has changed"


def test_one_mart_can_be_built_alone(
    instance: dg.DagsterInstance, server: SimulatorServer, make_settings: MakeSettings
) -> None:
    settings = make_settings(server, built=True)
    assert run(instance, settings).success
    defs = build_defs(settings=settings)
    key = dg.AssetKey(["marts", "recovery_cohorts"])
    settings.published_path.unlink()
    result = defs.resolve_implicit_global_asset_job_def().execute_in_process(instance=instance, asset_selection=[key])
    made = {event.asset_key for event in result.get_asset_materialization_events()}
    assert made == {key, dg.AssetKey(["published", "recovery"]), dg.AssetKey(["published", "report"])}
    assert settings.published_path.exists(), "a mart that was built alone is published, too"
    assert {name.split(":")[0] for name in checks(result)} == {"marts/recovery_cohorts"}


def test_without_a_key_a_run_says_which_variable_to_set(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    result = run(instance, Settings(recoup_data_dir=tmp_path / "data"))
    assert not result.success
    assert failures(result).startswith("STRIPE_API_KEY is not set.")


def test_an_unknown_key_fails_the_run_with_one_sentence(
    instance: dg.DagsterInstance, server: SimulatorServer, make_settings: MakeSettings
) -> None:
    result = run(instance, make_settings(server, key="rk_test_unknown"))
    assert not result.success
    assert failures(result).startswith("Stripe does not accept this API key.")
    assert not result.get_asset_materialization_events()


def test_a_missing_permission_fails_only_its_own_check(
    instance: dg.DagsterInstance, server: SimulatorServer, make_settings: MakeSettings
) -> None:
    settings = make_settings(server, built=True).model_copy(update={"stripe_api_key": SecretStr("rk_test_lacking")})
    result = run(instance, settings)
    assert result.success
    evaluated = checks(result)
    assert {name for name, passed in evaluated.items() if not passed and "key_has_permission" in name} == {
        "stripe/charges:key_has_permission",
        "stripe/refunds:key_has_permission",
    }
    assert metadata(instance, "sync", "streams")["missing_permissions"] == "rak_charge_read"


def test_a_failed_test_keeps_the_published_file(
    instance: dg.DagsterInstance, server: SimulatorServer, make_settings: MakeSettings
) -> None:
    settings = make_settings(server, built=True)
    assert run(instance, settings).success
    before = settings.published_path.read_bytes()
    with open_warehouse(settings.warehouse_path) as connection:
        connection.execute(
            """INSERT INTO raw_stripe.charges
               SELECT * EXCLUDE (copy) REPLACE (nextval('sync.load_ids') AS _load_id)
               FROM (FROM raw_stripe.charges LIMIT 1) CROSS JOIN range(2) AS copies (copy)"""
        )
        record_new_loads(connection, "charges")
    result = run(instance, settings, "rebuild_marts")
    assert not result.success
    assert re.search(r"unique_combination_of_columns_stg_stripe__charges\w+: ", failures(result))
    assert settings.published_path.read_bytes() == before
    made = {event.asset_key.to_user_string() for event in result.get_asset_materialization_events() if event.asset_key}
    assert {"seeds/currencies", "staging/stg_stripe__disputes"} <= made, "what did not fail is not marked as failed"
    assert made & {"staging/stg_stripe__charges", "marts/recovery_episodes", "published/recovery"} == set()


def test_runs_that_write_the_warehouse_wait_for_each_other(
    instance: dg.DagsterInstance,
) -> None:
    """Check that all steps that write the warehouse, in any job, share one slot."""
    pools = instance.event_log_storage
    pools.initialize_concurrency_limit_to_default("warehouse")
    assert pools.get_concurrency_info("warehouse").slot_count == 1
    first = pools.claim_concurrency_slot("warehouse", "run_1", "extract")
    second = pools.claim_concurrency_slot("warehouse", "run_2", "models")
    assert (first.is_claimed, second.is_claimed) == (True, False)
