"""A Connect platform: its connected accounts, each with its own data and faults, and access to them."""

import calendar
from collections.abc import Iterator
from email.utils import parsedate
from itertools import pairwise
from typing import Any

import pytest
import requests
import stripe

from orchestration.simulator import (
    DEFAULT_API_KEY,
    OPENED_AT,
    PERSONAL_MARKERS,
    ApiKey,
    Fault,
    SimulatedAccount,
    SimulatorServer,
    WebhookEndpoint,
)
from orchestration.simulator.server.keys import READ_PERMISSION
from orchestration.simulator.world.calibration import DAY
from tests.engines.simulator.conftest import Receiver, settled

Json = dict[str, Any]
NO_CONNECT, SOME_CONNECT = "rk_test_for_the_platform_alone_1111", "rk_test_for_charges_of_shops_2222"
KEYS = {
    DEFAULT_API_KEY: None,
    NO_CONNECT: READ_PERMISSION.values(),
    SOME_CONNECT: ApiKey(connect_permissions=("charge_read", "rak_event_read", "payment_intent_read")),
}


def shop(seed: int, **options: Any) -> SimulatedAccount:
    return SimulatedAccount(**{"seed": seed, "payments": 60, "days": 10} | options)


def new_platform(shops: int = 2) -> SimulatorServer:
    return SimulatorServer(shop(1), connected=[shop(seed) for seed in range(2, 2 + shops)], keys=KEYS)


@pytest.fixture(scope="module")
def platform() -> Iterator[SimulatorServer]:
    """Serve a platform with three shops. Tests that move its clock or disconnect a shop create their own."""
    with new_platform(3) as running:
        yield running


@pytest.fixture
def shops(platform: SimulatorServer) -> list[SimulatedAccount]:
    return platform.connections.all_accounts[1:]


def get(
    server: SimulatorServer, path: str, account: str | None = None, *, key: str = DEFAULT_API_KEY, **params: Any
) -> requests.Response:
    headers = {} if account is None else {"Stripe-Account": account}
    return requests.get(f"{server.url}/v1/{path}", auth=(key, ""), headers=headers, params=params)


def ids(answer: requests.Response) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [each["id"] for each in answer.json()["data"]]


def refusal(answer: requests.Response, status: int = 403) -> Json:
    assert answer.status_code == status, answer.text
    error: Json = answer.json()["error"]
    return error


def control(server: SimulatorServer, method: str, path: str, body: Json | None = None, **params: str) -> Json:
    answer = requests.request(method, f"{server.url}/_sim/{path}", json=body, params=params)
    assert answer.status_code == 200, answer.text
    told: Json = answer.json()
    return told


def test_the_header_selects_an_account_with_its_own_data(
    platform: SimulatorServer, shops: list[SimulatedAccount]
) -> None:
    accounts = [platform.account, *shops]
    for resource in ("payment_intents", "charges", "events"):
        listed = [ids(get(platform, resource, account.id, limit=100)) for account in accounts]
        assert all(listed)
        assert len({each for one in listed for each in one}) == sum(map(len, listed))
    assert all(ids(get(platform, "payment_intents", each.id))[0] in each.intents for each in accounts)
    assert [get(platform, "account", each.id).json()["id"] for each in accounts] == [each.id for each in accounts]
    for resource in ("balance", *(READ_PERMISSION.keys() - {"balance", "account"})):
        assert get(platform, resource, shops[0].id).status_code == 200


def test_the_platforms_own_id_selects_the_platform(platform: SimulatorServer) -> None:
    for key in (DEFAULT_API_KEY, NO_CONNECT):
        assert get(platform, "events", platform.account.id, key=key).json() == get(platform, "events", key=key).json()
    assert ids(get(platform, "accounts", platform.account.id)) == ids(get(platform, "accounts"))


def test_an_object_of_one_account_is_not_found_on_another(
    platform: SimulatorServer, shops: list[SimulatedAccount]
) -> None:
    charge = ids(get(platform, "charges", shops[0].id, limit=1))[0]
    assert get(platform, f"charges/{charge}", shops[0].id).json()["id"] == charge
    for other in (None, shops[1].id):
        assert refusal(get(platform, f"charges/{charge}", other), 404)["code"] == "resource_missing"


