"""Webhook endpoints, and what Stripe sends to one: the exact bytes of an event, and the header that signs them.

When an event is sent, how often and in which order is `deliveries`; the signature follows Stripe's documentation and
uses nothing of its SDK, so that a receiver is checked against something else than itself.
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
"""A signing secret that vouches for nothing but a simulated account."""

DEFAULT_ENABLED_EVENTS: Final = (
    "payment_intent.succeeded",
    "payment_intent.payment_failed",
    "payment_intent.processing",
    "payment_intent.requires_action",
    "payment_intent.canceled",
)
"""The types that tell how a payment goes."""


@dataclass(frozen=True)
class WebhookEndpoint:
    """Where an account sends its events, and what goes wrong on the way there.

    What goes wrong depends on the account's seed and the event only. Shares are from 0 to 1, seconds are simulated.

    Args:
        secrets: what deliveries are signed with, several while a secret is rolled.
        enabled_events: the types sent; "*" stands for all.
        api_version: the version that events say they were rendered in; None is the account's own.
        connect: whether it takes the events of connected accounts, which say whose they are, and not the account's own.
        duplicates: share of events delivered twice.
        shuffle: events that are due at once and happened within so many seconds are sent in random order.
        delay: seconds by which the share `delayed` of the events is sent late.
        lost: share of events never sent, except by hand.
        concurrency: deliveries under way at the same time; with more than one they may overtake each other.

    Raises:
        ValueError: no such endpoint can be.
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
            raise ValueError("a webhook endpoint has at least one secret and one type of events")
        for secret in self.secrets:
            check_secret(secret)
        for share in ("duplicates", "delayed", "lost"):
            if not 0 <= getattr(self, share) <= 1:
                raise ValueError(f"{share} is a share, 0 to 1")
        if min(self.shuffle, self.delay) < 0 or self.concurrency < 1:
            raise ValueError("shuffle and delay are seconds, 0 or more; concurrency is 1 or more")

    def takes(self, event_type: str) -> bool:
        """Whether events of this type are sent."""
        return "*" in self.enabled_events or event_type in self.enabled_events


def check_secret(secret: str) -> None:
    """Raises ValueError, without the secret, for one that Stripe would not make."""
    if not secret.startswith("whsec_"):
        raise ValueError("a webhook secret begins with whsec_")


class Notice(NamedTuple):
    """An event that endpoints are sent. `payload` makes what is posted, as of the API version that is asked for."""

    id: str
    type: str
    created: int
    payload: Callable[[str | None], bytes]


def notice_of(account: SimulatedAccount, event: Entry, *, connect: bool) -> Notice:
    """What endpoints are sent of an event: the account's own, or (`connect`) its platform's."""

    def payload(api_version: str | None) -> bytes:
        return webhook_payload(account, event, api_version=api_version, connect=connect)

    return Notice(event.id, event.about, event.created, payload)


def deauthorization(account: SimulatedAccount, platform: SimulatedAccount, *, client_id: str | None = None) -> Notice:
    """What a platform is sent when a connected account has left it, or has uninstalled the app with this client id.

    It is an event of the account that left, so that the platform can read it nowhere (stripe_event issue 15).
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
    return Notice(event_id, event_type, account.now, partial(_payload, body))


def webhook_payload(
    account: SimulatedAccount, event: Entry, *, api_version: str | None = None, connect: bool = False
) -> bytes:
    """The body that is posted for an event: what /v1/events shows, personal data included, in Stripe's layout."""
    body = Renderer(account, is_connected=connect).render("events", event, event.created)
    return _payload(body | {"pending_webhooks": 1}, api_version)


def signature_header(payload: bytes, secrets: Iterable[str], timestamp: int, *, livemode: bool = False) -> str:
    """The value of `Stripe-Signature`: a v1 for each secret and, in test mode, a v0 that nobody may believe.

    Args:
        timestamp: unix seconds on the real clock, which receivers check it against.
    """
    signed = b"%d.%b" % (timestamp, payload)
    values = [f"v1={_hmac(secret.encode(), signed)}" for secret in secrets]
    if not livemode:
        values.append(f"v0={_hmac(b'no secret', signed)}")
    return ",".join([f"t={timestamp}", *values])


def _payload(body: Json, api_version: str | None) -> bytes:
    """An event in Stripe's layout; a version of None leaves it the one it has."""
    version = body["api_version"] if api_version is None else api_version
    return json.dumps(body | {"api_version": version}, indent=2, ensure_ascii=False).encode()


def _application(platform: SimulatedAccount) -> Json:
    """What accounts are connected to, as they see it."""
    return {"id": f"ca_{token(platform.id, 'application')}", "object": "application", "name": "Simulated Platform"}


def _hmac(key: bytes, message: bytes) -> str:
    return hmac.new(key, message, hashlib.sha256).hexdigest()
