"""Several accounts in Dagster: each is a partition that syncs, fails and waits separately; a check tests all keys."""

import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
from pydantic import SecretStr

from orchestration.accounts.registry import Integration
from orchestration.cli.dev import prepare_dagster_home
from orchestration.config.settings import PROJECT_ROOT, Settings
from orchestration.definitions import build_defs
from orchestration.setup.registry import make_integrations
from orchestration.simulator import ApiKey, SimulatedAccount, SimulatorServer
from orchestration.warehouse.connection import open_warehouse
from tests.support.stripe_router import StripeRouter

SHOP, CLUB = "rk_test_51QzXwVuKpRmNhGqTb7shop", "rk_test_51QzXwVuKpRmNhGqTb7club"
LATE = "rk_test_51QzXwVuKpRmNhGqTb7late"
MATERIALIZE = [sys.executable, "-m", "dagster", "asset", "materialize", "-m", "orchestration.definitions"]
RAW = [dg.AssetKey(["sync", "streams"])] + [
    dg.AssetKey(["stripe", table])
    for table in ("payment_intents", "charges", "refunds", "disputes", "events", "last_payment_errors")
]


@pytest.fixture(scope="module")
def shop() -> Iterator[SimulatorServer]:
    with SimulatorServer(SimulatedAccount(seed=34, payments=60, days=10), keys={SHOP: None}) as running:
        yield running


@pytest.fixture(scope="module")
def club() -> Iterator[SimulatorServer]:
    with SimulatorServer(SimulatedAccount(seed=35, payments=60, days=10), keys={CLUB: None}) as running:
        yield running


@pytest.fixture
def settings(shop: SimulatorServer, club: SimulatorServer, tmp_path: Path) -> Iterator[Settings]:
    """Yield settings with two integrations and no STRIPE_API_KEY."""
    with StripeRouter(shop, club) as stripe:
        made = Settings(recoup_data_dir=tmp_path / "data", stripe_api_base=stripe.url)
        for name, key, server in (("shop", SHOP, shop), ("club", CLUB, club)):
            server.keys.put(key, ApiKey(None))
            connect(made, name, key, server.account.id)
        yield made


def connect(settings: Settings, name: str, key: str, account_id: str) -> None:
    known = Integration(name, SecretStr(key), "what was pasted", account_id=account_id, livemode=False)
    make_integrations(settings).add(known)


def read(instance: dg.DagsterInstance, settings: Settings, integration: str) -> dg.ExecuteInProcessResult:
    """Run `sync_stripe` for one integration, without its models."""
    job = build_defs(settings=settings).resolve_job_def("sync_stripe")
    return job.execute_in_process(
        instance=instance, partition_key=integration, op_selection=["extract"], raise_on_error=False
    )


def read_accounts(settings: Settings) -> set[str]:
    with open_warehouse(settings.warehouse_path) as connection:
        return {account for (account,) in connection.execute("SELECT account_id FROM raw_stripe.charges").fetchall()}


def test_each_run_reads_only_the_account_of_its_partition(
    instance: dg.DagsterInstance, settings: Settings, shop: SimulatorServer, club: SimulatorServer
) -> None:
    shop.requests.clear()
    assert read(instance, settings, "club").success
    assert (shop.requests.total, read_accounts(settings)) == (0, {club.account.id})
    assert read(instance, settings, "shop").success
    assert read_accounts(settings) == {club.account.id, shop.account.id}
    for key in RAW:
        assert instance.get_materialized_partitions(key) == {"shop", "club"}
    club.requests.clear()
    assert read(instance, settings, "club").success
    assert club.requests.total == 3, "it continues from its own checkpoint"


