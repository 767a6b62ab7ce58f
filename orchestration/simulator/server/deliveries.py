"""Webhook deliveries: send each event to each endpoint that accepts it, until the endpoint answers with a 2xx.

As at Stripe, the order is not guaranteed, any other answer leads to a retry, and each try has a new signature. Two
clocks are involved: the account's clock decides when an event is due, the real clock when a failed try is repeated.

All sending happens on the event loop of the server and stops with it. The other methods are thread-safe.
"""

import asyncio
import time
from dataclasses import dataclass, field
from hashlib import blake2b
from heapq import heappop, heappush
from itertools import count
from threading import Lock
from typing import Final

import httpx

from orchestration.simulator.server.connect import Connections
from orchestration.simulator.server.webhooks import (
    WebhookEndpoint,
    WebhookEvent,
    check_secret,
    deauthorized_event,
    signature_header,
    webhook_event,
)
from orchestration.simulator.world.calibration import DAY
from orchestration.simulator.world.steps import token

_POLL_SECONDS: Final = 0.05
"""Real seconds between two checks of the account's clock."""


@dataclass(frozen=True)
class RetryPolicy:
    """When failed deliveries are retried. All values are in real seconds.

    The first wait is `first` seconds; each further wait is twice as long, up to `longest`. A delivery is abandoned
    `give_up_after` seconds after its first try, or after `tries` tries. A try without an answer within `timeout` has
    failed.
    """

    first: float = 0.5
    longest: float = 60.0
    give_up_after: float = 3 * DAY
    tries: int | None = None
    timeout: float = 10.0

    def wait(self, tries: int, seconds: float) -> float | None:
        """Return the seconds to wait after `tries` tries within `seconds`, or None to give up."""
        if seconds >= self.give_up_after or (self.tries is not None and tries >= self.tries):
            return None
        return min(self.longest, self.first * 2.0 ** min(tries - 1, 32))


@dataclass(order=True)
class _Delivery:
    """The delivery of one event to one endpoint.

    `at` is the time of the next try, `since` that of the first, both in seconds of the monotonic clock.
    """

    at: float
    serial: int
    event: WebhookEvent = field(compare=False)
    since: float = field(default=0.0, compare=False)
    tries: int = field(default=0, compare=False)


@dataclass
class DeliveryCounts:
    """The state of the deliveries to an endpoint.

    Args:
        delivered: number of deliveries answered with a 2xx. Duplicates and manual deliveries count as well.
        failed_tries: number of tries that failed.
        pending: ids of events that are due and not delivered yet.
        delayed: ids of events that happened and are due later on the account's clock.
        never_sent: ids of events that are lost on purpose and so never sent.
        given_up: ids of events that were abandoned after too many tries or too long a time.
        responses: status of the last answer for each event id; None if there was no answer.
    """

    delivered: int = 0
    failed_tries: int = 0
    pending: list[str] = field(default_factory=list)
    delayed: list[str] = field(default_factory=list)
    never_sent: list[str] = field(default_factory=list)
    given_up: list[str] = field(default_factory=list)
    responses: dict[str, int | None] = field(default_factory=dict)


