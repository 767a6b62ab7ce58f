"""Send one request to Stripe over HTTP, with the environment's proxy and certificate authorities, and a time limit.

Belongs here: sockets, TLS and the environment variables for them. Does not belong here: retries, and the meaning of
answers (`client`). `requests` alone would use more of the environment, such as a password from ~/.netrc in place of the
API key.
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
"""File names under which OpenSSL finds certificates in a folder (`openssl rehash`)."""

_BUFFER_BYTES: Final = 65_536


class Transport:
    """A pool of connections to one address, for any number of threads.

    `timeout` is in seconds, from the start of the connection to the last byte of the answer. Proxies come from the
    environment (HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, NO_PROXY, or the same in lowercase). Redirects are not followed:
    Stripe's API has none, and the key must not be sent to another address.
    """

    def __init__(self, api_base: str, *, timeout: float, max_connections: int) -> None:
        self._api_base, self._timeout, self._max_connections = api_base, timeout, max_connections
        self._session: requests.Session | None = None
        self._lock = threading.Lock()

    def send(
        self, method: str, url: str, headers: Mapping[str, str], form: str | None
    ) -> tuple[bytes, int, Mapping[str, str]]:
        """Send a request and return the complete body, the status and the headers of the answer.

        Raises:
            requests.RequestException: no complete answer arrived in time.
            StripeUnavailable: the environment names certificate authorities or a proxy that cannot be used.
        """
        timeout = urllib3.Timeout(total=self._timeout)
        with _as_requests_errors():
            answer = self._open_session().request(
                method,
                url,
                headers=headers,
                data=form,
                timeout=timeout,  # type: ignore[arg-type]  # urllib3 accepts it, and requests passes it on
                stream=True,
                allow_redirects=False,
            )
            return answer.raw.read(decode_content=True), answer.status_code, answer.headers

    def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            self._session.close()

    def _open_session(self) -> requests.Session:
        """Return the session. It is opened at the first request, because loading certificates is slow."""
        with self._lock:
            if self._session is None:
                session = requests.Session()
                session.trust_env = False
                session.proxies = dict(get_environ_proxies(self._api_base))
                addresses = (self._api_base, *session.proxies.values())
                is_encrypted = any(address.lower().startswith("https:") for address in addresses)
                adapter = _Adapter(trusted_authorities() if is_encrypted else None, self._max_connections)
                session.mount("https://", adapter)
                session.mount("http://", adapter)
                self._session = session
            return self._session


def trusted_authorities(environment: Mapping[str, str] = os.environ) -> ssl.SSLContext:
    """Return a TLS context that trusts the certificate authorities of the environment, else the public ones.

    Raises:
        StripeUnavailable: a variable names a path that does not exist or contains no certificate.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    name = next((each for each in CA_VARIABLES if environment.get(each)), None)
    if name is None:
        context.load_verify_locations(cafile=DEFAULT_CA_BUNDLE_PATH)
        return context
    # Accept intermediate authorities, and company certificates that do not follow all rules for public ones.
    context.verify_flags = ssl.VERIFY_X509_TRUSTED_FIRST | ssl.VERIFY_X509_PARTIAL_CHAIN
    _load(context, name, environment[name])
    return context


def _load(context: ssl.SSLContext, name: str, value: str) -> None:
    """Load the certificates of a file or a folder. SSL_CERT_DIR may name several folders; one of them must exist."""
    paths = [Path(part) for part in (value.split(os.pathsep) if name == "SSL_CERT_DIR" else [value]) if part]
    existing = [path for path in paths if path.exists()]
    folders = [path for path in existing if path.is_dir()]
    if not existing:
        raise _authorities_error(name, value, "which does not exist")
    for path in existing:
        if path in folders:
            context.load_verify_locations(capath=path)
        else:
            _load_file(context, name, path)
    files = (each for path in folders for each in _folder_entries(name, path))
    if folders == existing and not any(_HASHED.fullmatch(each.name) for each in files):
        raise _authorities_error(name, value, "which contains no certificate under a name given by `openssl rehash`")


