"""One exchange with Stripe over HTTP: which proxy, which certificate authorities, and how long an answer may take.

Belongs here: sockets, TLS and what the environment says of them. Does not: retries, and what answers mean (`client`).
`requests` itself would read more of the environment, such as a password from ~/.netrc in place of the API key.
"""

import http.client
import io
import os
import re
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.utils import DEFAULT_CA_BUNDLE_PATH, get_environ_proxies

from orchestration.stripe_api.errors import StripeUnavailable

CA_VARIABLES: Final = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR")
"""Variables that name certificate authorities. The first one that is set replaces the public ones of `certifi`."""

_HASHED: Final = re.compile(r"[0-9a-f]{8}\.\d+")
"""Names by which OpenSSL finds certificates in a folder (`openssl rehash`)."""

_BUFFER: Final = 65_536


class Transport:
    """Send requests to one address, for any number of threads.

    `timeout` is in seconds, from the connection to the last byte of the answer. Proxies are those of the environment
    (HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, NO_PROXY, or the same in lowercase). No redirect is followed: Stripe's API
    has none, and the key is for its address alone.
    """

    def __init__(self, api_base: str, *, timeout: float, at_once: int) -> None:
        self._api_base, self._timeout, self._at_once = api_base, timeout, at_once
        self._session: requests.Session | None = None
        self._lock = threading.Lock()

    def send(
        self, method: str, url: str, headers: Mapping[str, str], form: str | None
    ) -> tuple[bytes, int, Mapping[str, str]]:
        """Return the whole body, the status and the headers.

        Raises:
            requests.RequestException: no whole answer came, or not in time.
            StripeUnavailable: the environment names certificate authorities or a proxy that cannot be used.
        """
        timeout = urllib3.Timeout(total=self._timeout)
        with _errors_of_requests():
            answer = self._connected().request(
                method,
                url,
                headers=headers,
                data=form,
                timeout=timeout,  # type: ignore[arg-type]  # as urllib3 takes it, and requests passes on
                stream=True,
                allow_redirects=False,
            )
            return answer.raw.read(decode_content=True), answer.status_code, answer.headers

    def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            self._session.close()

    def _connected(self) -> requests.Session:
        """Return the session. It is made at the first request, because reading certificates takes long."""
        with self._lock:
            if self._session is None:
                session = requests.Session()
                session.trust_env = False
                session.proxies = dict(get_environ_proxies(self._api_base))
                addresses = (self._api_base, *session.proxies.values())
                is_encrypted = any(address.lower().startswith("https:") for address in addresses)
                adapter = _Adapter(trusted_authorities() if is_encrypted else None, self._at_once)
                session.mount("https://", adapter)
                session.mount("http://", adapter)
                self._session = session
            return self._session


