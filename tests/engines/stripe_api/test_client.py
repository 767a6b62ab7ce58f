"""The client against a server that misbehaves: what is retried, what is not, and the messages."""

import http.server
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pydantic import SecretStr

from orchestration.simulator import DEFAULT_API_KEY, ApiKey, AppOptions, Fault, SimulatedAccount, SimulatorServer
from orchestration.stripe_api import (
    API_VERSION,
    AccessRefused,
    AuthenticationFailed,
    InvalidRequest,
    StripeClient,
    StripeUnavailable,
)
from orchestration.stripe_api.client import RetryPolicy
from orchestration.stripe_api.rate_limits import Governor

PATH = "/v1/payment_intents"
DATED = {"Date": "Tue, 24 Nov 2026 10:00:00 GMT"}
SECONDS_TO_END = 0.01
"""How often a test server checks whether it was shut down; the default is every half second."""

TEMPORARY = ("rate_limit", "lock_timeout", "server_error", "drop", "cut", "truncate")
"""The faults that a retry can get past."""


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
    """Return a function that makes clients, which record their pauses instead of waiting."""
    clients: list[StripeClient] = []

    def make(key: str = DEFAULT_API_KEY, address: str | None = None, **policy: float) -> StripeClient:
        retry = RetryPolicy(**policy)  # type: ignore[arg-type]
        client = StripeClient(SecretStr(key), api_base=address or server.url, retry=retry, sleep=pauses.append)
        clients.append(client)
        return client

    yield make
    for client in clients:
        client.close()


class _FixedAnswer(http.server.BaseHTTPRequestHandler):
    """Answer every request in the same way."""

    received: list[dict[str, str]]
    status, headers_sent, body = 200, DATED, b"{}"

    def do_GET(self) -> None:
        self.received.append(dict(self.headers))
        self.send_response_only(self.status)
        for name, value in self.headers_sent.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *arguments: object) -> None:
        """Log nothing."""


@pytest.fixture
def received() -> list[dict[str, str]]:
    """Return the headers of the requests that `answering` servers got."""
    return []


@pytest.fixture
def answering(received: list[dict[str, str]]) -> Iterator[Callable[..., str]]:
    """Return a function that starts a server that is not Stripe and returns its address."""
    servers: list[http.server.HTTPServer] = []

    def start(status: int, headers: dict[str, str], body: bytes) -> str:
        handler = type(
            "Handler", (_FixedAnswer,), {"received": received, "status": status, "headers_sent": headers, "body": body}
        )
        running = http.server.HTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=running.serve_forever, args=(SECONDS_TO_END,), daemon=True).start()
        servers.append(running)
        return f"http://127.0.0.1:{running.server_address[1]}"

    yield start
    for running in servers:
        running.shutdown()
        running.server_close()


@pytest.mark.parametrize("kind", TEMPORARY)
def test_a_temporary_fault_is_retried(
    kind: str, server: SimulatorServer, connect: Callable[..., StripeClient], pauses: list[float]
) -> None:
    client = connect()
    undisturbed = client.get(PATH, {"limit": 20}).body
    server.faults.add(Fault(kind, times=3))  # type: ignore[arg-type]
    assert client.get(PATH, {"limit": 20}).body == undisturbed
    assert len(pauses) == client.counts.retries == 3
    assert client.counts.requests == 5
    assert client.counts.rate_limited == (3 if kind in ("rate_limit", "lock_timeout") else 0)


@pytest.mark.parametrize("kind", TEMPORARY)
def test_a_lasting_fault_ends_with_a_message(
    kind: str, server: SimulatorServer, connect: Callable[..., StripeClient]
) -> None:
    client = connect(tries=4)
    client.get(PATH, {"limit": 1})
    server.faults.add(Fault(kind, times=1_000))  # type: ignore[arg-type]
    with pytest.raises(StripeUnavailable) as failure:
        client.get(PATH, {"limit": 20})
    assert failure.value.fault == ("no_network" if kind in ("drop", "cut") else "stripe_down")
    assert str(failure.value).startswith(
        f"{server.url} cannot be reached: the connection broke off. Check this machine's network"
        if kind in ("drop", "cut")
        else f"{server.url} gave no usable answer to GET /v1/payment_intents in 4 tries. Last: "
    )
    assert str(failure.value).endswith("Stored data is not lost.")
    assert client.counts.requests == 1 + 4


