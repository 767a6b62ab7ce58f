"""A client for Stripe's API: send a request, retry it until the answer is complete, and parse the answer.

All reading is done with GET. The client does not use Stripe's SDK, for three reasons. Building the SDK's objects costs
about 1 ms of CPU each, some thirty times what `orjson` needs. Its retries leave out 429, connections that break in the
middle of a body, and truncated JSON. Its transport accepts only its own certificate authorities, and has no time limit
for a whole answer. The client does not know streams, checkpoints or DuckDB.
"""

import base64
import hashlib
import logging
import random
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal
from urllib.parse import urlencode

import orjson
import requests
import stripe
from pydantic import SecretStr

from orchestration.base.lenient_json import parse_leniently
from orchestration.config.credentials import is_live
from orchestration.stripe_api.clock import StripeClock, is_stripe_address, parse_date
from orchestration.stripe_api.errors import AuthenticationFailed, Fault, StripeUnavailable, error_from_answer
from orchestration.stripe_api.rate_limits import MAX_CONCURRENT_REQUESTS, Governor
from orchestration.stripe_api.transport import Transport

API_VERSION: Final = "2026-10-28.endive"
"""The API version of every request. It is pinned so that an update of the SDK cannot change stored payloads."""

TIMEOUT_SECONDS: Final = 60.0
"""Seconds that a whole answer may take, including its body. Stripe's slowest pages take far less."""

PAGE_SIZE: Final = 100
"""Objects in a page: Stripe's maximum. A page costs one read whatever its size."""

_UNAVAILABLE_MESSAGES: Final[Mapping[Fault, str]] = {
    "no_network": "{base} cannot be reached: {why}. Check this machine's network, its firewall and its proxy, and "
    "STRIPE_API_BASE if it is set.",
    "stripe_down": "{base} gave no usable answer to {request} in {tries} tries. Last: {why}. Try again later; "
    "https://status.stripe.com lists outages.",
    "wrong_clock": "The answers of {base} are dated {why} this machine's clock. Correct this machine's clock; if it is "
    "right, a proxy changes the answers.",
    "not_stripe": "{base} does not answer as Stripe does: {why}. A proxy, a firewall or the sign-in page of a network "
    "answers instead; open a web page on this machine to see it, and check STRIPE_API_BASE if it is set.",
}
_NOTHING_LOST: Final = " Stored data is not lost."

_OBJECT_ID: Final = re.compile(r"/[a-z]+_\w*\d\w*$")

logger = logging.getLogger(__name__)

Params = Mapping[str, Any]

KeySource = Callable[[SecretStr | None], SecretStr]
"""Returns the key for a request. It is called for each request, so it must be fast. Its argument is the key that Stripe
has just rejected, if any: then it returns another key, or raises a `StripeApiError` if there is none."""

_RENEWABLE_FAULTS: Final = ("expired", "wrong_key")


@dataclass
class RequestCounts:
    """The number of requests sent to Stripe. Every try counts, because Stripe's read allocation counts it, too."""

    requests: int = 0
    retries: int = 0
    rate_limited: int = 0
    by_endpoint: dict[str, int] = field(default_factory=dict)

    def add(self, endpoint: str, *, is_retry: bool) -> None:
        """Count one try of a request."""
        self.requests += 1
        self.retries += is_retry
        self.by_endpoint[endpoint] = self.by_endpoint.get(endpoint, 0) + 1


@dataclass(frozen=True)
class RetryPolicy:
    """How often a request is tried, and the pauses in between.

    A pause is a random time of up to `base * 2**retry` seconds (full jitter), and at most `cap` seconds. A request is
    tried `tries` times in total. The defaults give up after a minute on average: Stripe's rate limits recover sooner,
    and a sync that cannot succeed still ends. `first_tries` applies until a first answer has arrived. It is smaller,
    because a wrong address is then more likely than a temporary failure.
    """

    tries: int = 9
    first_tries: int = 4
    base: float = 0.5
    cap: float = 32.0

    def pause(self, retry: int) -> float:
        """Return the seconds to wait before retry number `retry` (1, 2, ...)."""
        return random.uniform(0, min(self.cap, self.base * 2**retry))


@dataclass(frozen=True)
class Answer:
    """A complete answer, and the two instants (unix seconds, Stripe's clock) between which Stripe read its content.

    The `Date` of an answer alone is not enough: the `Date` of a slow answer may be later than its content.
    """

    body: dict[str, Any]
    read_no_earlier_than: int
    read_no_later_than: int


class Stopped(Exception):
    """The client was closed while a request waited for its turn or for its next try."""


