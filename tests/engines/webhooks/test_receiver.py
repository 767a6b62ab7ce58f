"""The receiver over HTTP: what it stores, what it refuses, and how it answers hostile requests."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pytest
import requests
import stripe
import uvicorn
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.routing import Mount

from orchestration.config.settings import WEBHOOK_EVENTS
from orchestration.warehouse.connection import open_warehouse
from orchestration.webhooks.endpoint import WebhookEndpoint
from orchestration.webhooks.errors import QueueUnavailable
from orchestration.webhooks.ingest import ingest_queue
from orchestration.webhooks.queue import Queue, days_ago
from orchestration.webhooks.receiver import MAX_BODY_BYTES, create_receiver
from tests.engines.webhooks.conftest import make_event

SECRET, OLD, BUS_KEY = "whsec_" + "s" * 32, "whsec_" + "o" * 32, "bus-key-of-24-characters-or-more"
TOKEN = "tok3n-that-is-hard-to-guess"
ENDPOINTS = [WebhookEndpoint("default", SecretStr(TOKEN), (SecretStr(SECRET), SecretStr(OLD)))]


@contextmanager
def serving(application: Starlette) -> Iterator[str]:
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(application, log_level="critical", access_log=False))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        while not server.started:
            time.sleep(0.005)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listening.close()


def receiver(queue: Queue, *, bus_key: str | None = BUS_KEY) -> Starlette:
    return create_receiver(
        queue,
        lambda: ENDPOINTS,
        stored_types=WEBHOOK_EVENTS.split(","),
        bus_key=SecretStr(bus_key) if bus_key else None,
    )


@pytest.fixture
def url(queue: Queue) -> Iterator[str]:
    with serving(receiver(queue)) as address:
        yield address


def post(url: str, body: bytes, header: str | None = None, *, token: str = TOKEN) -> requests.Response:
    headers = {} if header is None else {"Stripe-Signature": header}
    return requests.post(f"{url}/webhooks/stripe/{token}", data=body, headers=headers, timeout=20)


def signed(body: bytes, secret: str = SECRET) -> str:
    return stripe.WebhookSignature.generate_signature_header(body.decode(), secret)


def send(url: str, event: Any, secret: str = SECRET) -> requests.Response:
    body = json.dumps(event, indent=2).encode()
    return post(url, body, signed(body, secret))


def test_an_acknowledged_event_is_in_the_queue_without_secrets_and_personal_data(url: str, queue: Queue) -> None:
    answer = send(url, make_event())
    assert (answer.status_code, answer.json()) == (200, {"received": True, "stored": 1})
    (kept,) = Queue(queue.url).take(9)
    assert (kept.integration, kept.event_id) == ("default", "evt_1")
    assert "jenny@example.com" not in kept.payload
    assert "secret" not in kept.payload
    assert json.loads(kept.payload)["data"]["object"]["last_payment_error"]["code"] == "card_declined"


def test_both_secrets_are_accepted_while_one_is_rolled(url: str, queue: Queue) -> None:
    assert [send(url, make_event(1), SECRET).status_code, send(url, make_event(2), OLD).status_code] == [200, 200]
    assert queue.stats().queued == 2


def test_a_repeated_event_is_acknowledged_each_time_and_stored_once(url: str, queue: Queue) -> None:
    assert [send(url, make_event()).status_code for _ in range(3)] == [200] * 3
    assert (queue.stats().queued, queue.history_counts()) == (1, (0, 2))


@pytest.mark.parametrize("kind", ["charge.failed", "payment_intent.created", "customer.created", "something.new"])
def test_events_of_unused_types_are_acknowledged_counted_and_not_stored(kind: str, url: str, queue: Queue) -> None:
    answer = send(url, make_event(type=kind))
    assert (answer.status_code, answer.json()["stored"]) == (200, 0)
    assert queue.stats().queued == 0
    assert (
        'recoup_webhook_events_total{stored="no",type="other"} 1.0' in requests.get(f"{url}/metrics", timeout=20).text
    )


def test_an_unknown_address_is_404_and_another_method_405(url: str) -> None:
    body = json.dumps(make_event()).encode()
    assert post(url, body, signed(body), token="guess").status_code == 404
    assert requests.get(f"{url}/webhooks/stripe/{TOKEN}", timeout=20).status_code == 405
    assert requests.put(f"{url}/webhooks/stripe/{TOKEN}", data=body, timeout=20).status_code == 405
    assert requests.get(f"{url}/anything", timeout=20).status_code == 404
    slashed = requests.post(f"{url}/webhooks/stripe/{TOKEN}/", data=body, allow_redirects=False, timeout=20)
    assert slashed.status_code == 404, "Stripe would count a redirect as a failure"


THIN = {"object": "v2.core.event", "id": "evt_1", "type": "v1.payment_intent.succeeded"}


def deep(levels: int) -> str:
    return '{"a":' * levels + "1" + "}" * levels


def put_in(event: dict[str, Any], raw: str, name: str = "extra") -> bytes:
    """Return the event's JSON with a field that `json.dumps` would not write."""
    return json.dumps(event | {name: "RAW"}).replace('"RAW"', raw).encode()


