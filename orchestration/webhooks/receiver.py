"""The HTTP side, as an ASGI application: it answers 2xx only for what is on disk, or what nobody wants.

What is genuine and wanted is kept, usable or not. Stripe would send the same again for days; instead the next run puts
what is unusable into quarantine, with the reason.

    POST /webhooks/stripe/<token>        signed by Stripe
    POST /webhooks/eventbridge/<token>   from AWS EventBridge, with the key of the event bus
    POST /webhooks/eventgrid/<token>     from Azure Event Grid, with the key of the event bus
    GET  /healthz   GET /metrics

Nothing of a body, a token or a secret is ever logged or answered.
"""

import asyncio
import hashlib
import hmac
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import orjson
from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from orchestration.warehouse.redact import redacted_json
from orchestration.warehouse.validation import fault_of_event, is_id, is_test_fixture
from orchestration.webhooks.endpoint import WebhookEndpoint
from orchestration.webhooks.errors import QueueUnavailable
from orchestration.webhooks.group_commit import GroupCommit
from orchestration.webhooks.metrics import Metrics
from orchestration.webhooks.payloads import (
    NotAnEvent,
    from_event_grid,
    from_eventbridge,
    is_thin,
    outline_of,
    parse,
    validation_code,
)
from orchestration.webhooks.queue import PASSED_OVER, Delivery, Queue
from orchestration.webhooks.signature import SignatureRefused, verify

logger = logging.getLogger(__name__)

MAX_BODY_BYTES: Final = 1024 * 1024
"""Bytes of a body. Stripe's events have some thousand."""

BODY_TIMEOUT_SECONDS: Final = 30.0
"""Seconds in which a body must have come."""

Watcher = Callable[[Mapping[str, Any]], object]
"""Is told of an event, in a thread."""

_STRIPE_PREFIX: Final = "/webhooks/stripe/"

_REFUSALS_KEPT_EVERY: Final = 2.0
"""Seconds between two writes of what was refused, so that a flood of forgeries is no flood of commits."""


class _Refused(Exception):
    """A request that is answered with `status` and counted as `reason`."""

    def __init__(self, status: int, reason: str, sentence: str) -> None:
        super().__init__(sentence)
        self.status, self.reason = status, reason


class _Validated(Exception):
    """Event Grid asks whether this address is ours."""

    def __init__(self, code: str) -> None:
        super().__init__()
        self.code = code


def create_receiver(
    queue: Queue,
    endpoints: Callable[[], Sequence[WebhookEndpoint]],
    *,
    stored_types: Collection[str],
    bus_key: SecretStr | None = None,
    watchers: Mapping[str, Watcher] | None = None,
    routes: Sequence[BaseRoute] = (),
) -> Starlette:
    """The application.

    Args:
        endpoints: asked for each request, so that a secret that is rolled needs no restart.
        wanted: event types that are stored; all others are acknowledged and counted.
        bus_key: what EventBridge and Event Grid send as `Authorization: Bearer …` or `X-Api-Key: …`; without one they
            are not served.
        watched: types of events to be told of as they come, wanted or not, each with whom to tell. Where that fails,
            the event is not acknowledged, and Stripe sends it again.
        routes: pages that are served on the same host.
    """
    return _Receiver(queue, endpoints, frozenset(stored_types), bus_key, watchers or {}).application(routes)