class _TransientFailure(Exception):
    """A try without a usable answer; the next try may succeed.

    The text says why. `fault` is the one to report if no try succeeds.
    """

    def __init__(self, why: str, fault: Fault = "stripe_down") -> None:
        super().__init__(why)
        self.fault: Fault = fault


@dataclass(frozen=True)
class _Request:
    """A request. `on_sent` is called each time the rate limits allow a try of it to be sent."""

    method: Literal["get", "post"]
    path: str
    url: str
    on_sent: Callable[[], object] = lambda: None
    form: Mapping[str, str] | None = None
    is_list: bool = False

    def __str__(self) -> str:
        return f"{self.method.upper()} {self.path}"


class _RateLimited(_TransientFailure):
    """A try that Stripe's rate limits refused. This is normal operation, and the governor slows the next requests."""


class StripeClient:
    """A client that reads one Stripe account: the key's own, or the connected account `stripe_account`.

    It may be used by any number of threads. `api_key` is a key, or a function that returns the current key. `livemode`
    is the mode that the key's prefix states, or the one given for a function; None if neither states it. `now` is
    Stripe's clock, and the only "now" of a sync. `own_clock` returns the Unix seconds of this machine. By default it is
    used only if the address is Stripe's own, since the time of another server, such as the simulator, may differ.
    """

    def __init__(
        self,
        api_key: SecretStr | KeySource,
        *,
        livemode: bool | None = None,
        api_base: str = "https://api.stripe.com",
        timeout: float = TIMEOUT_SECONDS,
        retry: RetryPolicy | None = None,
        sleep: Callable[[float], object] | None = None,
        governor: Governor | None = None,
        stripe_account: str | None = None,
        own_clock: Callable[[], float] | None = None,
    ) -> None:
        self._stripe_account = stripe_account
        self._key: KeySource = (lambda _: api_key) if isinstance(api_key, SecretStr) else api_key
        self._can_renew_key = not isinstance(api_key, SecretStr)
        self.livemode = is_live(api_key) if isinstance(api_key, SecretStr) else livemode
        self._api_base = api_base.rstrip("/")
        self._retry = retry or RetryPolicy()
        self._stopped = threading.Event()
        self._sleep = sleep or self._stopped.wait
        self._governor = governor or Governor(livemode=bool(self.livemode), wait=self._stopped.wait)
        self._transport = Transport(self._api_base, timeout=timeout, max_connections=MAX_CONCURRENT_REQUESTS)
        self._lock = threading.Lock()
        self._clock = StripeClock(own_clock or (time.time if is_stripe_address(self._api_base) else None))
        self.counts = RequestCounts()

    def close(self) -> None:
        """Close the connections. Requests that wait for their turn or their next try raise `Stopped`."""
        self._stopped.set()
        self._transport.close()

    @property
    def api_key(self) -> SecretStr:
        """Return the current key.

        Raises:
            StripeApiError: there is no key.
        """
        return self._key(None)

    @property
    def now(self) -> int:
        """Return the unix seconds of Stripe's clock: an instant that all clocks involved have reached.

        The current time is not earlier.

        Raises:
            RuntimeError: no answer has arrived yet.
        """
        with self._lock:
            return self._clock.now

    @property
    def latest(self) -> int:
        """Return the unix seconds of Stripe's clock: an instant that no clock involved has passed.

        The current time is not later.
        """
        with self._lock:
            return self._clock.latest

    @property
    def setback(self) -> float:
        """Return the seconds by which later answers have put `now` back since the first one."""
        return self._clock.setback

    def get(self, path: str, params: Params | None = None, *, on_sent: Callable[[], object] = lambda: None) -> Answer:
        """GET `path` and return the answer. `on_sent` is called each time a try of the request may be sent.

        Raises:
            AuthenticationFailed, AccessRefused, InvalidRequest: Stripe refuses the request; it is not retried.
            StripeUnavailable: no try gave a complete answer of Stripe's.
            Stopped: the client was closed meanwhile.
        """
        return self._request_with_retries(_Request("get", path, self._url(path, params or {}), on_sent))

    def post(self, path: str, form: Mapping[str, str]) -> Answer:
        """POST a form to `path` and return the answer.

        A retry may send the form twice, so use it only for requests whose repetition is harmless or refused by Stripe.

        Raises:
            As `get`.
        """
        return self._request_with_retries(_Request("post", path, self._url(path, {}), form=form))

    def _request_with_retries(self, request: _Request) -> Answer:
        """Send the request until a try succeeds. A rejected key is renewed once."""
        retry, rejected_key = 0, None
        while True:
            key = self._key(rejected_key)
            try:
                return self._request_once(request, key, is_retry=retry > 0 or rejected_key is not None)
            except AuthenticationFailed as error:
                if rejected_key is not None or not self._can_renew_key or error.fault not in _RENEWABLE_FAULTS:
                    raise
                rejected_key = key
            except _TransientFailure as failure:
                retry += 1
                if retry >= (self._retry.first_tries if not self._clock.is_known else self._retry.tries):
                    raise self._unavailable(failure.fault, str(failure), str(request), retry) from None
                pause = self._retry.pause(retry)
                level = logging.INFO if isinstance(failure, _RateLimited) else logging.WARNING
                logger.log(level, "%s: %s. Trying again in %.1f s.", request, failure, pause)
                self._sleep(pause)

    def list(self, path: str, params: Params, *, on_sent: Callable[[], object] = lambda: None) -> Answer:
        """GET a page of a list and return the answer, whose body has `data` and `has_more`.

        An answer that is not a page is retried.

        Raises:
            As `get`.
        """
        return self._request_with_retries(_Request("get", path, self._url(path, params), on_sent, is_list=True))

    def _unavailable(self, fault: Fault, why: str, request: str, tries: int) -> StripeUnavailable:
        """Return the error for a request that got no usable answer."""
        text = _UNAVAILABLE_MESSAGES[fault].format(base=self._api_base, why=why, request=request, tries=tries)
        return StripeUnavailable(text + (_NOTHING_LOST if self._clock.is_known else ""), fault=fault)

    def _url(self, path: str, params: Params) -> str:
        """Return the URL of a path with these parameters."""
        query = urlencode(list(_encode(params)))
        return f"{self._api_base}{path}?{query}" if query else f"{self._api_base}{path}"

    def _request_once(self, request: _Request, key: SecretStr, *, is_retry: bool) -> Answer:
        """Send the request once and return the answer.

        Raises:
            _TransientFailure: the answer cannot be used, and another try may succeed.
            StripeApiError: Stripe refuses the request.
        """
        endpoint = _endpoint(request.path)
        with self._governor.turn(endpoint):
            if self._stopped.is_set():
                raise Stopped
            with self._lock:
                known_before = self._clock.now if self._clock.is_known else None
                sent_at = self._clock.own_now()
                self.counts.add(endpoint, is_retry=is_retry)
            request.on_sent()
            body, status, headers = self._send(request, key)
        if status == 429:
            self._record_rate_limit(endpoint, headers, body)
        if _is_retryable(status, headers):
            raise (_RateLimited if status == 429 else _TransientFailure)(_failure_reason(status, headers))
        date = parse_date(headers.get("Date", ""))
        if date is None:
            raise _TransientFailure("its answer has no Date header", "not_stripe")
        if apart := self._clock.days_apart(date):
            raise _TransientFailure(f"{abs(apart):,.1f} days {'ahead of' if apart > 0 else 'behind'}", "wrong_clock")
        parsed = _parse(body)
        with self._lock:
            self._clock.record(date, sent_at)
            read_no_earlier_than = self._clock.read_no_earlier_than(date, known_before, sent_at)
            read_no_later_than = self._clock.read_no_later_than(date, known_before)
        if not 200 <= status < 300:
            raise error_from_answer(status, parsed, request.path, request.method.upper())
        if request.is_list:
            _require_page(parsed, str(request))
        return Answer(parsed, read_no_earlier_than, read_no_later_than)

    def _record_rate_limit(self, endpoint: str, headers: Mapping[str, str], body: bytes) -> None:
        """Count a 429 and tell the governor which limit it is about."""
        with self._lock:
            self.counts.rate_limited += 1
        reason = _limit_reason(headers, body)
        if reason is not None:
            self._governor.record_refusal(endpoint, reason)

    def _send(self, request: _Request, key: SecretStr) -> tuple[bytes, int, Mapping[str, str]]:
        """Send the request over HTTP and return the body, the status and the headers.

        Raises:
            _TransientFailure: the connection failed.
            StripeUnavailable: no trusted TLS connection is possible.
        """
        headers = {
            "Authorization": f"Bearer {key.get_secret_value()}" if request.form is None else _basic_authorization(key),
            "Stripe-Version": API_VERSION,
            "User-Agent": f"Stripe/v1 PythonBindings/{stripe.VERSION} Recoup",
        }
        if self._stripe_account is not None:
            headers["Stripe-Account"] = self._stripe_account
        form = None if request.form is None else urlencode(request.form)
        if form is not None:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        try:
            return self._transport.send(request.method, request.url, headers, form)
        except requests.exceptions.SSLError:
            raise StripeUnavailable(
                f"No trusted TLS connection to {self._api_base} could be made. Check this machine's date and time; if "
                "a proxy or firewall decrypts the traffic, set REQUESTS_CA_BUNDLE to the PEM file of its certificate "
                "authority.",
                fault="tls",
            ) from None
        except requests.exceptions.RequestException as cause:
            raise _TransientFailure(_connection_failure_reason(cause), "no_network") from None


