"""Connections in company networks: own certificate authorities, proxies, a ~/.netrc, and slow answers.

The servers, the proxy and the certificates are real.
"""

import http.server
import select
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from pydantic import SecretStr

from orchestration.stripe_api import StripeClient, StripeUnavailable
from orchestration.stripe_api.client import RetryPolicy
from orchestration.stripe_api.transport import CA_VARIABLES

KEY = "rk_test_theConfiguredOne"
DATED = b"Date: Tue, 24 Nov 2026 10:00:00 GMT\r\n"
WHOLE = b"HTTP/1.1 200 OK\r\n" + DATED + b"Content-Length: 2\r\n\r\n{}"
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
TIMEOUT = 0.3
"""The seconds that a whole answer may take in these tests."""


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in (*PROXIES, *(each.lower() for each in PROXIES), *CA_VARIABLES, "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


@dataclass
class Server:
    """A running server: its address, and the requests that it got."""

    url: str
    requests: list[bytes] = field(default_factory=list)


@contextmanager
def listening(answer: Callable[[socket.socket, bytes], None], tls: ssl.SSLContext | None = None) -> Iterator[Server]:
    """Run a server on sockets. `answer` answers the first request of each connection, which is then closed."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = Server(f"{'https' if tls else 'http'}://localhost:{listener.getsockname()[1]}")

    def serve(connection: socket.socket) -> None:
        with suppress(OSError), connection:
            if tls is not None:
                connection = tls.wrap_socket(connection, server_side=True)
            request = b""
            while b"\r\n\r\n" not in request:
                request += connection.recv(65_536) or b"\r\n\r\n"
            server.requests.append(request)
            answer(connection, request)
            connection.close()

    def accept() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield server
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def whole(connection: socket.socket, request: bytes) -> None:
    connection.sendall(WHOLE)


def proxying(connection: socket.socket, request: bytes) -> None:
    """Answer as a proxy: open a tunnel, or forward the request."""
    method, target, _ = request.split(b" ", 2)
    address = target if method == b"CONNECT" else target.split(b"/")[2]
    host, _, port = address.partition(b":")
    with socket.create_connection((host.decode(), int(port))) as upstream:
        if method == b"CONNECT":
            connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        else:
            upstream.sendall(request)
        ends = {connection: upstream, upstream: connection}
        while True:
            for end in select.select(list(ends), [], [])[0]:
                if not (received := end.recv(65_536)):
                    return
                ends[end].sendall(received)


def ask(url: str, *, timeout: float = 20.0, tries: int = 1) -> StripeClient:
    """Send one request with a new client, which reads the environment now, and return the client."""
    policy = RetryPolicy(first_tries=tries, base=0)
    client = StripeClient(SecretStr(KEY), api_base=url, timeout=timeout, retry=policy)
    try:
        client.get("/v1/balance")
    finally:
        client.close()
    return client


@dataclass
class Authority:
    """A certificate authority: its certificate, and the TLS settings of a server with a certificate by it."""

    certificate: Path
    server: ssl.SSLContext


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the certificates")
    folder = tmp_path_factory.mktemp("authority")
    names = folder / "names"
    names.write_text("subjectAltName=DNS:localhost")

    def run(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True, timeout=60)

    new_key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    run("req", "-x509", *new_key, "-keyout", "ca.key", "-out", "ca.pem", "-days", "3650", "-subj", "/CN=Company CA")
    run("req", *new_key, "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=localhost")
    run(
        *("x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-set_serial", "1"),
        *("-days", "3650", "-extfile", "names", "-out", "server.pem"),
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder / "server.pem", folder / "server.key")
    return Authority(folder / "ca.pem", server)


def hashed(authority: Authority, folder: Path) -> Path:
    """Return a new folder with the authority's certificate under the hashed name that OpenSSL looks for."""
    command = ["openssl", "x509", "-hash", "-noout", "-in", str(authority.certificate)]
    name = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout.strip()
    folder.mkdir()
    shutil.copy(authority.certificate, folder / f"{name}.0")
    return folder


# Certificate authorities


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"])
def test_a_certificate_authority_is_trusted_if_the_environment_names_its_file(
    variable: str, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    with listening(whole, authority.server) as server:
        with pytest.raises(StripeUnavailable, match="No trusted TLS connection") as failure:
            ask(server.url)
        assert failure.value.fault == "tls"
        assert "REQUESTS_CA_BUNDLE" in str(failure.value)
        monkeypatch.setenv(variable, str(authority.certificate))
        ask(server.url)
        assert len(server.requests) == 1


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "SSL_CERT_DIR"])
def test_a_folder_of_certificate_authorities_is_trusted(
    variable: str, authority: Authority, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = hashed(authority, tmp_path / "certificates")
    monkeypatch.setenv(variable, f"/nowhere:{folder}" if variable == "SSL_CERT_DIR" else str(folder))
    with listening(whole, authority.server) as server:
        ask(server.url)


def test_a_certificate_is_valid_only_for_its_host_name(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.certificate))
    with listening(whole, authority.server) as server, pytest.raises(StripeUnavailable) as failure:
        ask(server.url.replace("localhost", "127.0.0.1"))
    assert failure.value.fault == "tls"