@dataclass
class _Receiver:
    queue: Queue
    endpoints: Callable[[], Sequence[WebhookEndpoint]]
    stored_types: frozenset[str]
    bus_key: SecretStr | None
    watchers: Mapping[str, Watcher] = field(default_factory=dict)
    refusals: Counter[tuple[str, str]] = field(default_factory=Counter)
    logged: set[tuple[str, str]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.intake = GroupCommit(self.queue)
        self.metrics = Metrics(self.queue)

    def application(self, more: Sequence[BaseRoute] = ()) -> Starlette:
        application = Starlette(
            routes=[
                Route(_STRIPE_PREFIX + "{token}", self.stripe, methods=["POST"]),
                Route("/webhooks/eventbridge/{token}", self.eventbridge, methods=["POST"]),
                Route("/webhooks/eventgrid/{token}", self.event_grid, methods=["POST", "OPTIONS"]),
                Route("/healthz", self.health),
                Route("/metrics", self.exposition),
                *more,
            ],
            middleware=[Middleware(_DirectRoute, prefix=_STRIPE_PREFIX, handler=self.stripe)],
            lifespan=self._lifespan,
        )
        application.router.redirect_slashes = False  # Stripe counts a redirect as a failure
        return application

    @asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        with suppress(QueueUnavailable):
            await asyncio.to_thread(self.queue.stats)  # connected before the first delivery, if it can be
        keeper = asyncio.create_task(self._keep_refusals())
        try:
            yield
        finally:
            keeper.cancel()
            with suppress(asyncio.CancelledError):
                await keeper
            await self._write_refusals()
            self.queue.close()

    async def stripe(self, request: Request) -> Response:
        async def receive(endpoint: WebhookEndpoint) -> Sequence[Any]:
            body = await _body(request)
            if not endpoint.secrets:  # so that Stripe sends it again, and nothing is lost meanwhile
                raise _Refused(503, "no_secret", "No signing secret is set for this endpoint yet.")
            verify(body, request.headers.get("stripe-signature"), endpoint.secrets)
            return [_parsed_or_none(body)]

        return await self._answer(request, receive)

    async def eventbridge(self, request: Request) -> Response:
        return await self._answer(request, lambda _: self._from_bus(request, from_eventbridge))

    async def event_grid(self, request: Request) -> Response:
        """CloudEvents 1.0 asks by OPTIONS whether this address takes events at all (HTTP webhook, section 4)."""
        if request.method == "OPTIONS":
            return self._allow(request)
        return await self._answer(request, lambda _: self._from_bus(request, from_event_grid))

    def _allow(self, request: Request) -> Response:
        try:
            self._endpoint(request.path_params["token"])
            self._bus_key()
        except _Refused as error:
            return self._refuse(None, error)
        origin = request.headers.get("webhook-request-origin") or "*"
        return Response(headers={"WebHook-Allowed-Origin": origin, "WebHook-Allowed-Rate": "*"})

    async def health(self, _: Request) -> Response:
        """200 while the queue can be read and deliveries are kept, else 503."""
        try:
            stats = await asyncio.to_thread(self.queue.stats)
            if failure := self.intake.failure():
                raise failure
        except QueueUnavailable as error:
            return _json(503, {"status": "unavailable", "error": str(error)})
        age = stats.age(datetime.now(UTC))
        return _json(200, {"status": "ok", "queued": stats.queued, "oldest_queued_seconds": round(age, 1)})

    async def exposition(self, _: Request) -> Response:
        text = await asyncio.to_thread(self.metrics.exposition)
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    async def _answer(self, request: Request, receive: Callable[[WebhookEndpoint], Any]) -> Response:
        started = time.perf_counter()
        endpoint: WebhookEndpoint | None = None
        try:
            endpoint = self._endpoint(request.path_params["token"])
            events = await receive(endpoint)
            stored = await self._keep(endpoint, events)
        except _Validated as validated:
            return _json(200, {"validationResponse": validated.code})
        except (_Refused, SignatureRefused, NotAnEvent, QueueUnavailable) as error:
            return self._refuse(endpoint, error)
        except ClientDisconnect:
            return _json(400, {"error": "The request ended before its body."})
        self.metrics.acknowledged(time.perf_counter() - started)
        return _json(200, {"received": True, "stored": stored})

    def _endpoint(self, token: str) -> WebhookEndpoint:
        """Compares with every token in the same time, whether it fits or not."""
        given = token.encode("utf-8", "replace")
        found = None
        for endpoint in self.endpoints():
            if hmac.compare_digest(endpoint.token.get_secret_value().encode(), given):
                found = endpoint
        if found is None:
            raise _Refused(404, "unknown_token", "Nothing is received at this address.")
        return found

    async def _from_bus(self, request: Request, unwrap: Callable[[Any], Sequence[Any]]) -> Sequence[Any]:
        body = await _body(request)
        key = self._bus_key().get_secret_value()
        scheme, _, bearer = (request.headers.get("authorization") or "").partition(" ")
        given = request.headers.get("x-api-key") or (bearer if scheme.lower() == "bearer" else "")
        if not hmac.compare_digest(given.encode(), key.encode()):
            raise _Refused(401, "wrong_bus_key", "The key of the event bus is missing or wrong.")
        parsed = parse(body)
        if unwrap is from_event_grid and (code := validation_code(parsed)):
            raise _Validated(code)
        return unwrap(parsed)

    def _bus_key(self) -> SecretStr:
        if self.bus_key is None:
            raise _Refused(404, "no_bus_key", "Nothing is received at this address.")
        return self.bus_key

    async def _keep(self, endpoint: WebhookEndpoint, events: Sequence[Any]) -> int:
        """Keep those of the genuine events that are wanted, pass over the others, and return how many were kept."""
        passed_over = [(event, _why_passed_over(event, self.stored_types, self.watchers)) for event in events]
        for event, reason in passed_over:
            if reason is None and event["type"] in self.watchers:
                await asyncio.to_thread(self.watchers[event["type"]], event)
        wanted = [event for event, reason in passed_over if reason is None and event["type"] in self.stored_types]
        if wanted:
            await self.intake.keep([_delivery(endpoint, event) for event in wanted])
        for event in wanted:
            self.metrics.received(event["type"], is_stored=True)
        for _ in range(len(events) - len(wanted)):
            self.metrics.received("other", is_stored=False)
        for _, reason in passed_over:
            if reason in PASSED_OVER:
                self._note_passed_over(endpoint, reason)
        return len(wanted)

    def _note_passed_over(self, endpoint: WebhookEndpoint, reason: str) -> None:
        """Count what was passed over for `recoup webhooks status`, and log the first of each kind."""
        self.refusals[endpoint.integration, reason] += 1
        if (endpoint.integration, reason) not in self.logged:
            self.logged.add((endpoint.integration, reason))
            logger.warning("Integration %s: %s It is answered with 200.", endpoint.integration, PASSED_OVER[reason])

    def _refuse(self, endpoint: WebhookEndpoint | None, error: Exception) -> Response:
        status, reason = 400, "not_an_event"
        if isinstance(error, _Refused):
            status, reason = error.status, error.reason
        elif isinstance(error, SignatureRefused):
            reason = error.reason
        elif isinstance(error, QueueUnavailable):
            status, reason = 503, "queue_unavailable"
        self.metrics.refused(reason)
        if endpoint is not None and reason != "queue_unavailable":
            self.refusals[endpoint.integration, reason] += 1
        text = "Not stored: try again later." if isinstance(error, QueueUnavailable) else str(error)
        return _json(status, {"error": text}, {"Retry-After": "5"} if status == 503 else None)

    async def _keep_refusals(self) -> None:
        while True:
            await asyncio.sleep(_REFUSALS_KEPT_EVERY)
            await self._write_refusals()

    async def _write_refusals(self) -> None:
        counted, self.refusals = self.refusals, Counter()
        by_integration: dict[str, dict[str, int]] = {}
        for (integration, reason), count in counted.items():
            by_integration.setdefault(integration, {})[reason] = count
        for integration, reasons in by_integration.items():
            try:
                await asyncio.to_thread(self.queue.count_refusals, integration, reasons, now=datetime.now(UTC))
            except QueueUnavailable:
                self.refusals.update({(integration, reason): count for reason, count in reasons.items()})


class _DirectRoute:
    """Pass POST requests below `prefix` to their handler, past Starlette's router and exception handlers.

    All other requests go through the router, which has a route to the same handler: it is used if the application is
    mounted below another path.
    """

    def __init__(self, app: ASGIApp, prefix: str, handler: Callable[[Request], Awaitable[Response]]) -> None:
        self._app, self._prefix, self._handler = app, prefix, handler

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST" and scope["path"].startswith(self._prefix):
            token = scope["path"][len(self._prefix) :]
            if token and "/" not in token:
                scope["path_params"] = {"token": token}
                response = await self._handler(Request(scope, receive, send))
                await response(scope, receive, send)
                return
        await self._app(scope, receive, send)


def _parsed_or_none(body: bytes) -> Any:
    """Return the JSON of a genuine body; None if it is none, which can be no event that anybody wants."""
    try:
        return parse(body)
    except NotAnEvent:
        return None


def _why_passed_over(event: Any, stored_types: Collection[str], watchers: Collection[str]) -> str | None:
    """Return why a genuine event is passed over; None for one that is to be kept or told of."""
    if is_thin(event):
        return "thin_event"
    kind = event.get("type") if isinstance(event, dict) else None
    if not isinstance(kind, str):
        return "no_event"
    data = event.get("data")
    carried = data.get("object") if isinstance(data, dict) else None
    if is_test_fixture(event.get("id")) or (isinstance(carried, dict) and is_test_fixture(carried.get("id"))):
        return "test_event"
    if kind in stored_types:
        return None
    return None if kind in watchers and _is_usable(event) else "unwanted"


def _is_usable(event: Any) -> bool:
    with suppress(NotAnEvent):
        return fault_of_event(outline_of(event)) is None
    return False


def _delivery(endpoint: WebhookEndpoint, event: dict[str, Any]) -> Delivery:
    """Return the event as it is kept: without secrets and personal fields, which never reach the disk.

    An event without a usable id is kept under a hash of its content.
    """
    payload = redacted_json(event)
    event_id = str(event.get("id"))
    if not is_id(event.get("id")):
        event_id = f"unusable_{hashlib.sha256(payload.encode()).hexdigest()[:32]}"
    return Delivery(endpoint.integration, event_id, payload, datetime.now(UTC), endpoint.account_id)


async def _body(request: Request) -> bytes:
    """The raw body, up to `MAX_BODY_BYTES`, in good time."""
    length = request.headers.get("content-length") or "0"
    if length.isdigit() and int(length) > MAX_BODY_BYTES:
        raise _too_large()
    parts, size = [], 0
    try:
        async with asyncio.timeout(BODY_TIMEOUT_SECONDS):
            async for part in request.stream():
                size += len(part)
                if size > MAX_BODY_BYTES:
                    raise _too_large()
                parts.append(part)
    except TimeoutError:
        raise _Refused(408, "too_slow", f"The body took more than {BODY_TIMEOUT_SECONDS:.0f} seconds.") from None
    return b"".join(parts)


def _too_large() -> _Refused:
    return _Refused(413, "too_large", f"The body has more than {MAX_BODY_BYTES:,} bytes.")


def _json(status: int, body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Response:
    return Response(orjson.dumps(body), status, headers=headers, media_type="application/json")
