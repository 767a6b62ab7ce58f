"""The resource `warehouse` decides which file all assets, checks, jobs and sensors use."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import orjson
import pytest

from orchestration import sensors
from orchestration.config.settings import Settings
from orchestration.definitions import build_defs
from orchestration.pipeline import plan
from orchestration.resources import WarehouseResource
from orchestration.simulator import SimulatedAccount, SimulatorServer
from orchestration.simulator.stripe.objects import Renderer
from orchestration.warehouse.connection import WarehouseError, open_warehouse
from orchestration.webhooks.queue import Delivery, Queue
from tests.conftest import MakeSettings


@pytest.fixture(scope="module")
def server() -> Iterator[SimulatorServer]:
    with SimulatorServer(SimulatedAccount(seed=34, payments=60, days=20)) as running:
        yield running


def deliver(settings: Settings, account: SimulatedAccount) -> int:
    """Put the payment intents' events into the webhook queue; return how many there are."""
    renderer, now = Renderer(account), datetime.now(UTC)
    listed = account.list_entries("events", account.now, created=(0, account.now))
    events = [renderer.render("events", each, account.now) for each in listed if each.event_type == "charge.succeeded"]
    pushed = [event | {"id": f"{event['id']}again"} for event in events]
    queue = Queue(settings.queue_url)
    queue.put([Delivery("default", event["id"], orjson.dumps(event).decode(), now) for event in pushed])
    queue.close()
    return len(pushed)


def tick(instance: dg.DagsterInstance, loaded: dg.Definitions) -> Any:
    repository = loaded.get_repository_def()
    with dg.build_sensor_context(instance=instance, resources=repository.get_top_level_resources()) as context:
        return loaded.resolve_sensor_def("webhook_queue_sensor").evaluate_tick(context)


@pytest.mark.parametrize("name", ["warehouse.duckdb", "tables of 2026.db"])
def test_another_warehouse_is_used_by_everything_and_the_default_one_by_nothing(
    name: str,
    instance: dg.DagsterInstance,
    server: SimulatorServer,
    make_settings: MakeSettings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sensors, "WAIT_SECONDS", 0.0)
    monkeypatch.setattr(plan, "_path", lambda settings: tmp_path / "plan.json")
    settings, other = make_settings(server), tmp_path / "elsewhere" / name
    loaded = build_defs(settings=settings, resources={"warehouse": WarehouseResource(database=str(other))})

    def run(job: str, **options: Any) -> None:
        assert loaded.resolve_job_def(job).execute_in_process(instance=instance, **options).success, job

    run("sync_stripe", partition_key="default")
    run("check_sync")
    run("rebuild_marts")
    run("clean_history")
    one_mart = [dg.AssetKey(["marts", "recovery_cohorts"])]
    everything = loaded.resolve_implicit_global_asset_job_def()
    assert everything.execute_in_process(instance=instance, asset_selection=one_mart).success
    delivered = deliver(settings, server.account)
    result = tick(instance, loaded)
    assert result.asset_events[0].metadata["taken"].value == delivered
    assert deliver(settings, server.account)
    run("ingest_webhooks")
    assert not list(settings.recoup_data_dir.glob("warehouse*"))
    with open_warehouse(other) as connection:
        ((intents,), (events,)) = connection.execute(
            """SELECT count(*) FROM marts.payment_intents
               UNION ALL SELECT count(*) FROM raw_stripe.webhook_events"""
        ).fetchall()
    assert (intents > 40, events) == (True, delivered)


def test_a_warehouse_that_is_no_file_is_refused() -> None:
    with pytest.raises(WarehouseError, match="must be a file, not :memory:"):
        _ = WarehouseResource(database=":memory:").path
