"""What is inside a delivery: Stripe's event itself, or one wrapped by AWS EventBridge or by Azure Event Grid."""

from collections.abc import Sequence
from typing import Any, Final

import orjson

MAX_ID: Final = 255
_MAX_INSTANT: Final = 2**33
"""Unix seconds in the year 2242: beyond it nothing is a time of Stripe's."""

SAMPLE_PREFIX: Final = "evt_recoup_sample_"
"""Ids of the events that `recoup webhooks test` makes: they are logged as received, and tell of no payment."""

_MAX_AMOUNT: Final = 10**15
"""Minor units, far beyond what Stripe takes in any currency."""

Json = dict[str, Any]


class NotAnEvent(ValueError):
    """The body is not an event that Recoup can store. The text says why, and repeats nothing of the body."""


def parse(text: bytes | str) -> Any:
    """JSON, of whatever shape.

    Raises:
        NotAnEvent: it is none.
    """
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        raise NotAnEvent("The body is not JSON.") from None


def event_of(parsed: Any) -> Json:
    """The event, checked as far as storing it needs.

    Raises:
        NotAnEvent: something is missing, or of another kind than Stripe documents.
    """
    if not isinstance(parsed, dict):
        raise NotAnEvent("The body is not a JSON object.")
    if parsed.get("object") == "v2.core.event":
        raise NotAnEvent("This is a thin event. Choose the payload style Snapshot for the event destination at Stripe.")
    if parsed.get("object") != "event":
        raise NotAnEvent("The body is not an event of Stripe's.")
    _require(_is_id(parsed.get("id")), "id")
    _require(_is_id(parsed.get("type")), "type")
    _require(_is_instant(parsed.get("created")), "created")
    _require(isinstance(parsed.get("livemode"), bool), "livemode")
    _require(parsed.get("account") is None or _is_id(parsed["account"]), "account")
    _require(parsed.get("api_version") is None or isinstance(parsed["api_version"], str), "api_version")
    data = parsed.get("data")
    carried = data.get("object") if isinstance(data, dict) else None
    _require(isinstance(carried, dict) and _is_id(carried.get("id")), "data.object")
    return parsed


def check_carried(carried: Json) -> None:
    """What the models compute with: an instant, and an amount of money in minor units.

    Raises:
        NotAnEvent: it is none.
    """
    if not _is_instant(carried.get("created")):
        raise NotAnEvent("The `created` of the event's object is not an instant.")
    if not _is_money(carried.get("amount")):
        raise NotAnEvent("The `amount` of the event's object is no amount of money.")


def from_eventbridge(parsed: Any) -> Sequence[Json]:
    """AWS puts the event into `detail` (Stripe docs: event destinations, EventBridge)."""
    detail = parsed.get("detail") if isinstance(parsed, dict) else None
    if not isinstance(detail, dict):
        raise NotAnEvent("This is not an envelope of EventBridge: it has no `detail`.")
    return [event_of(detail)]


def validation_code(parsed: Any) -> str | None:
    """What Event Grid wants back before it delivers in its own schema; None for anything else."""
    first = parsed[0] if isinstance(parsed, list) and parsed else None
    if isinstance(first, dict) and first.get("eventType") == "Microsoft.EventGrid.SubscriptionValidationEvent":
        data = first.get("data")
        code = data.get("validationCode") if isinstance(data, dict) else None
        return code if isinstance(code, str) else None
    return None


def from_event_grid(parsed: Any) -> Sequence[Json]:
    """Azure puts the event into the `data` of a CloudEvent, alone or several in a list (Stripe docs: Event Grid)."""
    envelopes = parsed if isinstance(parsed, list) else [parsed]
    if not all(isinstance(envelope, dict) and isinstance(envelope.get("data"), dict) for envelope in envelopes):
        raise NotAnEvent("This is not an envelope of Event Grid: it has no `data`.")
    return [event_of(envelope["data"]) for envelope in envelopes]


def _is_money(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _MAX_AMOUNT


def _is_instant(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _MAX_INSTANT


def _require(is_met: bool, name: str) -> None:
    if not is_met:
        raise NotAnEvent(f"The event's `{name}` is missing, or not what Stripe documents.")


def _is_id(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= MAX_ID and value.isprintable() and value.isascii()
