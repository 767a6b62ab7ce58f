"""The client against a server that misbehaves: what is tried again, what is not, and what the reader is told."""

import http.server
import logging
import threading
from collections.abc import Callable, Iterator

import pytest
from pydantic import SecretStr

from orchestration.simulator import DEFAULT_API_KEY, Fault, SimulatedAccount, SimulatorServer
from orchestration.stripe_api import (
    API_VERSION,
    AccessRefused,
    AuthenticationFailed,
    InvalidRequest,
    StripeClient,
    StripeUnavailable,
)
from orchestration.stripe_api.client import RetryPolicy
from orchestration.stripe_api.governor import Governor

PATH = "/v1/payment_intents"
PASSING = ("rate_limit", "lock_timeout", "server_error", "drop", "cut", "truncate")
"""Every fault that a later try does not meet again."""


@pytest.fixture(scope="module")
def account() -> SimulatedAccount:
    return SimulatedAccount(seed=5, payments=300, days=30)


@pytest.fixture
def server(account: SimulatedAccount) -> Iterator[SimulatorServer]:
    with SimulatorServer(
        account, keys={DEFAULT_API_KEY: None, "rk_test_no_charges": ["payment_intent_read"]}
    ) as running:
        yield running


@pytest.fixture
def pauses() -> list[float]:
    return []


@pytest.fixture
def connect(server: SimulatorServer, pauses: list[float]) -> Iterator[Callable[..., StripeClient]]:
    """Makes clients that note their pauses instead of making them."""
    clients: list[StripeClient] = []

    def make(key: str = DEFAULT_API_KEY, address: str | None = None, **policy: float) -> StripeClient:
        retry = RetryPolicy(**policy)  # type: ignore[arg-type]
        client = StripeClient(SecretStr(key), api_base=address or server.url, retry=retry, sleep=pauses.append)
        clients.append(client)
        return client

    yield make
    for client in clients:
        client.close()


class _Always(http.server.BaseHTTPRequestHandler):
    """Answers every request in one way."""

    heard: list[dict[str, str]]
    status, headers_sent, body = 200, {"Date": "Tue, 24 Nov 2026 10:00:00 GMT"}, b"{}"

    def do_GET(self) -> None:
        self.heard.append(dict(self.headers))
        self.send_response_only(self.status)
        for name, value in self.headers_sent.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *arguments: object) -> None:
        """Nothing: pytest's output is not this server's log."""


@pytest.fixture
def heard() -> list[dict[str, str]]:
    """The headers of the requests to `answering` servers."""
    return []


@pytest.fixture
def answering(heard: list[dict[str, str]]) -> Iterator[Callable[..., str]]:
    """Starts servers that are not Stripe; gives their addresses."""
    servers: list[http.server.HTTPServer] = []

    def start(status: int, headers: dict[str, str], body: bytes) -> str:
        handler = type("Handler", (_Always,), {"heard": heard, "status": status, "headers_sent": headers, "body": body})
        running = http.server.HTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=running.serve_forever, daemon=True).start()
        servers.append(running)
        return f"http://127.0.0.1:{running.server_address[1]}"

    yield start
    for running in servers:
        running.shutdown()
        running.server_close()


@pytest.mark.parametrize("kind", PASSING)
def test_a_fault_that_passes_is_tried_again(
    kind: str, server: SimulatorServer, connect: Callable[..., StripeClient], pauses: list[float]
) -> None:
    client = connect()
    undisturbed = client.get(PATH, {"limit": 20}).body
    server.faults.add(Fault(kind, times=3))  # type: ignore[arg-type]
    assert client.get(PATH, {"limit": 20}).body == undisturbed
    assert len(pauses) == client.counts.retries == 3
    assert client.counts.requests == 5
    assert client.counts.rate_limited == (3 if kind in ("rate_limit", "lock_timeout") else 0)


@pytest.mark.parametrize("kind", PASSING)
def test_a_fault_that_stays_ends_with_a_sentence(
    kind: str, server: SimulatorServer, connect: Callable[..., StripeClient]
) -> None:
    client = connect(tries=4)
    client.get(PATH, {"limit": 1})
    server.faults.add(Fault(kind, times=1_000))  # type: ignore[arg-type]
    with pytest.raises(
        StripeUnavailable, match=r"no usable answer to GET /v1/payment_intents in 4 tries.*Nothing is lost"
    ):
        client.get(PATH, {"limit": 20})


def test_an_address_that_never_answered_is_given_up_sooner(connect: Callable[..., StripeClient]) -> None:
    client = connect(address="http://127.0.0.1:9")
    with pytest.raises(StripeUnavailable, match=r"127\.0\.0\.1:9 gave no usable answer .* in 4 tries"):
        client.get(PATH)


@pytest.mark.parametrize("status", [500, 503])
def test_should_retry_decides_over_the_status(
    status: int, answering: Callable[..., str], connect: Callable[..., StripeClient], pauses: list[float]
) -> None:
    date = {"Date": "Tue, 24 Nov 2026 10:00:00 GMT"}
    address = answering(status, date | {"Stripe-Should-Retry": "false"}, b'{"error":{"message":"no"}}')
    with pytest.raises(InvalidRequest):
        connect(address=address).get(PATH)
    assert pauses == []


