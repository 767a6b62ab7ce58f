"""Polls, webhooks or both, with shuffled, repeated, late and interrupted deliveries, give the same tables and marts."""

import os
import random
from collections.abc import Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from orchestration.config.settings import WEBHOOK_EVENTS, Settings
from orchestration.simulator import DEFAULT_API_KEY, SimulatedAccount, SimulatorServer, webhook_payload
from orchestration.simulator.stripe.objects import Renderer
from orchestration.simulator.world.account import Entry
from orchestration.stripe_api import API_VERSION, StripeClient
from orchestration.stripe_api.client import RetryPolicy
from orchestration.sync import sync_account
from orchestration.sync.streams import OBJECT_STREAMS
from orchestration.warehouse.connection import LOADING_OPTIONS, open_warehouse
from orchestration.warehouse.redact import redact, stored_json
from orchestration.warehouse.rows import OBJECT_TABLES
from orchestration.webhooks.ingest import ingest_queue
from orchestration.webhooks.queue import Delivery, Queue
from tests.property.test_sync import fields_with_events
from tests.support import pipeline
from tests.support.borrowed_warehouse import BorrowedWarehouse
from tests.support.built_folder import BuiltFolder
from tests.support.full_models import find_full_refresh_differences

CASES = int(os.environ.get("RECOUP_CASES", "12"))
BUILT_CASES = int(os.environ.get("RECOUP_BUILT_CASES", "2"))
DAY = 86_400
FIVE = tuple(WEBHOOK_EVENTS.split(","))
EVERY = tuple(kind for stream in OBJECT_STREAMS for kind in stream.event_types)

MARTS = (
    "acceptance_daily",
    "authentication_funnel",
    "payment_attempts",
    "payment_intents",
    "recovery_episodes",
    "recovery_cohorts",
    "recovery_rates",
    "recovery_actions",
    "link_audit",
    "data_coverage",
)


@dataclass(frozen=True)
class History:
    """An account, the days on which it is synced, and what happens to the events on their way."""

    seed: int
    payments: int
    days: int
    tick: int
    looks: tuple[int, ...]
    types: tuple[str, ...]
    parts: int
    doubled: float
    late: float

    def account(self) -> SimulatedAccount:
        return SimulatedAccount(self.seed, self.payments, self.days, tick=self.tick)


histories = st.builds(
    History,
    seed=st.integers(0, 9_999),
    payments=st.sampled_from([8, 20, 45]),
    days=st.sampled_from([3, 12]),
    tick=st.sampled_from([1, 1, 600, 2 * DAY]),
    looks=st.lists(st.integers(0, 5), min_size=1, max_size=3).map(tuple),
    types=st.sampled_from([FIVE, EVERY]),
    parts=st.integers(1, 4),
    doubled=st.sampled_from([0.0, 0.3, 1.0]),
    late=st.sampled_from([0.0, 0.3, 1.0]),
)
"""The total is less than thirty days, so that polls and webhooks alike can know everything."""


