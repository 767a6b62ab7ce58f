"""Read and write checkpoints: how far each stream has been read.

A checkpoint is written in the same transaction as the rows that it covers. Instants are Unix seconds on Stripe's clock;
in `sync.streams` they are TIMESTAMPs in UTC.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any, Final

import duckdb

from orchestration.base.account import AccountKey
from orchestration.base.instants import to_seconds, to_timestamp

_INSTANTS: Final = ("complete_through", "known_since", "walk_floor", "walk_ceiling")


@dataclass(frozen=True)
class OpenWindow:
    """A part of a pass that has not been read yet: objects created in [`floor`, `ceiling`), from `cursor` downward."""

    floor: int | None
    ceiling: int
    cursor: str | None = None
    cursor_at: int | None = None


@dataclass(frozen=True)
class Checkpoint:
    """The checkpoint of a stream. Its fields are the columns of `sync.streams` (schema.sql).

    A pass reads everything created in [`walk_floor`, `walk_ceiling`]. All of it is loaded, except the open windows.
    """

    stream: str
    missing_permission: str | None = None
    complete_through: int | None = None
    known_since: int | None = None
    walk_floor: int | None = None
    walk_ceiling: int | None = None
    open_windows: tuple[OpenWindow, ...] = ()

    @property
    def is_walking(self) -> bool:
        """Return whether a pass has begun and is not complete."""
        return self.walk_ceiling is not None


_COLUMNS: Final = [field.name for field in fields(Checkpoint)]


def read_checkpoint(connection: duckdb.DuckDBPyConnection, account: AccountKey, stream: str) -> Checkpoint:
    """Return the checkpoint of a stream, or an empty one if the stream was never read."""
    row = connection.execute(
        f"SELECT {', '.join(_COLUMNS)} FROM sync.streams WHERE account_id = ? AND livemode = ? AND stream = ?",
        [account.account_id, account.livemode, stream],
    ).fetchone()
    if row is None:
        return Checkpoint(stream)
    values: dict[str, Any] = dict(zip(_COLUMNS, row, strict=True))
    windows = tuple(
        OpenWindow(_seconds(part["floor"]), to_seconds(part["ceiling"]), part["cursor"], _seconds(part["cursor_at"]))
        for part in values["open_windows"] or ()
    )
    return Checkpoint(**values | {name: _seconds(values[name]) for name in _INSTANTS} | {"open_windows": windows})


def write_checkpoint(
    connection: duckdb.DuckDBPyConnection, account: AccountKey, checkpoint: Checkpoint, *, now: int
) -> None:
    """Replace the checkpoint of a stream. `now` is Unix seconds on Stripe's clock."""
    values: dict[str, Any] = {name: getattr(checkpoint, name) for name in _COLUMNS}
    values |= {name: _timestamp(values[name]) for name in _INSTANTS}
    values["open_windows"] = [
        {
            "floor": _timestamp(window.floor),
            "ceiling": _timestamp(window.ceiling),
            "cursor": window.cursor,
            "cursor_at": _timestamp(window.cursor_at),
        }
        for window in checkpoint.open_windows
    ]
    values |= {"account_id": account.account_id, "livemode": account.livemode, "updated_at": _timestamp(now)}
    values["_updated_at"] = datetime.now(UTC).replace(tzinfo=None, microsecond=0)
    connection.execute(
        "DELETE FROM sync.streams WHERE account_id = ? AND livemode = ? AND stream = ?",
        [account.account_id, account.livemode, checkpoint.stream],
    )
    placeholders = ", ".join(f"${name}" for name in values)
    connection.execute(f"INSERT INTO sync.streams ({', '.join(values)}) VALUES ({placeholders})", values)


def feed_ages(connection: duckdb.DuckDBPyConnection, feeds: Sequence[str], *, now: datetime) -> dict[str, float]:
    """Return how many days each stream is behind Stripe, by account, mode and stream. `now` is this machine's clock.

    The result is the sum of two durations: how far the stream was behind when its checkpoint was written (Stripe's
    clock), and the time since then (this machine's clock). So the two clocks need not agree.
    """
    rows = connection.execute(
        """SELECT
               account_id || if(livemode, ' live ', ' test ') || stream,
               epoch(updated_at - complete_through) + epoch($now - _updated_at)
           FROM sync.streams WHERE stream IN (SELECT unnest($feeds)) AND complete_through IS NOT NULL""",
        {"now": now.replace(tzinfo=None), "feeds": list(feeds)},
    ).fetchall()
    return {feed: seconds / 86_400 for feed, seconds in rows}


def account_ages(connection: duckdb.DuckDBPyConnection, feeds: Sequence[str], *, now: datetime) -> dict[str, float]:
    """Return how many hours the data of each account and mode is behind Stripe: the age of its oldest stream."""
    ages: dict[str, float] = {}
    for stream, days in feed_ages(connection, feeds, now=now).items():
        account = stream.rpartition(" ")[0]
        ages[account] = max(ages.get(account, 0.0), days * 24)
    return ages


def _seconds(timestamp: datetime | None) -> int | None:
    return None if timestamp is None else to_seconds(timestamp)


def _timestamp(seconds: int | None) -> datetime | None:
    return None if seconds is None else to_timestamp(seconds)
