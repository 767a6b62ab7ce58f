"""What is inside a delivery: Stripe's event itself, or one wrapped by AWS EventBridge or by Azure Event Grid."""

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

import orjson

from orchestration.warehouse.scrub import storable
from orchestration.warehouse.validation import KINDS, fault_of_event, is_id, missing_field

MAX_DEPTH: Final = 100
"""Levels of nesting that are kept. Stripe's objects have about ten."""

Json = dict[str, Any]


class NotAnEvent(ValueError):
    """The body is not an event that Recoup can store. The text says why, and repeats nothing of the body."""


def parse(text: bytes | str) -> Any:
    """Return the JSON, of whatever shape.

    What a strict parser refuses is read all the same: a byte order mark, lone surrogates, control characters, NaN, and
    numbers beyond 64 bits. What is nested deeper than `MAX_DEPTH` is null then.

    Raises:
        NotAnEvent: it is no JSON.
    """
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return _parse_leniently(text)


def shallow(node: Any) -> Any:
    """Set to null, in place, whatever is nested deeper than `MAX_DEPTH`, and return the node."""
    level = [node]
    for _ in range(MAX_DEPTH - 1):
        level = [child for each in level for child in _values(each) if isinstance(child, dict | list)]
    for each in level:
        for key, child in list(each.items() if isinstance(each, dict) else enumerate(each)):
            if isinstance(child, dict | list):
                each[key] = None
    return node


def _values(node: Any) -> Iterable[Any]:
    return node.values() if isinstance(node, dict) else node


def _parse_leniently(text: bytes | str) -> Any:
    try:
        decoded = (text.decode("utf-8") if isinstance(text, bytes) else text).removeprefix("\ufeff")
        return storable(json.loads(_cut(decoded), strict=False, parse_int=_integer, parse_constant=lambda _: None))
    except (ValueError, RecursionError):
        raise NotAnEvent("The body is not JSON.") from None


_TOKEN: Final = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[{]|[\]}]', re.DOTALL)
_MOST_DIGITS: Final = 300


def _cut(text: str) -> str:
    """Return JSON text with null for each object and array below `MAX_DEPTH`."""
    kept: list[str] = []
    depth = start = 0
    for token in _TOKEN.finditer(text):
        first = token.group()[0]
        if first in "[{":
            depth += 1
            if depth == MAX_DEPTH + 1:
                kept += text[start : token.start()], "null"
        elif first in "]}":
            if depth == MAX_DEPTH + 1:
                start = token.end()
            depth -= 1
    return "".join([*kept, text[start:]]) if depth <= MAX_DEPTH else text


def _integer(digits: str) -> int | None:
    """Return the number; None for one that no float can hold either."""
    return int(digits) if len(digits) <= _MOST_DIGITS else None


def event_of(parsed: Any) -> Json:
    """Return the event, checked as far as storing it needs.

    Raises:
        NotAnEvent: something is missing, or of another kind than Stripe documents.
    """
    event = outline_of(parsed)
    fault = fault_of_event(event)
    if fault is not None:
        raise NotAnEvent(fault)
    carried = event["data"]["object"]
    missing = missing_field(carried) if carried.get("object") in KINDS else None
    if missing:
        raise NotAnEvent(f"The object's `{missing}` is missing, or not what Stripe documents.")
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
