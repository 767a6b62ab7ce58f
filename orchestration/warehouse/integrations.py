"""Store the Stripe account that each integration's API key belongs to. The integration's webhook events go into it."""

import duckdb


def stored_account_id(connection: duckdb.DuckDBPyConnection, integration: str, *, key_digest: str | None) -> str | None:
    """Return the account id stored for an integration's key, or None. Without a digest, return that of the last key."""
    row = connection.execute(
        "SELECT max(account_id) FROM sync.integrations WHERE integration = $integration"
        " AND key_digest = coalesce($key_digest, key_digest)",
        {"integration": integration, "key_digest": key_digest},
    ).fetchone()
    assert row is not None
    return row[0]  # type: ignore[no-any-return]


def store_account(connection: duckdb.DuckDBPyConnection, integration: str, account_id: str, *, key_digest: str) -> None:
    """Store the account id of an integration's key, and replace the previous entry of the integration."""
    if stored_account_id(connection, integration, key_digest=key_digest) != account_id:
        connection.execute("DELETE FROM sync.integrations WHERE integration = ?", [integration])
        connection.execute("INSERT INTO sync.integrations VALUES (?, ?, ?)", [integration, account_id, key_digest])
