"""What a payload of Stripe's becomes before it is stored: scrubbed text beside the columns that decide who wins.

Pure and without a connection, so that readers can prepare rows side by side while another thread loads.
"""

import hashlib
from collections.abc import Mapping
from typing import Any, Final, Literal, NamedTuple, get_args

import orjson

from orchestration.warehouse.scrub import scrub, stored_json
from orchestration.warehouse.validation import MAX_ID, fault_of_event, fault_of_object, is_instant

ObjectTable = Literal["payment_intents", "charges", "refunds", "disputes"]
OBJECT_TABLES: Final[tuple[ObjectTable, ...]] = get_args(ObjectTable)
Source = Literal["list", "retrieve", "event", "webhook"]

_TABLE_OF_OBJECT: Final[dict[str, ObjectTable]] = {
    "payment_intent": "payment_intents",
    "charge": "charges",
    "refund": "refunds",
    "dispute": "disputes",
}

_FINALITY: Final[dict[str, dict[str, int]]] = {
    "payment_intent": {"succeeded": 2, "canceled": 2},
    "charge": {"succeeded": 1, "failed": 1},
    "refund": {"succeeded": 1, "failed": 2, "canceled": 2},
    "dispute": {"won": 1, "lost": 1, "warning_closed": 1, "prevented": 1},
}
"""Which state wins within one second. Only 2 can never be left again, so only 2 needs no second look at a tie. A refund
may fail after it succeeded; a charge goes on to be captured, refunded, disputed (docs: object lifecycles)."""


class Precedence:
    """Decides between payloads of one second; the greater text wins. Four parts: finality, source, kind, event id."""

    EVENT, LISTED, READ_AGAIN = 0, 1, 2
    """Where it came from. `READ_AGAIN` is an answer asked for after everything else: it settles a doubt."""

    @staticmethod
    def of(payload: Mapping[str, Any], source: int, *, is_created: bool = False, event_id: str | None = None) -> str:
        """`*.created` loses to all other events: whatever happened in that second happened after it."""
        finality = _FINALITY[payload["object"]].get(payload.get("status") or "", 0)
        return f"{finality}{source}{not is_created:d}{event_id or ''}"


_TOO_DEEP: Final = "The object is nested too deeply."


class ErrorRow(NamedTuple):
    """A `last_payment_error` that made no charge. Instants are unix seconds on Stripe's clock."""

    id: str
    payment_intent_id: str
    first_seen_at: int
    payload: str


class ObjectRow(NamedTuple):
    """One object as Stripe vouched for it at `as_of`. Instants are unix seconds on Stripe's clock."""

    id: str
    created: int
    payload: str
    as_of: int
    source: str
    event_id: str | None
    api_version: str | None
    precedence: str
    error: ErrorRow | None = None
    table: ObjectTable | None = None
    fault: str | None = None
    """Why the object may not enter the raw tables."""


class EventRow(NamedTuple):
    """One event, and the object it carries with its table where we keep such objects."""

    id: str
    created: int
    type: str
    object_id: str
    payload: str
    source: str
    api_version: str | None
    table: ObjectTable | None
    carried: ObjectRow | None
    fault: str | None = None
    """Why the event may not enter the raw tables."""


def object_row(
    payload: dict[str, Any],
    *,
    as_of: int,
    seen_by: int,
    api_version: str,
    source: Literal["list", "retrieve"],
    is_read_again: bool = False,
) -> ObjectRow:
    """Return the row of an object from a listing or a retrieve. By `seen_by` Stripe had certainly read it.

    The payload is the row's from now on: it is scrubbed in place. A row of an unusable object has a `fault`.
    """
    fault = fault_of_object(payload)
    if fault is not None:
        return _faulty_object(payload, as_of, source, fault)
    try:
        stored = stored_json(scrub(payload))
    except (RecursionError, orjson.JSONEncodeError):
        return _faulty_object(payload, as_of, source, _TOO_DEEP)
    precedence = Precedence.of(payload, Precedence.READ_AGAIN if is_read_again else Precedence.LISTED)
    error = _error_row(payload, seen_by)
    table = _TABLE_OF_OBJECT[payload["object"]]
    return ObjectRow(
        payload["id"], payload["created"], stored, as_of, source, None, api_version, precedence, error, table
    )


def event_row(event: dict[str, Any], source: Literal["event", "webhook"]) -> EventRow:
    """Return the rows of an event, which is scrubbed in place, and of the object it carries as that stood then.

    The row of an unusable event has a `fault`.
    """
    fault = fault_of_event(event)
    if fault is not None:
        return _faulty_event(event, source, fault)
    try:
        stored_event = stored_json(scrub(event))
    except (RecursionError, orjson.JSONEncodeError):
        return _faulty_event(event, source, _TOO_DEEP)
    carried = event["data"]["object"]
    event_id, created, version = event["id"], event["created"], event.get("api_version")
    table = _TABLE_OF_OBJECT.get(carried.get("object") or "")
    row = None
    if table is not None:
        precedence = Precedence.of(
            carried, Precedence.EVENT, is_created=event["type"].endswith(".created"), event_id=event_id
        )
        stored = stored_json(carried)
        row = ObjectRow(
            carried["id"], carried["created"], stored, created, source, event_id, version, precedence, None, table
        )
    return EventRow(event_id, created, event["type"], carried["id"], stored_event, source, version, table, row)


def _faulty_object(payload: Any, as_of: int, source: str, fault: str) -> ObjectRow:
    """Return a row that is only reported. It has a time, since a reader goes on from the last row of a page."""
    known: Mapping[str, Any] = payload if isinstance(payload, dict) else {}
    created = known["created"] if is_instant(known.get("created")) else as_of
    return ObjectRow(_text(known.get("id")), created, "", as_of, source, None, None, "", fault=fault)


def _faulty_event(event: Any, source: str, fault: str) -> EventRow:
    known: Mapping[str, Any] = event if isinstance(event, dict) else {}
    created = known["created"] if is_instant(known.get("created")) else 0
    return EventRow(
        _text(known.get("id")), created, _text(known.get("type")), "", "", source, None, None, None, fault=fault
    )


def _text(value: Any) -> str:
    """Return an id as far as it can be shown."""
    return value[:MAX_ID].encode("ascii", "replace").decode() if isinstance(value, str) else ""


def _error_row(intent: Mapping[str, Any], seen_by: int) -> ErrorRow | None:
    error = intent.get("last_payment_error")
    if not error or error.get("charge") or intent["object"] != "payment_intent":
        return None
    return ErrorRow(_error_id(intent["id"], error), intent["id"], seen_by, stored_json(error))


def _error_id(intent_id: str, error: Mapping[str, Any]) -> str:
    """Two sightings of one failure have the same id. Stripe gives an error none of its own."""
    method = error.get("payment_method")
    method_id = method.get("id") if isinstance(method, Mapping) else method
    parts = [error.get("code"), error.get("decline_code"), error.get("type"), method_id]
    digest = hashlib.sha256(orjson.dumps(parts)).hexdigest()[:16]
    return f"{intent_id}:lpe:{digest}"