@pytest.mark.parametrize(
    ("reason", "code", "told"),
    [
        ("global-rate", "rate_limit", ["global-rate"]),
        (None, "lock_timeout", []),
        (None, "rate_limit", ["endpoint-rate"]),
    ],
)
def test_the_governor_hears_of_limits_and_not_of_locks(
    reason: str | None, code: str, told: list[str], answering: Callable[..., str]
) -> None:
    headers = {"Date": "Tue, 24 Nov 2026 10:00:00 GMT"} | ({"Stripe-Rate-Limited-Reason": reason} if reason else {})
    address = answering(429, headers, f'{{"error":{{"code":"{code}"}}}}'.encode())
    governor, heard = Governor(livemode=False), list[str]()
    governor.refused = lambda endpoint, reason: heard.append(reason)  # type: ignore[method-assign]
    client = StripeClient(
        SecretStr(DEFAULT_API_KEY), api_base=address, retry=RetryPolicy(first_tries=1), governor=governor
    )
    with pytest.raises(StripeUnavailable):
        client.get(PATH)
    client.close()
    assert heard == told


def test_pauses_grow_are_capped_and_never_fixed() -> None:
    policy = RetryPolicy(base=0.5, cap=4.0)
    for retry, most in ((1, 1.0), (2, 2.0), (3, 4.0), (9, 4.0)):
        pauses = {policy.pause(retry) for _ in range(200)}
        assert max(pauses) <= most
        assert max(pauses) > most / 2
        assert len(pauses) > 100


def test_a_key_stripe_does_not_know_is_told_at_once_and_not_repeated(
    connect: Callable[..., StripeClient], pauses: list[float]
) -> None:
    with pytest.raises(AuthenticationFailed, match="STRIPE_API_KEY holds the whole key") as failure:
        connect("rk_test_51NotTheKeyOfThisAccount").get(PATH)
    assert pauses == []
    assert "NotTheKey" not in str(failure.value)
    assert "ount" not in str(failure.value).split("STRIPE_API_KEY")[0]


def test_a_permission_that_is_missing_is_named(connect: Callable[..., StripeClient], pauses: list[float]) -> None:
    client = connect("rk_test_no_charges")
    client.get(PATH, {"limit": 1})
    with pytest.raises(AccessRefused, match="lacks the permission rak_charge_read") as refusal:
        client.get("/v1/charges")
    assert refusal.value.permission == "rak_charge_read"
    assert pauses == []


def test_a_rejected_request_carries_stripes_code(connect: Callable[..., StripeClient]) -> None:
    client = connect()
    with pytest.raises(InvalidRequest, match="unknown parameter: nonsense") as rejection:
        client.get(PATH, {"nonsense": 1})
    assert (rejection.value.code, rejection.value.param) == ("parameter_unknown", "nonsense")
    with pytest.raises(InvalidRequest, match="No such payment_intent") as rejection:
        client.get(f"{PATH}/pi_none")
    assert rejection.value.code == "resource_missing"


@pytest.mark.parametrize(
    ("headers", "body", "says"),
    [
        ({}, b"{}", "answers without a Date header"),
        ({"Date": "yesterday"}, b"{}", "answers without a Date header"),
        ({"Date": "Tue, 24 Nov 2026 10:00:00 GMT"}, b"<html>Sign in</html>", "not whole JSON"),
        ({"Date": "Tue, 24 Nov 2026 10:00:00 GMT"}, b"[]", "not a JSON object"),
    ],
)
def test_a_server_that_is_not_stripe_is_told_apart(
    headers: dict[str, str], body: bytes, says: str, answering: Callable[..., str], connect: Callable[..., StripeClient]
) -> None:
    with pytest.raises((InvalidRequest, StripeUnavailable), match=says):
        connect(address=answering(200, headers, body)).get(PATH)


@pytest.mark.parametrize("body", [b"{}", b'{"id":"x"}', b'{"data":{},"has_more":false}', b'{"data":[]}'])
def test_an_answer_that_is_no_list_is_told_apart(
    body: bytes, answering: Callable[..., str], connect: Callable[..., StripeClient]
) -> None:
    address = answering(200, {"Date": "Tue, 24 Nov 2026 10:00:00 GMT"}, body)
    with pytest.raises(InvalidRequest, match="no list of Stripe's"):
        connect(address=address).list(PATH, {})


def test_the_clock_is_stripes(
    server: SimulatorServer, account: SimulatedAccount, connect: Callable[..., StripeClient]
) -> None:
    client = connect()
    with pytest.raises(RuntimeError):
        _ = client.now
    client.get(PATH, {"limit": 1})
    assert client.now == account.now


def test_a_slow_answer_vouches_only_for_what_was_before_it(
    server: SimulatorServer, account: SimulatedAccount, connect: Callable[..., StripeClient]
) -> None:
    client = connect()
    client.get(PATH, {"limit": 1})
    asked = account.now
    server.faults.add(Fault("slow", clock_seconds=90))
    answer = client.get(PATH, {"limit": 1})
    assert (answer.vouched_at, answer.date) == (asked, asked + 90)


def test_every_request_pins_the_api_version_and_says_who_asks(
    answering: Callable[..., str], heard: list[dict[str, str]], connect: Callable[..., StripeClient]
) -> None:
    connect(address=answering(200, {"Date": "Tue, 24 Nov 2026 10:00:00 GMT"}, b"{}")).get(PATH)
    assert heard[0]["Stripe-Version"] == API_VERSION
    assert "Recoup" in heard[0]["User-Agent"]
    assert heard[0]["Authorization"] == f"Bearer {DEFAULT_API_KEY}"


def test_no_log_line_holds_the_key(
    server: SimulatorServer, connect: Callable[..., StripeClient], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        client = connect()
        server.faults.add(Fault("server_error", times=2))
        client.get(PATH, {"limit": 1})
    assert "Trying again" in caplog.text
    assert DEFAULT_API_KEY not in caplog.text
