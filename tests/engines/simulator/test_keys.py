"""API keys that are valid, restricted or invalid: each gets Stripe's answer."""

from collections.abc import Iterator
from typing import Any

import pytest
import requests

from orchestration.simulator import DEFAULT_API_KEY, DEFAULT_LIVE_API_KEY, ApiKey, SimulatedAccount, SimulatorServer
from orchestration.simulator.server.keys import READ_PERMISSION

Json = dict[str, Any]
EXPIRED, ELSEWHERE, REVOKED = "rk_test_rolled_last_week_1111", "sk_test_for_one_office_2222", "rk_test_uninstalled_3333"


@pytest.fixture(scope="module")
def keyed() -> Iterator[SimulatorServer]:
    keys = {
        DEFAULT_API_KEY: None,
        EXPIRED: ApiKey(state="expired"),
        ELSEWHERE: ApiKey(state="ip_refused"),
        REVOKED: ApiKey(state="revoked"),
    }
    with SimulatorServer(SimulatedAccount(3, payments=30, days=5), keys=keys) as running:
        yield running


def get(server: SimulatorServer, key: str, path: str = "charges", **headers: str) -> requests.Response:
    return requests.get(f"{server.url}/v1/{path}", auth=(key, ""), headers=headers)


def error(answer: requests.Response, key: str) -> Json:
    """Return the error of an answer, and assert that it does not contain the key."""
    assert key not in answer.text
    told: Json = answer.json()["error"]
    return told


@pytest.mark.parametrize(
    ("key", "status", "code", "message"),
    [
        ("rk_test_of_nobody_9876", 401, None, "Invalid API Key provided: rk_test_**********9876"),
        (DEFAULT_LIVE_API_KEY, 401, None, "Invalid API Key provided: rk_live_**********hing"),
        ("pk_live_of_a_browser_9876", 401, None, "Invalid API Key provided: pk_live_**********9876"),
        ("whsec_1234hook", 401, None, "Invalid API Key provided: **********hook"),
        (EXPIRED, 401, "api_key_expired", "Expired API Key provided: rk_test_**********1111"),
        ("pk_test_of_a_browser", 401, "secret_key_required", "cannot be made with a publishable API key. Please use"),
        (ELSEWHERE, 403, None, "The API key provided does not allow requests from your IP address."),
        (REVOKED, 403, "account_invalid", "The provided key 'rk_test_**********3333' does not have access to account"),
        ("sk_org_test_of_a_group", 400, None, "Please include the Stripe-Context header"),
    ],
)
def test_an_invalid_key_gets_the_reason_on_every_path(
    keyed: SimulatorServer, key: str, status: int, code: str | None, message: str
) -> None:
    for path in ("charges", "balance", "charges/ch_none"):
        answer = get(keyed, key, path)
        told = error(answer, key)
        assert (answer.status_code, told.get("code"), told["type"]) == (status, code, "invalid_request_error")
        assert message in told["message"]


def test_a_revoked_keys_error_names_the_account(keyed: SimulatorServer) -> None:
    message = error(get(keyed, REVOKED), REVOKED)["message"]
    assert f"account '{keyed.account.id}' (or that account does not exist). Application access may have" in message


def test_another_organizations_key_is_unknown_with_a_context(keyed: SimulatorServer) -> None:
    key = "sk_org_test_of_a_group"
    answer = get(keyed, key, **{"Stripe-Context": keyed.account.id})
    assert (answer.status_code, error(answer, key)["message"][:16]) == (401, "Invalid API Key ")


PERMISSIONS = {
    "core": "balance balance_transaction_source charge customer dispute event file payment_intent payment_method "
    "payout product setup_intent",
    "Connect": "application_fee connected_account top_up transfer",
    "Reporting": "report_runs_and_report_types",
}
RESOURCES = {
    "core": "balance balance_transactions charges customers disputes events files payment_intents payment_methods "
    "payouts products refunds setup_intents",
    "Connect": "accounts application_fees topups transfers",
    "Reporting": "reporting/report_runs reporting/report_types",
}


def group_key(*groups: str) -> ApiKey:
    return ApiKey([f"rak_{name}_read" for group in groups for name in PERMISSIONS[group].split()])


