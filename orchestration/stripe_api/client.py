"""Asking Stripe: one request at a time, retried until its answer is whole, parsed once. Reading is all GET.

Requests do not go through Stripe's SDK. Building its objects costs about 1 ms of CPU each, some thirty times what
`orjson` needs. Its retry rule leaves out 429, connections broken in mid-body and truncated JSON; its transport knows no
other certificate authorities than its own, and no limit for a whole answer. Nothing here knows streams, checkpoints or
DuckDB.
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
"""The version every answer is rendered in. Pinned, so that an update of the SDK cannot change stored payloads."""

TIMEOUT_SECONDS: Final = 60.0
"""Seconds that a whole answer may take, its body included: Stripe's slowest pages are far below."""

PAGE_SIZE: Final = 100
"""Stripe's maximum. A page costs one read whatever its size."""

_GIVEN_UP: Final[Mapping[Fault, str]] = {
    "no_network": "{base} cannot be reached: {why}. Check this machine's network, its firewall and its proxy, and "
    "STRIPE_API_BASE if it is set.",
    "stripe_down": "{base} gave no usable answer to {asked} in {tries} tries. Last: {why}. Try again later; "
    "https://status.stripe.com tells of outages.",
    "wrong_clock": "{base} dates its answers {why} this machine's clock. Set this machine's clock; if it is right, a "
    "proxy changes the answers.",
    "not_stripe": "{base} does not answer as Stripe does: {why}. A proxy, a firewall or the sign-in page of a network "
    "answers in its place; open a web page on this machine to see it, and check STRIPE_API_BASE if it is set.",
}
_NOTHING_LOST: Final = " Nothing that was stored is lost."

_OBJECT_ID: Final = re.compile(r"/[a-z]+_\w*\d\w*$")

logger = logging.getLogger(__name__)

Params = Mapping[str, Any]

KeySource = Callable[[SecretStr | None], SecretStr]
"""Gives the key to use, at each request, so it must be cheap. Given one that Stripe no longer takes, it gives another;
or raises a `StripeApiError` where there is none."""

_MAY_BE_RENEWED: Final = ("expired", "wrong_key")


@dataclass
class RequestCounts:
    """What a run asked of Stripe. Every try counts: Stripe's read allocation counts them as well."""

    requests: int = 0
    retries: int = 0
    rate_limited: int = 0
    by_endpoint: dict[str, int] = field(default_factory=dict)

    def add(self, endpoint: str, *, is_retry: bool) -> None:
        """Count one try."""
        self.requests += 1
        self.retries += is_retry
        self.by_endpoint[endpoint] = self.by_endpoint.get(endpoint, 0) + 1


@dataclass(frozen=True)
class RetryPolicy:
    """How long a request is tried: full jitter over `base * 2**n` seconds, at most `cap`, `tries` times in all.

    The defaults give up after a minute on average: longer than Stripe's own limits take to pass, short enough that a
    run which cannot succeed ends. Before the first answer of all, a wrong address is likelier than a bad moment:
    `first_tries` is smaller.
    """

    tries: int = 9
    first_tries: int = 4
    base: float = 0.5
    cap: float = 32.0

    def pause(self, retry: int) -> float:
        """Seconds to wait before retry number `retry` (1, 2, ...)."""
        return random.uniform(0, min(self.cap, self.base * 2**retry))


@dataclass(frozen=True)
class Answer:
    """One whole answer.

    `vouched_at` is an instant (unix seconds, Stripe's clock) at or before the moment Stripe read what it answers. A
    slow answer's own `Date` may be later than what it says. By `date` Stripe had certainly read it.
    """

    body: dict[str, Any]
    read_no_earlier_than: int
    read_no_later_than: int


class Stopped(Exception):
    """The client was stopped while this request waited for its turn or for its next try."""


class _Unusable(Exception):
    """This try gave nothing that can be used, but the next may. The text says why, `fault` what it is if none does."""

    def __init__(self, why: str, fault: Fault = "stripe_down") -> None:
        super().__init__(why)
        self.fault: Fault = fault


@dataclass(frozen=True)
class _Asked:
    """A request. `sent` is called each time its turn has come."""

    method: Literal["get", "post"]
    path: str
    url: str
    sent: Callable[[], object] = lambda: None
    form: Mapping[str, str] | None = None
    is_list: bool = False

    def __str__(self) -> str:
        return f"{self.method.upper()} {self.path}"


class _RateLimited(_Unusable):
    """Too much was asked at once: an everyday matter, which the governor deals with."""


