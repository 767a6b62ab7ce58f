"""Turn Stripe's payloads into rows: redacted JSON, and the columns that decide which payload of an object is kept.

No function here needs a database connection, so that several threads can prepare rows while another thread loads.
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
"""Stripe's name (`object`) of the objects in each table."""

_FINALITY: Final[dict[str, dict[str, int]]] = {
    "payment_intent": {"succeeded": 2, "canceled": 2},
    "charge": {"succeeded": 1, "failed": 1},
    "refund": {"succeeded": 1, "failed": 2, "canceled": 2},
    "dispute": {"won": 1, "lost": 1, "warning_closed": 1, "prevented": 1},
}
"""How final a status is, by kind of object. Within one second, the payload with the more final status is kept.

An object never leaves a status of finality 2, so that a tie needs no further read. A status of finality 1 can change: a
refund may fail after it succeeded, and a charge is captured, refunded or disputed (Stripe docs: object lifecycles).
"""


class Precedence:
    """Build the text that ranks payloads of the same second: the greatest text is kept.

    Its parts are finality (1 character), source (1 character), 0 for a `*.created` event and 1 for anything else, and
    the event id. SQL in `load.py` and `reread.py` matches these characters with LIKE.
    """

    EVENT, LISTED, REREAD = 0, 1, 2
    """Rank of each source. A webhook counts as EVENT, a list or a normal retrieve as LISTED.

    `REREAD` is the highest: the object was retrieved to resolve a tie.
    """

    @staticmethod
    def of(payload: Mapping[str, Any], source: int, *, is_created: bool = False, event_id: str | None = None) -> str:
        """Return the precedence of a payload. A `*.created` event ranks below all other events of its second."""
        finality = _FINALITY[payload["object"]].get(payload.get("status") or "", 0)
        return f"{finality}{source}{not is_created:d}{event_id or ''}"


class InvalidPayload(ValueError):
    """The models cannot use an object or event. The message says why and contains nothing of the payload."""


class ErrorRow(NamedTuple):
    """A `last_payment_error` without a charge. Instants are Unix seconds on Stripe's clock."""

    id: str
    payment_intent_id: str
    first_seen_at: int
    payload: str


class ObjectRow(NamedTuple):
    """An object's state at `as_of`. Instants are Unix seconds on Stripe's clock."""

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
    """An event, and the object that it contains if that object has a raw table."""

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
    """Return the row of an object from a list or a retrieve request.

    The payload is redacted in place; the caller must not use it again.

    Args:
        payload: The object, as Stripe returned it.
        as_of: Unix seconds on Stripe's clock at which the payload was the object's current state.
        read_no_later_than: Unix seconds by which Stripe had read the object.
        api_version: The API version of the payload.
        source: The kind of request.
        is_reread: Whether the object was retrieved to resolve a tie.

    Raises:
        InvalidPayload: the object is not as Stripe documents it.
    """
    _reject_if(fault_of_object(payload))
    stored = redacted_json(payload)
    _reject_private_id(payload["id"])
    precedence = Precedence.of(payload, Precedence.REREAD if is_reread else Precedence.LISTED)
    error = _error_row(payload, read_no_later_than)
    return ObjectRow(payload["id"], payload["created"], stored, as_of, source, None, api_version, precedence, error)


def event_row(event: dict[str, Any], source: Literal["event", "webhook"]) -> EventRow:
    """Return the row of an event, with the row of its object in the state that the event shows.

    The event is redacted in place.

    Raises:
        InvalidPayload: the event, or its object if that has a raw table, is not as Stripe documents it.
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
    """Return an id that is the same each time one failure is seen. Stripe does not give errors ids."""
    method = error.get("payment_method")
    method_id = method.get("id") if isinstance(method, Mapping) else method
    parts = [error.get("code"), error.get("decline_code"), error.get("type"), method_id]
    digest = hashlib.sha256(stored_json(parts).encode()).hexdigest()[:16]
    return f"{intent_id}:lpe:{digest}"
