"""The API over HTTP as clients see it: pages, filters, expansions, events, errors."""

import calendar
from collections.abc import Iterator
from email.utils import parsedate
from typing import Any

import pytest
import requests
import stripe

from orchestration.simulator import (
    API_VERSION,
    DEFAULT_API_KEY,
    DEFAULT_LIVE_API_KEY,
    EVENT_RETENTION,
    SimulatedAccount,
    SimulatorServer,
)
from orchestration.simulator.world.calibration import DAY

Json = dict[str, Any]
RESTRICTED_KEY = "rk_test_restricted_to_few_things_1234"
PERMITTED = ("payment_intent_read", "rak_event_read")


@pytest.fixture(scope="module")
def small() -> Iterator[SimulatorServer]:
    """Serve an account whose clock the tests may move, with a restricted key and the default one."""
    keys = {DEFAULT_API_KEY: None, RESTRICTED_KEY: PERMITTED}
    with SimulatorServer(SimulatedAccount(3, payments=600, days=60), keys=keys) as running:
        yield running


def get(http: requests.Session, server: SimulatorServer, path: str, **params: Any) -> Json:
    answer = http.get(f"{server.url}/v1/{path}", params=params)
    assert answer.status_code == 200, answer.text
    body: Json = answer.json()
    return body


def error(http: requests.Session, server: SimulatorServer, path: str, status: int, **params: Any) -> Json:
    answer = http.get(f"{server.url}/v1/{path}", params=params)
    assert answer.status_code == status, answer.text
    body: Json = answer.json()["error"]
    return body


def test_a_list_is_newest_first_ten_at_a_time(http: requests.Session, server: SimulatorServer) -> None:
    page = get(http, server, "charges")
    created = [charge["created"] for charge in page["data"]]
    assert (page["object"], page["url"], page["has_more"], len(created)) == ("list", "/v1/charges", True, 10)
    assert created == sorted(created, reverse=True)


def test_ending_before_gives_the_page_right_before_its_cursor(http: requests.Session, server: SimulatorServer) -> None:
    ids = [intent["id"] for intent in get(http, server, "payment_intents", limit=9)["data"]]
    page = get(http, server, "payment_intents", limit=3, ending_before=ids[6])
    assert [intent["id"] for intent in page["data"]] == ids[3:6]
    assert page["has_more"]
    assert not get(http, server, "payment_intents", limit=6, ending_before=ids[6])["has_more"]


def test_created_bounds_are_exact_to_the_second(http: requests.Session, server: SimulatorServer) -> None:
    created = {charge["created"] for charge in get(http, server, "charges", limit=50)["data"]}
    low, high = sorted(created)[3], sorted(created)[-3]
    for bounds, expected in (
        ({"created[gte]": low, "created[lte]": high}, {at for at in created if low <= at <= high}),
        ({"created[gt]": low, "created[lt]": high}, {at for at in created if low < at < high}),
        ({"created": low}, {low}),
    ):
        page = get(http, server, "charges", limit=100, **bounds)
        assert {charge["created"] for charge in page["data"]} == expected


def test_charges_of_a_payment_include_the_failed_ones(http: requests.Session, server: SimulatorServer) -> None:
    intent = next(
        intent
        for intent in server.account.intents.values()
        if len(intent.attempts) > 2 and all(attempt.charge for attempt in intent.attempts)
    )
    page = get(http, server, "charges", payment_intent=intent.id)
    visible = [attempt.charge for attempt in intent.attempts if attempt.at <= server.account.now]
    assert {charge["id"] for charge in page["data"]} == set(visible)
    assert "failed" in {charge["status"] for charge in page["data"]}
    assert get(http, server, "charges", payment_intent="pi_none")["data"] == []