class StripeClient:
    """Reads one account with one API key, or with those that a source gives, for any number of threads: the key's own
    account, or the connected `stripe_account`.

    `livemode` is the mode that the key tells, or the one stated for a source; None where neither tells it. `now` is
    Stripe's clock, the only "now" of a sync. `own_clock` (unix seconds) is by default this machine's clock if the
    address is Stripe's own; any other server, such as the simulator, may live in a time of its own.
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
        self._has_source = not isinstance(api_key, SecretStr)
        self.livemode = is_live(api_key) if isinstance(api_key, SecretStr) else livemode
        self._api_base = api_base.rstrip("/")
        self._retry = retry or RetryPolicy()
        self._stopped = threading.Event()
        self._sleep = sleep or self._stopped.wait
        self._governor = governor or Governor(livemode=bool(self.livemode), wait=self._stopped.wait)
        self._transport = Transport(self._api_base, timeout=timeout, at_once=MAX_CONCURRENT_REQUESTS)
        self._lock = threading.Lock()
        self._clock = StripeClock(own_clock or (time.time if is_stripe_address(self._api_base) else None))
        self.counts = RequestCounts()

    def close(self) -> None:
        """Let requests that wait raise `Stopped`, and close the connections."""
        self._stopped.set()
        self._transport.close()

    @property
    def api_key(self) -> SecretStr:
        """The key as it is now. Raises StripeApiError where a source has none."""
        return self._key(None)

    @property
    def now(self) -> int:
        """Unix seconds on Stripe's clock, which all clocks seen have reached.

        Raises:
            RuntimeError: nothing has been asked yet.
        """
        with self._lock:
            return self._clock.now

    @property
    def latest(self) -> int:
        """Unix seconds on Stripe's clock, which no clock seen has passed."""
        with self._lock:
            return self._clock.latest

    @property
    def setback(self) -> float:
        """Seconds by which later answers have put `now` back since the first one."""
        return self._clock.setback

    def get(self, path: str, params: Params | None = None, *, sent: Callable[[], object] = lambda: None) -> Answer:
        """GET `path` and return the parsed body. `sent` is called each time the request's turn has come.

        Raises:
            AuthenticationFailed, AccessRefused, InvalidRequest: Stripe's verdict; never retried.
            StripeUnavailable: no whole answer after every try, or one that is not Stripe's.
            Stopped: the client was closed meanwhile.
        """
        return self._ask(_Asked("get", path, self._url(path, params or {}), sent))

    def post(self, path: str, form: Mapping[str, str]) -> Answer:
        """POST a form to `path`. Only for what may be repeated, or whose repetition Stripe refuses.

        Raises:
            As `get`.
        """
        return self._ask(_Asked("post", path, self._url(path, {}), form=form))

    def _ask(self, asked: _Asked) -> Answer:
        retry, refused = 0, None
        while True:
            key = self._key(refused)
            try:
                return self._try(asked, key, is_retry=retry > 0 or refused is not None)
            except AuthenticationFailed as error:
                if refused is not None or not self._has_source or error.fault not in _MAY_BE_RENEWED:
                    raise
                refused = key
            except _Unusable as reason:
                retry += 1
                if retry >= (self._retry.first_tries if not self._clock.is_known else self._retry.tries):
                    raise self._unavailable(reason.fault, str(reason), str(asked), retry) from None
                pause = self._retry.pause(retry)
                level = logging.INFO if isinstance(reason, _RateLimited) else logging.WARNING
                logger.log(level, "%s: %s. Trying again in %.1f s.", asked, reason, pause)
                self._sleep(pause)

    def list(self, path: str, params: Params, *, sent: Callable[[], object] = lambda: None) -> Answer:
        """A page of a list: `data`, and whether it `has_more`.

        Raises:
            As `get`; an answer that is no such page is tried again, and StripeUnavailable in the end.
        """
        return self._ask(_Asked("get", path, self._url(path, params), sent, is_list=True))

    def _unavailable(self, fault: Fault, why: str, asked: str, tries: int = 1) -> StripeUnavailable:
        text = _GIVEN_UP[fault].format(base=self._api_base, why=why, asked=asked, tries=tries)
        return StripeUnavailable(text + (_NOTHING_LOST if self._clock.is_known else ""), fault=fault)

    def _url(self, path: str, params: Params) -> str:
        query = urlencode(list(_encode(params)))
        return f"{self._api_base}{path}?{query}" if query else f"{self._api_base}{path}"

    def _try(self, asked: _Asked, key: SecretStr, *, is_retry: bool) -> Answer:
        endpoint = _endpoint(asked.path)
        with self._governor.turn(endpoint):
            if self._stopped.is_set():
                raise Stopped
            with self._lock:
                known_before = self._clock.now if self._clock.is_known else None
                sent = self._clock.own()
                self.counts.add(endpoint, is_retry=is_retry)
            asked.sent()
            body, status, headers = self._send(asked, key)
        if status == 429:
            self._tell_governor(endpoint, headers, body)
        if _may_succeed_later(status, headers):
            raise (_RateLimited if status == 429 else _Unusable)(_why(status, headers))
        date = parse_date(headers.get("Date", ""))
        if date is None:
            raise _Unusable("it gives no Date, which is Recoup's clock", "not_stripe")
        if apart := self._clock.days_apart(date):
            raise _Unusable(f"{abs(apart):,.1f} days {'ahead of' if apart > 0 else 'behind'}", "wrong_clock")
        parsed = _parse(body)
        with self._lock:
            self._clock.note(date, sent)
            read_no_earlier_than = self._clock.vouched_at(date, known_before, sent)
            read_by = self._clock.read_by(date, known_before)
        if not 200 <= status < 300:
            raise error_from_answer(status, parsed, asked.path, asked.method.upper())
        if asked.is_list:
            _require_page(parsed, str(asked))
        return Answer(parsed, read_no_earlier_than, read_by)

    def _tell_governor(self, endpoint: str, headers: Mapping[str, str], body: bytes) -> None:
        with self._lock:
            self.counts.rate_limited += 1
        reason = _limit_reason(headers, body)
        if reason is not None:
            self._governor.record_refusal(endpoint, reason)

    def _send(self, asked: _Asked, key: SecretStr) -> tuple[bytes, int, Mapping[str, str]]:
        headers = {
            "Authorization": f"Bearer {key.get_secret_value()}" if asked.form is None else _basic(key),
            "Stripe-Version": API_VERSION,
            "User-Agent": f"Stripe/v1 PythonBindings/{stripe.VERSION} Recoup",
        }
        if self._stripe_account is not None:
            headers["Stripe-Account"] = self._stripe_account
        form = None if asked.form is None else urlencode(asked.form)
        if form is not None:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        try:
            return self._transport.send(asked.method, asked.url, headers, form)
        except requests.exceptions.SSLError:
            raise StripeUnavailable(
                f"No trusted TLS connection to {self._api_base} could be made. Check this machine's date and time; if "
                "a proxy or firewall opens encrypted traffic, let REQUESTS_CA_BUNDLE name the PEM file of its "
                "certificate authority.",
                fault="tls",
            ) from None
        except requests.exceptions.RequestException as cause:
            raise _Unusable(_why_unreachable(cause), "no_network") from None


