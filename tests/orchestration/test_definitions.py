"""Dagster's definitions, without a key and without a run."""

import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest
from pydantic import ValidationError

from orchestration.cli.dev import prepare_dagster_home
from orchestration.config.settings import PROJECT_ROOT, Settings
from orchestration.definitions import build_defs

RAW = {"payment_intents", "charges", "refunds", "disputes", "events", "last_payment_errors"}
MARTS = {
    "abandoned_authentications",
    "acceptance_daily",
    "authentication_funnel",
    "card_retry_budgets",
    "data_coverage",
    "data_issues",
    "decline_reasons",
    "experiment_results",
    "link_audit",
    "payment_attempts",
    "payment_intent_status_history",
    "payment_intents",
    "recovery_actions",
    "recovery_activity_daily",
    "recovery_cohorts",
    "recovery_curve",
    "recovery_episodes",
    "recovery_forecast",
    "recovery_forecast_accuracy",
    "recovery_rates",
    "retry_performance",
    "retry_timing",
    "waiting_payments",
}


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return Settings(recoup_data_dir=tmp_path_factory.mktemp("definitions"))


@pytest.fixture(scope="module")
def defs(settings: Settings) -> dg.Definitions:
    return build_defs(settings=settings)


def test_assets_are_named_after_their_tables_and_grouped_by_stage(defs: dg.Definitions) -> None:
    groups: dict[str, set[str]] = {}
    for node in defs.resolve_asset_graph().asset_nodes:
        groups.setdefault(node.group_name or "", set()).add("/".join(node.key.path))
    assert groups["1_raw"] == {f"stripe/{table}" for table in (*RAW, "webhook_events")} | {
        "sync/streams",
        "sync/quarantine",
    }
    assert groups["5_marts"] == {f"marts/{table}" for table in MARTS}
    assert groups["6_published"] == {"published/recovery", "published/report"}
    assert {f"staging/stg_stripe__{table}" for table in RAW} <= groups["3_staging"]
    assert {name.split("/")[0] for name in groups["2_seeds"]} == {"seeds"}
    assert sorted(groups) == ["1_raw", "2_seeds", "3_staging", "4_intermediate", "5_marts", "6_published"]


def test_every_asset_and_check_has_a_description_without_jinja(defs: dg.Definitions) -> None:
    graph = defs.resolve_asset_graph()
    texts = {node.key.to_user_string(): node.description for node in graph.asset_nodes}
    texts |= {str(key): graph.get_check_spec(key).description for key in graph.asset_check_keys}
    assert len(texts) > 100
    assert {name: text for name, text in texts.items() if not text or "{{" in text or "{%" in text} == {}


def test_the_owner_of_the_settings_owns_all_assets(settings: Settings) -> None:
    for value, owner in (("revenue", "team:revenue"), ("team:revenue", "team:revenue"), ("a@b.example", "a@b.example")):
        owned = build_defs(settings=Settings(recoup_data_dir=settings.recoup_data_dir, recoup_owner=value))
        assert {tuple(node.owners) for node in owned.resolve_asset_graph().asset_nodes} == {(owner,)}
    for value in ("two words", "a@b", "a|b@c.example"):
        with pytest.raises(ValidationError, match="e-mail address, or the name of a team"):
            Settings(recoup_owner=value)


def test_published_data_and_syncs_have_a_freshness_policy(defs: dg.Definitions) -> None:
    graph = defs.resolve_asset_graph()
    fresh = {node.key.to_user_string() for node in graph.asset_nodes if node.freshness_policy is not None}
    assert fresh == {"published/recovery", "published/report", "sync/streams"}


def test_runs_of_single_assets_use_one_process_unless_another_executor_is_given(settings: Settings) -> None:
    assert build_defs(settings=settings).resolve_implicit_global_asset_job_def().executor_def is dg.in_process_executor
    others = build_defs(settings=settings, executor=dg.multiprocess_executor)
    assert others.resolve_job_def("sync_stripe").executor_def is dg.multiprocess_executor


def test_every_model_lies_between_raw_tables_and_published_marts(defs: dg.Definitions) -> None:
    graph = defs.resolve_asset_graph()
    published = graph.get(dg.AssetKey(["published", "recovery"]))
    assert {dg.AssetKey(["marts", table]) for table in MARTS} <= published.parent_keys
    events = graph.get(dg.AssetKey(["staging", "stg_stripe__events"]))
    assert events.parent_keys == {dg.AssetKey(["stripe", "events"]), dg.AssetKey(["stripe", "webhook_events"])}


def test_jobs_select_their_assets_and_share_one_pool(defs: dg.Definitions) -> None:
    assert {job.name for job in defs.resolve_all_job_defs()} >= {"sync_stripe", "rebuild_marts", "ingest_webhooks"}
    rebuilt = defs.resolve_job_def("rebuild_marts").asset_layer.selected_asset_keys
    assert not [key for key in rebuilt if key.path[0] in ("stripe", "sync")]
    for job in ("sync_stripe", "ingest_webhooks"):
        for op in defs.resolve_job_def(job).all_node_defs:
            assert isinstance(op, dg.OpDefinition)
            without = ("extract", "published__report")
            assert op.pool == (None if op.name in without else "warehouse"), f"{op.name}: a sync yields by itself"


def test_syncs_and_webhooks_are_separate_jobs_that_do_not_block_each_other(defs: dg.Definitions) -> None:
    def selected(job: str) -> set[str]:
        return {"/".join(key.path) for key in defs.resolve_job_def(job).asset_layer.selected_asset_keys}

    assert "stripe/webhook_events" not in selected("sync_stripe")
    assert {key for key in selected("ingest_webhooks") if key.startswith("stripe/")} == {"stripe/webhook_events"}
    assert {f"marts/{table}" for table in MARTS} | {"published/recovery"} <= selected("ingest_webhooks")


def test_the_schedule_is_on_by_default_even_before_an_account_is_connected(settings: Settings) -> None:
    changed = settings.model_copy(update={"recoup_sync_cron": "*/15 * * * *"})
    schedule = build_defs(settings=changed).resolve_schedule_def("sync_stripe_schedule")
    assert schedule.default_status is dg.DefaultScheduleStatus.RUNNING
    assert (schedule.cron_schedule, schedule.execution_timezone) == ("*/15 * * * *", "UTC")
    assert schedule.job_name == "sync_stripe"


def test_workspace_yaml_loads_as_dagster_loads_it(tmp_path: Path) -> None:
    settings = Settings(recoup_data_dir=tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "dagster", "definitions", "validate", "-w", "workspace.yaml"],
        env={
            "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
            "HOME": str(tmp_path),
            "DAGSTER_HOME": str(prepare_dagster_home(settings.dagster_home)),
            "RECOUP_DATA_DIR": str(tmp_path),
        },
        cwd=PROJECT_ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Validation successful for code location recoup" in done.stdout + done.stderr
