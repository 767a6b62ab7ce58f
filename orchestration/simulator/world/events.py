"""The event types that each step emits, in order. `objects` renders the events.

The source is Stripe's documentation (SDK: `_event.py`). A metadata edit has no event. A charge has none when it is
disputed or when its refund fails.
"""

from typing import Final

from orchestration.simulator.world.steps import Act, Intent, Step

_TYPES_BY_ACT: Final[dict[Act, tuple[str, ...]]] = {
    Act.CREATED: ("payment_intent.created",),
    Act.CHALLENGED: ("payment_intent.requires_action",),
    Act.INSTRUCTED: ("payment_intent.requires_action",),
    Act.EXPIRED: ("payment_intent.payment_failed",),
    Act.AUTHENTICATION_FAILED: ("payment_intent.payment_failed",),
    Act.FAILED: ("charge.failed", "payment_intent.payment_failed"),
    Act.SUCCEEDED: ("charge.succeeded", "payment_intent.succeeded"),
    Act.AUTHORIZED: ("charge.succeeded", "payment_intent.amount_capturable_updated"),
    Act.CAPTURED: ("charge.captured", "payment_intent.succeeded"),
    Act.LAPSED: ("charge.expired", "payment_intent.canceled"),
    Act.PROCESSING: ("charge.pending", "payment_intent.processing"),
    Act.SETTLED: ("charge.succeeded", "payment_intent.succeeded"),
    Act.BOUNCED: ("charge.failed", "payment_intent.payment_failed"),
    Act.CANCELED: ("payment_intent.canceled",),
    Act.EDITED: (),
    Act.REPRICED: (),
    Act.BALANCED: ("charge.updated",),
    Act.REFUNDED: ("refund.created", "charge.refunded"),
    Act.REFUND_SETTLED: ("refund.updated", "charge.refund.updated"),
    Act.REFUND_FAILED: ("refund.failed", "charge.refund.updated"),
    Act.DISPUTED: ("charge.dispute.created",),
    Act.DISPUTE_ANSWERED: ("charge.dispute.updated",),
    Act.DISPUTE_CLOSED: ("charge.dispute.closed",),
}


def emitted_event_types(intent: Intent, step: Step) -> tuple[str, ...]:
    """Return the types of the events that a step of `intent` emits, in order."""
    types = _TYPES_BY_ACT[step.act]
    if step.act is Act.DISPUTED and not intent.disputes[step.nth].status.startswith("warning"):
        return (*types, "charge.dispute.funds_withdrawn")
    if step.act is Act.DISPUTE_CLOSED and step.detail == "won":
        return (*types, "charge.dispute.funds_reinstated")
    return types


def _subject(event_type: str) -> str:
    """Return the resource of the object in an event of this type."""
    if event_type.startswith("payment_intent."):
        return "payment_intents"
    if event_type.startswith("charge.dispute."):
        return "disputes"
    return "refunds" if "refund." in event_type else "charges"


EVENT_TYPES: Final = {
    event_type: _subject(event_type)
    for event_type in (
        *(event_type for types in _TYPES_BY_ACT.values() for event_type in types),
        "charge.dispute.funds_withdrawn",
        "charge.dispute.funds_reinstated",
    )
}
"""Resource of the object in each event type that the account emits."""
