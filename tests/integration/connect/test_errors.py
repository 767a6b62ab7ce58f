"""`recoup connect` with an unusable key or network: each fault has its own message, and nothing is saved."""

import http.server
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from orchestration.simulator import Fault, SimulatorServer
from tests.integration.connect.conftest import (
    ELSEWHERE,
    EXPIRED,
    GOOD,
    LIVE,
    NOTHING,
    ONE_SCREEN,
    REVOKED,
    UNKNOWN,
    assert_key_is_masked,
    read_saved,
    screen,
)
from tests.support.processes import find_free_port
from tests.support.run_command import run_recoup

KEY_PLACE = """The API key starts with rk_live_ or rk_test_
and is in Stripe's dashboard under Developers > API keys > Restricted keys:
https://dashboard.stripe.com/apikeys."""

FAULTS = {
    "wrong key": (
        UNKNOWN,
        "rk_test_…none: Stripe does not accept this API key.",
    ),
    "a key of the other mode of the account, which is unknown in this one": (
        LIVE,
        "rk_live_…live: Stripe does not accept this API key.",
    ),
    "expired": (
        EXPIRED,
        "rk_test_…roll: This API key has expired or was rolled, so Stripe no longer accepts it.",
    ),
    "revoked": (
        REVOKED,
        "rk_test_…gone: This API key no longer has access to the account: it was revoked,",
    ),
    "IP address not allowed": (
        ELSEWHERE,
        "rk_test_…ipad: This API key may not be used from this machine's IP address.",
    ),
    "publishable": (
        "pk_test_51QzXwVuKpRmNhGqTb7publ",
        "This is a publishable key, which is made for browsers; Recoup does not need it.",
    ),
    "signing secret": (
        "whsec_51QzXwVuKpRmNhGqTb7sign",
        "This is the signing secret of a webhook endpoint; enter it with `recoup webhooks secret`.",
    ),
    "webhook endpoint": (
        "we_1QzXwVuKpRmNhGqTb7hook",
        "This is the id of a webhook endpoint or event destination, not its secret.",
    ),
    "account": (
        "acct_1QzXwVuKpRmNhGqTb7acct",
        "This is the id of an account; if Recoup needs it, set STRIPE_ACCOUNT_ID.",
    ),
    "organization": (
        "sk_org_test_51QzXwVuKpRmNhGqTb7orga",
        "This is the API key of an organization; Recoup takes the key of one account.",
    ),
    "nothing": (
        "",
        "Nothing was pasted.",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_an_unusable_key_is_explained_and_not_saved(fault: str, server: SimulatorServer, data: Path) -> None:
    key, expected = FAULTS[fault]
    result = run_recoup("connect", "--name", "shop", typed=key, STRIPE_API_BASE=server.url, RECOUP_DATA_DIR=str(data))
    assert (result.code, result.out, expected in result.text) == (1, "", True)
    assert len(result.screen.splitlines()) <= ONE_SCREEN
    assert read_saved(data) == NOTHING
    assert_key_is_masked(key, result)


class _SignInPage(http.server.BaseHTTPRequestHandler):
    """The sign-in page that a network shows in Stripe's place."""

    def do_GET(self) -> None:
        page = b"<!doctype html><title>Welcome to our network</title>"
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    def log_message(self, *arguments: object) -> None:
        """Log nothing, so that requests do not fill pytest's output."""


@contextmanager
def serve_sign_in_page(certificate: Path | None = None) -> Iterator[str]:
    """Yield the address of the page on this machine, over TLS if there is a certificate, which no authority signed."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _SignInPage) as running:
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            running.socket = context.wrap_socket(running.socket, server_side=True, do_handshake_on_connect=False)
        running.daemon_threads = True
        running.handle_error = lambda *_: None  # type: ignore[method-assign]  # a refused handshake
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http{'s' if certificate else ''}://127.0.0.1:{running.server_port}"
        running.shutdown()


def create_certificate(folder: Path) -> Path:
    folder.mkdir()
    path = folder / "self_signed.pem"
    subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2", "-nodes"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-keyout", str(path), "-out", f"{path}.crt", *subject]
    subprocess.run(command, check=True, capture_output=True)
    path.write_text(path.read_text() + Path(f"{path}.crt").read_text())
    return path


@contextmanager
def add_fault(server: SimulatorServer, fault: Fault) -> Iterator[str]:
    server.faults.add(fault)
    yield server.url


@contextmanager
def unused_address() -> Iterator[str]:
    yield f"http://127.0.0.1:{find_free_port()}"


NETWORKS: dict[str, tuple[Callable[[SimulatorServer, Path], Any], str]] = {
    "no network": (
        lambda server, folder: unused_address(),
        """[mm/dd/yy hh:mm:ss] WARNING  GET /v1/payment_intents: the connection is refused.
                             Trying again in 0.0 s.
{address} cannot be reached: the connection is refused. Check this
machine's network, its firewall and its proxy, and STRIPE_API_BASE if it is set.
Nothing was saved. To save it anyway, add --save-anyway.""",
    ),
    "TLS": (
        lambda server, folder: serve_sign_in_page(create_certificate(folder)),
        """No trusted TLS connection to {address} could be made. Check this
machine's date and time; if a proxy or firewall decrypts the traffic, set
REQUESTS_CA_BUNDLE to the PEM file of its certificate authority.
Nothing was saved. To save it anyway, add --save-anyway.""",
    ),
    "Stripe down": (
        lambda server, folder: add_fault(server, Fault("server_error", times=99, status=503)),
        """[mm/dd/yy hh:mm:ss] WARNING  GET /v1/payment_intents: HTTP 503. Trying again in
                             0.0 s.
{address} gave no usable answer to GET /v1/payment_intents in 2
tries. Last: HTTP 503. Try again later; https://status.stripe.com lists outages.
Nothing was saved. To save it anyway, add --save-anyway.""",
    ),
    "rate limits all the time": (
        lambda server, folder: add_fault(server, Fault("rate_limit", times=99)),
        """{address} gave no usable answer to GET /v1/payment_intents in 2
tries. Last: Stripe's rate limit (global-rate). Try again later;
https://status.stripe.com lists outages.
Nothing was saved. To save it anyway, add --save-anyway.""",
    ),
    "not Stripe": (
        lambda server, folder: serve_sign_in_page(),
        """[mm/dd/yy hh:mm:ss] WARNING  GET /v1/payment_intents: its answer is not JSON.
                             Trying again in 0.0 s.
{address} does not answer as Stripe does: its answer is not JSON. A
proxy, a firewall or the sign-in page of a network answers instead; open a web
page on this machine to see it, and check STRIPE_API_BASE if it is set.
Nothing was saved. To save it anyway, add --save-anyway.""",
    ),
}


@pytest.mark.parametrize("network", NETWORKS)
def test_a_network_error_is_explained_and_nothing_is_saved(
    network: str, server: SimulatorServer, data: Path, tmp_path: Path
) -> None:
    enter, expected = NETWORKS[network]
    with enter(server, tmp_path / "certificates") as address:
        result = run_recoup("connect", "--name", "shop", typed=GOOD, STRIPE_API_BASE=address, RECOUP_DATA_DIR=str(data))
    assert (result.code, result.out, screen(result, address)) == (1, "", expected)
    assert len(result.screen.splitlines()) <= ONE_SCREEN
    assert read_saved(data) == NOTHING
    assert_key_is_masked(GOOD, result)
