"""Which account an integration's webhook tells of, as its key was last seen to say."""

import duckdb


def account_of_integration(connection: duckdb.DuckDBPyConnection, integration: str) -> str | None:
    """The account's id; None where no key has told it yet."""
    row = connection.execute(
        "SELECT max(account_id) FROM sync.integrations WHERE integration = ?", [integration]
    ).fetchone()
    assert row is not None
    return row[0]  # type: ignore[no-any-return]


def remember_account(connection: duckdb.DuckDBPyConnection, integration: str, account_id: str) -> None:
    """Keep it, instead of what was known before."""
    if account_of_integration(connection, integration) != account_id:
        connection.execute("DELETE FROM sync.integrations WHERE integration = ?", [integration])
        connection.execute("INSERT INTO sync.integrations VALUES (?, ?)", [integration, account_id])
