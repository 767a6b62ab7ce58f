"""Objects that differ from Stripe's documentation: none stops a build or replaces a good object, however it arrives."""

import copy
import json
import os
import random
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from orchestration.base.account import AccountKey
from orchestration.config.settings import Settings
from orchestration.setup.registry import make_webhook_endpoints
from orchestration.simulator import SimulatedAccount
from orchestration.simulator.stripe.objects import Renderer
from orchestration.stripe_api import API_VERSION, Answer
from orchestration.sync.quarantine import event_rows, object_rows
from orchestration.warehouse.connection import open_warehouse, transaction
from orchestration.warehouse.load import Loader
from orchestration.warehouse.rows import OBJECT_TABLES, EventRow, ObjectRow
from orchestration.web.app import receiver
from orchestration.webhooks.queue import Queue
from tests.engines.webhooks.test_receiver import serving, signed
from tests.support import pipeline
from tests.support.built_folder import BuiltFolder

CASES = int(os.environ.get("RECOUP_HOSTILE_CASES", "4"))
SECRET = "whsec_" + "h" * 32
KINDS = {
    "payment_intents": ("payment_intent.succeeded", "payment_intent.payment_failed", "payment_intent.canceled"),
    "charges": ("charge.succeeded", "charge.failed", "charge.captured"),
    "refunds": ("refund.created", "charge.refund.updated"),
    "disputes": ("charge.dispute.created",),
}
EVERY_KIND = tuple(kind for kinds in KINDS.values() for kind in kinds)
NASTY = (
    None, True, False, 0, -1, 1, 7.5, 1e300, 10**13, 10**15, 2**31, 2**33, 2**63, 2**64, 10**400, 9_999_999_999_999,
    "", "abc", "{", "{}", '{"id": 7}', "[", "\x00", "a\x00b", "\ud800", "x" * 70_000, "usd", "EUR", "succeeded",
    "failed", "pi_1:evt_1", "a b", [], [1], {}, {"id": None}, {"id": "pi_other"}, {"id": {}}, [[]], float("nan"),
    float("inf"),
)  # fmt: skip