def key_digest(api_key: SecretStr) -> str:
    """Return ten hexadecimal digits that tell keys apart without revealing them."""
    return hashlib.sha256(api_key.get_secret_value().encode()).hexdigest()[:10]


def _basic_authorization(key: SecretStr) -> str:
    """Return the header value with the key as user name and no password (docs: /v1/oauth/token)."""
    return "Basic " + base64.b64encode(f"{key.get_secret_value()}:".encode()).decode()


def _endpoint(path: str) -> str:
    """Return the path with `:id` in place of an object's id, because Stripe limits and counts by endpoint."""
    return _OBJECT_ID.sub("/:id", path)


def _encode(params: Params) -> Iterator[tuple[str, str]]:
    """Yield the parameters in Stripe's form encoding: `created[gte]=1`, `types[0]=a`. None is left out."""
    for key, value in params.items():
        if value is None:
            continue
        if isinstance(value, Mapping):
            yield from _encode({f"{key}[{name}]": inner for name, inner in value.items()})
        elif isinstance(value, list | tuple):
            yield from _encode({f"{key}[{index}]": inner for index, inner in enumerate(value)})
        else:
            yield key, str(value)


def _is_retryable(status: int, headers: Mapping[str, str]) -> bool:
    """Return whether another try may succeed.

    The header `Stripe-Should-Retry` decides, if it is there. Otherwise rate limits, lock timeouts and server errors are
    retried. A rejected key is never retried, whatever the header says.
    """
    if status in (401, 403) or 200 <= status < 300:
        return False
    stated = headers.get("Stripe-Should-Retry", "").lower()
    if stated in ("true", "false"):
        return stated == "true"
    return status in (409, 429) or status >= 500


