"""Webhook deliveries: each event of the account to each endpoint that wants it, until it is answered with a 2xx; those
of connected accounts to the endpoints that are for them.

As Stripe does it: in no promised order, again after anything but 2xx, each time with a new signature. Two clocks meet
here: when an event is due is told by the account's, when a failed try is repeated by the real one.

All sending happens on the event loop of the server, and ends with it at once. Any thread may ask and register.
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
    Notice,
    WebhookEndpoint,
    check_secret,
    deauthorization,
    notice_of,
    signature_header,
)
from orchestration.simulator.world.calibration import DAY
from orchestration.simulator.world.steps import token

_LOOK_SECONDS: Final = 0.05
"""Real seconds between two looks at the account's clock."""


@dataclass(frozen=True)
class RetryPolicy:
    """When a delivery that failed is tried again, in real seconds: after `first`, then twice as long, up to `longest`.

    It is given up `give_up_after` seconds from its first try, or after `tries` of them. A try that is not answered
    within `timeout` has failed.
    """

    first: float = 0.5
    longest: float = 60.0
    give_up_after: float = 3 * DAY
    tries: int | None = None
    timeout: float = 10.0

    def wait(self, tries: int, seconds: float) -> float | None:
        """Seconds to wait after so many tries within so many seconds; None to give up."""
        if seconds >= self.give_up_after or (self.tries is not None and tries >= self.tries):
            return None
        return min(self.longest, self.first * 2.0 ** min(tries - 1, 32))


@dataclass(order=True)
class _Delivery:
    """One event on its way to one endpoint. `at` is when it is next sent, `since` when first, both monotonic."""

    at: float
    serial: int
    event: Notice = field(compare=False)
    since: float = field(default=0.0, compare=False)
    tries: int = field(default=0, compare=False)


@dataclass
class DeliveryCounts:
    """How deliveries to an endpoint stand.

    Args:
        delivered: deliveries that were answered with a 2xx, a duplicate or one by hand as one more.
        failed_tries: tries that were not.
        pending: ids of events that are due and not delivered yet.
        delayed: ids of events that happened, and are due when the account's clock has moved on.
        lost: ids of events that are never sent.
        given_up: ids of events that were tried too often or too long.
        responses: status of the last answer for each event id, None where there was none.
    """

    delivered: int = 0
    failed_tries: int = 0
    pending: list[str] = field(default_factory=list)
    delayed: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    given_up: list[str] = field(default_factory=list)
    responses: dict[str, int | None] = field(default_factory=dict)


