"""The webhook receiver, an ASGI application.

It answers 2xx only if an event is on disk or its type is not stored. A genuine event of a stored type is stored even if
Recoup cannot use it: otherwise Stripe would send it again for days. The next ingest puts it into quarantine, with the
reason.

    POST /webhooks/stripe/<token>        signed by Stripe
    POST /webhooks/eventbridge/<token>   from AWS EventBridge, with the key of the event bus
    POST /webhooks/eventgrid/<token>     from Azure Event Grid, with the key of the event bus
    GET  /healthz   GET /metrics

No log line and no answer contains any part of a body, a token or a secret.
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
from orchestration.webhooks.queue import IGNORED, Delivery, Queue
from orchestration.webhooks.signature import SignatureRefused, verify

logger = logging.getLogger(__name__)

MAX_BODY_BYTES: Final = 1024 * 1024
"""Largest size of a body. Stripe's events have a few thousand bytes."""

BODY_TIMEOUT_SECONDS: Final = 30.0
"""Seconds within which the whole body must arrive."""

_ReceiveEvents = Callable[[Request, WebhookEndpoint], Awaitable[Sequence[Any] | Response]]
"""Verifies a request and returns its events, or the answer to a request that has none."""

Watcher = Callable[[Mapping[str, Any]], object]
"""Called with an event, in a thread."""

_STRIPE_PREFIX: Final = "/webhooks/stripe/"

_COUNTS_INTERVAL_SECONDS: Final = 2.0
"""Seconds between two writes of the counts, so that many forged requests do not cause many commits."""