def ingest(queue: Queue, folder: Path) -> tuple[list[tuple[str, str]], dict[str, str]]:
    """Ingest the queue. Return the stored PaymentIntents (id, payload) and the reason of each quarantined event."""
    with open_warehouse(folder / "warehouse.duckdb") as warehouse:
        ingest_queue(warehouse, queue, account_of=lambda _: "acct_1", pinned_version="2026-10-28.endive")
        rows = warehouse.execute("SELECT id, payload FROM raw_stripe.payment_intents ORDER BY id").fetchall()
    return rows, {event_id: reason for event_id, _, reason in queue.quarantine(99)}


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"no json", "no_event"),
        (b"", "no_event"),
        (b"[]", "no_event"),
        (b"7", "no_event"),
        (b"null", "no_event"),
        (b"{}", "no_event"),
        (json.dumps(make_event(type=None)).encode(), "no_event"),
        (json.dumps(make_event(type=["payment_intent.succeeded"])).encode(), "no_event"),
        (b"[" * 100_000 + b"]" * 100_000, "no_event"),
        (json.dumps(THIN).encode(), "thin_event"),
        (json.dumps(make_event(id="evt_00000000000000")).encode(), "test_event"),
        (json.dumps(make_event(data={"object": {"id": "pi_00000000000000"}})).encode(), "test_event"),
        (json.dumps(make_event(type="charge.failed", data={"object": {"id": "ch_0000000000"}})).encode(), "test_event"),
        (json.dumps(make_event(type="balance.available", data={"object": {"object": "balance"}})).encode(), None),
        (json.dumps(make_event(type="invoice.upcoming", data={"object": {"object": "invoice"}})).encode(), None),
        (json.dumps(make_event(type="coupon.created", data={"object": {"id": "Black Friday ☃ %"}})).encode(), None),
        (json.dumps(make_event(type="customer.created", data=None, created="x", id=None)).encode(), None),
        (put_in(make_event(type="plan.created"), deep(3_000)), None),
        (put_in(make_event(type="plan.created"), "[NaN, 1e999, -Infinity, 1" + "0" * 5_000 + "]"), None),
    ],
)
def test_a_signed_body_that_is_not_a_used_event_is_answered_200_and_skipped(
    body: bytes, reason: str | None, url: str, queue: Queue
) -> None:
    answer = post(url, body, signed(body))
    assert (answer.status_code, answer.json()) == (200, {"received": True, "stored": 0})
    assert queue.stats().queued == 0
    metrics = requests.get(f"{url}/metrics", timeout=20).text
    assert 'recoup_webhook_events_total{stored="no",type="other"} 1.0' in metrics
    deadline = time.monotonic() + 20
    expected = {reason: 1} if reason else {}
    while (counted := queue.ignored(since=days_ago(1))) != expected and time.monotonic() < deadline:
        time.sleep(0.1)
    assert counted == expected
    assert queue.rejected(since=days_ago(1)) == {}, "the signature is accepted"