def test_a_failing_integration_says_why_and_does_not_affect_the_other(
    instance: dg.DagsterInstance, settings: Settings, shop: SimulatorServer, club: SimulatorServer
) -> None:
    club.keys.put(CLUB, ApiKey(state="expired"))
    failed = read(instance, settings, "club")
    assert not failed.success
    (why,) = [event for event in failed.all_events if event.is_step_failure]
    assert "This API key has expired or was rolled" in str(why.step_failure_data.user_failure_data)
    assert read(instance, settings, "shop").success
    assert read_accounts(settings) == {shop.account.id}


def test_a_run_without_an_integration_is_refused(settings: Settings) -> None:
    job = build_defs(settings=settings).resolve_job_def("sync_stripe")
    with pytest.raises(dg.DagsterUnknownPartitionError):
        job.execute_in_process(partition_key="default", op_selection=["extract"])


def tick(instance: dg.DagsterInstance, loaded: dg.Definitions) -> str:
    """Return the partitions that a tick in an hour requests, or why it requests none."""
    repository = loaded.get_repository_def()
    with dg.build_schedule_context(
        instance=instance, scheduled_execution_time=datetime.now(UTC) + timedelta(hours=1), repository_def=repository
    ) as context:
        result = repository.get_schedule_def("sync_stripe_schedule").evaluate_tick(context)
    requested = [request.tags["dagster/partition"] for request in result.run_requests or []]
    return " ".join(requested) or str(result.skip_message)


def report_costly_sync(instance: dg.DagsterInstance, integration: str) -> None:
    figures = {"requests_of_a_poll": 40, "read_allowance_of_30_days": 10_000}
    event = dg.AssetMaterialization(["sync", "streams"], metadata=figures, partition=integration)
    instance.report_runless_asset_event(event)


def test_a_tick_requests_a_run_for_each_integration_within_its_allowance(
    instance: dg.DagsterInstance, settings: Settings
) -> None:
    loaded = build_defs(settings=settings)
    assert tick(instance, loaded) == "shop club"
    report_costly_sync(instance, "shop")
    assert tick(instance, loaded) == "club"
    report_costly_sync(instance, "club")
    why = tick(instance, loaded)
    assert "shop: The last sync made 40 requests." in why
    assert "club: The last sync made 40 requests." in why


def test_ticks_follow_the_connected_integrations_without_reloading(
    instance: dg.DagsterInstance, settings: Settings
) -> None:
    loaded = build_defs(settings=settings)
    connect(settings, "late", LATE, "acct_1Late")
    assert tick(instance, loaded) == "shop club late"
    make_integrations(settings).remove("shop")
    make_integrations(settings).rename("club", "gym")
    assert tick(instance, loaded) == "gym late"
    for name in ("gym", "late"):
        make_integrations(settings).remove(name)
    assert tick(instance, loaded) == "No account is connected yet: recoup connect"


def update_partitions(instance: dg.DagsterInstance, loaded: dg.Definitions) -> tuple[list[str], str]:
    """Apply a tick of the sensor as the daemon does; return the list of partitions and the text of the tick."""
    with dg.build_sensor_context(instance=instance) as context:
        result = loaded.resolve_sensor_def("integrations_sensor").evaluate_tick(context)
    for request in result.dynamic_partitions_requests or []:
        if isinstance(request, dg.AddDynamicPartitionsRequest):
            instance.add_dynamic_partitions(request.partitions_def_name, request.partition_keys)
        else:
            for key in request.partition_keys:
                instance.delete_dynamic_partition(request.partitions_def_name, key)
    return sorted(instance.get_dynamic_partitions("integration")), str(result.skip_message)