class _Outbox:
    """The events for one endpoint: scheduled by the account's clock, then queued and retried by the real clock."""

    def __init__(
        self, connections: Connections, endpoint_id: str, endpoint: WebhookEndpoint, retry: RetryPolicy
    ) -> None:
        self.id, self.endpoint = endpoint_id, endpoint
        self._connections, self._account, self._retry = connections, connections.platform, retry
        self._secrets: dict[str, int | None] = dict.fromkeys(endpoint.secrets)
        self._scheduled_until = self._account.now
        self._scheduled: list[tuple[int, float, int, WebhookEvent]] = []
        self._queue: list[_Delivery] = []
        self._in_progress: dict[int, _Delivery] = {}
        self._counts = DeliveryCounts()
        self._serial = count()
        self._lock = Lock()
        self._is_open = True

    def update(self) -> None:
        """Schedule what has happened since the last call, and queue what is due."""
        with self._lock:
            now = self._account.now
            self._schedule_new_events(now)
            due = []
            while self._scheduled and self._scheduled[0][0] <= now:
                due.append(heappop(self._scheduled))
            for _, _, _, event in sorted(due, key=lambda scheduled: scheduled[1]):
                self._enqueue(event)

    def announce(self, event: WebhookEvent) -> None:
        """Schedule an event that is in no account's list of events, if the endpoint accepts its type."""
        with self._lock:
            if self.endpoint.accepts(event.type):
                self._schedule(event)

    def send_now(self, event: WebhookEvent) -> None:
        """Queue an event for sending now, even if it was sent before, or never."""
        with self._lock:
            self._enqueue(event)

    def roll(self, secret: str, expires_in: int) -> None:
        """Sign with a new secret, and for `expires_in` more seconds of the account's clock with the old ones too."""
        check_secret(secret)
        with self._lock:
            expiry = self._account.now + expires_in
            old = {each: expiry if until is None else min(until, expiry) for each, until in self._secrets.items()}
            self._secrets = {secret: None} | {each: until for each, until in old.items() if each != secret}

    def close(self) -> None:
        """Send nothing more."""
        with self._lock:
            self._is_open = False

    def counts(self) -> DeliveryCounts:
        """Return the state of the deliveries at the current time of the account's clock."""
        self.update()
        with self._lock:
            pending = [*self._in_progress.values(), *sorted(self._queue)]
            return DeliveryCounts(
                self._counts.delivered,
                self._counts.failed_tries,
                [delivery.event.id for delivery in pending],
                [event.id for _, _, _, event in sorted(self._scheduled)],
                list(self._counts.never_sent),
                list(self._counts.given_up),
                dict(self._counts.responses),
            )

    def send_due(self, tasks: asyncio.TaskGroup, client: httpx.AsyncClient) -> None:
        """Start the tries that are due, as far as the endpoint's concurrency allows."""
        with self._lock:
            while self._is_open and len(self._in_progress) < self.endpoint.concurrency:
                if not self._queue or self._queue[0].at > time.monotonic():
                    return
                delivery = heappop(self._queue)
                self._in_progress[delivery.serial] = delivery
                tasks.create_task(self._send(delivery, tasks, client))

    def _schedule_new_events(self, now: int) -> None:
        """Schedule the new events of the connected accounts or of the account itself, up to `now`."""
        connect = self.endpoint.connect
        for account in self._connections.accounts() if connect else [self._account]:
            for event in account.events_between(self._scheduled_until, now):
                if self.endpoint.accepts(event.event_type):
                    self._schedule(webhook_event(account, event, connect=connect))
        self._scheduled_until = now

    def _schedule(self, event: WebhookEvent) -> None:
        """Schedule an event for each time that it must be sent, or count it as lost."""
        endpoint = self.endpoint
        if self._is_chosen(event, "lost", endpoint.lost):
            self._counts.never_sent.append(event.id)
            return
        due = event.created + (endpoint.delay if self._is_chosen(event, "delayed", endpoint.delayed) else 0)
        for copy in range(2 if self._is_chosen(event, "duplicates", endpoint.duplicates) else 1):
            shift = self._chance(event, f"shuffle {copy}") * endpoint.shuffle if endpoint.shuffle else 0
            heappush(self._scheduled, (due, due + shift, next(self._serial), event))

    def _is_chosen(self, event: WebhookEvent, what: str, share: float) -> bool:
        """Return whether the event belongs to the share of events that `what` happens to."""
        return share > 0 and (share >= 1 or self._chance(event, what) < share)

    def _chance(self, event: WebhookEvent, what: str) -> float:
        """Return a number from 0 to below 1 that looks random and depends only on the seed, the event and `what`."""
        digest = blake2b(f"{self._account.seed}/{event.id}/{what}".encode(), digest_size=8).digest()
        return int.from_bytes(digest) / 2**64

    def _enqueue(self, event: WebhookEvent) -> None:
        heappush(self._queue, _Delivery(time.monotonic(), next(self._serial), event))

    async def _send(self, delivery: _Delivery, tasks: asyncio.TaskGroup, client: httpx.AsyncClient) -> None:
        """Try a delivery once, then start those that are due next."""
        if not delivery.tries:
            delivery.since = time.monotonic()
        delivery.tries += 1
        payload = delivery.event.payload(self.endpoint.api_version)
        self._record_result(delivery, await self._post(client, payload))
        self.send_due(tasks, client)

    async def _post(self, client: httpx.AsyncClient, payload: bytes) -> int | None:
        """Send a payload and return the status of the answer, or None without an answer in time."""
        try:
            async with asyncio.timeout(self._retry.timeout):
                answer = await client.post(self.endpoint.url, content=payload, headers=self._headers(payload))
        except (httpx.HTTPError, TimeoutError):
            return None
        return answer.status_code

    def _headers(self, payload: bytes) -> dict[str, str]:
        now = self._account.now
        secrets = [secret for secret, until in self._secrets.items() if until is None or now < until]
        return {
            "Accept": "*/*",
            "Content-Type": "application/json; charset=utf-8",
            "Stripe-Signature": signature_header(payload, secrets, int(time.time()), livemode=self._account.livemode),
            "User-Agent": "Stripe/1.0 (+https://stripe.com/docs/webhooks)",
        }

    def _record_result(self, delivery: _Delivery, status: int | None) -> None:
        """Count a try, and queue the delivery again if it failed and is not given up."""
        with self._lock:
            del self._in_progress[delivery.serial]
            self._counts.responses[delivery.event.id] = status
            if status is not None and 200 <= status < 300:
                self._counts.delivered += 1
                return
            self._counts.failed_tries += 1
            now = time.monotonic()
            wait = self._retry.wait(delivery.tries, now - delivery.since)
            if wait is None:
                self._counts.given_up.append(delivery.event.id)
                return
            delivery.at = now + wait
            heappush(self._queue, delivery)


