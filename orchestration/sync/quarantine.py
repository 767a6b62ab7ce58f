"""Which of Stripe's objects cannot be read, and why. One of them must not end the sync of its account.

Pure: no requests and no storage. The reasons repeat nothing of what an object holds.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple, TypeVar

from orchestration.stripe_api import API_VERSION, Answer
from orchestration.sync.context import DAY
from orchestration.sync.windows import Window
from orchestration.warehouse.redact import scrub
from orchestration.warehouse.rows import OBJECT_NAMES, EventRow, ObjectRow, ObjectTable, Rejected, event_row, object_row
from orchestration.warehouse.validation import is_id, is_instant


class Unreadable(NamedTuple):
    """An object that could not be read, with its id and second of creation (unix seconds) if these could be."""

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
    is_read_again: bool,
) -> list[ObjectRow | Unreadable]:
    """Return the rows of objects from a list or a retrieve, in their order."""

    def row(payload: dict[str, Any]) -> ObjectRow:
        _reject_unless(payload.get("object") == OBJECT_NAMES[table], "Its `object` is not what its list holds.")
        made = object_row(
            payload,
            as_of=answer.read_no_earlier_than,
            seen_by=answer.read_no_later_than,
            api_version=API_VERSION,
            source=source,
            is_read_again=is_read_again,
        )
        _reject_unless(made.created <= answer.read_no_later_than + DAY, _IN_THE_FUTURE)
        return made

    return [_read(payload, row) for payload in payloads]


def event_rows(answer: Answer) -> list[EventRow | Unreadable]:
    """Return the rows of a page of events, in its order."""
    return [_read(event, _event_row) for event in answer.body["data"]]


def _event_row(event: dict[str, Any]) -> EventRow:
    _reject_unless(event.get("object") == "event", "Its `object` is not event.")
    row = event_row(event, "event")
    _reject_unless(row.carried is None or row.carried.created <= row.created + DAY, _IN_THE_FUTURE)
    return row


def _read(payload: Any, read: Callable[[dict[str, Any]], Row]) -> Row | Unreadable:
    if not isinstance(payload, dict):
        return Unreadable(None, None, "It is not a JSON object.")
    try:
        return read(payload)
    except Rejected as rejection:
        object_id, created = payload.get("id"), payload.get("created")
        return Unreadable(
            object_id if is_id(object_id) else None, created if is_instant(created) else None, str(rejection)
        )


@dataclass(frozen=True)
class Located:
    """An unreadable object, and the time in which it was created, [floor, ceiling) in unix seconds."""

    key: str
    id: str | None
    reason: str
    floor: int
    ceiling: int


@dataclass(frozen=True)
class PageParts:
    """The parts of a page: its rows, what is unreadable, and where its list goes on.

    `cursors` are the ids that may be listed on from, each with a second that its object was certainly not created
    after. `oldest` is the earliest second that anything in the page says it was created in.
    """

    rows: list[Any]
    unreadable: tuple[Located, ...]
    cursors: list[tuple[str, int]]
    oldest: int | None


def divide(entries: Sequence[Any], asked: Window, has_more: bool) -> PageParts:
    """Divide a page, newest first, into its parts. What was created outside of the time asked for is unreadable."""
    floor = -1 if asked.floor is None else asked.floor
    if all(type(each) is not Unreadable and floor <= each.created < asked.ceiling for each in entries):
        cursors = [(each.id, each.created) for each in entries]
        return PageParts(list(entries), (), cursors, cursors[-1][1] if cursors else None)
    placed = [_placed(each, floor, asked.ceiling) for each in entries]
    at = asked.ceiling - 1 if asked.cursor_at is None else asked.cursor_at
    cursors, positions = [], []
    for position, each in enumerate(placed):
        at = at if each.created is None else min(at, each.created)
        if each.id is not None:
            cursors.append((each.id, at))
            positions.append(position)
    # What stands below the last cursor of a page comes once more, at the top of the next page.
    end = positions[-1] + 1 if has_more and positions else len(placed)
    unreadable = _located(placed, asked)
    rows = [each for each in placed if type(each) is not Unreadable]
    known = [each.created for each in placed if each.created is not None]
    return PageParts(
        rows, tuple(each for position, each in unreadable if position < end), cursors, min(known, default=None)
    )


def _placed(entry: Any, floor: int, ceiling: int) -> Any:
    if entry.created is None or floor <= entry.created < ceiling:
        return entry
    if type(entry) is Unreadable:
        return entry._replace(created=None)
    return Unreadable(entry.id, None, "Its `created` is outside of the time that was asked for.")


def _located(placed: Sequence[Any], asked: Window) -> list[tuple[int, Located]]:
    """Return the unreadable ones with their places, between the objects that stand before and after them."""
    found: list[tuple[int, Located]] = []
    newer = asked.ceiling - 1 if asked.cursor_at is None else asked.cursor_at
    nameless = 0
    for position, each in enumerate(placed):
        if type(each) is Unreadable:
            older = next((one.created for one in placed[position:] if one.created is not None), newer - DAY)
            floor, ceiling = min(older, newer), (newer if each.created is None else each.created) + 1
            floor = floor if asked.floor is None else max(floor, asked.floor)
            key = each.id
            if key is None:
                key, nameless = f"{floor}-{ceiling}-{nameless}", nameless + 1
            found.append((position, Located(key, redacted(each.id), each.reason, floor, ceiling)))
        if each.created is not None:
            newer = each.created
    return found


def redacted(object_id: str | None) -> str | None:
    """Return the id as it may be stored: nothing that names a person is."""
    stored = scrub({"object": object_id})["object"]
    return stored if isinstance(stored, str) else None


def _reject_unless(is_met: bool, reason: str) -> None:
    if not is_met:
        raise Rejected(reason)