def of_intent(**changes: Any) -> dict[str, Any]:
    event = make_event(1)
    return event | {"data": {"object": event["data"]["object"] | changes}}


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (json.dumps(make_event(id=7)).encode(), "`id`"),
        (json.dumps(make_event(id="evt_\n1")).encode(), "`id`"),
        (json.dumps(make_event(id="evt_\x00")).encode(), "`id`"),
        (json.dumps(make_event(id="evt_\ud800")).encode(), "`id`"),
        (json.dumps(make_event(id="e" * 300)).encode(), "`id`"),
        (json.dumps(make_event(created="now")).encode(), "`created`"),
        (json.dumps(make_event(created=True)).encode(), "`created`"),
        (json.dumps(make_event(created=10**15)).encode(), "`created`"),
        (put_in(make_event(), "1" + "0" * 5_000, "created"), "`created`"),
        (json.dumps(make_event(livemode="yes")).encode(), "`livemode`"),
        (json.dumps(make_event(account=["acct_1"])).encode(), "`account`"),
        (json.dumps(make_event(api_version=7)).encode(), "`api_version`"),
        (json.dumps(make_event(object="v1.event")).encode(), "not a Stripe event"),
        (json.dumps(make_event(data=[])).encode(), "`data.object`"),
        (json.dumps(make_event(data={"object": None})).encode(), "`data.object`"),
        (json.dumps(make_event(data={"object": [{}]})).encode(), "`data.object`"),
        (json.dumps(make_event(data={"object": {}})).encode(), "`data.object`"),
        (json.dumps(make_event(data={"object": {"id": "cus_1", "object": "customer"}})).encode(), "its type names"),
        (json.dumps(of_intent(amount="abc")).encode(), "`amount`"),
        (json.dumps(of_intent(amount=None)).encode(), "`amount`"),
        (json.dumps(of_intent(created=253_402_300_799_000)).encode(), "`created`"),
        (json.dumps(of_intent(created=-5)).encode(), "`created`"),
        (json.dumps(of_intent(currency=978)).encode(), "`currency`"),
        (json.dumps(of_intent(latest_charge=["ch_1"])).encode(), "`latest_charge`"),
        (json.dumps(of_intent(metadata=["a"])).encode(), "`metadata`"),
        (json.dumps(of_intent(livemode=True)).encode(), "`livemode`"),
    ],
)
def test_an_unusable_event_of_a_used_type_is_answered_200_and_quarantined_with_the_reason(
    body: bytes, reason: str, url: str, queue: Queue, tmp_path: Path
) -> None:
    for _ in range(2):
        assert post(url, body, signed(body)).json() == {"received": True, "stored": 1}
    assert send(url, make_event(2)).status_code == 200
    rows, reasons = ingest(queue, tmp_path)
    assert [object_id for object_id, _ in rows] == ["pi_2"]
    assert len(reasons) == 1
    assert reason in next(iter(reasons.values()))