class Deliverer:
    """The sender of events to registered endpoints, as the account's clock moves.

    An endpoint gets the events of the account itself or, with `connect`, those of its connected accounts. It gets what
    happens after its registration. `events_late` delays the list of events, but not deliveries.
    """

    def __init__(self, connections: Connections, retry: RetryPolicy | None = None) -> None:
        self._connections = connections
        self._retry = retry or RetryPolicy()
        self._outboxes: dict[str, _Outbox] = {}
        self._endpoint_serial = count(1)

    def register(self, endpoint: WebhookEndpoint) -> str:
        """Register an endpoint, which gets events from now on, and return its id (`we_…`)."""
        platform = self._connections.platform
        endpoint_id = f"we_1{token(platform.id, 'endpoint', next(self._endpoint_serial))[:23]}"
        self._outboxes[endpoint_id] = _Outbox(self._connections, endpoint_id, endpoint, self._retry)
        return endpoint_id

    def remove(self, endpoint_id: str) -> None:
        """Stop sending to an endpoint.

        Raises:
            KeyError: unknown endpoint.
        """
        self._outboxes.pop(endpoint_id).close()

    def roll(self, endpoint_id: str, secret: str, *, expires_in: int = DAY) -> None:
        """Sign with a new secret, and for `expires_in` more seconds of the account's clock with the old ones too.

        Raises:
            KeyError: unknown endpoint.
            ValueError: the secret does not begin with `whsec_`.
        """
        self._outboxes[endpoint_id].roll(secret, expires_in)

    def disconnect(self, account_id: str) -> None:
        """Disconnect a connected account. Its events so far and its deauthorization are still sent.

        Raises:
            KeyError: the account is not connected.
        """
        for outbox in self._connect_outboxes():
            outbox.update()
        account = self._connections.disconnect(account_id)
        self.announce(deauthorized_event(account, self._connections.platform))

    def announce(self, event: WebhookEvent) -> None:
        """Send an event that is in no account's list to the endpoints with `connect` that accept its type."""
        for outbox in self._connect_outboxes():
            outbox.announce(event)

    def resend(self, event_id: str, endpoint_id: str | None = None) -> list[str]:
        """Send an event again, like the button in Stripe's dashboard: to one endpoint, or to all that accept its type.

        Endpoints with `connect` get only events of connected accounts; the others get none of these.

        Returns:
            The ids of the endpoints that it is sent to.

        Raises:
            KeyError: unknown endpoint, or an event that does not exist or is past its retention.
        """
        chosen = list(self._outboxes.values()) if endpoint_id is None else [self._outboxes[endpoint_id]]
        event, connect = self._find(event_id)
        outboxes = [
            outbox
            for outbox in chosen
            if outbox.endpoint.connect == connect and (endpoint_id is not None or outbox.endpoint.accepts(event.type))
        ]
        for outbox in outboxes:
            outbox.send_now(event)
        return [outbox.id for outbox in outboxes]

    def _connect_outboxes(self) -> list[_Outbox]:
        return [outbox for outbox in list(self._outboxes.values()) if outbox.endpoint.connect]

    def _find(self, event_id: str) -> tuple[WebhookEvent, bool]:
        """Return an event, and whether it belongs to a connected account.

        Raises:
            KeyError: the event does not exist or is past its retention.
        """
        platform = self._connections.platform
        for account in [platform, *self._connections.accounts()]:
            event = account.find("events", event_id, account.now)
            if event is not None and not account.is_aged_out(event, account.now):
                connect = account is not platform
                return webhook_event(account, event, connect=connect), connect
        raise KeyError(event_id)

    def endpoints(self) -> dict[str, WebhookEndpoint]:
        """Return each endpoint as it was registered, by id."""
        return {endpoint_id: outbox.endpoint for endpoint_id, outbox in list(self._outboxes.items())}

    def counts(self) -> dict[str, DeliveryCounts]:
        """Return the state of deliveries by endpoint id."""
        return {endpoint_id: outbox.counts() for endpoint_id, outbox in list(self._outboxes.items())}

    async def run(self) -> None:
        """Deliver until cancelled, which aborts the tries in progress.

        The HTTP client is created when the first endpoint is registered.
        """
        while not self._outboxes:
            await asyncio.sleep(_POLL_SECONDS)
        async with _client() as client, asyncio.TaskGroup() as tasks:
            while True:
                for outbox in list(self._outboxes.values()):
                    outbox.update()
                    outbox.send_due(tasks, client)
                await asyncio.sleep(_POLL_SECONDS)


def _client() -> httpx.AsyncClient:
    """Return a client without redirects, proxies and timeout; the retry policy limits the time of a try."""
    return httpx.AsyncClient(timeout=None, follow_redirects=False, trust_env=False)
