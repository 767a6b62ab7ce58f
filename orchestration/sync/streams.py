"""The streams that a sync reads from Stripe: four kinds of object, and two feeds of the events about them.

Facts only: paths, event types and permissions. `readers` reads the streams; `engine` decides in which order.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from orchestration.warehouse.rows import ObjectTable

EVENT_RETENTION_SECONDS: Final = 30 * 86_400
"""Seconds that Stripe keeps an event in its list (SDK: `_event.py`). Older changes show only in the objects."""

EVENTS_PATH: Final = "/v1/events"


@dataclass(frozen=True)
class ObjectStream:
    """A kind of object. The backfill lists it by `created`; an event feed keeps it current."""

    name: ObjectTable
    path: str
    event_types: tuple[str, ...]


@dataclass(frozen=True)
class EventFeed:
    """A change feed: events of up to 20 types (Stripe's maximum for one list) about the objects of some streams."""

    name: str
    streams: tuple[ObjectStream, ...]

    def event_types(self, readable: Sequence[str]) -> list[str]:
        """Return the event types to request: those of the streams that are in `readable`."""
        return [kind for stream in self.streams if stream.name in readable for kind in stream.event_types]


PAYMENT_INTENTS: Final = ObjectStream(
    "payment_intents",
    "/v1/payment_intents",
    (
        "payment_intent.amount_capturable_updated",
        "payment_intent.canceled",
        "payment_intent.created",
        "payment_intent.partially_funded",
        "payment_intent.payment_failed",
        "payment_intent.processing",
        "payment_intent.requires_action",
        "payment_intent.succeeded",
    ),
)
CHARGES: Final = ObjectStream(
    "charges",
    "/v1/charges",
    (
        "charge.captured",
        "charge.expired",
        "charge.failed",
        "charge.pending",
        "charge.refunded",
        "charge.succeeded",
        "charge.updated",
    ),
)
REFUNDS: Final = ObjectStream(
    "refunds", "/v1/refunds", ("charge.refund.updated", "refund.created", "refund.failed", "refund.updated")
)
DISPUTES: Final = ObjectStream(
    "disputes",
    "/v1/disputes",
    (
        "charge.dispute.closed",
        "charge.dispute.created",
        "charge.dispute.funds_reinstated",
        "charge.dispute.funds_withdrawn",
        "charge.dispute.updated",
    ),
)
OBJECT_STREAMS: Final = (PAYMENT_INTENTS, CHARGES, REFUNDS, DISPUTES)

EVENT_FEEDS: Final = (
    EventFeed("payment_intent_events", (PAYMENT_INTENTS,)),
    EventFeed("charge_events", (CHARGES, REFUNDS, DISPUTES)),
)
"""There are two feeds because one list cannot request all types. They are divided by the permissions they need."""