def test_refunds_and_disputes_are_found_by_their_charge(http: requests.Session, server: SimulatorServer) -> None:
    for resource in ("refunds", "disputes"):
        first = get(http, server, resource, limit=1)["data"][0]
        found = get(http, server, resource, charge=first["charge"], payment_intent=first["payment_intent"])["data"]
        assert first["id"] in {each["id"] for each in found}
        assert {each["charge"] for each in found} == {first["charge"]}
        assert get(http, server, resource, charge="ch_none")["data"] == []


def test_customers_have_their_own_payments_only(http: requests.Session, server: SimulatorServer) -> None:
    page = get(http, server, "payment_intents", limit=50)
    customer = next(intent["customer"] for intent in page["data"] if intent["customer"])
    found = get(http, server, "payment_intents", customer=customer)["data"]
    assert {intent["customer"] for intent in found} == {customer}


def test_latest_charge_is_an_id_unless_expanded(http: requests.Session, server: SimulatorServer) -> None:
    plain = get(http, server, "payment_intents", limit=20)["data"]
    for name in ("expand[]", "expand[0]"):
        expanded = get(http, server, "payment_intents", limit=20, **{name: "data.latest_charge"})["data"]
        charges = [intent["latest_charge"] for intent in expanded]
        assert [charge and charge["id"] for charge in charges] == [intent["latest_charge"] for intent in plain]
    charged = next(intent for intent in plain if intent["latest_charge"])
    body = get(http, server, f"payment_intents/{charged['id']}", **{"expand[]": "latest_charge"})
    assert body["latest_charge"]["payment_intent"] == charged["id"]


def test_events_are_filtered_by_type_types_or_wildcard(http: requests.Session, server: SimulatorServer) -> None:
    failed = get(http, server, "events", limit=100, type="payment_intent.payment_failed")["data"]
    assert {event["type"] for event in failed} == {"payment_intent.payment_failed"}
    for name in ("types[]", "types[0]"):
        assert get(http, server, "events", limit=100, **{name: "payment_intent.payment_failed"})["data"] == failed
    disputes = get(http, server, "events", limit=100, type="charge.dispute.*")["data"]
    assert disputes
    assert all(event["data"]["object"]["object"] == "dispute" for event in disputes)


def test_a_snapshot_shows_its_step_despite_later_steps_in_the_same_second(
    http: requests.Session, server: SimulatorServer
) -> None:
    events = get(http, server, "events", limit=100, type="payment_intent.*")["data"]
    created = [event["data"]["object"] for event in events if event["type"] == "payment_intent.created"]
    assert created
    assert {intent["latest_charge"] for intent in created} == {None}
    assert {intent["amount_received"] for intent in created} == {0}
    instants = {(event["data"]["object"]["id"], event["created"]) for event in events if "succeeded" in event["type"]}
    assert instants & {(intent["id"], intent["created"]) for intent in created}


def test_a_failed_attempt_leaves_its_error_and_a_success_clears_it(
    http: requests.Session, server: SimulatorServer
) -> None:
    events = get(http, server, "events", limit=100, type="payment_intent.payment_failed")["data"]
    for snapshot in (event["data"]["object"] for event in events):
        assert snapshot["status"] == "requires_payment_method"
        charge = snapshot["last_payment_error"].get("charge")
        is_chargeless = snapshot["last_payment_error"]["code"] == "payment_intent_authentication_failure"
        assert (charge is None) == is_chargeless
        assert is_chargeless or snapshot["latest_charge"] == charge
    succeeded = get(http, server, "events", limit=100, type="payment_intent.succeeded")["data"]
    assert {event["data"]["object"]["last_payment_error"] for event in succeeded} == {None}