def test_the_list_of_partitions_follows_the_connected_integrations(
    instance: dg.DagsterInstance, settings: Settings
) -> None:
    loaded = build_defs(settings=settings)
    unchanged = "Every connected account has its partition."
    assert update_partitions(instance, loaded) == (["club", "shop"], "Added: shop, club.")
    assert update_partitions(instance, loaded) == (["club", "shop"], unchanged)
    connect(settings, "late", LATE, "acct_1Late")
    assert update_partitions(instance, loaded)[0] == ["club", "late", "shop"]
    make_integrations(settings).rename("club", "gym")
    make_integrations(settings).remove("shop")
    assert update_partitions(instance, loaded) == (["gym", "late"], "Added: gym. Removed: shop, club.")
    content = settings.integrations_path.read_text()
    settings.integrations_path.write_text("[gym")
    partitions, why = update_partitions(instance, loaded)
    assert partitions == ["gym", "late"]
    assert why.endswith("The partitions stay as they are.")
    settings.integrations_path.write_text(content)
    for name in ("gym", "late"):
        make_integrations(settings).remove(name)
    assert update_partitions(instance, loaded)[0] == ["default"]


def test_a_run_needs_no_list_of_partitions_and_a_removed_integration_is_refused(
    instance: dg.DagsterInstance, settings: Settings
) -> None:
    loaded = build_defs(settings=settings)
    connect(settings, "late", LATE, "acct_1Late")
    job = loaded.resolve_job_def("sync_stripe")
    options = {"instance": instance, "op_selection": ["extract"], "raise_on_error": False}
    late = job.execute_in_process(partition_key="late", **options)
    assert [event.event_type_value for event in late.all_events if event.is_step_start] == ["STEP_START"]
    assert update_partitions(instance, loaded)[0] == ["club", "late", "shop"]
    make_integrations(settings).remove("late")
    with pytest.raises(dg.DagsterUnknownPartitionError):
        job.execute_in_process(partition_key="late", **options)


@pytest.mark.parametrize("has_home", [True, False])
def test_the_command_line_of_dagster_materializes_in_a_new_instance(
    has_home: bool, shop: SimulatorServer, tmp_path: Path
) -> None:
    shop.keys.put(SHOP, ApiKey(None))
    variables = {
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "PYTHONPATH": str(PROJECT_ROOT),
        "HOME": str(tmp_path),
        "RECOUP_DATA_DIR": str(tmp_path / "data"),
        "STRIPE_API_KEY": SHOP,
        "STRIPE_API_BASE": shop.url,
    }
    if has_home:
        variables["DAGSTER_HOME"] = str(prepare_dagster_home(Settings(recoup_data_dir=tmp_path / "data")))
    selection = ",".join("/".join(key.path) for key in (*RAW, dg.AssetKey(["sync", "quarantine"])))
    done = subprocess.run(
        [*MATERIALIZE, "--select", selection, "--partition", "default"],
        env=variables,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert read_accounts(Settings(recoup_data_dir=tmp_path / "data")) == {shop.account.id}


def run_key_check(instance: dg.DagsterInstance, settings: Settings) -> dg.AssetCheckEvaluation:
    result = build_defs(settings=settings).resolve_job_def("check_sync").execute_in_process(instance=instance)
    (found,) = [each for each in result.get_asset_check_evaluations() if each.check_name == "every_key_works"]
    return found


def test_the_key_check_names_failing_integrations_and_says_why(
    instance: dg.DagsterInstance, settings: Settings, shop: SimulatorServer, club: SimulatorServer
) -> None:
    good = run_key_check(instance, settings)
    assert (good.passed, good.severity, good.description) == (True, dg.AssetCheckSeverity.ERROR, None)
    assert {name: value.value for name, value in good.metadata.items()} == {
        "shop": f"{shop.account.id} can be read.",
        "club": f"{club.account.id} can be read.",
    }
    club.keys.put(CLUB, ApiKey(("payment_intent_read", "event_read", "charge_read")))
    lacking = run_key_check(instance, settings)
    assert (lacking.passed, lacking.description) == (False, "club: The key lacks rak_dispute_read.")
    shop.keys.put(SHOP, ApiKey(state="revoked"))
    both = run_key_check(instance, settings)
    assert not both.passed
    assert str(both.description).startswith("shop: This API key no longer has access to the account")
    assert str(both.description).endswith("club: The key lacks rak_dispute_read.")