class _Refused(Exception):
    """A request is rejected: it is answered with `status` and counted as `reason`."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status, self.reason = status, reason


def create_receiver(
    queue: Queue,
    endpoints: Callable[[], Sequence[WebhookEndpoint]],
    *,
    stored_types: Collection[str],
    bus_key: SecretStr | None = None,
    watchers: Mapping[str, Watcher] | None = None,
    routes: Sequence[BaseRoute] = (),
) -> Starlette:
    """Create the receiver's ASGI application.

    Args:
        queue: Where events are stored.
        endpoints: Returns the current endpoints. It is called for each request, so that a rotated secret needs no
            restart.
        stored_types: Event types to store. All other events are acknowledged and counted.
        bus_key: The key that EventBridge and Event Grid send as `Authorization: Bearer …` or `X-Api-Key: …`. Without
            one, their requests are answered with 404.
        watchers: Functions to call with each event of a type, whether the type is stored or not. If a function fails,
            the event is not acknowledged, and Stripe sends it again.
        routes: Further pages of the same host.
    """
    return _Receiver(queue, endpoints, frozenset(stored_types), bus_key, watchers or {}).application(routes)


@dataclass
class _Receiver:
    queue: Queue
    endpoints: Callable[[], Sequence[WebhookEndpoint]]
    stored_types: frozenset[str]
    bus_key: SecretStr | None
    watchers: Mapping[str, Watcher] = field(default_factory=dict)
    not_stored: Counter[tuple[str, str]] = field(default_factory=Counter)
    logged: set[tuple[str, str]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.group_commit = GroupCommit(self.queue)
        self.metrics = Metrics(self.queue)

    def application(self, routes: Sequence[BaseRoute] = ()) -> Starlette:
        application = Starlette(
            routes=[
                Route(_STRIPE_PREFIX + "{token}", self.stripe, methods=["POST"]),
                Route("/webhooks/eventbridge/{token}", self.eventbridge, methods=["POST"]),
                Route("/webhooks/eventgrid/{token}", self.event_grid, methods=["POST", "OPTIONS"]),
                Route("/healthz", self.health),
                Route("/metrics", self.prometheus),
                *routes,
            ],
            middleware=[Middleware(_DirectRoute, prefix=_STRIPE_PREFIX, handler=self.stripe)],
            lifespan=self._lifespan,
        )
        application.router.redirect_slashes = False  # Stripe counts a redirect as a failure
        return application

    @asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        with suppress(QueueUnavailable):
            await asyncio.to_thread(self.queue.stats)  # connect before the first delivery
        writer = asyncio.create_task(self._write_not_stored_regularly())
        try:
            yield
        finally:
            writer.cancel()
            with suppress(asyncio.CancelledError):
                await writer
            await self._write_not_stored()
            self.queue.close()

    async def stripe(self, request: Request) -> Response:
        return await self._answer(request, self._receive_from_stripe)

    async def eventbridge(self, request: Request) -> Response:
        return await self._answer(request, self._receive_from_eventbridge)

    async def event_grid(self, request: Request) -> Response:
        if request.method == "OPTIONS":
            return self._allow_event_grid(request)
        return await self._answer(request, self._receive_from_event_grid)

    def _allow_event_grid(self, request: Request) -> Response:
        """Answer an OPTIONS request: whether this URL accepts events (CloudEvents 1.0 webhooks, section 4)."""
        try:
            self._endpoint(request.path_params["token"])
            self._bus_key()
        except _Refused as error:
            return self._refuse(None, error)
        origin = request.headers.get("webhook-request-origin") or "*"
        return Response(headers={"WebHook-Allowed-Origin": origin, "WebHook-Allowed-Rate": "*"})

    async def health(self, _: Request) -> Response:
        """Answer 200 if the queue can be read and the last commit did not fail recently, else 503."""
        try:
            stats = await asyncio.to_thread(self.queue.stats)
            if failure := self.group_commit.recent_failure():
                raise failure
        except QueueUnavailable as error:
            return _json(503, {"status": "unavailable", "error": str(error)})
        age = stats.age(datetime.now(UTC))
        return _json(200, {"status": "ok", "queued": stats.queued, "oldest_queued_seconds": round(age, 1)})

    async def prometheus(self, _: Request) -> Response:
        text = await asyncio.to_thread(self.metrics.render)
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    async def _answer(self, request: Request, receive: _ReceiveEvents) -> Response:
        """Receive and store the events of a request; return the answer to it."""
        started = time.perf_counter()
        endpoint: WebhookEndpoint | None = None
        try:
            endpoint = self._endpoint(request.path_params["token"])
            events = await receive(request, endpoint)
            if isinstance(events, Response):
                return events
            stored = await self._store(endpoint, events)
        except (_Refused, SignatureRefused, NotAnEvent, QueueUnavailable) as error:
            return self._refuse(endpoint, error)
        except ClientDisconnect:
            return _json(400, {"error": "The request ended before its body was complete."})
        self.metrics.observe_acknowledgement(time.perf_counter() - started)
        return _json(200, {"received": True, "stored": stored})

    def _endpoint(self, token: str) -> WebhookEndpoint:
        """Return the endpoint of a token. The time taken does not depend on the token, since each one is compared."""
        given = token.encode("utf-8", "replace")
        found = None
        for endpoint in self.endpoints():
            if hmac.compare_digest(endpoint.token.get_secret_value().encode(), given):
                found = endpoint
        if found is None:
            raise _Refused(404, "unknown_token", "There is no webhook endpoint at this URL.")
        return found

    async def _receive_from_stripe(self, request: Request, endpoint: WebhookEndpoint) -> Sequence[Any]:
        """Return the event of a request that Stripe signed, or None in its place if the body is not JSON."""
        body = await _body(request)
        if not endpoint.secrets:  # 503: Stripe sends the event again, so that no event is lost
            raise _Refused(503, "no_secret", "No signing secret is set for this endpoint yet.")
        verify(body, request.headers.get("stripe-signature"), endpoint.secrets)
        return [_parsed_or_none(body)]

    async def _receive_from_eventbridge(self, request: Request, _: WebhookEndpoint) -> Sequence[Any]:
        return from_eventbridge(await self._bus_request(request))

    async def _receive_from_event_grid(self, request: Request, _: WebhookEndpoint) -> Sequence[Any] | Response:
        """Return the events of a request from Event Grid, or the answer to its validation request."""
        parsed = await self._bus_request(request)
        if code := validation_code(parsed):
            return _json(200, {"validationResponse": code})
        return from_event_grid(parsed)

    async def _bus_request(self, request: Request) -> Any:
        """Return the parsed body of a request that has the key of the event bus."""
        body = await _body(request)
        key = self._bus_key().get_secret_value()
        scheme, _, bearer = (request.headers.get("authorization") or "").partition(" ")
        given = request.headers.get("x-api-key") or (bearer if scheme.lower() == "bearer" else "")
        if not hmac.compare_digest(given.encode(), key.encode()):
            raise _Refused(401, "wrong_bus_key", "The key of the event bus is missing or wrong.")
        return parse(body)

    def _bus_key(self) -> SecretStr:
        if self.bus_key is None:
            raise _Refused(404, "no_bus_key", "There is no webhook endpoint at this URL.")
        return self.bus_key

    async def _store(self, endpoint: WebhookEndpoint, events: Sequence[Any]) -> int:
        """Store the genuine events of stored types, call the watchers, and return how many events were stored."""
        reasons = [(event, _ignore_reason(event, self.stored_types, self.watchers)) for event in events]
        for event, reason in reasons:
            if reason is None and event["type"] in self.watchers:
                await asyncio.to_thread(self.watchers[event["type"]], event)
        to_store = [event for event, reason in reasons if reason is None and event["type"] in self.stored_types]
        if to_store:
            await self.group_commit.store([_delivery(endpoint, event) for event in to_store])
        for event in to_store:
            self.metrics.count_event(event["type"], is_stored=True)
        for _ in range(len(events) - len(to_store)):
            self.metrics.count_event("other", is_stored=False)
        for _, reason in reasons:
            if reason in IGNORED:
                self._note_ignored(endpoint, reason)
        return len(to_store)

    def _note_ignored(self, endpoint: WebhookEndpoint, reason: str) -> None:
        """Count an ignored event, which `recoup webhooks status` shows; log the first one of each reason."""
        self.not_stored[endpoint.integration, reason] += 1
        if (endpoint.integration, reason) not in self.logged:
            self.logged.add((endpoint.integration, reason))
            logger.warning("Integration %s: %s It is answered with 200.", endpoint.integration, IGNORED[reason])

    def _refuse(self, endpoint: WebhookEndpoint | None, error: Exception) -> Response:
        status, reason = 400, "not_an_event"
        if isinstance(error, _Refused):
            status, reason = error.status, error.reason
        elif isinstance(error, SignatureRefused):
            reason = error.reason
        elif isinstance(error, QueueUnavailable):
            status, reason = 503, "queue_unavailable"
        self.metrics.count_refusal(reason)
        if endpoint is not None and reason != "queue_unavailable":
            self.not_stored[endpoint.integration, reason] += 1
        text = "Not stored: try again later." if isinstance(error, QueueUnavailable) else str(error)
        return _json(status, {"error": text}, {"Retry-After": "5"} if status == 503 else None)

    async def _write_not_stored_regularly(self) -> None:
        while True:
            await asyncio.sleep(_COUNTS_INTERVAL_SECONDS)
            await self._write_not_stored()

    async def _write_not_stored(self) -> None:
        counted, self.not_stored = self.not_stored, Counter()
        by_integration: dict[str, dict[str, int]] = {}
        for (integration, reason), count in counted.items():
            by_integration.setdefault(integration, {})[reason] = count
        for integration, reasons in by_integration.items():
            try:
                await asyncio.to_thread(self.queue.count_not_stored, integration, reasons, now=datetime.now(UTC))
            except QueueUnavailable:
                self.not_stored.update({(integration, reason): count for reason, count in reasons.items()})


class _DirectRoute:
    """Middleware that passes POST requests below `prefix` to `handler`, without Starlette's router and error handlers.

    All other requests go through the router. Its own route to `handler` is used if the application is mounted below
    another path.
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
    """Return the JSON value of a genuine body, or None if it is not JSON and so not an event."""
    try:
        return parse(body)
    except NotAnEvent:
        return None


def _ignore_reason(event: Any, stored_types: Collection[str], watchers: Collection[str]) -> str | None:
    """Return why a genuine event is ignored, or None if it must be stored or passed to a watcher."""
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
    return None if kind in watchers and _is_usable(event) else "other_type"


def _is_usable(event: Any) -> bool:
    with suppress(NotAnEvent):
        return fault_of_event(outline_of(event)) is None
    return False


def _delivery(endpoint: WebhookEndpoint, event: dict[str, Any]) -> Delivery:
    """Return the redacted event for the queue, so that no secret or personal data reaches the disk.

    An event without a usable id gets an id from a hash of its content.
    """
    payload = redacted_json(event)
    event_id = str(event.get("id"))
    if not is_id(event.get("id")):
        event_id = f"unusable_{hashlib.sha256(payload.encode()).hexdigest()[:32]}"
    return Delivery(endpoint.integration, event_id, payload, datetime.now(UTC), endpoint.account_id)


async def _body(request: Request) -> bytes:
    """Return the raw body.

    Raises:
        _Refused: the body is larger than `MAX_BODY_BYTES` or takes longer than `BODY_TIMEOUT_SECONDS`.
    """
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