@pytest.mark.parametrize(
    "body",
    [
        json.dumps(of_intent(metadata={"a": "b\ud800c", "\udfff": "d"})).encode(),
        json.dumps(of_intent(statement_descriptor="\x00a\x00")).encode(),
        put_in(make_event(), '"a\x00b"'),
        b"\xef\xbb\xbf" + json.dumps(make_event()).encode(),
        put_in(make_event(), "[NaN, Infinity, -Infinity, 1e999, -1e999]"),
        put_in(make_event(), "[1" + "0" * 5_000 + ", 18446744073709551616, -9223372036854775809]"),
        put_in(make_event(), deep(240)),
        put_in(make_event(), deep(900)),
        put_in(make_event(), deep(50_000)),
        put_in(make_event(), "[" * 5_000 + "]" * 5_000),
        put_in(make_event(), '1, "extra": 2, "extra": "' + "\\\\u0000" + '"'),
        json.dumps(make_event(api_version="2031-01-01.unheard_of")).encode(),
        json.dumps(make_event(api_version=None)).encode(),
        json.dumps(of_intent(status="a_status_of_tomorrow")).encode(),
        json.dumps(make_event() | {"data": make_event()["data"] | {"previous_attributes": None}}).encode(),
    ],
)
def test_an_unusual_but_usable_event_reaches_the_tables(body: bytes, url: str, queue: Queue, tmp_path: Path) -> None:
    assert post(url, body, signed(body)).json() == {"received": True, "stored": 1}
    rows, reasons = ingest(queue, tmp_path)
    assert reasons == {}
    ((object_id, payload),) = rows
    assert (object_id, json.loads(payload)["amount"]) == ("pi_1", 500)
    assert "\\u0000" not in payload
    with duckdb.connect() as connection:
        assert connection.execute("SELECT json_valid(?)", [payload]).fetchone() == (True,)


def test_a_lone_surrogate_is_replaced_in_place(url: str, queue: Queue, tmp_path: Path) -> None:
    body = json.dumps(of_intent(metadata={"order_id": "4\ud8002"})).encode()
    post(url, body, signed(body))
    (((_, payload),), _) = ingest(queue, tmp_path)
    assert json.loads(payload)["metadata"] == {"order_id": "4\ufffd2"}


def test_an_unsigned_body_is_400_and_is_counted_for_the_checks(url: str, queue: Queue) -> None:
    body = json.dumps(make_event()).encode()
    answers = [post(url, body), post(url, body, signed(body, "whsec_" + "x" * 32)), post(url, b"\xff", signed(b"?"))]
    assert [answer.status_code for answer in answers] == [400] * 3
    assert all(SECRET not in answer.text and TOKEN not in answer.text for answer in answers)
    assert queue.stats().queued == 0
    deadline = time.monotonic() + 20
    expected = {"no_signature": 1, "wrong_signature": 1, "not_utf8": 1}
    while (counted := queue.rejected(since=days_ago(1))) != expected and time.monotonic() < deadline:
        time.sleep(0.1)
    assert counted == expected


def test_a_body_that_is_too_large_is_413_even_without_a_content_length(url: str, queue: Queue) -> None:
    body = json.dumps(make_event(padding="x" * (MAX_BODY_BYTES + 1))).encode()
    assert post(url, body, signed(body)).status_code == 413
    parts = (body[start : start + 65_536] for start in range(0, len(body), 65_536))
    assert post(url, parts, signed(body)).status_code == 413  # type: ignore[arg-type]
    assert queue.stats().queued == 0


def test_an_unavailable_queue_is_503_so_that_stripe_retries(
    url: str, queue: Queue, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any) -> None:
        raise QueueUnavailable("database or disk is full")

    def healthy() -> bool:
        return requests.get(f"{url}/healthz", timeout=20).status_code == 200

    with monkeypatch.context() as patched:
        patched.setattr(Queue, "put", fail)
        answers = [send(url, make_event()) for _ in range(3)]
        assert not healthy()
    assert [answer.status_code for answer in answers] == [503] * 3
    assert answers[0].json() == {"error": "Not stored: try again later."}
    assert send(url, make_event()).status_code == 200
    assert healthy()
    logged = [record.getMessage() for record in caplog.records if record.name.startswith("orchestration.webhooks")]
    assert len(logged) == 2, "only the first failure and the recovery are logged"
    assert logged[0].startswith("database or disk is full")


def test_deliveries_are_503_until_a_secret_is_set_so_that_stripe_retries(queue: Queue) -> None:
    bare = create_receiver(queue, lambda: [WebhookEndpoint("default", SecretStr(TOKEN))], stored_types=[])
    with serving(bare) as url:
        assert send(url, make_event()).status_code == 503