def test_events_are_not_readable_after_thirty_days(http: requests.Session) -> None:
    with SimulatorServer(SimulatedAccount(3, payments=300, days=30)) as server:
        newest = get(http, server, "events", limit=1)["data"][0]
        server.account.now = newest["created"] + EVENT_RETENTION
        assert get(http, server, f"events/{newest['id']}") == newest
        server.account.now += 1
        assert error(http, server, f"events/{newest['id']}", 404)["code"] == "resource_missing"
        assert newest["id"] not in {event["id"] for event in get(http, server, "events", limit=100)["data"]}
        for cursor in ("starting_after", "ending_before"):
            refused = error(http, server, "events", 400, **{cursor: newest["id"]})
            assert refused["type"] == "invalid_request_error"
            assert "aged out of our retention policy" in refused["message"]


@pytest.mark.parametrize(
    ("path", "params", "expected"),
    [
        ("charges", {"foo": "1"}, {"message": "Received unknown parameter: foo", "code": "parameter_unknown"}),
        ("charges", {"types[]": "charge.failed"}, {"code": "parameter_unknown", "param": "types[]"}),
        ("charges", {"limit": "ten"}, {"message": "Invalid integer: ten", "param": "limit"}),
        ("charges", {"limit": 101}, {"code": "parameter_invalid_integer", "param": "limit"}),
        ("charges", {"limit": 0}, {"code": "parameter_invalid_integer", "param": "limit"}),
        ("charges", {"created[gte]": "today"}, {"message": "Invalid integer: today", "param": "created[gte]"}),
        ("charges", {"starting_after": "ch_none"}, {"code": "resource_missing", "param": "starting_after"}),
        ("charges", {"starting_after": "a", "ending_before": "b"}, {"param": "ending_before"}),
        ("events", {"type": "charge.*", "types[]": "charge.failed"}, {"param": "type"}),
        ("events", {f"types[{n}]": "charge.failed" for n in range(21)}, {"param": "types"}),
        ("payment_intents", {"expand[]": "data.x"}, {"message": "This property cannot be expanded (data.x)."}),
        ("payment_intents", {"expand[]": "latest_charge"}, {"param": "expand"}),
    ],
)  # fmt: skip
def test_bad_parameters_are_refused_as_stripe_does(
    http: requests.Session, server: SimulatorServer, path: str, params: Json, expected: Json
) -> None:
    refused = error(http, server, path, 400, **params)
    assert refused["type"] == "invalid_request_error"
    assert expected.items() <= refused.items()


def test_unknown_objects_and_urls_are_not_found(http: requests.Session, server: SimulatorServer) -> None:
    missing = error(http, server, "payment_intents/pi_none", 404)
    assert missing["message"] == "No such payment_intent: 'pi_none'"
    assert missing["code"] == "resource_missing"
    assert error(http, server, "coupons", 404)["message"].startswith("Unrecognized request URL (GET: /v1/coupons)")
    assert http.post(f"{server.url}/v1/charges").status_code == 404


def test_responses_have_stripes_headers_and_the_accounts_clock(http: requests.Session, server: SimulatorServer) -> None:
    answer = http.get(f"{server.url}/v1/balance", headers={"Stripe-Version": "2020-08-27"})
    assert calendar.timegm(parsedate(answer.headers["Date"]) or ()) == server.account.now
    assert answer.headers["Request-Id"].startswith("req_")
    assert answer.headers["Stripe-Version"] == "2020-08-27"
    assert http.get(f"{server.url}/v1/balance").headers["Stripe-Version"] == API_VERSION


@pytest.mark.parametrize("key", [None, "rk_test_of_somebody_else_9876", DEFAULT_LIVE_API_KEY])
def test_a_missing_or_unknown_key_gets_401(server: SimulatorServer, key: str | None) -> None:
    answer = requests.get(f"{server.url}/v1/charges", headers={"Authorization": f"Bearer {key}"} if key else {})
    assert answer.status_code == 401
    message = answer.json()["error"]["message"]
    assert key is None or (message.startswith("Invalid API Key provided: rk_") and key not in message)