def paths(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, child in children:
        yield from paths(child, (*path, key))


def mutate(chance: random.Random, node: Any, others: Sequence[Any]) -> Any:
    """Return a copy with one to three fields removed or replaced by nasty values or by those of another object."""
    made = copy.deepcopy(node)
    for _ in range(chance.randint(1, 3)):
        shallow = [path for path in paths(made) if path]
        if not shallow:
            break
        path = chance.choice([each for each in shallow if len(each) <= chance.choice((1, 1, 3, 9))] or shallow)
        parent = made
        for key in path[:-1]:
            parent = parent[key]
        if not isinstance(parent, dict | list):
            break
        how = chance.random()
        if how < 0.2:
            del parent[path[-1]]
        elif how < 0.4 and isinstance(path[-1], str):
            parent[path[-1]] = copy.deepcopy(chance.choice(others).get(path[-1]))
        else:
            parent[path[-1]] = copy.deepcopy(chance.choice(NASTY))
    return made


@pytest.fixture(scope="module")
def objects() -> dict[str, list[dict[str, Any]]]:
    """Return objects of each kind as Stripe shows them, most of them of failed and recovered payments."""
    account = SimulatedAccount(seed=11, payments=300, days=20)
    account.now += 40 * 86_400
    renderer = Renderer(account)
    return {
        table: [
            renderer.render(table, entry, account.now)
            for entry in account.list_entries(table, account.now, created=(0, account.now))
        ]
        for table in OBJECT_TABLES
    }


def good(objects: dict[str, list[dict[str, Any]]], number: int) -> tuple[str, dict[str, Any]]:
    """Return the id of a failed payment that no other object mentions, and its event."""
    intent = copy.deepcopy(
        next(each for each in objects["payment_intents"] if each["status"] == "requires_payment_method")
    )
    intent |= {"id": f"pi_good{number}", "latest_charge": f"ch_good{number}", "customer": None, "metadata": {}}
    intent["last_payment_error"] = {"code": "card_declined", "charge": f"ch_good{number}", "type": "card_error"}
    return intent["id"], event_of(intent, "payment_intent.payment_failed", f"evt_good{number}")


def event_of(carried: Any, kind: str, event_id: str) -> dict[str, Any]:
    created = carried.get("created") if isinstance(carried, dict) else None
    return {
        "id": event_id,
        "object": "event",
        "api_version": API_VERSION,
        "created": created + 60 if type(created) is int and 0 <= created < 2**32 else 1_760_000_000,
        "data": {"object": carried, "previous_attributes": None},
        "livemode": False,
        "type": kind,
    }


def carried_in(event: Any) -> Any:
    data = event.get("data") if isinstance(event, dict) else None
    return data.get("object") if isinstance(data, dict) else data


def bodies(chance: random.Random, objects: dict[str, list[dict[str, Any]]], number: int) -> Iterator[tuple[str, Any]]:
    """Draw hostile objects, each with the table that it claims to belong to, and events that carry them."""
    pools = {table: all_of[: 25 if chance.random() < 0.5 else None] for table, all_of in objects.items()}
    for nth in range(40):
        table = chance.choice(list(OBJECT_TABLES))
        carried = mutate(chance, chance.choice(pools[table]), pools[table])
        kind = chance.choice(KINDS[table] if chance.random() < 0.8 else EVERY_KIND)
        event = event_of(carried, kind, f"evt_bad{number}x{nth}")
        yield table, mutate(chance, event, [event]) if chance.random() < 0.3 else event


def answered(listed: list[Any]) -> Answer:
    return Answer(
        {"data": listed, "has_more": False}, read_no_earlier_than=1_790_000_000, read_no_later_than=1_790_000_000
    )


def test_no_object_stops_a_build_or_displaces_a_good_one(
    objects: dict[str, list[dict[str, Any]]], built_folder: BuiltFolder, tmp_path: Path, holding_secrets: set[Path]
) -> None:
    settings_of = Settings(
        recoup_data_dir=built_folder.copy(tmp_path / "data"),
        stripe_account_id="acct_1",
        stripe_webhook_secret=SecretStr(SECRET),
        recoup_webhook_events=",".join(EVERY_KIND),
    )
    holding_secrets.add(settings_of.secrets_dir)
    token = make_webhook_endpoints(settings_of).files().enable().token.get_secret_value()
    numbers = iter(range(10**6))
    expected: set[str] = set()

    with serving(receiver(settings_of)) as url:

        def post(event: Any) -> None:
            body = json.dumps(event).encode()
            answer = requests.post(
                f"{url}/webhooks/stripe/{token}",
                data=body,
                headers={"Stripe-Signature": signed(body, SECRET)},
                timeout=20,
            )
            assert answer.status_code == 200, answer.text

        @settings(max_examples=CASES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
        @given(seed=st.integers(0, 2**32))
        def run(seed: int) -> None:
            number = next(numbers)
            chance = random.Random(seed)
            hostile = list(bodies(chance, objects, number))
            named, event = good(objects, number)
            for nth, (_, each) in enumerate(hostile):
                if nth == 20:
                    post(event)
                post(each)
            pipeline.ingest(settings_of)
            with open_warehouse(settings_of.warehouse_path) as warehouse, transaction(warehouse):
                loader = Loader(warehouse, AccountKey("acct_1", False), API_VERSION)
                hostile = list(bodies(chance, objects, number + 10**6))
                for table in OBJECT_TABLES:
                    listed = [copy.deepcopy(carried_in(each)) for of, each in hostile[:20] if of == table]
                    rows = object_rows(listed, answered(listed), table, "list", is_reread=False)
                    loader.load_objects(table, [row for row in rows if isinstance(row, ObjectRow)])
                events = event_rows(answered([each for _, each in hostile[20:]]))
                loader.load_events([row for row in events if isinstance(row, EventRow)])
            expected.add(named)
            pipeline.build(settings_of)
            with duckdb.connect(str(settings_of.warehouse_path), read_only=True) as warehouse:
                found = warehouse.execute("SELECT payment_intent_id FROM marts.payment_intents").fetchall()
            assert expected <= {each for (each,) in found}

        run()
    with closing(Queue(settings_of.queue_url)) as queue:
        assert queue.stats().quarantined > 0