def test_an_address_that_never_answered_gets_fewer_tries(connect: Callable[..., StripeClient]) -> None:
    client = connect(address="http://127.0.0.1:9")
    with pytest.raises(StripeUnavailable, match=r"127\.0\.0\.1:9 cannot be reached: the connection is refused\."):
        client.get(PATH)
    assert client.counts.requests == 4


@pytest.mark.parametrize("status", [500, 503])
def test_the_should_retry_header_takes_precedence_over_the_status(
    status: int, answering: Callable[..., str], connect: Callable[..., StripeClient], pauses: list[float]
) -> None:
    address = answering(status, DATED | {"Stripe-Should-Retry": "false"}, b'{"error":{"message":"no"}}')
    with pytest.raises(InvalidRequest):
        connect(address=address).get(PATH)
    assert pauses == []


@pytest.mark.parametrize("stated", ["true", "True", "false", None])
@pytest.mark.parametrize("status", [401, 403])
def test_a_401_or_403_is_never_retried_whatever_the_header_says(
    status: int,
    stated: str | None,
    answering: Callable[..., str],
    connect: Callable[..., StripeClient],
    pauses: list[float],
    received: list[dict[str, str]],
) -> None:
    headers = DATED | ({"Stripe-Should-Retry": stated} if stated else {})
    address = answering(status, headers, b'{"error":{"message":"no"}}')
    with pytest.raises((AuthenticationFailed, AccessRefused)):
        connect(address=address).get(PATH)
    assert pauses == []
    assert len(received) == 1


@pytest.mark.parametrize(
    ("status", "stated", "is_retried"),
    [
        (400, None, False),
        (402, None, False),
        (404, None, False),
        (409, None, True),
        (429, None, True),
        (500, None, True),
        (503, None, True),
        (400, "true", True),
        (404, "TRUE", True),
        (409, "false", False),
        (429, "false", False),
        (500, "False", False),
        (409, "perhaps", True),
        (400, "perhaps", False),
    ],
)
def test_the_status_decides_on_a_retry_unless_the_header_does(
    status: int,
    stated: str | None,
    is_retried: bool,
    answering: Callable[..., str],
    connect: Callable[..., StripeClient],
    received: list[dict[str, str]],
) -> None:
    headers = DATED | ({"Stripe-Should-Retry": stated} if stated else {})
    address = answering(status, headers, b'{"error":{"message":"no"}}')
    with pytest.raises((InvalidRequest, StripeUnavailable)):
        connect(address=address, first_tries=2).get(PATH)
    assert len(received) == (2 if is_retried else 1)


@pytest.mark.parametrize(
    ("reason", "code", "recorded"),
    [
        ("global-rate", "rate_limit", ["global-rate"]),
        (None, "lock_timeout", []),
        (None, "rate_limit", ["endpoint-rate"]),
    ],
)
def test_the_governor_is_informed_of_rate_limits_and_not_of_lock_timeouts(
    reason: str | None, code: str, recorded: list[str], answering: Callable[..., str]
) -> None:
    headers = DATED | ({"Stripe-Rate-Limited-Reason": reason} if reason else {})
    address = answering(429, headers, f'{{"error":{{"code":"{code}"}}}}'.encode())
    governor, received = Governor(livemode=False), list[str]()
    governor.record_refusal = lambda endpoint, reason: received.append(reason)  # type: ignore[method-assign]
    client = StripeClient(
        SecretStr(DEFAULT_API_KEY), api_base=address, retry=RetryPolicy(first_tries=1), governor=governor
    )
    with pytest.raises(StripeUnavailable):
        client.get(PATH)
    client.close()
    assert received == recorded


def test_pauses_grow_up_to_a_cap_and_are_random() -> None:
    policy = RetryPolicy(base=0.5, cap=4.0)
    for retry, most in ((1, 1.0), (2, 2.0), (3, 4.0), (9, 4.0)):
        pauses = {policy.pause(retry) for _ in range(200)}
        assert max(pauses) <= most
        assert max(pauses) > most / 2
        assert len(pauses) > 100


def test_a_key_that_stripe_does_not_know_fails_at_once_and_is_not_repeated(
    connect: Callable[..., StripeClient], pauses: list[float]
) -> None:
    with pytest.raises(AuthenticationFailed, match="Check that it is complete") as failure:
        connect("rk_test_51NotTheKeyOfThisAccXQZ").get(PATH)
    assert pauses == []
    assert "NotTheKey" not in str(failure.value)
    assert "cXQZ" not in str(failure.value)


