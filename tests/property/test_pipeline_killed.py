"""After a kill, a failed test or a build of some models, one clean sync makes the marts equal the truth.

A history is a random account and a list of steps. In a step, time passes and some parts of the pipeline run on the
polled or pushed changes. They may be killed before or after a transaction or the replacement of a file. A clean sync
follows. Then the published marts are compared with the simulator's truth, and the models with a full build. Each step
is a case; RECOUP_CASES sets their number, and `make soak` runs thousands.
"""

import multiprocessing
import os
import random
import signal
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import orjson
import pytest
from pydantic import SecretStr

from orchestration.config.settings import Settings
from orchestration.pipeline import builder, dbt_runner, steps
from orchestration.pipeline.plan import Plan, stored_plan
from orchestration.setup.pipeline import make_build_options
from orchestration.simulator import DEFAULT_API_KEY, SimulatedAccount, SimulatorServer, webhook_payload
from orchestration.stripe_api import client
from orchestration.stripe_api.rate_limits import Governor
from orchestration.sync import engine
from orchestration.warehouse import publish
from orchestration.warehouse.connection import open_warehouse, transaction
from orchestration.warehouse.redact import redact, stored_json
from orchestration.webhooks import ingest
from orchestration.webhooks.queue import Delivery, Queue
from tests.support import pipeline
from tests.support.built_folder import BuiltFolder
from tests.support.full_models import build_all_rows
from tests.support.processes import KillPoints
from tests.support.truth import find_differences, read_rows

CASES = int(os.environ.get("RECOUP_CASES", "65"))
STEPS = 13
"""The number of steps in a history, each of which is a case."""
COMPARED_STEPS = 4
"""Compare with a full build after every fourth step and the last. Lost rows stay lost, so it still finds them."""

HOUR, DAY = 3_600, 86_400
TABLES = ("refunds", "charges", "disputes")
MOST_EDGES = 14
FIVE = {
    f"payment_intent.{kind}" for kind in ("succeeded", "payment_failed", "processing", "requires_action", "canceled")
}

forks = multiprocessing.get_context("forkserver")
forks.set_forkserver_preload([__name__, "pandas", "pyarrow.dataset", "pyarrow.pandas_compat", "_strptime", "netrc"])


@dataclass(frozen=True)
class Step:
    """A time to pass, then parts of the pipeline to run in a process that may be killed.

    `pushed` is the share of new events that come by webhook. `has_failing_test` makes every build fail.
    """

    seconds: int
    parts: tuple[str, ...]
    killed_at: int
    pushed: float = 0.0
    has_failing_test: bool = False
    seed: int = 0


PARTS: tuple[tuple[str, ...], ...] = (
    ("extract",),
    ("extract", "build"),
    ("extract", "build", "publish"),
    ("carry_on",),
    ("extract", "carry_on"),
    ("extract", "some_models", "carry_on"),
    ("ingest", "some_models", "build"),
    ("some_models", "extract", "build"),
)


def random_step(chance: random.Random) -> Step:
    return Step(
        seconds=chance.choice([0, 7, HOUR, 5 * HOUR, DAY, 3 * DAY, 9 * DAY]),
        parts=chance.choice(PARTS),
        killed_at=chance.randint(1, MOST_EDGES),
        pushed=chance.choice([0.0, 0.5, 1.0]),
        has_failing_test=chance.random() < 0.2,
        seed=chance.randrange(2**32),
    )


