"""Failures between Stripe and its client: injected faults, rate limits and latency. It also counts requests.

All are off by default. `api` decides what an answer says, and this module whether, when and how completely it arrives.
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

from orchestration.simulator.server.api import StripeApi, request_key
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
    """A failure of the next `times` requests whose path begins with `path`.

    Args:
        kind: `rate_limit` and `lock_timeout` answer 429, `invalid_key` 401, `no_access` 403, and `server_error` the
            `status`. `drop` closes the connection before the answer, `cut` in the middle of the body. `truncate` sends
            half of the JSON as a complete answer. `slow` computes the answer, then moves the clock by `clock_seconds`
            and waits `seconds`, and then sends it.
        times: number of requests that fail.
        path: prefix of the paths that fail.
        probability: share of the matching requests that fail, 0 to 1. The account's seed decides which.
        status: status of a `server_error`.
        reason: value of `Stripe-Rate-Limited-Reason` for a `rate_limit`.
        seconds: real seconds that a `slow` answer waits.
        clock_seconds: simulated seconds by which a `slow` answer moves the clock.

    Raises:
        ValueError: unknown kind.
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
    """The pending faults, in the order in which they were added."""

    def __init__(self, seed: int) -> None:
        self.pending: list[Fault] = []
        self._rng = Random(seed)

    def add(self, fault: Fault) -> None:
        """Add a pending fault."""
        self.pending.append(fault)

    def clear(self) -> None:
        """Remove all pending faults."""
        self.pending.clear()

    def take(self, path: str) -> Fault | None:
        """Return the fault of a request to `path`, if any, and count it as used."""
        for fault in self.pending:
            if path.startswith(fault.path) and self._rng.random() < fault.probability:
                fault.times -= 1
                if fault.times <= 0:
                    self.pending.remove(fault)
                return fault
        return None


@dataclass
class Limits:
    """Limits of requests. The rates are per real second, None is no limit, and `latency` is in real seconds.

    Stripe's own limits (documentation of rate limits): 100 a second in live mode, 25 in a sandbox, 25 for an endpoint.
    """

    global_rate: int | None = None
    endpoint_rate: int | None = None
    concurrency: int | None = None
    latency: float = 0.0

    def change(self, **limits: float | None) -> None:
        """Set the given limits.

        Raises:
            ValueError: unknown name of a limit.
        """
        unknown = limits.keys() - {each.name for each in fields(self)}
        if unknown:
            raise ValueError(f"unknown limits: {', '.join(sorted(unknown))}")
        for name, value in limits.items():
            setattr(self, name, value)


@dataclass
class RequestLog:
    """The number of requests under /v1 by endpoint, including refused and broken ones. All ids are one endpoint."""

    by_endpoint: Counter[str] = field(default_factory=Counter)

    @property
    def total(self) -> int:
        """Number of requests to all endpoints."""
        return self.by_endpoint.total()

    def clear(self) -> None:
        """Reset the counts to zero."""
        self.by_endpoint.clear()


class Gate:
    """The ASGI application of /v1 for one account. It counts, limits, delays and breaks the answers of `api`."""

    def __init__(
        self, account: SimulatedAccount, api: StripeApi, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self.account = account
        self.faults = FaultQueue(account.seed)
        self.limits = Limits()
        self.requests = RequestLog()
        self.alter_response: Callable[[Request, Response], None] = lambda request, response: None
        """Hook that may change a response before it is sent. A new body must come with its `Content-Length`."""
        self._api = api
        self._monotonic = monotonic
        self._recent: deque[tuple[float, str]] = deque()
        self._in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or fail as a fault or limit requires."""
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
            _raise_fault(fault, request_key(request) or "", self.account.id)
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
        self.alter_response(request, response)
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
        """Raise StripeError 429 if a limit is exceeded. Refused requests do not count towards the rates."""
        now = self._monotonic()
        while self._recent and self._recent[0][0] <= now - 1:
            self._recent.popleft()
        limits = self.limits
        if limits.concurrency is not None and self._in_flight > limits.concurrency:
            raise rate_limited("global-concurrency")
        if limits.global_rate is not None and len(self._recent) >= limits.global_rate:
            raise rate_limited("global-rate")
        endpoint_count = sum(1 for _, other in self._recent if other == endpoint)
        if limits.endpoint_rate is not None and endpoint_count >= limits.endpoint_rate:
            raise rate_limited("endpoint-rate")
        self._recent.append((now, endpoint))


def _raise_fault(fault: Fault | None, key: str, account_id: str) -> None:
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
    """Send headers for the whole body, and half of the body."""
    await send({"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers})
    half = bytes(response.body)[: len(response.body) // 2]
    await send({"type": "http.response.body", "body": half, "more_body": True})
    await asyncio.sleep(0.05)


async def _drop(send: Send) -> None:
    """Close the connection. ASGI has no message for that, so this uses the transport behind uvicorn's `send`."""
    with suppress(AttributeError):
        send.__self__.transport.close()  # type: ignore[attr-defined]
    await asyncio.sleep(0.01)


def _endpoint(path: str) -> str:
    parts = path.strip("/").split("/")
    is_object = len(parts) == 3 and parts[1] != "reporting"
    return "/" + "/".join([*parts[:2], ":id"] if is_object else parts)