def client_with_source(server: SimulatorServer, *keys: str, **options: Any) -> tuple[StripeClient, list[str | None]]:
    """Return a client whose source returns these keys in turn, and the refused keys that the source was given."""
    refused_keys: list[str | None] = []

    def source(refused: SecretStr | None) -> SecretStr:
        refused_keys.append(refused.get_secret_value() if refused else None)
        return SecretStr(keys[keys.index(refused_keys[-1]) + 1 if refused_keys[-1] else 0])

    return StripeClient(source, api_base=server.url, **options), refused_keys


def test_a_key_source_is_asked_once_for_another_key_if_one_has_expired(server: SimulatorServer) -> None:
    server.keys.put("rk_test_old", ApiKey(None, state="expired"))
    client, refused_keys = client_with_source(server, "rk_test_old", DEFAULT_API_KEY)
    assert client.get(PATH).body["data"]
    assert refused_keys == [None, "rk_test_old"]
    assert (client.counts.requests, client.counts.retries) == (2, 1)
    unknown, refused_keys = client_with_source(server, "rk_test_unknown", DEFAULT_API_KEY)
    assert unknown.get(PATH).body["data"]
    assert refused_keys == [None, "rk_test_unknown"]


def test_a_key_source_whose_second_key_has_expired_too_is_not_asked_again(server: SimulatorServer) -> None:
    for key in ("rk_test_old", "rk_test_older"):
        server.keys.put(key, ApiKey(None, state="expired"))
    client, refused_keys = client_with_source(server, "rk_test_older", "rk_test_old", DEFAULT_API_KEY)
    with pytest.raises(AuthenticationFailed) as failed:
        client.get(PATH)
    assert (failed.value.fault, len(refused_keys), server.requests.total) == ("expired", 2, 2)


def test_after_a_revoked_key_the_key_source_is_not_asked_for_another(server: SimulatorServer) -> None:
    server.keys.put("rk_test_gone", ApiKey(None, state="revoked"))
    client, refused_keys = client_with_source(server, "rk_test_gone", DEFAULT_API_KEY)
    with pytest.raises(AuthenticationFailed) as failed:
        client.get(PATH)
    assert (failed.value.fault, refused_keys, server.requests.total) == ("revoked", [None], 1)


def test_the_mode_can_be_stated_if_the_key_comes_from_a_source(server: SimulatorServer) -> None:
    assert StripeClient(SecretStr("rk_live_1"), livemode=False).livemode is True
    assert client_with_source(server, DEFAULT_API_KEY)[0].livemode is None
    assert client_with_source(server, DEFAULT_API_KEY, livemode=True)[0].livemode is True


def test_a_form_is_posted_with_the_key_as_user_name_and_is_retried(
    server: SimulatorServer, connect: Callable[..., StripeClient], pauses: list[float]
) -> None:
    server.app.options = AppOptions("ca_1", "sk_test_app", ["https://recoup.example.com/"])
    server.faults.add(Fault("server_error", path="/v1/oauth/token"))
    with pytest.raises(InvalidRequest) as refused:
        connect("sk_test_app").post("/v1/oauth/token", {"grant_type": "authorization_code", "code": "ac_x&y=z"})
    assert (refused.value.code, len(pauses)) == ("invalid_grant", 1)
    assert str(refused.value) == "Stripe refused POST /v1/oauth/token (invalid_grant)."


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
    ("status", "headers", "body", "says"),
    [
        (200, {}, b"{}", "its answer has no Date header."),
        (403, {"Date": "yesterday"}, b"{}", "its answer has no Date header."),
        (200, DATED, b"<html>Sign in</html>", "its answer is not JSON."),
        (403, DATED, b"<html>Blocked</html>", "its answer is not JSON."),
        (401, DATED, b"", "its answer is not JSON."),
        (200, DATED, b"[]", "its answer is not a JSON object."),
        (200, DATED, b"{}", "the answer to GET /v1/payment_intents is not a list of Stripe objects."),
        (
            200,
            DATED,
            b'{"data":{},"has_more":false}',
            "the answer to GET /v1/payment_intents is not a list of Stripe objects.",
        ),
        (200, DATED, b'{"data":[]}', "the answer to GET /v1/payment_intents is not a list of Stripe objects."),
    ],
)
def test_a_server_that_is_not_stripe_is_recognized(
    status: int,
    headers: dict[str, str],
    body: bytes,
    says: str,
    answering: Callable[..., str],
    connect: Callable[..., StripeClient],
) -> None:
    address = answering(status, headers, body)
    with pytest.raises(StripeUnavailable) as failure:
        connect(address=address).list(PATH, {})
    assert failure.value.fault == "not_stripe"
    assert str(failure.value).startswith(f"{address} does not answer as Stripe does: {says}")
    assert "a firewall or the sign-in page of a network answers instead" in str(failure.value)