class Shop:
    """Hold a simulated account, its data folder, and the times of its completed syncs."""

    def __init__(self, folder: Path, built_folder: BuiltFolder, server: SimulatorServer) -> None:
        built_folder.copy(folder)
        self.server, self.account = server, server.account
        self.settings = Settings(
            stripe_api_key=SecretStr(DEFAULT_API_KEY), stripe_api_base=server.url, recoup_data_dir=folder
        )
        self.syncs: list[int] = []
        self._pushed_through = self.account.opened_at - 1

    def push(self, share: float, chance: random.Random) -> None:
        """Put a share of the events since the last push into the queue, in random order, some of them twice."""
        happened = self.account.events_between(self._pushed_through, self.account.now)
        self._pushed_through = self.account.now
        chosen = [event for event in happened if event.event_type in FIVE and chance.random() < share]
        chosen += [event for event in chosen if chance.random() < 0.2]
        chance.shuffle(chosen)
        with closing(Queue(self.settings.queue_url)) as queue:
            queue.put([self._delivery(event) for event in chosen])

    def _delivery(self, event: Any) -> Delivery:
        payload = stored_json(redact(orjson.loads(webhook_payload(self.account, event))))
        return Delivery("default", event.id, payload, datetime.now(UTC))

    def run_interrupted(self, step: Step) -> None:
        """Run the parts of a step in a separate process that may be killed."""
        child = forks.Process(target=run_parts, args=(self.settings.recoup_data_dir, self.server.url, step))
        child.start()
        child.join(120)
        assert child.exitcode in (0, -signal.SIGKILL), f"{step}: exit code {child.exitcode}"

    def sync(self) -> None:
        """Run the whole pipeline once, without a kill."""
        report = pipeline.extract(self.settings)
        assert report.missing == {}
        pipeline.ingest(self.settings)
        assert not pipeline.build(self.settings).is_full
        pipeline.publish_marts(self.settings)
        self.syncs.append(self.account.now)

    def differences_from_truth(self) -> list[str]:
        """Return the first differences between the published marts and the simulator's truth."""
        return list(find_differences(self.account, self.settings, self.syncs)[:5])

    def differences_from_full_build(self, folder: Path) -> list[str]:
        """Return the tables, and the published marts, that differ from a build of everything."""
        built, expected = build_all_rows(self.settings, folder)
        with duckdb.connect(str(self.settings.published_path), read_only=True) as published:
            marts = [table for table in expected if table.startswith("marts.")]
            shown = read_rows(published, without={"_load_id"}, only=marts)
        return [
            *(table for table in expected if built[table] != expected[table]),
            *(f"published {table}" for table in marts if shown[table] != expected[table]),
        ]


def run_parts(folder: Path, url: str, step: Step) -> None:
    """Run the parts of a step in the child process, until it is killed."""
    kill_points = KillPoints(step.killed_at)
    for module in (engine, ingest, builder, publish):
        module.transaction = kill_points.transaction  # type: ignore[attr-defined]
    publish.os.replace = kill_points.wrap(os.replace)  # type: ignore[attr-defined]
    Queue.finish = kill_points.wrap(Queue.finish)  # type: ignore[method-assign]
    client.Governor = lambda *, livemode, wait: Governor(livemode=livemode, wait=lambda _: None)  # type: ignore
    settings = Settings(stripe_api_key=SecretStr(DEFAULT_API_KEY), stripe_api_base=url, recoup_data_dir=folder)
    chance = random.Random(step.seed)
    if step.has_failing_test:
        fail_every_build()
    for part in step.parts:
        try:
            RUN[part](settings, chance)
        except dbt_runner.ModelsFailed:
            assert step.has_failing_test


def fail_every_build() -> None:
    whole = builder.run_plan

    def failing(connection: duckdb.DuckDBPyConnection, plan: Plan, **options: Any) -> Any:
        broken = tuple(replace(test, query="SELECT 1, true, true", is_blocking=True) for test in plan.tests)
        return whole(connection, replace(plan, tests=broken), **options)

    builder.run_plan = steps.run_plan = failing  # type: ignore[assignment]


def carry_on(settings: Settings, chance: random.Random) -> None:
    """Do what a tick of the webhook sensor does."""
    with closing(Queue(settings.queue_url)) as queue:
        pipeline.ingest_and_publish(settings, queue, limit=chance.choice([3, 5_000]), wait=20)


