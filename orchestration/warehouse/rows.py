"""What a payload of Stripe's becomes before it is stored: scrubbed text beside the columns that decide who wins.

Pure and without a connection, so that readers can prepare rows side by side while another thread loads.
"""

import hashlib
from collections.abc import Mapping
from typing import Any, Final, Literal, NamedTuple, get_args

from orchestration.warehouse.redact import redacted_json, stored_json
from orchestration.warehouse.validation import fault_of_event, fault_of_object

ObjectTable = Literal["payment_intents", "charges", "refunds", "disputes"]
OBJECT_TABLES: Final[tuple[ObjectTable, ...]] = get_args(ObjectTable)
Source = Literal["list", "retrieve", "event", "webhook"]

_TABLE_OF_OBJECT: Final[dict[str, ObjectTable]] = {
    "payment_intent": "payment_intents",
    "charge": "charges",
    "refund": "refunds",
    "dispute": "disputes",
}

OBJECT_NAMES: Final[dict[ObjectTable, str]] = {table: name for name, table in _TABLE_OF_OBJECT.items()}
"""The `object` of what each table holds."""

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

    EVENT, LISTED, REREAD = 0, 1, 2
    """Where it came from. `REREAD` is an answer asked for after everything else: it settles a doubt."""

    @staticmethod
    def of(payload: Mapping[str, Any], source: int, *, is_created: bool = False, event_id: str | None = None) -> str:
        """`*.created` loses to all other events: whatever happened in that second happened after it."""
        finality = _FINALITY[payload["object"]].get(payload.get("status") or "", 0)
        return f"{finality}{source}{not is_created:d}{event_id or ''}"


class InvalidPayload(ValueError):
    """Report an object or event that the models cannot compute with. The text says why, and repeats nothing of it."""


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


def object_row(
    payload: dict[str, Any],
    *,
    as_of: int,
    read_no_later_than: int,
    api_version: str,
    source: Literal["list", "retrieve"],
    is_reread: bool = False,
) -> ObjectRow:
    """Return the row of an object from a listing or a retrieve. By `read_no_later_than` Stripe had certainly read it.

    The payload is the row's from now on: it is redacted in place.

    Raises:
        InvalidPayload: the object is not what Stripe documents.
    """
    _reject_if(fault_of_object(payload))
    stored = redacted_json(payload)
    _reject_private_id(payload["id"])
    precedence = Precedence.of(payload, Precedence.REREAD if is_reread else Precedence.LISTED)
    error = _error_row(payload, read_no_later_than)
    return ObjectRow(payload["id"], payload["created"], stored, as_of, source, None, api_version, precedence, error)


def event_row(event: dict[str, Any], source: Literal["event", "webhook"]) -> EventRow:
    """Return the rows of an event, which is redacted in place, and of the object it carries as that stood then.

    Raises:
        InvalidPayload: the event, or the object of a raw table that it carries, is not what Stripe documents.
    """
    _reject_if(fault_of_event(event))
    stored_event = redacted_json(event)
    carried = event["data"]["object"]
    event_id, created, version = event["id"], event["created"], event.get("api_version")
    _reject_private_id(event_id, event["type"], carried["id"])
    table = _TABLE_OF_OBJECT.get(carried.get("object") or "")
    row = None
    if table is not None:
        precedence = Precedence.of(
            carried, Precedence.EVENT, is_created=event["type"].endswith(".created"), event_id=event_id
        )
        stored = stored_json(carried)
        row = ObjectRow(carried["id"], carried["created"], stored, created, source, event_id, version, precedence)
    return EventRow(event_id, created, event["type"], carried["id"], stored_event, source, version, table, row)


def _reject_if(fault: str | None) -> None:
    if fault is not None:
        raise InvalidPayload(fault)


def _reject_private_id(*ids: str | None) -> None:
    """Raise if the redaction dropped an id."""
    if None in ids:
        raise InvalidPayload("An id looks like a secret or personal data.")


def _error_row(intent: Mapping[str, Any], read_no_later_than: int) -> ErrorRow | None:
    error = intent.get("last_payment_error")
    if not error or error.get("charge") or intent["object"] != "payment_intent":
        return None
    return ErrorRow(_error_id(intent["id"], error), intent["id"], read_no_later_than, stored_json(error))


def _error_id(intent_id: str, error: Mapping[str, Any]) -> str:
    """Two sightings of one failure have the same id. Stripe gives an error none of its own."""
    method = error.get("payment_method")
    method_id = method.get("id") if isinstance(method, Mapping) else method
    parts = [error.get("code"), error.get("decline_code"), error.get("type"), method_id]
    digest = hashlib.sha256(stored_json(parts).encode()).hexdigest()[:16]
    return f"{intent_id}:lpe:{digest}"