class _Outbox:
    """What one endpoint is to be sent: held until it is due on the account's clock, then queued on the real one."""

    def __init__(
        self, connections: Connections, endpoint_id: str, endpoint: WebhookEndpoint, retry: RetryPolicy
    ) -> None:
        self.id, self.endpoint = endpoint_id, endpoint
        self._connections, self._account, self._retry = connections, connections.platform, retry
        self._secrets: dict[str, int | None] = dict.fromkeys(endpoint.secrets)
        self._seen_until = self._account.now
        self._held: list[tuple[int, float, int, Notice]] = []
        self._queue: list[_Delivery] = []
        self._under_way: dict[int, _Delivery] = {}
        self._counts = DeliveryCounts()
        self._serial = count()
        self._lock = Lock()
        self._is_open = True

    def look(self) -> None:
        """Take up what has happened since the last look, and what was held until now."""
        with self._lock:
            now = self._account.now
            self._take_up(now)
            due = []
            while self._held and self._held[0][0] <= now:
                due.append(heappop(self._held))
            for _, _, _, event in sorted(due, key=lambda held: held[1]):
                self._enqueue(event)

    def tell(self, event: Notice) -> None:
        """Take up an event that no account tells of itself."""
        with self._lock:
            if self.endpoint.takes(event.type):
                self._hold(event)

    def add(self, event: Notice) -> None:
        """Send an event now, whatever became of it before."""
        with self._lock:
            self._enqueue(event)

    def roll(self, secret: str, expires_in: int) -> None:
        """Sign with a new secret, and with the present ones for so many more seconds of the account's clock."""
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
        """How things stand at this moment of the account's clock."""
        self.look()
        with self._lock:
            pending = [*self._under_way.values(), *sorted(self._queue)]
            return DeliveryCounts(
                self._counts.delivered,
                self._counts.failed_tries,
                [delivery.event.id for delivery in pending],
                [event.id for _, _, _, event in sorted(self._held)],
                list(self._counts.lost),
                list(self._counts.given_up),
                dict(self._counts.responses),
            )

    def send_due(self, tasks: asyncio.TaskGroup, client: httpx.AsyncClient) -> None:
        """Start as many tries as are due and the endpoint's concurrency allows."""
        with self._lock:
            while self._is_open and len(self._under_way) < self.endpoint.concurrency:
                if not self._queue or self._queue[0].at > time.monotonic():
                    return
                delivery = heappop(self._queue)
                self._under_way[delivery.serial] = delivery
                tasks.create_task(self._send(delivery, tasks, client))

    def _take_up(self, now: int) -> None:
        """Hold what has happened since the last time, to connected accounts or to the account itself."""
        connect = self.endpoint.connect
        for account in self._connections.accounts() if connect else [self._account]:
            for event in account.happened(self._seen_until, now):
                if self.endpoint.takes(event.about):
                    self._hold(notice_of(account, event, connect=connect))
        self._seen_until = now

    def _hold(self, event: Notice) -> None:
        """Keep an event until it is due, once for each time that it is to be sent."""
        endpoint = self.endpoint
        if self._befalls(event, "lost", endpoint.lost):
            self._counts.lost.append(event.id)
            return
        due = event.created + (endpoint.delay if self._befalls(event, "delayed", endpoint.delayed) else 0)
        for copy in range(2 if self._befalls(event, "duplicates", endpoint.duplicates) else 1):
            shift = self._chance(event, f"shuffle {copy}") * endpoint.shuffle if endpoint.shuffle else 0
            heappush(self._held, (due, due + shift, next(self._serial), event))

    def _befalls(self, event: Notice, what: str, share: float) -> bool:
        """Whether the event is one of the share that `what` happens to."""
        return share > 0 and (share >= 1 or self._chance(event, what) < share)

    def _chance(self, event: Notice, what: str) -> float:
        """A number from 0 to below 1 that looks random and depends on the seed, the event and `what` only."""
        digest = blake2b(f"{self._account.seed}/{event.id}/{what}".encode(), digest_size=8).digest()
        return int.from_bytes(digest) / 2**64

    def _enqueue(self, event: Notice) -> None:
        heappush(self._queue, _Delivery(time.monotonic(), next(self._serial), event))

    async def _send(self, delivery: _Delivery, tasks: asyncio.TaskGroup, client: httpx.AsyncClient) -> None:
        """Try once, and go on with what is due next."""
        if not delivery.tries:
            delivery.since = time.monotonic()
        delivery.tries += 1
        payload = delivery.event.payload(self.endpoint.api_version)
        self._settle(delivery, await self._post(client, payload))
        self.send_due(tasks, client)

    async def _post(self, client: httpx.AsyncClient, payload: bytes) -> int | None:
        """The status of the answer; None where there is none in time."""
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

    def _settle(self, delivery: _Delivery, status: int | None) -> None:
        """Count a try, and put the delivery back if it failed and is not to be given up."""
        with self._lock:
            del self._under_way[delivery.serial]
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
    """Sends events to the endpoints registered here, as the account's clock moves: the account's own or, to those with
    `connect`, those of the accounts connected to it.

    An endpoint gets what happens after it was registered. How late the list of events is (`events_late`) does not hold
    deliveries up.
    """

    def __init__(self, connections: Connections, retry: RetryPolicy | None = None) -> None:
        self._connections = connections
        self._retry = retry or RetryPolicy()
        self._outboxes: dict[str, _Outbox] = {}
        self._registered = count(1)

    def register(self, endpoint: WebhookEndpoint) -> str:
        """The id (`we_…`) of a new endpoint, which is sent events from now on."""
        platform = self._connections.platform
        endpoint_id = f"we_1{token(platform.id, 'endpoint', next(self._registered))[:23]}"
        self._outboxes[endpoint_id] = _Outbox(self._connections, endpoint_id, endpoint, self._retry)
        return endpoint_id

    def remove(self, endpoint_id: str) -> None:
        """Send an endpoint nothing more. Raises KeyError for an unknown one."""
        self._outboxes.pop(endpoint_id).close()

    def roll(self, endpoint_id: str, secret: str, *, expires_in: int = DAY) -> None:
        """Sign with a new secret as well, and after `expires_in` seconds of the account's clock with that alone.

        Raises:
            KeyError: there is no such endpoint.
            ValueError: it is no webhook secret.
        """
        self._outboxes[endpoint_id].roll(secret, expires_in)

    def disconnect(self, account_id: str) -> None:
        """Let a connected account leave: what happened to it until now is still sent, then that it left, then no more.

        Raises KeyError for an account that is not connected.
        """
        for outbox in self._for_connect():
            outbox.look()
        account = self._connections.disconnect(account_id)
        self.tell(deauthorization(account, self._connections.platform))

    def tell(self, event: Notice) -> None:
        """Send an event that no account tells of itself to the endpoints with `connect` that take its type."""
        for outbox in self._for_connect():
            outbox.tell(event)

    def resend(self, event_id: str, endpoint_id: str | None = None) -> list[str]:
        """Send an event once more, as by the dashboard's button: to one endpoint, or to all that take its type. Those
        with `connect` get the events of connected accounts only, the others none of them.

        Returns:
            the ids of the endpoints that it is sent to.

        Raises:
            KeyError: there is no such endpoint, or no such event that can still be read.
        """
        chosen = list(self._outboxes.values()) if endpoint_id is None else [self._outboxes[endpoint_id]]
        event, connect = self._find(event_id)
        outboxes = [
            outbox
            for outbox in chosen
            if outbox.endpoint.connect == connect and (endpoint_id is not None or outbox.endpoint.takes(event.type))
        ]
        for outbox in outboxes:
            outbox.add(event)
        return [outbox.id for outbox in outboxes]

    def _for_connect(self) -> list[_Outbox]:
        return [outbox for outbox in list(self._outboxes.values()) if outbox.endpoint.connect]

    def _find(self, event_id: str) -> tuple[Notice, bool]:
        """An event that can still be read, and whether it is a connected account's. Raises KeyError."""
        platform = self._connections.platform
        for account in [platform, *self._connections.accounts()]:
            event = account.find("events", event_id, account.now)
            if event is not None and not account.is_aged_out(event, account.now):
                connect = account is not platform
                return notice_of(account, event, connect=connect), connect
        raise KeyError(event_id)

    def endpoints(self) -> dict[str, WebhookEndpoint]:
        """Every endpoint as it was registered, by its id."""
        return {endpoint_id: outbox.endpoint for endpoint_id, outbox in list(self._outboxes.items())}

    def counts(self) -> dict[str, DeliveryCounts]:
        """How deliveries stand, by endpoint."""
        return {endpoint_id: outbox.counts() for endpoint_id, outbox in list(self._outboxes.items())}

    async def run(self) -> None:
        """Deliver until cancelled; what is under way then is broken off. The first endpoint makes the client."""
        while not self._outboxes:
            await asyncio.sleep(_LOOK_SECONDS)
        async with _client() as client, asyncio.TaskGroup() as tasks:
            while True:
                for outbox in list(self._outboxes.values()):
                    outbox.look()
                    outbox.send_due(tasks, client)
                await asyncio.sleep(_LOOK_SECONDS)


def _client() -> httpx.AsyncClient:
    """Follows no redirect, and no proxy of this machine's; how long a try may take is the retry policy's."""
    return httpx.AsyncClient(timeout=None, follow_redirects=False, trust_env=False)
