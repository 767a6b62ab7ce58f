"""What is inside a delivery: Stripe's event itself, or one wrapped by AWS EventBridge or by Azure Event Grid."""

from collections.abc import Sequence
from typing import Any

import orjson

from orchestration.base.lenient_json import parse_leniently
from orchestration.warehouse.validation import fault_of_event, is_id

Json = dict[str, Any]


class NotAnEvent(ValueError):
    """The body is not an event that Recoup can store. The text says why, and repeats nothing of the body."""


def parse(text: bytes | str) -> Any:
    """Return the JSON, of whatever shape. What a strict parser refuses is read by `parse_leniently`.

    Raises:
        NotAnEvent: it is no JSON.
    """
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        pass
    try:
        return parse_leniently(text)
    except ValueError:
        raise NotAnEvent("The body is not JSON.") from None


def event_of(parsed: Any) -> Json:
    """Return the event, checked as far as storing it needs.

    Raises:
        NotAnEvent: something is missing, or of another kind than Stripe documents.
    """
    event = outline_of(parsed)
    fault = fault_of_event(event)
    if fault is not None:
        raise NotAnEvent(fault)
    return event


def outline_of(parsed: Any) -> Json:
    """Return the event. Only what tells an event and its account is checked, nothing that it carries.

    Raises:
        NotAnEvent: it is no event of the kind that Recoup reads.
    """
    if not isinstance(parsed, dict):
        raise NotAnEvent("The body is not a JSON object.")
    if is_thin(parsed):
        raise NotAnEvent("This is a thin event. Choose the payload style Snapshot for the event destination at Stripe.")
    if parsed.get("object") != "event":
        raise NotAnEvent("The body is not an event of Stripe's.")
    _require(isinstance(parsed.get("livemode"), bool), "livemode")
    _require(parsed.get("account") is None or is_id(parsed["account"]), "account")
    return parsed


def is_thin(parsed: Any) -> bool:
    """Return whether this is an event of Stripe's API v2, which carries no object."""
    return isinstance(parsed, dict) and parsed.get("object") == "v2.core.event"


def from_eventbridge(parsed: Any) -> Sequence[Any]:
    """Return what AWS put into `detail` (Stripe docs: event destinations, EventBridge)."""
    detail = parsed.get("detail") if isinstance(parsed, dict) else None
    if not isinstance(detail, dict):
        raise NotAnEvent("This is not an envelope of EventBridge: it has no `detail`.")
    return [detail]


def validation_code(parsed: Any) -> str | None:
    """What Event Grid wants back before it delivers in its own schema; None for anything else."""
    first = parsed[0] if isinstance(parsed, list) and parsed else None
    if isinstance(first, dict) and first.get("eventType") == "Microsoft.EventGrid.SubscriptionValidationEvent":
        data = first.get("data")
        code = data.get("validationCode") if isinstance(data, dict) else None
        return code if isinstance(code, str) else None
    return None


def from_event_grid(parsed: Any) -> Sequence[Any]:
    """Return what Azure put into the `data` of a CloudEvent, alone or several in a list (Stripe docs: Event Grid).

    An envelope of a list that has no `data` is None: the others count all the same.
    """
    if isinstance(parsed, list):
        return [envelope.get("data") if isinstance(envelope, dict) else None for envelope in parsed]
    if not isinstance(parsed, dict) or not isinstance(parsed.get("data"), dict):
        raise NotAnEvent("This is not an envelope of Event Grid: it has no `data`.")
    return [parsed["data"]]


def _require(is_met: bool, name: str) -> None:
    if not is_met:
        raise NotAnEvent(f"The event's `{name}` is missing, or not what Stripe documents.")