@pytest.mark.parametrize("group", RESOURCES)
def test_a_key_for_one_group_can_read_only_that_group(keyed: SimulatorServer, group: str) -> None:
    key = "rk_test_for_one_group_5555"
    keyed.keys.put(key, group_key(group))
    for resource in READ_PERMISSION:
        answer = get(keyed, key, resource)
        if resource in RESOURCES[group].split():
            assert answer.status_code == 200, resource
            body = answer.json()
            assert body["object"] == "balance" or (body["object"], body["url"]) == ("list", f"/v1/{resource}")
        else:
            assert answer.status_code == 403, resource
            assert f"Having the '{READ_PERMISSION[resource]}' permission would" in error(answer, key)["message"]
    keyed.keys.remove(key)


def test_resources_in_no_group_have_their_own_permission(keyed: SimulatorServer) -> None:
    key = "rk_test_for_all_groups_5555"
    keyed.keys.put(key, group_key(*RESOURCES))
    refused = {resource for resource in READ_PERMISSION if get(keyed, key, resource).status_code == 403}
    assert refused == {"account", "invoice_payments", "webhook_endpoints"}
    keyed.keys.put(key, ApiKey(("accounts_kyc_id_numbers_read", "invoice_read", "webhook_read")))
    assert {get(keyed, key, resource).status_code for resource in refused} == {200}
    keyed.keys.remove(key)


def test_every_list_but_report_types_accepts_a_limit(keyed: SimulatorServer) -> None:
    for resource in READ_PERMISSION.keys() - {"account", "balance", "reporting/report_types"}:
        answer = get(keyed, DEFAULT_API_KEY, f"{resource}?limit=1")
        assert (answer.status_code, answer.json()["object"]) == (200, "list"), resource
    refused = get(keyed, DEFAULT_API_KEY, "reporting/report_types?limit=1")
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "limit")


def control(server: SimulatorServer, method: str, body: Json | None = None, **params: str) -> requests.Response:
    return requests.request(method, f"{server.url}/_sim/keys", json=body, params=params)


def test_keys_can_be_added_changed_and_removed_while_the_server_runs(keyed: SimulatorServer) -> None:
    key = "rk_test_that_comes_and_goes_4444"
    assert get(keyed, key).status_code == 401
    listed = control(keyed, "POST", {"key": key, "permissions": ["charge_read"]}).json()["keys"]
    assert listed[-1] == {
        "key": "rk_test_**********4444",
        "permissions": ["charge_read"],
        "connect_permissions": [],
        "state": "active",
        "expires_at": None,
    }
    assert [get(keyed, key, path).status_code for path in ("charges", "balance")] == [200, 403]
    control(keyed, "POST", {"key": key, "state": "expired"})
    assert error(get(keyed, key), key)["code"] == "api_key_expired"
    control(keyed, "POST", {"key": key, "state": "active"})
    assert [get(keyed, key, path).status_code for path in ("charges", "balance")] == [200, 403]
    control(keyed, "POST", {"key": key, "permissions": None})
    assert get(keyed, key, "balance").status_code == 200
    assert len(control(keyed, "DELETE", key=key).json()["keys"]) == 4
    assert error(get(keyed, key), key)["message"].startswith("Invalid API Key provided")


def test_keys_are_listed_masked(keyed: SimulatorServer) -> None:
    listed = control(keyed, "GET")
    assert [(each["key"], each["state"]) for each in listed.json()["keys"]] == [
        ("rk_test_**********hing", "active"),
        ("rk_test_**********1111", "expired"),
        ("sk_test_**********2222", "ip_refused"),
        ("rk_test_**********3333", "revoked"),
    ]
    assert not [key for key in keyed.keys.known() if key in listed.text]


@pytest.mark.parametrize(
    ("method", "body", "params", "status"),
    [
        ("POST", {}, {}, 400),
        ("POST", [], {}, 400),
        ("POST", {"key": DEFAULT_LIVE_API_KEY}, {}, 400),
        ("POST", {"key": EXPIRED, "state": "tired"}, {}, 400),
        ("POST", {"key": EXPIRED, "colour": "red"}, {}, 400),
        ("POST", {"key": EXPIRED, "permissions": "charge_read"}, {}, 400),
        ("DELETE", None, {}, 404),
        ("DELETE", None, {"key": "rk_test_of_nobody_9876"}, 404),
    ],
)
def test_invalid_key_changes_are_refused_without_showing_the_key(
    keyed: SimulatorServer, method: str, body: Any, params: dict[str, str], status: int
) -> None:
    answer = control(keyed, method, body, **params)
    assert (answer.status_code, list(answer.json())) == (status, ["error"])
    assert DEFAULT_LIVE_API_KEY not in answer.text
    assert "rk_test_of_nobody" not in answer.text
    assert len(keyed.keys.known()) == 4