def trusted_authorities(environment: Mapping[str, str] = os.environ) -> ssl.SSLContext:
    """Return the TLS settings with the certificate authorities that the environment names, else the public ones.

    Raises:
        StripeUnavailable: what a variable names is missing, or holds no certificate.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    name = next((each for each in CA_VARIABLES if environment.get(each)), None)
    if name is None:
        context.load_verify_locations(cafile=DEFAULT_CA_BUNDLE_PATH)
        return context
    # An authority may be an intermediate one, and a company's certificates are often less strict than public ones.
    context.verify_flags = ssl.VERIFY_X509_TRUSTED_FIRST | ssl.VERIFY_X509_PARTIAL_CHAIN
    _load(context, name, environment[name])
    return context


def _load(context: ssl.SSLContext, name: str, value: str) -> None:
    """Load a file or a folder. SSL_CERT_DIR may name several folders, of which one has to be there."""
    paths = [Path(part) for part in (value.split(os.pathsep) if name == "SSL_CERT_DIR" else [value]) if part]
    there = [path for path in paths if path.exists()]
    folders = [path for path in there if path.is_dir()]
    if not there:
        raise _unusable(name, value, "which is not there")
    for path in there:
        if path in folders:
            context.load_verify_locations(capath=path)
        else:
            _load_file(context, name, path)
    if folders == there and not any(_HASHED.fullmatch(each.name) for path in folders for each in _entries(name, path)):
        raise _unusable(name, value, "which holds no certificate under the name that `openssl rehash` gives it")


def _load_file(context: ssl.SSLContext, name: str, path: Path) -> None:
    try:
        context.load_verify_locations(cafile=path)
    except ssl.SSLError:
        raise _unusable(name, path, "which is no file of PEM certificates") from None
    except OSError as error:
        raise _unusable(name, path, f"which cannot be read ({error.strerror})") from None


def _entries(name: str, folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError as error:
        raise _unusable(name, folder, f"which cannot be read ({error.strerror})") from None


def _unusable(name: str, value: object, why: str) -> StripeUnavailable:
    return StripeUnavailable(
        f"{name} names {value}, {why}. Let it name a PEM file of the certificate authorities to trust, or unset it.",
        fault="tls",
    )


class _Adapter(HTTPAdapter):
    """Connections with one TLS context for all, whose answers have to be whole in time.

    `requests` by itself would read the authorities once more for each connection.
    """

    def __init__(self, context: ssl.SSLContext | None, at_once: int) -> None:
        self._context = context
        super().__init__(pool_maxsize=at_once)

    def init_poolmanager(self, connections: int, maxsize: int, block: bool = False, **options: Any) -> None:
        """Make the pools of direct connections."""
        super().init_poolmanager(connections, maxsize, block, ssl_context=self._context, **options)
        _limit_time(self.poolmanager)

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        """Return the pools of connections through a proxy."""
        if proxy not in self.proxy_manager:
            if not proxy.lower().startswith("socks"):
                options["proxy_ssl_context"] = self._context
            _limit_time(super().proxy_manager_for(proxy, ssl_context=self._context, **options))
        return self.proxy_manager[proxy]

    def cert_verify(self, conn: Any, url: str, verify: object, cert: object) -> None:
        """Leave the authorities to the context, which checks certificates and names by itself."""


def _limit_time(manager: Any) -> None:
    """Let a manager of pools make connections whose answers have to be whole in time."""
    manager.pool_classes_by_scheme = {
        scheme: type(pool.__name__, (pool,), {"ConnectionCls": _in_time(pool.ConnectionCls)})
        for scheme, pool in manager.pool_classes_by_scheme.items()
    }


def _in_time(connection: type) -> type:
    return type(connection.__name__, (connection,), {"response_class": _AnswerInTime})


class _AnswerInTime(http.client.HTTPResponse):
    """An answer whose headers and body must have come by the time that the socket has left when they are awaited.

    A socket's own timeout counts from the last byte, and begins again with each one that trickles in.
    """

    def __init__(self, sock: Any, *arguments: Any, **options: Any) -> None:
        super().__init__(sock, *arguments, **options)
        left = sock.gettimeout()
        if left is not None:
            self.fp = io.BufferedReader(_ReadInTime(self.fp.detach(), sock, time.monotonic() + left), _BUFFER)


class _ReadInTime(io.RawIOBase):
    """What a socket receives until a deadline (`time.monotonic`)."""

    def __init__(self, raw: io.RawIOBase, sock: Any, deadline: float) -> None:
        self._raw, self._socket, self._deadline = raw, sock, deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the answer is not whole in time")
        self._socket.settimeout(left)
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


@contextmanager
def _errors_of_requests() -> Iterator[None]:
    """Turn what urllib3 raises while the body is read into the errors that `requests` has for it."""
    try:
        yield
    except urllib3.exceptions.TimeoutError as error:
        raise requests.exceptions.ReadTimeout(str(error)) from error
    except urllib3.exceptions.SSLError as error:
        raise requests.exceptions.SSLError(str(error)) from error
    except urllib3.exceptions.HTTPError as error:
        raise requests.exceptions.ConnectionError(str(error)) from error
    except (requests.exceptions.InvalidSchema, requests.exceptions.InvalidProxyURL) as error:
        raise StripeUnavailable(
            f"The proxy that the environment names cannot be used ({error}). Correct HTTPS_PROXY or ALL_PROXY, or "
            "unset it.",
            fault="no_network",
        ) from None
