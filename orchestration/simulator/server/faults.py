"""What goes wrong between Stripe and its reader: faults on demand, rate limits, latency; and the count of requests.

Off by default. What an answer says is `api`; here it is decided whether it comes, whole, and when.
"""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, fields
from random import Random
from typing import Literal, get_args

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from orchestration.simulator.server.api import StripeApi, key_of
from orchestration.simulator.server.errors import (
    StripeError,
    invalid_key,
    lock_timeout,
    no_access,
    rate_limited,
    server_error,
)
from orchestration.simulator.world.account import SimulatedAccount

FaultKind = Literal[
    "rate_limit", "lock_timeout", "server_error", "invalid_key", "no_access", "drop", "cut", "truncate", "slow"
]


@dataclass
class Fault:
    """Something that goes wrong with the next `times` requests whose path begins with `path`.

    `rate_limit` and `lock_timeout` are the two kinds of 429, `invalid_key` is a 401 and `no_access` a 403 whatever the
    key, `server_error` answers `status`; `drop` closes the connection before the answer, `cut` in the middle of the
    body, `truncate` sends half the JSON as if it were all; `slow` decides the answer, then moves the clock by
    `clock_seconds` and waits `seconds`, then sends it.
    `probability` below 1 spares some matching requests, by a seed.
    """

    kind: FaultKind
    times: int = 1
    path: str = "/v1/"
    probability: float = 1.0
    status: int = 500
    reason: str = "global-rate"
    seconds: float = 0.0
    clock_seconds: int = 0

    def __post_init__(self) -> None:
        if self.kind not in get_args(FaultKind):
            raise ValueError(f"unknown kind of fault: {self.kind}")


class FaultQueue:
    """Faults that are still to happen, first added first."""

    def __init__(self, seed: int) -> None:
        self.pending: list[Fault] = []
        self._rng = Random(seed)

    def add(self, fault: Fault) -> None:
        """Let this go wrong too."""
        self.pending.append(fault)

    def clear(self) -> None:
        """Let nothing go wrong any more."""
        self.pending.clear()

    def take(self, path: str) -> Fault | None:
        """The fault that a request to `path` meets, if any; it counts as having happened."""
        for fault in self.pending:
            if path.startswith(fault.path) and self._rng.random() < fault.probability:
                fault.times -= 1
                if fault.times <= 0:
                    self.pending.remove(fault)
                return fault
        return None


@dataclass
class Limits:
    """Limits in requests per real second and in requests at once; None is no limit. `latency` is in real seconds.

    Stripe's own (rate-limits documentation): 100 a second in live mode, 25 in a sandbox, 25 for each endpoint.
    """

    global_rate: int | None = None
    endpoint_rate: int | None = None
    concurrency: int | None = None
    latency: float = 0.0

    def change(self, **limits: float | None) -> None:
        """Set the limits named. Raises ValueError for a name that is none."""
        unknown = limits.keys() - {each.name for each in fields(self)}
        if unknown:
            raise ValueError(f"unknown limits: {', '.join(sorted(unknown))}")
        for name, value in limits.items():
            setattr(self, name, value)


@dataclass
class RequestLog:
    """Requests under /v1 so far, refused and broken ones included; ids in paths count as one endpoint."""

    by_endpoint: Counter[str] = field(default_factory=Counter)

    @property
    def total(self) -> int:
        return self.by_endpoint.total()

    def clear(self) -> None:
        """Count from zero."""
        self.by_endpoint.clear()


class Gate:
    """The ASGI application of /v1 for one account: counts, limits, delays and breaks what `api` answers."""

    def __init__(
        self, account: SimulatedAccount, api: StripeApi, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self.account = account
        self.faults = FaultQueue(account.seed)
        self.limits = Limits()
        self.requests = RequestLog()
        self.spoil: Callable[[Request, Response], None] = lambda request, response: None
        """Changes an answer before it is sent; a body has to be given together with its `Content-Length`."""
        self._api = api
        self._monotonic = monotonic
        self._recent: deque[tuple[float, str]] = deque()
        self._in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or fail to."""
        request = Request(scope, receive)
        endpoint = _endpoint(request.url.path)
        self.requests.by_endpoint[endpoint] += 1
        self._in_flight += 1
        try:
            await self._serve(request, endpoint, send)
        finally:
            self._in_flight -= 1

    async def _serve(self, request: Request, endpoint: str, send: Send) -> None:
        fault = self.faults.take(request.url.path)
        try:
            self._check_limits(endpoint)
            _raise_as_answer(fault, key_of(request) or "", self.account.id)
        except StripeError as error:
            await self._api.error_response(error, request)(request.scope, request.receive, send)
            return
        if self.limits.latency:
            await asyncio.sleep(self.limits.latency)
        if fault is not None and fault.kind == "drop":
            await _drop(send)
            return
        response = await self._respond(request, fault)
        if fault is not None and fault.kind == "cut":
            await _send_half(response, send)
            await _drop(send)
            return
        if fault is not None and fault.kind == "truncate":
            half = bytes(response.body)[: len(response.body) // 2]
            response.headers["Content-Length"] = str(len(half))
            response.body = half
        self.spoil(request, response)
        await response(request.scope, request.receive, send)

    async def _respond(self, request: Request, fault: Fault | None) -> Response:
        if fault is None or fault.kind != "slow":
            return await self._api.respond(request)
        try:
            body = await self._api.answer(request)
        except StripeError as error:
            return self._api.error_response(error, request)
        self.account.now += fault.clock_seconds
        await asyncio.sleep(fault.seconds)
        return self._api.json_response(body, request)

    def _check_limits(self, endpoint: str) -> None:
        """Raises the 429 that Stripe would answer. Refused requests do not count towards the rates."""
        now = self._monotonic()
        while self._recent and self._recent[0][0] <= now - 1:
            self._recent.popleft()
        limits = self.limits
        if limits.concurrency is not None and self._in_flight > limits.concurrency:
            raise rate_limited("global-concurrency")
        if limits.global_rate is not None and len(self._recent) >= limits.global_rate:
            raise rate_limited("global-rate")
        of_endpoint = sum(1 for _, other in self._recent if other == endpoint)
        if limits.endpoint_rate is not None and of_endpoint >= limits.endpoint_rate:
            raise rate_limited("endpoint-rate")
        self._recent.append((now, endpoint))


def _raise_as_answer(fault: Fault | None, key: str, account_id: str) -> None:
    match fault:
        case Fault(kind="rate_limit"):
            raise rate_limited(fault.reason)
        case Fault(kind="lock_timeout"):
            raise lock_timeout()
        case Fault(kind="server_error"):
            raise server_error(fault.status)
        case Fault(kind="invalid_key"):
            raise invalid_key(key)
        case Fault(kind="no_access"):
            raise no_access(key, account_id)


async def _send_half(response: Response, send: Send) -> None:
    """Headers that promise the whole body, and half of it."""
    await send({"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers})
    half = bytes(response.body)[: len(response.body) // 2]
    await send({"type": "http.response.body", "body": half, "more_body": True})
    await asyncio.sleep(0.05)


async def _drop(send: Send) -> None:
    """Close the connection. ASGI has no message for that, so this reaches for the transport behind uvicorn's `send`."""
    with suppress(AttributeError):
        send.__self__.transport.close()  # type: ignore[attr-defined]
    await asyncio.sleep(0.01)


def _endpoint(path: str) -> str:
    parts = path.strip("/").split("/")
    is_object = len(parts) == 3 and parts[1] != "reporting"
    return "/" + "/".join([*parts[:2], ":id"] if is_object else parts)