@pytest.mark.parametrize("variable", CA_VARIABLES)
@pytest.mark.parametrize("content", [None, b"", b"no certificate", b"\xff\x00" * 50, "folder"])
def test_certificate_authorities_that_cannot_be_read_are_explained_in_the_message(
    content: bytes | str | None, variable: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    named = tmp_path / "authorities"
    if isinstance(content, bytes):
        named.write_bytes(content)
    elif content == "folder":
        named.mkdir()
    monkeypatch.setenv(variable, str(named))
    with pytest.raises(StripeUnavailable) as failure:
        ask("https://localhost:9", tries=3)
    assert failure.value.fault == "tls"
    assert str(failure.value).startswith(f"{variable} names {named}, which ")
    assert str(failure.value).endswith(". Set it to a PEM file of the certificate authorities to trust, or unset it.")


def test_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch, authority: Authority) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "")
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.certificate))
    with listening(whole, authority.server) as server:
        ask(server.url)


# Proxies


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"])
def test_a_proxy_opens_a_tunnel_and_never_sees_the_key(
    variable: str, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority.certificate))
    with listening(whole, authority.server) as server, listening(proxying) as proxy:
        monkeypatch.setenv(variable, proxy.url.replace("http://", "http://user:word@"))
        ask(server.url)
        assert len(server.requests) == 1
        assert proxy.requests[0].startswith(b"CONNECT localhost:")
        assert b"Basic dXNlcjp3b3Jk\r\n" in proxy.requests[0]
        assert KEY.encode() not in proxy.requests[0]


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "all_proxy"])
def test_a_proxy_forwards_unencrypted_requests(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with listening(whole) as server, listening(proxying) as proxy:
        monkeypatch.setenv(variable, proxy.url)
        ask(server.url)
        assert (len(server.requests), len(proxy.requests)) == (1, 1)


@pytest.mark.parametrize("variable", ["NO_PROXY", "no_proxy"])
@pytest.mark.parametrize("exempt", ["localhost", "example.com, localhost", "*"])
def test_no_proxy_is_used_for_an_address_that_is_exempt(
    exempt: str, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv(variable, exempt)
    with listening(whole) as server:
        ask(server.url)


def test_the_certificate_of_an_encrypted_proxy_is_checked_too(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    with listening(whole) as server, listening(proxying, authority.server) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        with pytest.raises(StripeUnavailable):
            ask(server.url)
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority.certificate))
        ask(server.url)


def test_a_proxy_of_an_unsupported_kind_is_explained_in_the_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    with pytest.raises(StripeUnavailable, match=r"Correct or unset HTTPS_PROXY or ALL_PROXY\.") as failure:
        ask("http://localhost:9", tries=3)
    assert failure.value.fault == "no_network"


# The key


@pytest.mark.parametrize("entry", ["machine localhost", "default"])
@pytest.mark.parametrize("by_variable", [True, False])
def test_only_the_configured_key_is_sent_whatever_netrc_holds(
    by_variable: bool, entry: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / ("elsewhere" if by_variable else ".netrc")
    file.write_text(f"{entry} login user password s3cret\n")
    file.chmod(0o600)
    if by_variable:
        monkeypatch.setenv("NETRC", str(file))
    with listening(whole) as server:
        client = StripeClient(SecretStr(KEY), api_base=server.url)
        client.get("/v1/balance")
        client.post("/v1/oauth/token", {"grant_type": "refresh_token"})
        client.close()
    bearer, basic = server.requests
    assert f"Authorization: Bearer {KEY}\r\n".encode() in bearer
    assert b"Authorization: Basic cmtfdGVzdF90aGVDb25maWd1cmVkT25lOg==\r\n" in basic
    assert b"application/x-www-form-urlencoded" in basic


def test_redirects_are_not_followed_so_the_key_stays_with_stripe() -> None:
    with listening(whole) as elsewhere:
        moved = f"HTTP/1.1 302 Found\r\nLocation: {elsewhere.url}/\r\nContent-Length: 0\r\n\r\n".encode()
        with (
            listening(lambda connection, _: connection.sendall(moved)) as server,
            pytest.raises(StripeUnavailable) as failure,
        ):
            ask(server.url)
        assert elsewhere.requests == []
    assert failure.value.fault == "not_stripe"


# Time


def trickling(*parts: bytes, every: float = 0.02) -> Callable[[socket.socket, bytes], None]:
    """Return an answer that sends the parts, and then single bytes for much longer than an answer may take."""

    def answer(connection: socket.socket, request: bytes) -> None:
        for part in parts:
            connection.sendall(part)
        until = time.monotonic() + 100 * TIMEOUT
        while time.monotonic() < until:
            connection.sendall(b" ")
            time.sleep(every)

    return answer


IN_BODY = b"HTTP/1.1 200 OK\r\n" + DATED + b"Content-Length: 1000000\r\n\r\n{"
CHUNKED = b"HTTP/1.1 200 OK\r\n" + DATED + b"Transfer-Encoding: chunked\r\n\r\nfffff\r\n"
IN_HEADERS = b"HTTP/1.1 200 OK\r\nX-Slow: "


@pytest.mark.parametrize("is_encrypted", [False, True])
@pytest.mark.parametrize("begin", [b"", IN_HEADERS, IN_BODY, CHUNKED], ids=["status", "headers", "body", "chunks"])
def test_an_answer_that_trickles_times_out_and_is_retried(
    begin: bytes, is_encrypted: bool, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority.certificate))
    with listening(trickling(begin), authority.server if is_encrypted else None) as server:
        with pytest.raises(StripeUnavailable, match="it does not answer in time") as failure:
            ask(server.url, timeout=TIMEOUT, tries=2)
        assert len(server.requests) == 2
    assert failure.value.fault == "no_network"


def test_a_proxy_answer_that_trickles_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    with listening(trickling(IN_HEADERS)) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        with pytest.raises(StripeUnavailable, match="cannot be reached"):
            ask("https://localhost:9", timeout=TIMEOUT)


def test_an_answer_in_many_parts_is_accepted_if_it_arrives_in_time() -> None:
    def slowly(connection: socket.socket, request: bytes) -> None:
        for byte in WHOLE:
            connection.sendall(bytes([byte]))

    with listening(slowly) as server:
        ask(server.url)


def test_the_time_limit_is_for_each_answer_and_not_for_the_connection() -> None:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            time.sleep(TIMEOUT / 3)
            self.send_response_only(200)
            self.send_header("Date", "Tue, 24 Nov 2026 10:00:00 GMT")
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *arguments: object) -> None:
            """Log nothing."""

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        url, policy = f"http://127.0.0.1:{server.server_port}", RetryPolicy(first_tries=1, tries=1)
        client = StripeClient(SecretStr(KEY), api_base=url, timeout=TIMEOUT * 4, retry=policy)
        for _ in range(15):
            client.get("/v1/balance")
        client.close()
        server.shutdown()
