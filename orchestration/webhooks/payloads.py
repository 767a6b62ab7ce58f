"""Parse webhook bodies: an event from Stripe, or an event in an envelope of AWS EventBridge or Azure Event Grid."""

from collections.abc import Sequence
from typing import Any

import orjson

from orchestration.base.lenient_json import parse_leniently
from orchestration.warehouse.validation import fault_of_event, is_id

Json = dict[str, Any]


class NotAnEvent(ValueError):
    """The body is not an event that Recoup can store. The message says why and contains nothing of the body."""


def parse(text: bytes | str) -> Any:
    """Return the JSON value of a text. `parse_leniently` reads what the strict parser refuses.

    Raises:
        NotAnEvent: the text is not JSON.
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
    """Return the event after checking every field that is needed to store it.

    Raises:
        NotAnEvent: a field is missing, or not as Stripe documents it.
    """
    event = outline_of(parsed)
    fault = fault_of_event(event)
    if fault is not None:
        raise NotAnEvent(fault)
    return event


def outline_of(parsed: Any) -> Json:
    """Return the event after checking that it is one and which account and mode it names. Its object is not checked.

    Raises:
        NotAnEvent: the value is not an event of a kind that Recoup reads.
    """
    if not isinstance(parsed, dict):
        raise NotAnEvent("The body is not a JSON object.")
    if is_thin(parsed):
        raise NotAnEvent("This is a thin event. Choose the payload style Snapshot for the event destination at Stripe.")
    if parsed.get("object") != "event":
        raise NotAnEvent("The body is not a Stripe event.")
    _require(isinstance(parsed.get("livemode"), bool), "livemode")
    _require(parsed.get("account") is None or is_id(parsed["account"]), "account")
    return parsed


def is_thin(parsed: Any) -> bool:
    """Return whether a value is a thin event of Stripe's API v2, which contains no object."""
    return isinstance(parsed, dict) and parsed.get("object") == "v2.core.event"


def from_eventbridge(parsed: Any) -> Sequence[Any]:
    """Return the event in the `detail` of an AWS envelope (Stripe docs: event destinations, EventBridge).

    Raises:
        NotAnEvent: the value is not such an envelope.
    """
    detail = parsed.get("detail") if isinstance(parsed, dict) else None
    if not isinstance(detail, dict):
        raise NotAnEvent("The body is not an EventBridge envelope: it has no `detail`.")
    return [detail]


def validation_code(parsed: Any) -> str | None:
    """Return the code of Event Grid's validation request, or None if the value is another one.

    Event Grid expects the code back before it delivers events in its own schema.
    """
    first = parsed[0] if isinstance(parsed, list) and parsed else None
    if isinstance(first, dict) and first.get("eventType") == "Microsoft.EventGrid.SubscriptionValidationEvent":
        data = first.get("data")
        code = data.get("validationCode") if isinstance(data, dict) else None
        return code if isinstance(code, str) else None
    return None


def from_event_grid(parsed: Any) -> Sequence[Any]:
    """Return the events in the `data` of a CloudEvent, or of a list of them (Stripe docs: Event Grid).

    In a list, an envelope without `data` gives None, so that the other events are still received.

    Raises:
        NotAnEvent: the value is neither a list nor such an envelope.
    """
    if isinstance(parsed, list):
        return [envelope.get("data") if isinstance(envelope, dict) else None for envelope in parsed]
    if not isinstance(parsed, dict) or not isinstance(parsed.get("data"), dict):
        raise NotAnEvent("The body is not an Event Grid envelope: it has no `data`.")
    return [parsed["data"]]


def _require(is_met: bool, name: str) -> None:
    if not is_met:
        raise NotAnEvent(f"The event's `{name}` is missing, or not what Stripe documents.")
