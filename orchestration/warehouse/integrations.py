"""Which account an integration's webhook tells of, as its key was last seen to say."""

import duckdb


def stored_account_id(connection: duckdb.DuckDBPyConnection, integration: str, *, key_digest: str | None) -> str | None:
    """The account's id; None where this key has not told it yet. Without a key, what the last one told."""
    row = connection.execute(
        "SELECT max(account_id) FROM sync.integrations WHERE integration = $integration"
        " AND key_digest = coalesce($key_digest, key_digest)",
        {"integration": integration, "key_digest": key_digest},
    ).fetchone()
    assert row is not None
    return row[0]  # type: ignore[no-any-return]


def store_account(connection: duckdb.DuckDBPyConnection, integration: str, account_id: str, *, key_digest: str) -> None:
    """Keep it, instead of what was known before."""
    if stored_account_id(connection, integration, key_digest=key_digest) != account_id:
        connection.execute("DELETE FROM sync.integrations WHERE integration = ?", [integration])
        connection.execute("INSERT INTO sync.integrations VALUES (?, ?, ?)", [integration, account_id, key_digest])