def _load_file(context: ssl.SSLContext, name: str, path: Path) -> None:
    """Load the certificates of a file."""
    try:
        context.load_verify_locations(cafile=path)
    except ssl.SSLError:
        raise _authorities_error(name, path, "which is not a file of PEM certificates") from None
    except OSError as error:
        raise _authorities_error(name, path, f"which cannot be read ({error.strerror})") from None


def _folder_entries(name: str, folder: Path) -> list[Path]:
    """Return the paths in a folder that the variable `name` names."""
    try:
        return list(folder.iterdir())
    except OSError as error:
        raise _authorities_error(name, folder, f"which cannot be read ({error.strerror})") from None


def _authorities_error(name: str, value: object, why: str) -> StripeUnavailable:
    """Return the error for a variable whose certificate authorities cannot be used."""
    return StripeUnavailable(
        f"{name} names {value}, {why}. Set it to a PEM file of the certificate authorities to trust, or unset it.",
        fault="tls",
    )


class _Adapter(HTTPAdapter):
    """An adapter whose connections share one TLS context, and whose answers must be complete in time.

    Without it, `requests` would load the certificate authorities again for each connection.
    """

    def __init__(self, context: ssl.SSLContext | None, max_connections: int) -> None:
        self._context = context
        super().__init__(pool_maxsize=max_connections)

    def init_poolmanager(self, connections: int, maxsize: int, block: bool = False, **options: Any) -> None:
        """Create the pools of direct connections."""
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
        """Do nothing, because the TLS context checks certificates and host names itself."""


def _limit_time(manager: Any) -> None:
    """Make a pool manager create connections whose answers must be complete in time."""
    manager.pool_classes_by_scheme = {
        scheme: type(pool.__name__, (pool,), {"ConnectionCls": _with_deadline(pool.ConnectionCls)})
        for scheme, pool in manager.pool_classes_by_scheme.items()
    }


def _with_deadline(connection: type) -> type:
    """Return a class of connections whose answers must be complete in time."""
    return type(connection.__name__, (connection,), {"response_class": _DeadlineResponse})


class _DeadlineResponse(http.client.HTTPResponse):
    """An answer whose headers and body must arrive within the socket's timeout, counted from the first read.

    The timeout of a socket alone starts again with each byte that arrives.
    """

    def __init__(self, sock: Any, *arguments: Any, **options: Any) -> None:
        super().__init__(sock, *arguments, **options)
        timeout = sock.gettimeout()
        if timeout is not None:
            self.fp = io.BufferedReader(
                _DeadlineReader(self.fp.detach(), sock, time.monotonic() + timeout), _BUFFER_BYTES
            )


class _DeadlineReader(io.RawIOBase):
    """A stream of the bytes that a socket receives until a deadline (`time.monotonic`)."""

    def __init__(self, raw: io.RawIOBase, sock: Any, deadline: float) -> None:
        self._raw, self._socket, self._deadline = raw, sock, deadline

    def readable(self) -> bool:
        """Return True: the stream can be read."""
        return True

    def readinto(self, buffer: Any) -> int | None:
        """Read into the buffer and return the number of bytes.

        Raises:
            TimeoutError: the deadline has passed.
        """
        seconds_left = self._deadline - time.monotonic()
        if seconds_left <= 0:
            raise TimeoutError("the answer is not complete in time")
        self._socket.settimeout(seconds_left)
        return self._raw.readinto(buffer)

    def close(self) -> None:
        """Close the socket's own stream as well."""
        self._raw.close()
        super().close()


@contextmanager
def _as_requests_errors() -> Iterator[None]:
    """Raise errors of urllib3, which occur while a body is read, as the matching errors of `requests`."""
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
            f"The proxy set in the environment cannot be used ({error}). Correct or unset HTTPS_PROXY or ALL_PROXY.",
            fault="no_network",
        ) from None
