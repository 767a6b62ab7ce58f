"""Webhooks as Stripe sends them: a signature that its own library accepts, and deliveries with injected failures."""

import json
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import requests
import stripe

from orchestration.simulator import (
    DEFAULT_API_KEY,
    DEFAULT_ENABLED_EVENTS,
    DEFAULT_WEBHOOK_SECRET,
    PERSONAL_MARKERS,
    DeliveryCounts,
    RetryPolicy,
    SimulatedAccount,
    SimulatorServer,
    WebhookEndpoint,
    signature_header,
    webhook_payload,
)
from orchestration.simulator.world.account import Entry
from orchestration.simulator.world.calibration import DAY
from tests.engines.simulator.conftest import Receiver, settled, until

Json = dict[str, Any]
HOUR = 3_600
NEW_SECRET = "whsec_simulated_account_signs_anew"


def new_account(**options: Any) -> SimulatedAccount:
    return SimulatedAccount(**{"seed": 5, "payments": 600, "days": 20} | options)


def events_of(account: SimulatedAccount, after: int, types: tuple[str, ...] = DEFAULT_ENABLED_EVENTS) -> list[Entry]:
    return [event for event in account.events_between(after, account.now) if event.event_type in types]


@contextmanager
def hung_receiver() -> Iterator[str]:
    """Yield the URL of a server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/"


@pytest.fixture(scope="module")
def event() -> tuple[SimulatedAccount, Entry]:
    account = new_account()
    return account, events_of(account, account.now - DAY, ("payment_intent.payment_failed",))[0]


def test_stripes_library_accepts_the_signature_and_rejects_changes(event: tuple[SimulatedAccount, Entry]) -> None:
    payload, now = webhook_payload(*event), int(time.time())
    header = signature_header(payload, [DEFAULT_WEBHOOK_SECRET], now)
    assert stripe.WebhookSignature.verify_header(payload.decode(), header, DEFAULT_WEBHOOK_SECRET, 300)
    constructed = stripe.Webhook.construct_event(payload, header, DEFAULT_WEBHOOK_SECRET)
    assert (constructed.id, constructed.type) == (event[1].id, "payment_intent.payment_failed")
    reordered = json.dumps(json.loads(payload)).encode()
    assert json.loads(reordered) == json.loads(payload)
    refused = [
        (payload, header, NEW_SECRET),
        (payload + b" ", header, DEFAULT_WEBHOOK_SECRET),
        (reordered, header, DEFAULT_WEBHOOK_SECRET),
        (payload, signature_header(payload, [], now), DEFAULT_WEBHOOK_SECRET),
        (payload, signature_header(payload, [DEFAULT_WEBHOOK_SECRET], now - 301), DEFAULT_WEBHOOK_SECRET),
    ]
    for body, signature, secret in refused:
        with pytest.raises(stripe.SignatureVerificationError):
            stripe.Webhook.construct_event(body, signature, secret)


def test_only_test_mode_adds_a_fake_signature_scheme() -> None:
    assert [part[:3] for part in signature_header(b"{}", ["whsec_a", "whsec_b"], 7).split(",")] == [
        "t=7",
        "v1=",
        "v1=",
        "v0=",
    ]
    header = signature_header(b"{}", ["whsec_a", "whsec_b"], 7)
    assert len({part[3:] for part in header.split(",")}) == 4
    assert "v0=" not in signature_header(b"{}", ["whsec_a"], 7, livemode=True)


@pytest.mark.parametrize("livemode", [False, True])
def test_the_payload_is_the_event_as_listed_in_stripes_layout(livemode: bool) -> None:
    account = new_account(livemode=livemode)
    with SimulatorServer(account) as server:
        key = DEFAULT_API_KEY.replace("_test_", "_live_") if livemode else DEFAULT_API_KEY
        page = requests.get(f"{server.url}/v1/events", params={"limit": 100}, auth=(key, "")).json()["data"]
    for listed in page:
        entry = account.find("events", listed["id"], account.now)
        assert entry is not None
        payload = webhook_payload(account, entry)
        assert json.loads(payload) == listed | {"pending_webhooks": 1, "livemode": livemode}
        assert payload.startswith(b'{\n  "id": "evt_')
        assert b'\n      "id": "' in payload
    assert [each for each in page if "previous_attributes" in each["data"]]


def test_the_payload_contains_personal_data(event: tuple[SimulatedAccount, Entry]) -> None:
    text = webhook_payload(*event).decode()
    assert [marker for marker in PERSONAL_MARKERS[:4] if marker not in text] == []


def test_events_have_the_endpoints_api_version_and_for_a_platform_the_account(
    event: tuple[SimulatedAccount, Entry],
) -> None:
    plain = json.loads(webhook_payload(*event))
    special = json.loads(webhook_payload(*event, api_version="2019-12-03", connect=True))
    assert special == plain | {"api_version": "2019-12-03", "account": event[0].id}
    assert "account" not in plain


@pytest.mark.parametrize(
    "options",
    [
        {"url": "127.0.0.1/hook"},
        {"url": "ftp://shop.example.com"},
        {"url": "http://shop.example.com:port/"},
        {"secrets": ()},
        {"secrets": ("sk_test_secret",)},
        {"enabled_events": ()},
        {"lost": 1.1},
        {"duplicates": -0.1},
        {"delay": -1},
        {"concurrency": 0},
    ],
)
def test_an_invalid_endpoint_is_refused_without_showing_its_secret(options: Json) -> None:
    wanted: Json = {"url": "http://127.0.0.1/"} | options
    with pytest.raises(ValueError, match=r"^(?!.*sk_test_secret)"):
        WebhookEndpoint(**wanted)
    assert "whsec_" not in repr(WebhookEndpoint("http://127.0.0.1/"))


def test_each_event_since_the_registration_is_delivered_once_with_stripes_headers(receiver: Receiver) -> None:
    account = new_account()
    with SimulatorServer(account) as server:
        start = account.now
        endpoint = server.deliverer.register(WebhookEndpoint(receiver.url))
        for hours in (5, 1, 30):
            account.now += hours * HOUR
            counts = settled(server, endpoint)
    expected = [event.id for event in events_of(account, start)]
    assert len(expected) > 30
    assert Counter(receiver.ids) == Counter(expected)
    assert (counts.delivered, counts.failed_tries) == (len(expected), 0)
    assert counts.responses == dict.fromkeys(expected, 200)
    assert {posted.event["type"] for posted in receiver.posted} <= set(DEFAULT_ENABLED_EVENTS)
    for posted in receiver.posted:
        stripe.Webhook.construct_event(posted.body, posted.signature, DEFAULT_WEBHOOK_SECRET)
        assert posted.path == "/hook?from=stripe"
        assert posted.headers["Content-Type"] == "application/json; charset=utf-8"
        assert posted.headers["User-Agent"] == "Stripe/1.0 (+https://stripe.com/docs/webhooks)"
        assert (len(posted.signed("v1")), len(posted.signed("v0"))) == (1, 1)


@pytest.mark.parametrize("types", [("*",), ("charge.failed", "charge.updated")])
def test_an_endpoint_gets_only_its_enabled_types(receiver: Receiver, types: tuple[str, ...]) -> None:
    account = new_account()
    start = account.now
    with SimulatorServer(account) as server:
        endpoint = server.deliverer.register(WebhookEndpoint(receiver.url, enabled_events=types))
        account.now += DAY
        settled(server, endpoint)
    happened = account.events_between(start, account.now)
    assert Counter(receiver.ids) == Counter(
        event.id for event in happened if types == ("*",) or event.event_type in types
    )
    assert len({posted.event["type"] for posted in receiver.posted}) >= len(types)


def test_a_running_clock_delivers_continuously(receiver: Receiver) -> None:
    account = new_account()
    start = account.now
    with SimulatorServer(account) as server:
        endpoint = server.deliverer.register(WebhookEndpoint(receiver.url))
        account.speed = DAY
        until(lambda: len(receiver.posted) > 30)
        account.speed = 0
        settled(server, endpoint)
    assert Counter(receiver.ids) == Counter(event.id for event in events_of(account, start))


def received(receiver: Receiver, moves: tuple[int, ...], **options: Any) -> tuple[list[str], DeliveryCounts]:
    """Return the ids received, in order, while the clock of a new account with the same seed moves."""
    receiver.posted.clear()
    account = new_account()
    with SimulatorServer(account) as server:
        endpoint = server.deliverer.register(WebhookEndpoint(receiver.url, concurrency=1, **options))
        for seconds in moves:
            account.now += seconds
            counts = settled(server, endpoint)
    return receiver.ids, counts


def of_the_next_day() -> list[Entry]:
    """Return the events that `received` should get within a day."""
    account = new_account()
    account.now += DAY
    return events_of(account, account.now - DAY)


def test_deliveries_one_at_a_time_are_in_order(receiver: Receiver) -> None:
    assert received(receiver, (DAY,))[0] == [event.id for event in of_the_next_day()]


def test_duplicates_are_reproducible_by_seed(receiver: Receiver) -> None:
    ids, counts = received(receiver, (DAY,), duplicates=0.3)
    times = Counter(ids)
    assert set(times.values()) == {1, 2}
    assert 0.15 < sum(1 for number in times.values() if number == 2) / len(times) < 0.45
    assert counts.delivered == len(ids)
    again, _ = received(receiver, (6 * HOUR,) * 4, duplicates=0.3)
    assert again == ids


def test_shuffled_events_overtake_each_other_only_within_the_window(receiver: Receiver) -> None:
    expected = of_the_next_day()
    created = {event.id: event.created for event in expected}
    ids, _ = received(receiver, (DAY,), shuffle=HOUR)
    assert ids != list(created)
    assert sorted(ids) == sorted(created)
    latest = 0
    for event_id in ids:
        latest = max(latest, created[event_id])
        assert created[event_id] > latest - HOUR
    assert received(receiver, (DAY,), shuffle=HOUR)[0] == ids


def test_delayed_events_are_late_by_the_configured_delay(receiver: Receiver) -> None:
    expected = {event.id for event in of_the_next_day()}
    ids, counts = received(receiver, (DAY, 0), delay=2 * DAY, delayed=0.4)
    assert set(ids) | set(counts.delayed) == expected
    assert not set(ids) & set(counts.delayed)
    assert 0.2 < len(counts.delayed) / len(expected) < 0.6
    assert received(receiver, (12 * HOUR, 12 * HOUR), delay=2 * DAY, delayed=0.4)[0] == ids
    later, _ = received(receiver, (DAY, 2 * DAY), delay=2 * DAY, delayed=0.4)
    assert expected <= set(later)
    assert received(receiver, (DAY,), delay=2 * DAY)[0] == []


def test_lost_events_are_reproducible_by_seed(receiver: Receiver) -> None:
    expected = {event.id for event in of_the_next_day()}
    ids, counts = received(receiver, (DAY,), lost=0.3)
    assert sorted([*ids, *counts.never_sent]) == sorted(expected)
    assert 0.15 < len(counts.never_sent) / len(expected) < 0.45
    assert received(receiver, (HOUR,) * 24, lost=0.3)[1].never_sent == counts.never_sent
    assert received(receiver, (DAY,), lost=1.0)[0] == []


def test_a_failed_delivery_is_retried_with_a_new_time_and_signature(receiver: Receiver) -> None:
    receiver.answer = lambda number: (500, 302, 204)[number]
    account = new_account()
    with SimulatorServer(account, retry=RetryPolicy(first=1.01, longest=1.01)) as server:
        endpoint = server.deliverer.register(WebhookEndpoint(receiver.url))
        account.now = of_the_next_day()[0].created
        counts = settled(server, endpoint)
    assert (counts.delivered, counts.failed_tries, list(counts.responses.values())) == (1, 2, [204])
    assert [posted.path for posted in receiver.posted] == ["/hook?from=stripe"] * 3
    assert len({posted.body for posted in receiver.posted}) == 1
    assert len({posted.signed("t")[0] for posted in receiver.posted}) == 3
    assert len({posted.signed("v1")[0] for posted in receiver.posted}) == 3
    for posted in receiver.posted:
        stripe.Webhook.construct_event(posted.body, posted.signature, DEFAULT_WEBHOOK_SECRET)


def test_a_receiver_that_was_down_gets_everything_later() -> None:
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    account = new_account()
    start = account.now
    with SimulatorServer(account, retry=RetryPolicy(first=0.05, longest=0.1)) as server:
        endpoint = server.deliverer.register(WebhookEndpoint(f"http://127.0.0.1:{port}/"))
        account.now += DAY
        until(lambda: server.deliverer.counts()[endpoint].failed_tries > 10)
        assert set(server.deliverer.counts()[endpoint].responses.values()) == {None}
        with Receiver(port) as receiver:
            settled(server, endpoint)
    assert Counter(receiver.ids) == Counter(event.id for event in events_of(account, start))


def test_a_delivery_is_given_up_after_the_configured_tries(receiver: Receiver) -> None:
    receiver.answer = lambda number: 400
    account = new_account()
    with SimulatorServer(account, retry=RetryPolicy(first=0.01, tries=3)) as server:
        endpoint = server.deliverer.register(WebhookEndpoint(receiver.url))
        account.now += 2 * HOUR
        counts = settled(server, endpoint)
    assert counts.given_up
    assert Counter(receiver.ids) == dict.fromkeys(counts.given_up, 3)
    assert (counts.delivered, counts.failed_tries) == (0, 3 * len(counts.given_up))


def test_retry_waits_double_up_to_the_limit_and_end_after_three_days() -> None:
    policy = RetryPolicy()
    assert [policy.wait(tries, 1) for tries in (1, 2, 3, 7, 8, 9_000)] == [0.5, 1.0, 2.0, 32.0, 60.0, 60.0]
    assert policy.wait(9_000, 3 * DAY - 1) is not None
    assert policy.wait(9_000, 3 * DAY) is None


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204),
        (b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok", 200),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", 200),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nok", None),
        (b"220 mail.example.com ESMTP\r\n\r\n", None),
        (b"HTTP/1.1 200", None),
        (b"", None),
    ],
)
def test_only_a_complete_http_response_counts(answer: bytes, status: int | None) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(100_000)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        account = new_account()
        with SimulatorServer(account, retry=RetryPolicy(tries=1)) as server:
            endpoint = server.deliverer.register(WebhookEndpoint(f"http://127.0.0.1:{listening.getsockname()[1]}"))
            account.now = of_the_next_day()[0].created
            counts = settled(server, endpoint)
        thread.join()
    assert list(counts.responses.values()) == [status]
    assert (counts.delivered, len(counts.given_up)) == ((1, 0) if status else (0, 1))


def test_a_hanging_receiver_times_out_and_does_not_block_others(receiver: Receiver) -> None:
    account = new_account()
    start = account.now
    with hung_receiver() as url, SimulatorServer(account, retry=RetryPolicy(tries=1, timeout=0.2)) as server:
        hung = server.deliverer.register(WebhookEndpoint(url))
        other = server.deliverer.register(WebhookEndpoint(receiver.url))
        account.now += HOUR
        expected = [event.id for event in events_of(account, start)]
        assert sorted(settled(server, other).responses) == sorted(expected)
        assert sorted(settled(server, hung).given_up) == sorted(expected)


def test_the_server_answers_and_stops_at_once_while_a_receiver_hangs() -> None:
    threads = set(threading.enumerate())
    account = new_account()
    with hung_receiver() as url:
        with SimulatorServer(account) as server:
            endpoint = server.deliverer.register(WebhookEndpoint(url, concurrency=50))
            account.now += DAY
            until(lambda: bool(server.deliverer.counts()[endpoint].pending))
            time.sleep(0.2)
            begun = time.monotonic()
            assert requests.get(f"{server.url}/v1/events", auth=(DEFAULT_API_KEY, "")).status_code == 200
            assert time.monotonic() - begun < 0.5
            begun = time.monotonic()
        assert time.monotonic() - begun < 1
    assert set(threading.enumerate()) == threads


def control(server: SimulatorServer, method: str, path: str, body: Json | None = None) -> Json:
    answer = requests.request(method, f"{server.url}/_sim/{path}", json=body)
    assert answer.status_code == 200, answer.text
    assert "whsec_" not in answer.text
    told: Json = answer.json()
    return told


def test_endpoints_can_be_added_and_removed_over_http(receiver: Receiver) -> None:
    account = new_account()
    with SimulatorServer(new_account(seed=6), connected=[account]) as server:
        wanted = {"url": receiver.url, "secret": NEW_SECRET, "enabled_events": ["*"], "connect": True}
        made = control(server, "POST", "webhook_endpoints", wanted)
        assert (made["id"][:3], made["enabled_events"], made["deliveries"]["delivered"]) == ("we_", ["*"], 0)
        control(server, "POST", "clock", {"advance": HOUR})
        counts = settled(server, made["id"])
        listed = control(server, "GET", "webhook_endpoints")["webhook_endpoints"]
        assert [each["deliveries"]["delivered"] for each in listed] == [counts.delivered]
        told = control(server, "GET", "deliveries")["endpoints"][made["id"]]
        assert (told["delivered"], sorted(told["responses"])) == (counts.delivered, sorted(receiver.ids))
        assert control(server, "DELETE", f"webhook_endpoints?id={made['id']}") == {"webhook_endpoints": []}
        control(server, "POST", "clock", {"advance": DAY})
        time.sleep(0.2)
    assert len(receiver.posted) == counts.delivered > 0
    stripe.Webhook.construct_event(receiver.posted[0].body, receiver.posted[0].signature, NEW_SECRET)
    assert receiver.posted[0].event["account"] == account.id


def test_a_new_secret_and_the_old_one_both_sign_for_a_day(receiver: Receiver) -> None:
    account = new_account()
    with SimulatorServer(account) as server:
        endpoint = control(server, "POST", "webhook_endpoints", {"url": receiver.url})["id"]
        control(server, "POST", "webhook_endpoints/roll", {"secret": NEW_SECRET})
        account.now += HOUR
        settled(server, endpoint)
        both = receiver.posted[-1]
        account.now += DAY
        settled(server, endpoint)
        new = receiver.posted[-1]
    assert (len(both.signed("v1")), len(new.signed("v1"))) == (2, 1)
    for secret in (NEW_SECRET, DEFAULT_WEBHOOK_SECRET):
        stripe.Webhook.construct_event(both.body, both.signature, secret)
    stripe.Webhook.construct_event(new.body, new.signature, NEW_SECRET)


def test_an_event_can_be_resent_even_if_it_was_lost(receiver: Receiver) -> None:
    account = new_account()
    with SimulatorServer(account) as server:
        endpoint = server.deliverer.register(WebhookEndpoint(receiver.url, lost=1.0))
        account.now += HOUR
        lost = settled(server, endpoint).never_sent[0]
        for body in ({"event": lost}, {"event": lost, "endpoint": endpoint}):
            assert control(server, "POST", "deliveries", body) == {"event": lost, "endpoints": [endpoint]}
            settled(server, endpoint)
    assert receiver.ids == [lost, lost]


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "webhook_endpoints", {}, 400),
        ("POST", "webhook_endpoints", {"url": "http://127.0.0.1/", "colour": "red"}, 400),
        ("POST", "webhook_endpoints", {"url": "http://127.0.0.1/", "enabled_events": "*"}, 400),
        ("POST", "webhook_endpoints", {"url": "http://127.0.0.1/", "secret": "open"}, 400),
        ("DELETE", "webhook_endpoints?id=we_none", None, 404),
        ("POST", "webhook_endpoints/roll", {"secret": NEW_SECRET}, 400),
        ("POST", "webhook_endpoints/roll", {"id": "we_none", "secret": NEW_SECRET}, 404),
        ("POST", "deliveries", {"event": "evt_none"}, 404),
        ("POST", "deliveries", [], 400),
    ],
)
def test_invalid_requests_are_refused(server: SimulatorServer, method: str, path: str, body: Any, status: int) -> None:
    answer = requests.request(method, f"{server.url}/_sim/{path}", json=body)
    assert (answer.status_code, list(answer.json())) == (status, ["error"])


def test_the_command_reads_its_secret_from_standard_input(receiver: Receiver) -> None:
    options = ["--payments=200", "--days=5", "--port=0", f"--speed={DAY}", f"--webhook-url={receiver.url}"]
    process = subprocess.Popen(
        [sys.executable, "-m", "orchestration.simulator", *options, "--webhook-secret-stdin"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    with process:
        try:
            assert process.stdin is not None
            process.stdin.write(f"{NEW_SECRET}\n")
            process.stdin.flush()
            until(lambda: bool(receiver.posted))
        finally:
            process.terminate()
    stripe.Webhook.construct_event(receiver.posted[0].body, receiver.posted[0].signature, NEW_SECRET)
