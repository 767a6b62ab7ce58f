"""Count requests to Stripe by account, day and endpoint, to show how much of Stripe's read allocation is used."""

from collections.abc import Mapping
from datetime import date

import duckdb

from orchestration.base.account import AccountKey
from orchestration.base.instants import to_timestamp


def add_reads(
    connection: duckdb.DuckDBPyConnection, account: AccountKey, requests: Mapping[str, int], *, now: int
) -> None:
    """Add request counts by endpoint to the UTC day of `now` (Unix seconds), in the caller's transaction."""
    for endpoint, count in requests.items():
        key = [account.account_id, account.livemode, _day(now), endpoint]
        where = "WHERE account_id = ? AND livemode = ? AND day = ? AND endpoint = ?"
        known = connection.execute(f"SELECT sum(requests) FROM sync.reads {where}", key).fetchone()
        connection.execute(f"DELETE FROM sync.reads {where}", key)
        before = known[0] if known and known[0] else 0
        connection.execute("INSERT INTO sync.reads VALUES (?, ?, ?, ?, ?)", [*key, before + count])


def count_reads_since(connection: duckdb.DuckDBPyConnection, account: AccountKey, since: int) -> int:
    """Return the number of requests since the start of the UTC day of `since` (Unix seconds)."""
    row = connection.execute(
        "SELECT coalesce(sum(requests), 0) FROM sync.reads WHERE account_id = ? AND livemode = ? AND day >= ?",
        [account.account_id, account.livemode, _day(since)],
    ).fetchone()
    assert row is not None
    return int(row[0])


def count_payments_since(connection: duckdb.DuckDBPyConnection, account: AccountKey, since: int) -> int:
    """Return the number of stored `charge.succeeded` events created at or after `since` (Unix seconds).

    Recoup uses it as the number of transactions, on which Stripe's read allocation depends.
    """
    row = connection.execute(
        """SELECT count(*) FROM raw_stripe.events
           WHERE account_id = ? AND livemode = ? AND type = 'charge.succeeded' AND created >= ?""",
        [account.account_id, account.livemode, to_timestamp(since)],
    ).fetchone()
    assert row is not None
    return int(row[0])


def has_event_since(connection: duckdb.DuckDBPyConnection, account: AccountKey, since: int) -> bool:
    """Return whether an event created after `since` (Unix seconds) is stored."""
    found = connection.execute(
        "SELECT 1 FROM raw_stripe.events WHERE account_id = ? AND livemode = ? AND created > ? LIMIT 1",
        [account.account_id, account.livemode, to_timestamp(since)],
    ).fetchall()
    return bool(found)


def _day(instant: int) -> date:
    return to_timestamp(instant).date()