def test_a_restricted_key_without_connect_permissions_gets_a_clear_error(
    platform: SimulatorServer, shops: list[SimulatedAccount]
) -> None:
    for account_id in (shops[0].id, "acct_unknown"):
        message = refusal(get(platform, "charges", account_id, key=NO_CONNECT))["message"]
        assert message.endswith("the restricted API key does not have any Connect permissions")
    assert get(platform, "charges", key=NO_CONNECT).status_code == 200


def test_the_error_names_the_missing_connect_permission_and_the_account(
    platform: SimulatorServer, shops: list[SimulatedAccount]
) -> None:
    assert get(platform, "charges", shops[0].id, key=SOME_CONNECT).status_code == 200
    for path in ("disputes", "disputes/du_none", "events", "balance"):
        error = refusal(get(platform, path, shops[0].id, key=SOME_CONNECT))
        assert f"on account '{shops[0].id}'. Having the 'rak_" in error["message"]
        assert get(platform, path, key=SOME_CONNECT).status_code in (200, 404)
    assert ids(get(platform, "events", shops[0].id, key=SOME_CONNECT, type="charge.failed"))


def test_an_unconnected_account_is_not_accessible(platform: SimulatorServer) -> None:
    error = refusal(get(platform, "charges", "acct_unknown"))
    assert error["code"] == "account_invalid"
    assert "does not have access to account 'acct_unknown' (or that account does not exist)" in error["message"]
    assert refusal(get(platform, "charges", "acct_unknown", key="rk_test_unknown_9876"), 401)


def test_an_account_that_is_not_a_platform_cannot_access_others() -> None:
    with SimulatorServer(shop(1)) as server:
        assert ids(get(server, "accounts")) == []
        message = refusal(get(server, "charges", "acct_unknown"))["message"]
        assert message.startswith("Only Stripe Connect platforms can work with other accounts. If you specified")
        assert get(server, "charges", server.account.id).status_code == 200
        assert control(server, "GET", "accounts") == {"accounts": []}
    with SimulatorServer(shop(1), connected=[]) as server:
        assert ids(get(server, "accounts")) == []
        assert refusal(get(server, "charges", "acct_unknown"))["code"] == "account_invalid"


def test_connected_accounts_are_listed_newest_first_page_by_page() -> None:
    opened = [OPENED_AT, OPENED_AT + 2 * DAY, OPENED_AT + DAY, OPENED_AT]
    shops = [shop(seed, opened_at=at, payments=5, days=1) for seed, at in enumerate(opened, start=2)]
    with SimulatorServer(shop(1), connected=shops) as server:
        expected = [shops[place].id for place in (1, 2, 3, 0)]
        assert ids(get(server, "accounts")) == expected
        assert ids(get(server, "accounts", limit=3, starting_after=expected[0])) == expected[1:]
        assert ids(get(server, "accounts", limit=2, ending_before=expected[3])) == expected[1:3]
        assert ids(get(server, "accounts", **{"created[gt]": OPENED_AT})) == expected[:2]
        pages = [get(server, "accounts", limit=limit).json()["has_more"] for limit in (1, 3, 4)]
        assert pages == [True, True, False]
        assert get(server, "accounts", limit=2, ending_before=expected[3]).json()["has_more"]
        assert refusal(get(server, "accounts", starting_after="acct_none"), 400)["code"] == "resource_missing"
        assert refusal(get(server, "accounts", **{"expand[]": "data.external_accounts"}), 400)["param"] == "expand"
        assert ids(get(server, "accounts", expected[0])) == []


def test_a_listed_account_has_the_owners_marked_personal_data(platform: SimulatorServer) -> None:
    for account in get(platform, "accounts").json()["data"]:
        profile, person = account["business_profile"], account["individual"]
        personal = [account["email"], profile["name"], profile["support_email"], profile["support_phone"]]
        personal += [profile["support_address"]["line1"], person["first_name"], person["last_name"], person["email"]]
        personal += [person["phone"], person["address"]["line1"], account["settings"]["dashboard"]["display_name"]]
        assert all(any(marker in text for marker in PERSONAL_MARKERS) for text in personal)
        assert (account["object"], account["type"]) == ("account", "express")