def build_some_models(settings: Settings, chance: random.Random) -> None:
    """Build some models as `dbt run --select` does, even if nothing has changed, and leave the others."""
    plan = stored_plan(make_build_options(settings))
    assert plan is not None
    chosen = tuple(model for model in plan.models if chance.random() < 0.4)
    with open_warehouse(settings.warehouse_path) as connection:
        for name, value in plan.settings.items():
            connection.execute(f"SET {name} = '{value}'")
        with transaction(connection):
            everything = {*plan.sources, *(model.id for model in plan.models)}
            run = builder._Run(connection, replace(plan, models=chosen), everything, lambda name: None)
            for model in plan.models:
                run._set_measures(model)
            run.build_models()


RUN: dict[str, Callable[[Settings, random.Random], object]] = {
    "extract": lambda settings, chance: pipeline.extract(settings),
    "ingest": lambda settings, chance: pipeline.ingest(settings, limit=chance.choice([5, None])),
    "build": lambda settings, chance: pipeline.build(settings),
    "publish": lambda settings, chance: pipeline.publish_marts(settings),
    "carry_on": carry_on,
    "some_models": build_some_models,
}


@pytest.fixture
def shops(tmp_path: Path, built_folder: BuiltFolder) -> Iterator[Callable[[SimulatedAccount], Shop]]:
    servers: list[SimulatorServer] = []

    def make(account: SimulatedAccount) -> Shop:
        server = SimulatorServer(account)
        server.__enter__()
        servers.append(server)
        return Shop(tmp_path / f"shop_{len(servers)}", built_folder, server)

    yield make
    for server in servers:
        server.__exit__(None, None, None)


@pytest.mark.parametrize("history", range(-(-CASES // STEPS)))
def test_one_clean_sync_after_any_kill_makes_the_marts_equal_the_truth(
    history: int,
    shops: Callable[[SimulatedAccount], Shop],
    tmp_path: Path,
) -> None:
    chance = random.Random(f"history {history}")
    tie_order: Any = chance.choice(["forward", "reverse", "shuffled"])
    account = SimulatedAccount(seed=1_000 + history, payments=60, days=30, tie_order=tie_order)
    shop = shops(account)
    steps_of_history = [random_step(chance) for _ in range(STEPS)]
    for number, step in enumerate(steps_of_history):
        account.now += step.seconds
        shop.push(step.pushed, chance)
        shop.run_interrupted(step)
        shop.sync()
        assert shop.differences_from_truth() == [], steps_of_history[: number + 1]
        if number % COMPARED_STEPS == 0 or step is steps_of_history[-1]:
            different = shop.differences_from_full_build(tmp_path / "full")
            assert different == [], steps_of_history[: number + 1]


def test_rows_loaded_by_a_killed_sync_are_built_after_a_webhook(
    shops: Callable[[SimulatedAccount], Shop],
    tmp_path: Path,
) -> None:
    """Kill a sync after it loaded rows and before its build, then ingest a webhook event and sync again."""
    account = SimulatedAccount(seed=34, payments=400, days=60)
    shop = shops(account)
    shop.sync()
    account.now += 12 * DAY
    loaded = pipeline.extract(shop.settings).counts
    for table in TABLES:
        assert loaded[table].written > 0, f"the account has no {table}; choose another seed"
    account.now += HOUR
    shop.push(1.0, random.Random(1))
    carry_on(shop.settings, random.Random(2))
    with open_warehouse(shop.settings.warehouse_path) as connection:
        for table in TABLES:
            ((raw, staged),) = connection.execute(
                f"SELECT (SELECT count(*) FROM raw_stripe.{table}), (SELECT count(*) FROM staging.stg_stripe__{table})"
            ).fetchall()
            assert raw == staged, table
    for _ in range(2):
        shop.sync()
        account.now += HOUR
    shop.sync()
    assert shop.differences_from_truth() == []
    assert shop.differences_from_full_build(tmp_path / "full") == []