def test_health_and_metrics_report_the_queue(url: str, queue: Queue) -> None:
    send(url, make_event())
    health = requests.get(f"{url}/healthz", timeout=20)
    assert (health.status_code, health.json()["status"], health.json()["queued"]) == (200, "ok", 1)
    metrics = requests.get(f"{url}/metrics", timeout=20).text
    assert 'recoup_webhook_queue_rows{state="queued"} 1.0' in metrics
    assert 'recoup_webhook_events_total{stored="yes",type="payment_intent.payment_failed"} 1.0' in metrics
    assert "recoup_webhook_acknowledged_seconds_count 1.0" in metrics
    assert TOKEN not in metrics


def envelope(event: Any) -> dict[str, Any]:
    """Return the envelope that Stripe documents for EventBridge."""
    return {"version": "0", "id": "7d8d", "detail-type": "payment_intent.payment_failed", "detail": event}


def cloud_event(event: Any) -> dict[str, Any]:
    """Return the envelope that Stripe documents for Event Grid."""
    return {"specversion": "1.0", "id": "7d8d", "source": "stripe", "type": "x", "data": event}


def bus(url: str, kind: str, body: Any, headers: dict[str, str]) -> requests.Response:
    return requests.post(f"{url}/webhooks/{kind}/{TOKEN}", json=body, headers=headers, timeout=20)


def test_events_from_aws_and_azure_are_accepted_with_the_event_bus_key(url: str, queue: Queue) -> None:
    key = {"X-Api-Key": BUS_KEY}
    assert bus(url, "eventbridge", envelope(make_event(1)), key).json() == {"received": True, "stored": 1}
    bearer = {"Authorization": f"Bearer {BUS_KEY}"}
    assert bus(url, "eventgrid", cloud_event(make_event(2)), bearer).json() == {"received": True, "stored": 1}
    several = [cloud_event(make_event(3)), cloud_event(make_event(4)), cloud_event(make_event(5, type="a.b"))]
    assert bus(url, "eventgrid", several, key).json() == {"received": True, "stored": 2}
    assert [each.event_id for each in queue.take(9)] == ["evt_1", "evt_2", "evt_3", "evt_4"]


def test_each_event_of_a_batch_is_handled_separately(url: str, queue: Queue, tmp_path: Path) -> None:
    balance = make_event(5, type="balance.available", data={"object": {"object": "balance"}})
    fixture = make_event(6, id="evt_00000000000000")
    batch = [cloud_event(each) for each in (balance, make_event(1), fixture, of_intent(amount="x") | {"id": "evt_7"})]
    batch += [7, {}, cloud_event(None), cloud_event(THIN), cloud_event(make_event(2))]
    answer = bus(url, "eventgrid", batch, {"X-Api-Key": BUS_KEY})
    assert (answer.status_code, answer.json()) == (200, {"received": True, "stored": 3})
    rows, reasons = ingest(queue, tmp_path)
    assert [object_id for object_id, _ in rows] == ["pi_1", "pi_2"]
    assert list(reasons) == ["evt_7"]


def test_the_handshakes_of_both_azure_schemas_are_answered(url: str) -> None:
    asked = {"WebHook-Request-Origin": "eventgrid.azure.net"}
    answer = requests.options(f"{url}/webhooks/eventgrid/{TOKEN}", headers=asked, timeout=20)
    assert (answer.status_code, answer.headers["WebHook-Allowed-Origin"]) == (200, "eventgrid.azure.net")
    assert requests.options(f"{url}/webhooks/eventgrid/guess", headers=asked, timeout=20).status_code == 404
    kind = "Microsoft.EventGrid.SubscriptionValidationEvent"
    handshake = [{"id": "1", "eventType": kind, "data": {"validationCode": "512d38b6"}}]
    answer = bus(url, "eventgrid", handshake, {"Authorization": f"bearer {BUS_KEY}"})
    assert (answer.status_code, answer.json()) == (200, {"validationResponse": "512d38b6"})
    assert bus(url, "eventgrid", handshake, {"X-Api-Key": "wrong"}).status_code == 401