def test_events_of_a_connected_account_name_the_account(
    platform: SimulatorServer, shops: list[SimulatedAccount]
) -> None:
    events = get(platform, "events", shops[0].id, limit=100).json()["data"]
    assert {event["account"] for event in events} == {shops[0].id}
    assert get(platform, f"events/{events[0]['id']}", shops[0].id).json() == events[0]
    assert not [event for event in get(platform, "events", limit=100).json()["data"] if "account" in event]


def test_faults_of_one_account_do_not_affect_the_others() -> None:
    with new_platform(3) as server:
        limited, locked_out, unauthorized = (account.id for account in server.connections.all_accounts[1:])
        server.gates[limited].limits.change(concurrency=0)
        server.gates[locked_out].faults.add(Fault("no_access", times=1_000))
        server.gates[unauthorized].faults.add(Fault("invalid_key", times=1_000))
        for _ in range(3):
            assert get(server, "charges", limited).headers["Stripe-Rate-Limited-Reason"] == "global-concurrency"
            assert f"access to account '{locked_out}'" in refusal(get(server, "charges", locked_out))["message"]
            assert refusal(get(server, "charges", unauthorized), 401)["message"].startswith("Invalid API Key")
            assert get(server, "charges").status_code == 200
        assert [gate.requests.total for gate in server.gates.values()] == [3, 3, 3, 3]


def test_connect_permissions_can_change_while_the_server_runs() -> None:
    with new_platform(1) as server:
        shop_id = server.connections.all_accounts[1].id

        def statuses() -> list[int]:
            return [get(server, path, shop_id, key=NO_CONNECT).status_code for path in ("charges", "balance")]

        assert statuses() == [403, 403]
        control(server, "POST", "keys", {"key": NO_CONNECT, "connect_permissions": ["charge_read"]})
        assert statuses() == [200, 403]
        control(server, "POST", "keys", {"key": NO_CONNECT, "connect_permissions": None})
        assert statuses() == [200, 200]
        control(server, "POST", "keys", {"key": NO_CONNECT, "connect_permissions": []})
        assert statuses() == [403, 403]


def test_controls_accept_the_account_parameter(platform: SimulatorServer, shops: list[SimulatedAccount]) -> None:
    first = shops[0].id
    control(platform, "POST", "faults", {"kind": "server_error"}, account=first)
    assert control(platform, "GET", "faults") == {"faults": []}
    assert [get(platform, "charges", each).status_code for each in (None, first, first)] == [200, 500, 200]
    control(platform, "POST", "limits", {"concurrency": 0}, account=first)
    assert [get(platform, "charges", each).status_code for each in (None, first)] == [200, 429]
    control(platform, "POST", "limits", {"concurrency": None}, account=first)
    control(platform, "DELETE", "requests", account=first)
    get(platform, "disputes", first)
    assert control(platform, "GET", "requests", account=first)["by_endpoint"] == {"/v1/disputes": 1}
    at = shops[0].now
    told = control(platform, "GET", "truth", account=first, at=str(at))
    assert told["summary"] == shops[0].truth(at, [at]).summary() != control(platform, "GET", "truth")["summary"]
    for path in ("faults", "limits", "requests", "truth"):
        assert requests.get(f"{platform.url}/_sim/{path}", params={"account": "acct_none"}).status_code == 404


def test_all_accounts_share_one_clock() -> None:
    server = SimulatorServer(shop(1, days=30), connected=[shop(2, days=3), shop(3, days=60)])
    with server:
        control(server, "POST", "clock", {"advance": 5 * DAY})
        accounts = server.connections.all_accounts
        assert {account.now for account in accounts} == {OPENED_AT + 35 * DAY}
        for account in accounts:
            answer = get(server, "payment_intents", account.id)
            assert calendar.timegm(parsedate(answer.headers["Date"]) or ()) == OPENED_AT + 35 * DAY
            created = [intent["created"] for intent in answer.json()["data"]]
            assert OPENED_AT + 34 * DAY < created[0] <= OPENED_AT + 35 * DAY
            assert all(newer >= older for newer, older in pairwise(created))
        accounts[1].now += DAY
        assert server.account.now == OPENED_AT + 36 * DAY