def key_digest(api_key: SecretStr) -> str:
    """Tells two keys apart and gives nothing of them away."""
    return hashlib.sha256(api_key.get_secret_value().encode()).hexdigest()[:10]


def _basic(key: SecretStr) -> str:
    """The key as a user name without a password, as the documentation of /v1/oauth/token has it."""
    return "Basic " + base64.b64encode(f"{key.get_secret_value()}:".encode()).decode()


def _endpoint(path: str) -> str:
    """The path with `:id` for an object's id: Stripe limits and counts by endpoint, whatever the object."""
    return _OBJECT_ID.sub("/:id", path)


def _encode(params: Params) -> Iterator[tuple[str, str]]:
    """Stripe's form encoding: `created[gte]=1`, `types[0]=a`; a None is left out."""
    for key, value in params.items():
        if value is None:
            continue
        if isinstance(value, Mapping):
            yield from _encode({f"{key}[{name}]": inner for name, inner in value.items()})
        elif isinstance(value, list | tuple):
            yield from _encode({f"{key}[{index}]": inner for index, inner in enumerate(value)})
        else:
            yield key, str(value)


def _may_succeed_later(status: int, headers: Mapping[str, str]) -> bool:
    """Stripe's own word first (`Stripe-Should-Retry`), then: rate limits, lock timeouts, server errors.

    A key that Stripe does not accept stays unaccepted whatever the header says.
    """
    if status in (401, 403) or 200 <= status < 300:
        return False
    stated = headers.get("Stripe-Should-Retry", "").lower()
    if stated in ("true", "false"):
        return stated == "true"
    return status in (409, 429) or status >= 500


def _limit_reason(headers: Mapping[str, str], body: bytes) -> str | None:
    """Which limit a 429 is about; None for a lock, which is no limit. Unstated it is taken for the endpoint's rate."""
    stated = headers.get("Stripe-Rate-Limited-Reason")
    return stated or (None if b"lock_timeout" in body else "endpoint-rate")


def _why(status: int, headers: Mapping[str, str]) -> str:
    if status == 429:
        return f"Stripe's rate limit ({headers.get('Stripe-Rate-Limited-Reason', 'lock timeout')})"
    return f"HTTP {status}"


def _why_unreachable(cause: BaseException) -> str:
    """By what `requests` raises; what lies below it is told apart by its text alone."""
    if isinstance(cause, requests.exceptions.Timeout):
        return "it does not answer in time"
    if isinstance(cause, requests.exceptions.ProxyError):
        return "the proxy does not let the request through"
    text = str(cause)
    if "Failed to resolve" in text:
        return "its name is not known here (DNS)"
    return "the connection is refused" if "refused" in text else "the connection broke off"


def _parse(body: bytes) -> dict[str, Any]:
    """Parse the answer. One object that orjson does not take must not cost all that are in the answer with it."""
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError:
        if body[:1] != b"{":
            raise _Unusable("its answer is not JSON", "not_stripe") from None
        try:
            parsed = parse_leniently(body)
        except ValueError:
            raise _Unusable("its answer breaks off") from None
    if not isinstance(parsed, dict):
        raise _Unusable("its answer is not a JSON object", "not_stripe")
    return parsed


def _require_page(parsed: Mapping[str, Any], asked: str) -> None:
    """Raises _Unusable for what is no page of a list."""
    data, has_more = parsed.get("data"), parsed.get("has_more")
    if not isinstance(data, list) or not isinstance(has_more, bool):
        raise _Unusable(f"the answer to {asked} is no list of Stripe's", "not_stripe")
    if has_more and not data:
        raise _Unusable("it lists no objects and says that there are more")
