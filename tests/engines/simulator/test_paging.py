"""Paging through a list returns each object once, for any page size, tie order and filter."""

from collections.abc import Iterator
from typing import Any

import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestration.simulator import SimulatedAccount, SimulatorServer
from orchestration.simulator.world.account import RESOURCES, Resource
from orchestration.simulator.world.calibration import DAY

TIE_ORDERS = ("forward", "reverse", "shuffled")
Servers = dict[str, SimulatorServer]


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    running = {order: SimulatorServer(SimulatedAccount(8, 120, 20, tie_order=order)) for order in TIE_ORDERS}
    for server in running.values():
        server.__enter__()
    yield running
    for server in running.values():
        server.__exit__(None, None, None)


def walk(http: requests.Session, url: str, params: dict[str, Any], *, is_backwards: bool) -> list[str]:
    """Return the ids in list order. Backwards, the oldest page comes first, so the pages are joined in reverse."""
    ids: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = http.get(url, params=params | cursor).json()
        listed = [each["id"] for each in page["data"]]
        ids = listed + ids if is_backwards else ids + listed
        if not page["has_more"]:
            return ids
        assert listed
        cursor = {"ending_before": listed[0]} if is_backwards else {"starting_after": listed[-1]}


@settings(max_examples=60, deadline=None)
@given(
    resource=st.sampled_from(RESOURCES),
    tie_order=st.sampled_from(TIE_ORDERS),
    limit=st.integers(3, 100),
    since=st.integers(0, 20 * DAY),
    until=st.integers(0, 20 * DAY),
    event_type=st.sampled_from([None, "charge.*", "payment_intent.succeeded"]),
)
def test_paging_returns_each_object_once_and_in_order(
    http: requests.Session,
    servers: Servers,
    resource: Resource,
    tie_order: str,
    limit: int,
    since: int,
    until: int,
    event_type: str | None,
) -> None:
    server = servers[tie_order]
    opened = server.account.opened_at
    params: dict[str, Any] = {"limit": limit, "created[gte]": opened + since, "created[lte]": opened + until}
    if resource == "events" and event_type:
        params["type"] = event_type
    ids = walk(http, f"{server.url}/v1/{resource}", params, is_backwards=False)
    expected = [
        entry.id
        for entry in server.account.list_entries(resource, server.account.now, created=(opened + since, opened + until))
        if event_type is None or resource != "events" or entry.event_type.startswith(event_type.rstrip("*"))
    ]
    assert ids == expected
    assert len(set(ids)) == len(ids)


@settings(max_examples=15, deadline=None)
@given(resource=st.sampled_from(RESOURCES), tie_order=st.sampled_from(TIE_ORDERS), limit=st.integers(3, 100))
def test_paging_backwards_from_the_oldest_returns_the_same_list(
    http: requests.Session, servers: Servers, resource: Resource, tie_order: str, limit: int
) -> None:
    url = f"{servers[tie_order].url}/v1/{resource}"
    forward = walk(http, url, {"limit": 100}, is_backwards=False)
    if forward:
        older = http.get(url, params={"limit": 100, "ending_before": forward[-1]}).json()["data"]
        assert [each["id"] for each in older] == forward[-1 - len(older) : -1]
        backward = walk(http, url, {"limit": limit, "ending_before": forward[-1]}, is_backwards=True)
        assert backward == forward[:-1]