def test_incompatible_accounts_are_refused() -> None:
    with pytest.raises(ValueError, match="same id"):
        SimulatorServer(shop(1), connected=[shop(2), shop(2)])
    with pytest.raises(ValueError, match="same mode"):
        SimulatorServer(shop(1), connected=[shop(2, livemode=True)])


def test_connect_endpoints_get_events_of_connected_accounts_and_others_those_of_the_platform(
    receiver: Receiver,
) -> None:
    with new_platform() as server, Receiver() as of_shops:
        start = server.account.now
        own = server.deliverer.register(WebhookEndpoint(receiver.url, enabled_events=("*",)))
        theirs = server.deliverer.register(WebhookEndpoint(of_shops.url, enabled_events=("*",), connect=True))
        server.account.now += 2 * DAY
        settled(server, own)
        settled(server, theirs)
        happened = [
            {(event.id, account.id) for event in account.events_between(start, account.now)}
            for account in server.connections.all_accounts
        ]
        assert sorted(receiver.ids) == sorted(event for event, _ in happened[0])
        assert not [posted for posted in receiver.posted if "account" in posted.event]
        delivered = [(posted.event["id"], posted.event["account"]) for posted in of_shops.posted]
        assert sorted(delivered) == sorted(happened[1] | happened[2])
        assert all(happened)
        event, account = delivered[0]
        assert server.deliverer.resend(event) == [theirs]
        assert server.deliverer.resend(event, own) == []
        settled(server, theirs)
        assert of_shops.ids[-1] == event
        assert get(server, f"events/{event}", account).json()["account"] == account


def test_a_disconnected_account_is_not_accessible_and_its_platform_gets_an_event(receiver: Receiver) -> None:
    with new_platform() as server, Receiver() as own:
        leaving, staying = server.connections.all_accounts[1:]
        types = ("charge.failed", "charge.succeeded", "account.application.deauthorized")
        endpoint = server.deliverer.register(WebhookEndpoint(receiver.url, enabled_events=types, connect=True))
        server.deliverer.register(WebhookEndpoint(own.url, enabled_events=types[-1:]))
        start = server.account.now
        server.account.now += DAY
        told = control(server, "DELETE", "accounts", account=leaving.id)["accounts"]
        assert [(each["id"], each["is_connected"]) for each in told] == [(leaving.id, False), (staying.id, True)]
        left_at = server.account.now
        server.account.now += DAY
        settled(server, endpoint)
        events = [posted.event for posted in receiver.posted]
        last = [event for event in events if event["type"] == types[-1]]
        assert [(event["account"], event["created"]) for event in last] == [(leaving.id, left_at)]
        assert last[0]["data"]["object"]["object"] == "application"
        of_leaving = {event["id"] for event in events if event["account"] == leaving.id}
        happened = {event.id for event in leaving.events_between(start, left_at) if event.event_type in types}
        assert of_leaving == happened | {last[0]["id"]}
        assert {event["account"] for event in events if event["created"] > left_at} == {staying.id}
        assert own.posted == []
        assert refusal(get(server, "charges", leaving.id))["code"] == "account_invalid"
        assert refusal(get(server, f"events/{last[0]['id']}"), 404)
        assert ids(get(server, "accounts")) == [staying.id]
        assert control(server, "GET", "requests", account=leaving.id)["total"] == 1
        for gone in (leaving.id, "acct_none", ""):
            answer = requests.delete(f"{server.url}/_sim/accounts", params={"account": gone})
            assert answer.status_code == 404


def test_the_official_client_can_read_connected_accounts(platform: SimulatorServer) -> None:
    client = stripe.StripeClient(DEFAULT_API_KEY, base_addresses={"api": platform.url})
    accounts = [account.id for account in client.v1.accounts.list({"limit": 2}).auto_paging_iter()]
    assert len(accounts) == 3
    for account_id in accounts:
        events = client.v1.events.list({"limit": 3}, {"stripe_account": account_id})
        assert {event.account for event in events.data} == {account_id}
    with pytest.raises(stripe.PermissionError, match="acct_none"):
        client.v1.charges.list({}, {"stripe_account": "acct_none"})
