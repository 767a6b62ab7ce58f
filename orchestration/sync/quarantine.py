"""Separate objects that cannot be read from the others, with a reason, so that they do not fail their account's sync.

Pure: no requests and no storage. A reason never repeats anything that the object contains.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple, TypeVar

from orchestration.stripe_api import API_VERSION, Answer
from orchestration.sync.context import DAY
from orchestration.sync.windows import Window
from orchestration.warehouse.redact import redact
from orchestration.warehouse.rows import (
    OBJECT_NAMES,
    EventRow,
    InvalidPayload,
    ObjectRow,
    ObjectTable,
    event_row,
    object_row,
)
from orchestration.warehouse.validation import is_id, is_instant


class Unreadable(NamedTuple):
    """An object that could not be read, with its id and `created` (unix seconds) if these could be read."""

    id: str | None
    created: int | None
    reason: str


Row = TypeVar("Row", ObjectRow, EventRow)

_IN_THE_FUTURE: Final = "Its `created` is in the future."


def object_rows(
    payloads: Iterable[Any],
    answer: Answer,
    table: ObjectTable,
    source: Literal["list", "retrieve"],
    *,
    is_reread: bool,
) -> list[ObjectRow | Unreadable]:
    """Return a row for each object of a list or a retrieve, in the same order."""

    def row(payload: dict[str, Any]) -> ObjectRow:
        _reject_unless(payload.get("object") == OBJECT_NAMES[table], "Its `object` is not the one of its list.")
        result = object_row(
            payload,
            as_of=answer.read_no_earlier_than,
            read_no_later_than=answer.read_no_later_than,
            api_version=API_VERSION,
            source=source,
            is_reread=is_reread,
        )
        _reject_unless(result.created <= answer.read_no_later_than + DAY, _IN_THE_FUTURE)
        return result

    return [_read(payload, row) for payload in payloads]


def event_rows(answer: Answer) -> list[EventRow | Unreadable]:
    """Return a row for each event of a page, in the same order."""
    return [_read(event, _event_row) for event in answer.body["data"]]


def _event_row(event: dict[str, Any]) -> EventRow:
    """Return the row of an event.

    Raises:
        InvalidPayload: it is not an event, or it carries an object from the future.
    """
    _reject_unless(event.get("object") == "event", "Its `object` is not event.")
    row = event_row(event, "event")
    _reject_unless(row.carried is None or row.carried.created <= row.created + DAY, _IN_THE_FUTURE)
    return row


def _read(payload: Any, read: Callable[[dict[str, Any]], Row]) -> Row | Unreadable:
    """Return the row that `read` makes of the payload, or why it cannot."""
    if not isinstance(payload, dict):
        return Unreadable(None, None, "It is not a JSON object.")
    try:
        return read(payload)
    except InvalidPayload as rejection:
        object_id, created = payload.get("id"), payload.get("created")
        return Unreadable(
            object_id if is_id(object_id) else None, created if is_instant(created) else None, str(rejection)
        )


@dataclass(frozen=True)
class LocatedUnreadable:
    """An unreadable object and the range in which it was created, [floor, ceiling) in unix seconds.

    `key` identifies it in the quarantine. `id` is the object's id as it may be stored (`redact_id`), or None.
    """

    key: str
    id: str | None
    reason: str
    floor: int
    ceiling: int


@dataclass(frozen=True)
class PageParts:
    """The parts of a page: its rows, its unreadable objects, and the cursors from which its list can continue.

    Each of `cursors` is an id with a second (unix): its object was created in that second or before. `oldest` is the
    earliest `created` of all objects in the page.
    """

    rows: list[Any]
    unreadable: tuple[LocatedUnreadable, ...]
    cursors: list[tuple[str, int]]
    oldest: int | None


def split_page(entries: Sequence[Any], requested: Window, has_more: bool) -> PageParts:
    """Split a page (newest first) into its parts. An object from outside the requested window counts as unreadable."""
    floor = -1 if requested.floor is None else requested.floor
    if all(type(each) is not Unreadable and floor <= each.created < requested.ceiling for each in entries):
        cursors = [(each.id, each.created) for each in entries]
        return PageParts(list(entries), (), cursors, cursors[-1][1] if cursors else None)
    checked = [_within_window(each, floor, requested.ceiling) for each in entries]
    at = requested.ceiling - 1 if requested.cursor_at is None else requested.cursor_at
    cursors, positions = [], []
    for position, each in enumerate(checked):
        at = at if each.created is None else min(at, each.created)
        if each.id is not None:
            cursors.append((each.id, at))
            positions.append(position)
    # Objects below the last cursor of a page appear again at the top of the next page.
    end = positions[-1] + 1 if has_more and positions else len(checked)
    unreadable = _locate_unreadable(checked, requested)
    rows = [each for each in checked if type(each) is not Unreadable]
    known = [each.created for each in checked if each.created is not None]
    return PageParts(
        rows, tuple(each for position, each in unreadable if position < end), cursors, min(known, default=None)
    )


def _within_window(entry: Any, floor: int, ceiling: int) -> Any:
    """Return the entry if it was created in [floor, ceiling), else an unreadable object in its place."""
    if entry.created is None or floor <= entry.created < ceiling:
        return entry
    if type(entry) is Unreadable:
        return entry._replace(created=None)
    return Unreadable(entry.id, None, "Its `created` is outside the requested time.")


def _locate_unreadable(checked: Sequence[Any], requested: Window) -> list[tuple[int, LocatedUnreadable]]:
    """Return each unreadable object with its position and the time of its creation, estimated from its neighbors."""
    found: list[tuple[int, LocatedUnreadable]] = []
    newer = requested.ceiling - 1 if requested.cursor_at is None else requested.cursor_at
    without_id_count = 0
    for position, each in enumerate(checked):
        if type(each) is Unreadable:
            older = next((one.created for one in checked[position:] if one.created is not None), newer - DAY)
            floor, ceiling = min(older, newer), (newer if each.created is None else each.created) + 1
            floor = floor if requested.floor is None else max(floor, requested.floor)
            key = each.id
            if key is None:
                key, without_id_count = f"{floor}-{ceiling}-{without_id_count}", without_id_count + 1
            found.append((position, LocatedUnreadable(key, redact_id(each.id), each.reason, floor, ceiling)))
        if each.created is not None:
            newer = each.created
    return found


def redact_id(object_id: str | None) -> str | None:
    """Return the id as it may be stored, or None if it could contain a secret or personal data."""
    stored = redact({"object": object_id})["object"]
    return stored if isinstance(stored, str) else None


def _reject_unless(is_met: bool, reason: str) -> None:
    """Raise `InvalidPayload` with the reason unless the condition is met."""
    if not is_met:
        raise InvalidPayload(reason)
