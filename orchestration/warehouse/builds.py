"""The last good build of all models: by which text of the dbt project, and through which load of the raw tables."""

import duckdb

from orchestration.warehouse.rows import OBJECT_TABLES


def good_load_id(connection: duckdb.DuckDBPyConnection, fingerprint: str) -> int | None:
    """The load through which the last good build has tested the tables, if it was by this project.

    None: everything must be built anew. Until a build is good again, the last one is forgotten, since a failed one may
    leave tables of two projects.
    """
    rows = connection.execute("SELECT fingerprint, load_id FROM sync.builds").fetchall()
    if rows and rows[0][0] == fingerprint:
        return int(rows[0][1])
    connection.execute("DELETE FROM sync.builds")
    return None


def remember_good_build(connection: duckdb.DuckDBPyConnection, fingerprint: str, load_id: int) -> None:
    """Keep what the tables rest on, instead of what was known before."""
    if good_load_id(connection, fingerprint) != load_id:
        connection.execute("DELETE FROM sync.builds")
        connection.execute("INSERT INTO sync.builds VALUES (?, ?)", [fingerprint, load_id])


def newest_load_id(connection: duckdb.DuckDBPyConnection) -> int:
    """The newest load of which anything is in the raw tables; 0 where nothing is. What a build of now rests on."""
    tables = " UNION ALL ".join(
        f"SELECT max(_load_id) AS newest FROM raw_stripe.{table}"
        for table in (*OBJECT_TABLES, "events", "last_payment_errors")
    )
    ((newest,),) = connection.execute(f"SELECT coalesce(max(newest), 0) FROM ({tables})").fetchall()
    return int(newest)