def _limit_reason(headers: Mapping[str, str], body: bytes) -> str | None:
    """Return the limit that a 429 is about, or None for a lock timeout. The default is the endpoint's rate."""
    stated = headers.get("Stripe-Rate-Limited-Reason")
    return stated or (None if b"lock_timeout" in body else "endpoint-rate")


def _failure_reason(status: int, headers: Mapping[str, str]) -> str:
    """Return why a try with this status failed."""
    if status == 429:
        return f"Stripe's rate limit ({headers.get('Stripe-Rate-Limited-Reason', 'lock timeout')})"
    return f"HTTP {status}"


def _connection_failure_reason(cause: BaseException) -> str:
    """Return why the connection failed. Causes below the exceptions of `requests` differ only by their text."""
    if isinstance(cause, requests.exceptions.Timeout):
        return "it does not answer in time"
    if isinstance(cause, requests.exceptions.ProxyError):
        return "the proxy does not let the request through"
    text = str(cause)
    if "Failed to resolve" in text:
        return "its name cannot be resolved (DNS)"
    return "the connection is refused" if "refused" in text else "the connection broke off"


def _parse(body: bytes) -> dict[str, Any]:
    """Return the parsed body.

    If orjson rejects the body, a lenient parser takes over, so that one bad object does not cost all the others.

    Raises:
        _TransientFailure: the body is not a complete JSON object.
    """
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError:
        if body[:1] != b"{":
            raise _TransientFailure("its answer is not JSON", "not_stripe") from None
        try:
            parsed = parse_leniently(body)
        except ValueError:
            raise _TransientFailure("its answer is incomplete") from None
    if not isinstance(parsed, dict):
        raise _TransientFailure("its answer is not a JSON object", "not_stripe")
    return parsed


def _require_page(parsed: Mapping[str, Any], request: str) -> None:
    """Raise an error unless the answer is a page of a list.

    Raises:
        _TransientFailure: it is not.
    """
    data, has_more = parsed.get("data"), parsed.get("has_more")
    if not isinstance(data, list) or not isinstance(has_more, bool):
        raise _TransientFailure(f"the answer to {request} is not a list of Stripe objects", "not_stripe")
    if has_more and not data:
        raise _TransientFailure("its page is empty, but claims to have a successor")
