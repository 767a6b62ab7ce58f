"""Unreadable objects, over HTTP: they are quarantined, all others are read, and later they are read too."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import orjson
import pytest
from pydantic import SecretStr
from starlette.requests import Request
from starlette.responses import Response

from orchestration.simulator import DEFAULT_API_KEY, SimulatedAccount, SimulatorServer
from orchestration.stripe_api import StripeClient, StripeUnavailable
from orchestration.stripe_api.client import RetryPolicy
from orchestration.sync import SyncReport, sync_account
from orchestration.warehouse.connection import LOADING_OPTIONS, open_warehouse
from tests.support.borrowed_warehouse import BorrowedWarehouse

DAY = 86_400
TABLES = ("payment_intents", "charges", "refunds", "disputes", "events")
Spoil = Callable[[dict[str, Any]], Any]


@pytest.fixture
def warehouse(tmp_path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    with open_warehouse(tmp_path / "warehouse.duckdb", options=LOADING_OPTIONS) as connection:
        yield connection


@pytest.fixture(scope="module")
def server() -> Iterator[SimulatorServer]:
    account = SimulatedAccount(seed=34, payments=250, days=30)
    with SimulatorServer(account, keys={DEFAULT_API_KEY: None}) as running:
        yield running


@pytest.fixture
def gate(server: SimulatorServer) -> Iterator[Any]:
    gate = server.gates[server.account.id]
    usual = gate.alter_response
    yield gate
    gate.alter_response = usual


def sync(server: SimulatorServer, warehouse: duckdb.DuckDBPyConnection, **options: Any) -> SyncReport:
    policy = RetryPolicy(tries=3)
    key = SecretStr(DEFAULT_API_KEY)
    client = StripeClient(key, api_base=server.url, retry=policy, sleep=lambda seconds: None, **options)
    try:
        return sync_account(client, BorrowedWarehouse(warehouse))
    finally:
        client.close()


def stored(warehouse: duckdb.DuckDBPyConnection) -> dict[str, list[Any]]:
    return {
        table: warehouse.execute(f"SELECT id, payload FROM raw_stripe.{table} ORDER BY ALL").fetchall()
        for table in TABLES
    }


def quarantined_rows(warehouse: duckdb.DuckDBPyConnection) -> list[Any]:
    return warehouse.execute("SELECT stream, object_id, reason FROM sync.quarantine ORDER BY ALL").fetchall()


@pytest.fixture(scope="module")
def truth(server: SimulatorServer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    """Return the rows that the tables hold if every object is readable."""
    with open_warehouse(tmp_path_factory.mktemp("truth") / "w.duckdb", options=LOADING_OPTIONS) as connection:
        sync(server, connection)
        return stored(connection)


def rewriting(chosen: set[str], spoil: Callable[[dict[str, Any]], bytes]) -> Callable[[Request, Response], None]:
    """Return a hook that replaces these objects in every answer: in lists, in retrieves and in events."""

    def parts(node: Any) -> bytes:
        if isinstance(node, dict):
            if node.get("id") in chosen:
                return spoil(dict(node))
            return b"{%s}" % b",".join(orjson.dumps(key) + b":" + parts(value) for key, value in node.items())
        if isinstance(node, list):
            return b"[%s]" % b",".join(map(parts, node))
        return orjson.dumps(node)

    def rewrite(request: Request, response: Response) -> None:
        if request.url.path != "/v1/account" and response.status_code == 200:
            response.body = parts(orjson.loads(response.body))
            response.headers["Content-Length"] = str(len(response.body))

    return rewrite


def without(name: str) -> Callable[[dict[str, Any]], bytes]:
    return lambda node: orjson.dumps({key: value for key, value in node.items() if key != name})


def changed(**values: Any) -> Callable[[dict[str, Any]], bytes]:
    return lambda node: orjson.dumps(node | values)


def with_metadata(text: bytes) -> Callable[[dict[str, Any]], bytes]:
    """Return a function that puts this JSON into the metadata of an object."""
    return lambda node: orjson.dumps(node)[:-1] + b',"metadata":' + text + b"}"


FAULTS: dict[str, Callable[[dict[str, Any]], bytes]] = {
    "no id": without("id"),
    "a number as id": changed(id=7),
    "an empty id": changed(id=""),
    "a path as id": changed(id="../balance"),
    "an address as id": changed(id="jane.doe@example.com"),
    "another type of object": changed(object="customer"),
    "no type of object": without("object"),
    "not created": without("created"),
    "created as text": changed(created="2026-01-01"),
    "created null": changed(created=None),
    "created long ago": changed(created=-5),
    "created in ten years": changed(created=2_100_000_000),
    "created beyond any date": changed(created=10**17),
    "created true": changed(created=True),
    "a broken amount": changed(amount=12.5),
    "an amount as text": changed(amount="1200"),
    "no amount": without("amount"),
    "an enormous amount": changed(amount=10**18),
    "status a list": changed(status=["succeeded"]),
    "a string": lambda node: b'"broken"',
    "null": lambda node: b"null",
    "a list": lambda node: b"[]",
}


REPLACED_FAULTS: dict[str, Callable[[dict[str, Any]], bytes]] = {
    "a lone surrogate": with_metadata(b'{"note":"\\ud800"}'),
    "a byte that is not UTF-8": with_metadata(b'{"note":"\xff"}'),
    "deep lists": with_metadata(b"[" * 5_000 + b"]" * 5_000),
    "deep objects": with_metadata(b'{"a":' * 300 + b"1" + b"}" * 300),
    "not a number": with_metadata(b'{"note":NaN}'),
}
"""Faults that a strict JSON parser refuses."""


def some(truth: dict[str, list[Any]], table: str) -> set[str]:
    """Return the newest id, the oldest, and two neighbours in the middle of a table's list."""
    found = sorted((orjson.loads(payload)["created"], id) for id, payload in truth[table])
    ids = [id for _, id in found]
    return {ids[0], ids[-1], ids[len(ids) // 2], ids[len(ids) // 2 + 1]}


@pytest.mark.parametrize("fault", FAULTS)
def test_unreadable_objects_affect_no_other_object_and_are_read_once_they_are_readable(
    fault: str,
    server: SimulatorServer,
    gate: Any,
    truth: dict[str, list[Any]],
    warehouse: duckdb.DuckDBPyConnection,
) -> None:
    chosen = some(truth, "charges")
    gate.alter_response = rewriting(chosen, FAULTS[fault])
    report = sync(server, warehouse)
    assert {stream: count for stream, count in report.quarantined.items() if stream == "charges"} == {"charges": 4}
    now = stored(warehouse)
    assert now["payment_intents"] == truth["payment_intents"]
    assert [row for row in now["charges"] if row[0] not in chosen] == [
        row for row in truth["charges"] if row[0] not in chosen
    ]
    assert not chosen & {id for id, _ in now["charges"]}
    again = sync(server, warehouse)
    assert again.quarantined == report.quarantined, "no object is counted twice"
    assert "jane" not in str(quarantined_rows(warehouse))
    gate.alter_response = lambda request, response: None
    assert sync(server, warehouse).quarantined == {}
    assert stored(warehouse) == truth


@pytest.mark.parametrize("fault", REPLACED_FAULTS)
def test_an_object_with_json_that_cannot_be_stored_is_loaded_with_a_replacement(
    fault: str,
    server: SimulatorServer,
    gate: Any,
    truth: dict[str, list[Any]],
    warehouse: duckdb.DuckDBPyConnection,
) -> None:
    chosen = some(truth, "charges")
    gate.alter_response = rewriting(chosen, REPLACED_FAULTS[fault])
    assert sync(server, warehouse).quarantined == {}
    now = stored(warehouse)
    assert [id for id, _ in now["charges"]] == [id for id, _ in truth["charges"]]
    assert [row for row in now["charges"] if row[0] not in chosen] == [
        row for row in truth["charges"] if row[0] not in chosen
    ]


@pytest.mark.parametrize("fault", ["no id", "created in ten years", "null", "no type"])
def test_unreadable_events_affect_no_other_event(
    fault: str,
    server: SimulatorServer,
    gate: Any,
    truth: dict[str, list[Any]],
    warehouse: duckdb.DuckDBPyConnection,
) -> None:
    chosen = some(truth, "events")
    gate.alter_response = rewriting(chosen, {**FAULTS, "no type": without("type")}[fault])
    report = sync(server, warehouse)
    assert sum(report.quarantined.values()) == 4
    now = stored(warehouse)
    assert now["events"] == [row for row in truth["events"] if row[0] not in chosen]
    gate.alter_response = lambda request, response: None
    assert sync(server, warehouse).quarantined == {}
    assert stored(warehouse) == truth


def test_after_a_page_without_ids_the_list_continues_by_time(
    server: SimulatorServer, gate: Any, truth: dict[str, list[Any]], warehouse: duckdb.DuckDBPyConnection
) -> None:
    newest = sorted(((orjson.loads(payload)["created"], id) for id, payload in truth["charges"]), reverse=True)
    chosen = {id for _, id in newest[20:260]}
    gate.alter_response = rewriting(chosen, without("id"))
    report = sync(server, warehouse)
    assert report.quarantined["charges"] >= len(chosen)
    assert stored(warehouse)["charges"] == [row for row in truth["charges"] if row[0] not in chosen]


def test_a_page_without_ids_or_times_ends_the_sync_with_a_message(
    server: SimulatorServer, gate: Any, warehouse: duckdb.DuckDBPyConnection
) -> None:
    def nulls(request: Request, response: Response) -> None:
        if request.url.path == "/v1/charges":
            response.body = orjson.dumps({"object": "list", "data": [None] * 100, "has_more": True})
            response.headers["Content-Length"] = str(len(response.body))

    gate.alter_response = nulls
    with pytest.raises(StripeUnavailable, match="No object in a page of GET /v1/charges can be read"):
        sync(server, warehouse)