def test_a_restricted_keys_error_names_the_permission_and_the_account(small: SimulatorServer) -> None:
    def message(path: str) -> str | None:
        answer = requests.get(f"{small.url}/v1/{path}", headers={"Authorization": f"Bearer {RESTRICTED_KEY}"})
        assert answer.status_code in (200, 403, 404)
        if answer.status_code != 403:
            return None
        assert answer.json()["error"]["code"] == "more_permissions_required"
        text: str = answer.json()["error"]["message"]
        assert f"on account '{small.account.id}'" in text
        assert RESTRICTED_KEY not in text
        return text.partition("Having the '")[2].partition("' permission")[0]

    assert message("payment_intents") is None
    assert message("events?type=payment_intent.*") is None
    assert message("payment_intents/pi_none") is None
    assert message("charges/ch_none") == "rak_charge_read"
    assert message("refunds") == "rak_charge_read"
    assert message("payment_intents?expand[]=data.latest_charge") == "rak_charge_read"
    assert message("events?types[]=payment_intent.created&types[]=charge.dispute.closed") == "rak_dispute_read"
    assert message("disputes") == "rak_dispute_read"
    assert message("balance") == "rak_balance_read"
    assert message("application_fees") == "rak_application_fee_read"
    assert message("reporting/report_runs") == "rak_report_runs_and_report_types_read"
    assert message("account") == "rak_accounts_kyc_id_numbers_read"


def test_a_live_mode_account_accepts_live_keys_and_has_livemode_true(http: requests.Session) -> None:
    account = SimulatedAccount(3, payments=30, days=5, livemode=True)
    with SimulatorServer(account) as server:
        answer = requests.get(f"{server.url}/v1/balance", auth=(DEFAULT_LIVE_API_KEY, ""))
        assert answer.json()["livemode"] is True
        assert http.get(f"{server.url}/v1/balance").status_code == 401
    with pytest.raises(ValueError, match="must begin with rk_live_"):
        SimulatorServer(account, keys={"rk_test_x": None})


def test_events_have_the_accounts_api_version(http: requests.Session) -> None:
    account = SimulatedAccount(3, payments=30, days=5, event_api_version="2019-12-03")
    with SimulatorServer(account) as server:
        versions = {event["api_version"] for event in get(http, server, "events", limit=100)["data"]}
    assert versions == {"2019-12-03"}


def test_old_payments_change_when_the_clock_moves(http: requests.Session, small: SimulatorServer) -> None:
    before = {intent["id"]: intent for intent in get(http, small, "payment_intents", limit=100)["data"]}
    moved = http.post(f"{small.url}/_sim/clock", json={"advance": 20 * DAY}).json()
    assert moved["now"] == small.account.now
    after = [get(http, small, f"payment_intents/{intent_id}") for intent_id in before]
    assert [intent for intent in after if intent["status"] != before[intent["id"]]["status"]]
    assert get(http, small, "payment_intents", limit=1)["data"][0]["created"] > small.account.now - DAY
    refused = http.post(f"{small.url}/_sim/clock", json={"to": 1})
    assert refused.status_code == 400


def test_the_truth_is_the_same_over_http_and_in_process(http: requests.Session, small: SimulatorServer) -> None:
    at = small.account.now
    told = http.get(f"{small.url}/_sim/truth", params={"at": at, "syncs": f"{at - 40 * DAY},{at}"}).json()
    truth = small.account.truth(at, [at - 40 * DAY, at])
    assert told["summary"] == truth.summary()
    assert len(told["attempts"]) == len(truth.attempts)


def test_the_official_client_can_read_the_account(server: SimulatorServer) -> None:
    client = stripe.StripeClient(DEFAULT_API_KEY, base_addresses={"api": server.url})
    listed = client.v1.payment_intents.list({"limit": 100, "expand": ["data.latest_charge"]})
    failed = next(intent for intent in listed.auto_paging_iter() if intent.last_payment_error)
    assert failed.status in ("requires_payment_method", "canceled")
    with pytest.raises(stripe.InvalidRequestError, match="No such charge"):
        client.v1.charges.retrieve("ch_none")
