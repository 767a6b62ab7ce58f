"""By which text of the dbt project the models' tables were built: by another one, they must be built anew."""

import duckdb


def is_built_by(connection: duckdb.DuckDBPyConnection, fingerprint: str) -> bool:
    """Whether the last complete build was by the project of this fingerprint."""
    return connection.execute("SELECT fingerprint FROM sync.dbt_project").fetchall() == [(fingerprint,)]


def remember_built_by(connection: duckdb.DuckDBPyConnection, fingerprint: str) -> None:
    """Keep it, instead of what was known before."""
    if not is_built_by(connection, fingerprint):
        connection.execute("DELETE FROM sync.dbt_project")
        connection.execute("INSERT INTO sync.dbt_project VALUES (?)", [fingerprint])