class LoadedWarehouse:
    """A warehouse that polls or webhooks fill. The connection stays open until a run is killed."""

    def __init__(
        self, path: Path, server: SimulatorServer, chance: random.Random, built_folder: BuiltFolder | None = None
    ) -> None:
        self._server, self._chance = server, chance
        self.settings = Settings(recoup_data_dir=path)
        path.mkdir(parents=True)
        if built_folder:
            built_folder.copy(path)
        self._queue = Queue(self.settings.queue_url)
        self._opened = ExitStack()
        self._open()

    def _open(self) -> None:
        self._opened.close()
        self.warehouse = self._opened.enter_context(
            open_warehouse(self.settings.warehouse_path, options=LOADING_OPTIONS)
        )

    def poll(self) -> None:
        client = StripeClient(SecretStr(DEFAULT_API_KEY), api_base=self._server.url, retry=RetryPolicy(tries=4))
        with closing(client):
            sync_account(client, BorrowedWarehouse(self.warehouse))

    def push(self, events: Sequence[Entry], history: History) -> None:
        """Deliver in random order and in parts, some events twice, with a run after each part. Some runs are killed."""
        account = self._server.account
        sent = [
            each
            for event in events
            for each in [delivery(account, event)] * (1 + (self._chance.random() < history.doubled))
        ]
        self._chance.shuffle(sent)
        size = -(-len(sent) // history.parts) or 1
        for start in range(0, len(sent), size):
            self._queue.put(sent[start : start + size])
            if self._chance.random() < 0.3:
                with closing(Unfinished(self._queue.url)) as dying, suppress(Killed):
                    self._ingest(dying)
                self._open()
            self._ingest(self._queue)

    def _ingest(self, queue: Queue) -> None:
        account_id = self._server.account.id
        ingest_queue(self.warehouse, queue, account_of=lambda _: account_id, pinned_version=API_VERSION)

    def build(self) -> None:
        """Build what was loaded since the last build."""
        self._opened.close()
        pipeline.build(self.settings)
        self._open()

    def close(self) -> None:
        self._queue.close()
        self._opened.close()


class Killed(BaseException):
    """Raised to end a run after its commit."""


class Unfinished(Queue):
    """A queue whose reader is killed before it acknowledges."""

    def finish(self, *_: Any) -> None:
        raise Killed


def delivery(account: SimulatedAccount, event: Entry) -> Delivery:
    payload = stored_json(redact(orjson.loads(webhook_payload(account, event))))
    return Delivery("default", event.id, payload, datetime.now(UTC))


def read_raw(way: LoadedWarehouse) -> dict[str, Any]:
    """Return what all ways must agree on: the events, and the fields of each object that have events."""
    ask = way.warehouse.execute
    found: dict[str, Any] = {
        table: {
            object_id: fields_with_events(table, orjson.loads(text))
            for object_id, text in ask(f"SELECT id, payload FROM raw_stripe.{table}").fetchall()
        }
        for table in OBJECT_TABLES
    }
    events = ask("SELECT id, type, created, object_id FROM raw_stripe.events ORDER BY id").fetchall()
    assert len({row[0] for row in events}) == len(events), "no event is stored twice"
    doubted = ask("SELECT count(*) FROM raw_stripe.payment_intents WHERE _needs_read").fetchone()
    return found | {"events": events, "doubted": doubted}


def run_history(
    history: History, server: SimulatorServer, ways: dict[str, LoadedWarehouse], *, built: Sequence[str] = ()
) -> None:
    """Let time pass and load the changes into each warehouse in its own way; build the `built` ones after each sync."""
    account, chance = server.account, random.Random(history.seed)
    start, held = account.opened_at - 1, []
    for look in history.looks:
        account.now += look * DAY
        happened = [each for each in account.events_between(start, account.now) if each.event_type in history.types]
        start = account.now
        arriving = held + happened
        held = [each for each in arriving if chance.random() < history.late]
        on_time = [each for each in arriving if each not in held]
        ways["poll"].poll()
        ways["both"].push(on_time, history)
        ways["both"].poll()
        ways["push"].push(on_time, history)
        for name in built:
            ways[name].build()
    ways["push"].push(held, history)
    ways["both"].push(held, history)


def make_ways(
    folder: Path, server: SimulatorServer, seed: int, built_folder: BuiltFolder | None = None
) -> dict[str, LoadedWarehouse]:
    """Return the ways by name. The data folders begin as copies of the built folder, if there is one."""
    return {
        name: LoadedWarehouse(folder / name, server, random.Random(seed + n), built_folder)
        for n, name in enumerate(("poll", "both", "push"))
    }


bounded = settings(
    max_examples=CASES,
    deadline=None,
    database=None,
    derandomize=os.environ.get("RECOUP_CASES") is None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
)


def test_polls_and_webhooks_end_in_the_same_tables(tmp_path: Path) -> None:
    @bounded
    @given(history=histories)
    def run(history: History) -> None:
        with SimulatorServer(history.account()) as server, TemporaryDirectory(dir=tmp_path) as folder:
            ways = make_ways(Path(folder), server, history.seed)
            run_history(history, server, ways)
            for way in ways.values():
                way.poll()
            tables = {name: read_raw(way) for name, way in ways.items()}
            for way in ways.values():
                way.close()
        assert tables["both"] == tables["poll"]
        assert tables["push"] == tables["poll"]

    run()


def test_webhooks_alone_give_the_same_tables_in_any_order(
    tmp_path: Path,
) -> None:
    """Compare tables filled by webhooks alone, and the truth unless two events have the same second."""

    @bounded
    @given(history=histories)
    def run(history: History) -> None:
        with SimulatorServer(history.account()) as server, TemporaryDirectory(dir=tmp_path) as folder:
            account = server.account
            ways = [LoadedWarehouse(Path(folder, str(n)), server, random.Random(history.seed + n)) for n in range(2)]
            events = [
                each
                for each in account.events_between(account.opened_at - 1, account.now)
                if each.event_type in history.types
            ]
            for way in ways:
                way.push(events, history)
            first, second = map(read_stable_columns, ways)
            expected = expected_intents(account, events)
            for way in ways:
                way.close()
        assert first == second
        certain = {key: payload for key, payload, is_doubted in first["payment_intents"] if not is_doubted}
        assert {
            key: fields_with_events("payment_intents", orjson.loads(payload)) for key, payload in certain.items()
        } == {key: expected[key] for key in certain}

    run()


def read_stable_columns(way: LoadedWarehouse) -> dict[str, list[Any]]:
    """Return each column that does not depend on when and how often something was loaded."""
    ask = way.warehouse.execute
    found = {
        table: ask(f"SELECT id, payload, _needs_read FROM raw_stripe.{table} ORDER BY id").fetchall()
        for table in OBJECT_TABLES
    }
    found["events"] = ask("SELECT id, type, payload FROM raw_stripe.events ORDER BY id").fetchall()
    found["log"] = ask("SELECT event_id, event_type FROM raw_stripe.webhook_events ORDER BY ALL").fetchall()
    return found


def expected_intents(account: SimulatedAccount, events: Sequence[Entry]) -> dict[str, dict[str, Any]]:
    """Return each payment as its last event shows it."""
    renderer, last = Renderer(account), {}
    for event in sorted(events, key=lambda each: each.created):
        if event.event_type.startswith("payment_intent."):
            last[event.intent.id] = fields_with_events(
                "payment_intents", renderer.render("events", event, account.now)["data"]["object"]
            )
    return last


@pytest.mark.parametrize("case", range(BUILT_CASES))
def test_polls_and_webhooks_end_in_the_same_marts(case: int, built_folder: BuiltFolder, tmp_path: Path) -> None:
    """Build the webhook warehouse in parts, the others at once; the polled one must equal a full build."""
    types, doubled = (FIVE, 0.3) if case % 2 else (EVERY, 1.0)
    history = History(70 + case, 150, 12, [1, 600][case % 2], (0, 3, 5), types, 3, doubled, 0.3)
    with SimulatorServer(history.account()) as server:
        ways = make_ways(tmp_path, server, history.seed, built_folder)
        run_history(history, server, ways, built=("push",))
        for way in ways.values():
            way.poll()
        ways["push"].build()
        for way in ways.values():
            way.close()
    for name in ("poll", "both"):
        pipeline.build(ways[name].settings)
    assert find_full_refresh_differences(ways["poll"].settings, tmp_path / "full") == []
    built = {name: marts(way.settings) for name, way in ways.items()}
    assert len(built["poll"]["recovery_episodes"]) > 5
    for table in MARTS:
        assert built["both"][table] == built["poll"][table], table
        if table != "data_coverage":
            assert built["push"][table] == built["poll"][table], table


def marts(settings: Settings) -> dict[str, list[Any]]:
    """Return the marts without their load ids, which differ between the ways."""
    columns = "COLUMNS(name -> name <> '_load_id')"
    with open_warehouse(settings.warehouse_path) as connection:
        return {
            table: connection.execute(f"SELECT {columns} FROM marts.{table} ORDER BY ALL").fetchall() for table in MARTS
        }
