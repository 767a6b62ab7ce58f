"""Webhook endpoints, and what Stripe sends to them: the exact bytes of an event and the header that signs them.

`deliveries` decides when, how often and in which order events are sent. The signature follows Stripe's documentation
and does not use its SDK, so that a receiver that uses the SDK is tested against an independent implementation.
"""

import hashlib
import hmac
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from orchestration.simulator.stripe.objects import Renderer
from orchestration.simulator.world.account import Entry, SimulatedAccount
from orchestration.simulator.world.steps import token

Json = dict[str, Any]

DEFAULT_WEBHOOK_SECRET: Final = "whsec_simulated_account_signs_everything"
"""Signing secret of simulated accounts. It is public."""

DEFAULT_ENABLED_EVENTS: Final = (
    "payment_intent.succeeded",
    "payment_intent.payment_failed",
    "payment_intent.processing",
    "payment_intent.requires_action",
    "payment_intent.canceled",
)
"""The event types of a PaymentIntent's progress."""


@dataclass(frozen=True)
class WebhookEndpoint:
    """A webhook endpoint, and the failures of its deliveries.

    The failures depend only on the account's seed and the event. Shares are from 0 to 1; seconds are simulated.

    Args:
        url: URL that events are posted to.
        secrets: signing secrets; several while a secret is rolled.
        enabled_events: event types that are sent; "*" for all.
        api_version: `api_version` of the events; None for that of the account.
        connect: whether it gets the events of connected accounts, with their `account`, instead of the account's own.
        duplicates: share of events that are delivered twice.
        shuffle: events that are due at the same time and happened within this many seconds are sent in random order.
        delay: seconds by which delayed events are sent late.
        delayed: share of events that are delayed.
        lost: share of events that are never sent, except manually.
        concurrency: largest number of simultaneous deliveries. If it is more than one, they may overtake each other.

    Raises:
        ValueError: invalid option.
    """

    url: str
    secrets: tuple[str, ...] = field(default=(DEFAULT_WEBHOOK_SECRET,), repr=False)
    enabled_events: tuple[str, ...] = DEFAULT_ENABLED_EVENTS
    api_version: str | None = None
    connect: bool = False
    duplicates: float = 0.0
    shuffle: int = 0
    delay: int = 0
    delayed: float = 1.0
    lost: float = 0.0
    concurrency: int = 4

    def __post_init__(self) -> None:
        address = urlsplit(self.url)
        if address.scheme not in ("http", "https") or not address.hostname or address.port == 0:
            raise ValueError(f"not the URL of a webhook endpoint: {self.url}")
        if not self.secrets or not self.enabled_events:
            raise ValueError("a webhook endpoint must have at least one secret and one event type")
        for secret in self.secrets:
            check_secret(secret)
        for share in ("duplicates", "delayed", "lost"):
            if not 0 <= getattr(self, share) <= 1:
                raise ValueError(f"{share} must be from 0 to 1")
        if min(self.shuffle, self.delay) < 0 or self.concurrency < 1:
            raise ValueError("shuffle and delay must be at least 0 seconds, concurrency at least 1")

    def accepts(self, event_type: str) -> bool:
        """Return whether events of this type are sent to the endpoint."""
        return "*" in self.enabled_events or event_type in self.enabled_events


def check_secret(secret: str) -> None:
    """Raise ValueError unless the secret has Stripe's prefix. The message does not contain the secret."""
    if not secret.startswith("whsec_"):
        raise ValueError("a webhook secret must begin with whsec_")


class WebhookEvent(NamedTuple):
    """An event to send. `payload` returns the body for an API version; None is the account's own version."""

    id: str
    type: str
    created: int
    payload: Callable[[str | None], bytes]


def webhook_event(account: SimulatedAccount, event: Entry, *, connect: bool) -> WebhookEvent:
    """Return an event as it is sent to endpoints of the account or, with `connect`, of its platform."""

    def payload(api_version: str | None) -> bytes:
        return webhook_payload(account, event, api_version=api_version, connect=connect)

    return WebhookEvent(event.id, event.event_type, event.created, payload)


def deauthorized_event(
    account: SimulatedAccount, platform: SimulatedAccount, *, client_id: str | None = None
) -> WebhookEvent:
    """Return the event for a platform when an account disconnects, or uninstalls the app with this client id.

    It belongs to the account that left, so the platform cannot read it from the API (stripe_event issue 15).
    """
    event_id, event_type = f"evt_1{token(account.id, 'left', account.now)[:23]}", "account.application.deauthorized"
    body: Json = {
        "id": event_id,
        "object": "event",
        "account": account.id,
        "api_version": account.event_api_version,
        "created": account.now,
        "data": {"object": _application(platform) | ({"id": client_id} if client_id else {})},
        "livemode": account.livemode,
        "pending_webhooks": 1,
        "request": {"id": None, "idempotency_key": None},
        "type": event_type,
    }
    return WebhookEvent(event_id, event_type, account.now, partial(_payload, body))


def webhook_payload(
    account: SimulatedAccount, event: Entry, *, api_version: str | None = None, connect: bool = False
) -> bytes:
    """Return the body that is posted for an event: as in /v1/events, with personal data, in Stripe's layout."""
    body = Renderer(account, is_connected=connect).render("events", event, event.created)
    return _payload(body | {"pending_webhooks": 1}, api_version)


def signature_header(payload: bytes, secrets: Iterable[str], timestamp: int, *, livemode: bool = False) -> str:
    """Return the value of `Stripe-Signature`: a v1 for each secret and, in test mode, a fake v0.

    Args:
        payload: body that is signed.
        secrets: signing secrets.
        timestamp: Unix seconds of the real clock, which receivers check.
        livemode: whether the account is in live mode.
    """
    signed = b"%d.%b" % (timestamp, payload)
    values = [f"v1={_hmac(secret.encode(), signed)}" for secret in secrets]
    if not livemode:
        values.append(f"v0={_hmac(b'no secret', signed)}")
    return ",".join([f"t={timestamp}", *values])


def _payload(body: Json, api_version: str | None) -> bytes:
    """Return an event in Stripe's layout with this `api_version`; None keeps the one it has."""
    version = body["api_version"] if api_version is None else api_version
    return json.dumps(body | {"api_version": version}, indent=2, ensure_ascii=False).encode()


def _application(platform: SimulatedAccount) -> Json:
    """Return the platform's Application object, as connected accounts see it."""
    return {"id": f"ca_{token(platform.id, 'application')}", "object": "application", "name": "Simulated Platform"}


def _hmac(key: bytes, message: bytes) -> str:
    return hmac.new(key, message, hashlib.sha256).hexdigest()
