"""What is read from Stripe: four kinds of object, and the two event feeds that tell how they change.

Facts only (paths, event types, permissions). How they are read is `readers`, in which order `engine`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from orchestration.warehouse.rows import ObjectTable

EVENT_RETENTION: Final = 30 * 86_400
"""Seconds that Stripe lists an event (SDK: `_event.py`). Older changes show only in the objects themselves."""


EVENTS_PATH: Final = "/v1/events"


@dataclass(frozen=True)
class ObjectStream:
    """A kind of object, listed by `created` and kept current by its event feed."""

    name: ObjectTable
    path: str
    event_types: tuple[str, ...]


@dataclass(frozen=True)
class EventFeed:
    """Events of up to 20 types in one list (Stripe's maximum), about the objects of some streams."""

    name: str
    streams: tuple[ObjectStream, ...]

    def event_types(self, readable: Sequence[str]) -> list[str]:
        """The types to ask for: those about objects that the key may read."""
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
"""All types together are more than one list may ask for, so there are two feeds, cut where permissions are."""