@pytest.mark.parametrize(
    ("body", "fault", "says"),
    [
        (b'{"data":[],"has_more":true}', "stripe_down", "its page is empty, but claims to have a successor"),
        (b'{"data":[{}],"has_more":"no"}', "not_stripe", "is not a list of Stripe objects"),
        (b'{"data":null,"has_more":false}', "not_stripe", "is not a list of Stripe objects"),
    ],
)
def test_an_unusable_page_is_retried_and_then_reported(
    body: bytes, fault: str, says: str, answering: Callable[..., str], connect: Callable[..., StripeClient]
) -> None:
    """An empty page has no cursor to continue from: without a limit the client would request it forever."""
    client = connect(address=answering(200, DATED, body), first_tries=3, tries=3)
    with pytest.raises(StripeUnavailable, match=says) as failure:
        client.list(PATH, {})
    assert (failure.value.fault, client.counts.requests) == (fault, 3)


def test_a_server_without_tls_is_recognized(server: SimulatorServer, connect: Callable[..., StripeClient]) -> None:
    client = connect(address=server.url.replace("http://", "https://"))
    with pytest.raises(StripeUnavailable, match="Check this machine's date and time") as failure:
        client.get(PATH)
    assert failure.value.fault == "tls"
    assert client.counts.requests == 1, "a retry cannot help"


def test_a_server_that_is_too_slow_times_out(server: SimulatorServer) -> None:
    server.faults.add(Fault("slow", times=2, seconds=0.5))
    client = StripeClient(
        SecretStr(DEFAULT_API_KEY), api_base=server.url, timeout=0.1, retry=RetryPolicy(first_tries=2, base=0)
    )
    with pytest.raises(StripeUnavailable, match="cannot be reached: it does not answer in time") as failure:
        client.get(PATH)
    client.close()
    assert failure.value.fault == "no_network"


def test_a_host_name_that_cannot_be_resolved_is_recognized(
    connect: Callable[..., StripeClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail_to_resolve(*arguments: object, **options: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail_to_resolve)
    with pytest.raises(StripeUnavailable, match=r"cannot be reached: its name cannot be resolved \(DNS\)") as failure:
        connect(address="http://stripe.example").get(PATH)
    assert failure.value.fault == "no_network"


def test_a_proxy_that_refuses_the_connection_is_recognized(
    connect: Callable[..., StripeClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with pytest.raises(StripeUnavailable, match="cannot be reached: the proxy does not let the request") as failure:
        connect(address="http://stripe.example").get(PATH)
    assert failure.value.fault == "no_network"


def test_the_clock_of_the_client_is_that_of_stripe(
    server: SimulatorServer, account: SimulatedAccount, connect: Callable[..., StripeClient]
) -> None:
    client = connect()
    with pytest.raises(RuntimeError):
        _ = client.now
    client.get(PATH, {"limit": 1})
    assert client.now == account.now


def test_a_slow_answer_has_the_time_before_and_after_the_request(
    server: SimulatorServer, account: SimulatedAccount, connect: Callable[..., StripeClient]
) -> None:
    client = connect()
    client.get(PATH, {"limit": 1})
    asked = account.now
    server.faults.add(Fault("slow", clock_seconds=90))
    answer = client.get(PATH, {"limit": 1})
    assert (answer.read_no_earlier_than, answer.read_no_later_than) == (asked, asked + 90)


def test_every_request_pins_the_api_version_and_identifies_recoup(
    answering: Callable[..., str], received: list[dict[str, str]], connect: Callable[..., StripeClient]
) -> None:
    connect(address=answering(200, DATED, b"{}")).get(PATH)
    assert received[0]["Stripe-Version"] == API_VERSION
    assert "Recoup" in received[0]["User-Agent"]
    assert received[0]["Authorization"] == f"Bearer {DEFAULT_API_KEY}"


def test_no_log_line_holds_the_key(
    server: SimulatorServer, connect: Callable[..., StripeClient], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        client = connect()
        server.faults.add(Fault("server_error", times=2))
        client.get(PATH, {"limit": 1})
    assert "Trying again" in caplog.text
    assert DEFAULT_API_KEY not in caplog.text
