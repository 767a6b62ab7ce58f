"""The quarantine of unreadable objects: why each was rejected, and where to find it at Stripe for the next attempt."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import duckdb

from orchestration.base.account import AccountKey
from orchestration.base.instants import to_timestamp


@dataclass(frozen=True)
class QuarantinedObject:
    """An object that could not be read.

    `key` is the object's id, or else its position in the list. The object was created in [`floor`, `ceiling`), Unix
    seconds on Stripe's clock, as far as its list shows.
    """

    stream: str
    key: str
    object_id: str | None
    reason: str
    floor: int
    ceiling: int


def quarantine_objects(
    connection: duckdb.DuckDBPyConnection, account: AccountKey, objects: Sequence[QuarantinedObject]
) -> None:
    """Add objects to the quarantine, in the caller's transaction. A known object keeps its `first_seen_at`."""
    now = datetime.now(UTC).replace(tzinfo=None, microsecond=0)
    for each in objects:
        owner = [account.account_id, account.livemode, each.stream, each.key]
        known = connection.execute(
            """DELETE FROM sync.quarantine WHERE account_id = ? AND livemode = ? AND stream = ? AND key = ?
               RETURNING first_seen_at""",
            owner,
        ).fetchall()
        connection.execute(
            "INSERT INTO sync.quarantine VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                *(*owner, each.object_id, each.reason, to_timestamp(each.floor), to_timestamp(each.ceiling)),
                *(known[0][0] if known else now, now),
            ],
        )


def delete_quarantined(
    connection: duckdb.DuckDBPyConnection, account: AccountKey, stream: str, keys: Collection[str]
) -> None:
    """Delete objects that were read or no longer exist from the quarantine, in the caller's transaction."""
    connection.execute(
        """DELETE FROM sync.quarantine WHERE account_id = ? AND livemode = ? AND stream = ?
           AND key IN (SELECT unnest(?::VARCHAR[]))""",
        [account.account_id, account.livemode, stream, list(keys)],
    )


def read_quarantine(connection: duckdb.DuckDBPyConnection, account: AccountKey) -> list[QuarantinedObject]:
    """Return the account's quarantine, sorted by last attempt, the oldest first."""
    rows = connection.execute(
        """SELECT stream, key, object_id, reason, epoch("floor")::BIGINT, epoch(ceiling)::BIGINT FROM sync.quarantine
           WHERE account_id = ? AND livemode = ? ORDER BY last_seen_at, stream, key""",
        [account.account_id, account.livemode],
    ).fetchall()
    return [QuarantinedObject(*row) for row in rows]