@pytest.mark.parametrize("kind", ["eventbridge", "eventgrid"])
def test_an_event_bus_without_the_key_is_401_and_a_wrong_envelope_stores_nothing(
    kind: str, url: str, queue: Queue
) -> None:
    for headers in ({}, {"X-Api-Key": "wrong"}, {"X-Api-Key": "ä"}, {"Authorization": BUS_KEY[:-1]}):
        assert bus(url, kind, envelope(make_event()), headers).status_code == 401
    for body in (make_event(), [], [7], {"detail": 7}, {"data": "x"}, {"detail": {}, "data": {}}):
        assert bus(url, kind, body, {"X-Api-Key": BUS_KEY}).status_code in (200, 400)
    assert queue.stats().queued == 0


def test_without_an_event_bus_key_no_event_bus_is_served(queue: Queue) -> None:
    with serving(receiver(queue, bus_key=None)) as url:
        assert bus(url, "eventbridge", envelope(make_event()), {"X-Api-Key": ""}).status_code == 404
        assert requests.options(f"{url}/webhooks/eventgrid/{TOKEN}", timeout=20).status_code == 404


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
broken_events = st.builds(
    lambda field, value: json.dumps(make_event() | {field: value}).encode(),
    st.sampled_from(["id", "object", "type", "created", "livemode", "data", "account", "api_version"]),
    json_values,
)
bodies = st.binary(max_size=400) | st.builds(lambda value: json.dumps(value).encode(), json_values) | broken_events
stamps = st.sampled_from([0, -1, 10**6, 10**18]) | st.integers(-600, 600).map(lambda age: int(time.time()) - age)
headers = st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=80) | st.builds(
    lambda stamp, parts: f"t={stamp}," + ",".join(parts),
    stamps,
    st.lists(st.sampled_from(["v1=", "v0=", "v1", "t=1", "=", "v1=" + "0" * 64, "v1=ÿ", "v1==", "v2=abc"]), max_size=5),
)


hostile = settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


def test_no_unsigned_request_is_stored_or_causes_a_server_error(url: str, queue: Queue) -> None:
    session = requests.Session()

    @hostile
    @given(body=bodies, header=headers | st.none(), kind=st.sampled_from(["stripe", "eventbridge", "eventgrid"]))
    def run(body: bytes, header: str | None, kind: str) -> None:
        sent = {} if header is None else {"Stripe-Signature": header.strip().encode("latin-1")}
        answer = session.post(f"{url}/webhooks/{kind}/{TOKEN}", data=body, headers=sent, timeout=20)
        assert 400 <= answer.status_code < 500
        assert SECRET not in answer.text

    run()
    assert queue.stats().queued == 0


def test_every_signed_request_is_answered_200(url: str) -> None:
    session = requests.Session()

    @hostile
    @given(body=bodies)
    def run(body: bytes) -> None:
        text = body.decode("utf-8", "replace")
        signature = {"Stripe-Signature": signed(text.encode())}
        answer = session.post(f"{url}/webhooks/stripe/{TOKEN}", data=text.encode(), headers=signature, timeout=20)
        assert answer.status_code == 200

    run()
    assert requests.get(f"{url}/healthz", timeout=20).status_code == 200


def test_a_failed_commit_is_503_for_every_concurrent_request(
    url: str, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        time.sleep(0.1)
        raise QueueUnavailable("database or disk is full")

    with monkeypatch.context() as patched, ThreadPoolExecutor(12) as pool:
        patched.setattr(Queue, "put", fail)
        answers = list(pool.map(lambda number: send(url, make_event(number)), range(12)))
    assert [answer.status_code for answer in answers] == [503] * 12
    assert queue.stats().queued == 0


def test_the_receiver_can_be_mounted_below_another_path(queue: Queue) -> None:
    with serving(Starlette(routes=[Mount("/hooks", receiver(queue))])) as url:
        assert send(f"{url}/hooks", make_event()).json() == {"received": True, "stored": 1}
        assert send(url, make_event()).status_code == 404
