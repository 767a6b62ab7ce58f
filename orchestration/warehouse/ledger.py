"""The ledger of loads and builds: which loads the models contain, and which build last changed each table.

One sequence numbers loads and builds. A complete build is a build of all models whose blocking tests passed. A load
stays open until a complete build includes it. A build of some models closes no load, so that the other models still
find it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import duckdb


@dataclass(frozen=True)
class CompleteBuild:
    """The last build of all models whose blocking tests passed.

    `fingerprint` identifies the state of the dbt project at the build. `streams` is the hash (`hash_streams`) of the
    checkpoints that the models read, or None if it is not known.
    """

    build_id: int
    fingerprint: str | None
    streams: str | None


def last_complete_build(connection: duckdb.DuckDBPyConnection) -> CompleteBuild | None:
    """Return the last complete build, or None before the first one."""
    rows = connection.execute(
        "SELECT build_id, fingerprint, streams FROM sync.model_builds WHERE is_good ORDER BY build_id DESC LIMIT 1"
    ).fetchall()
    return CompleteBuild(*rows[0]) if rows else None


def delete_complete_build(connection: duckdb.DuckDBPyConnection) -> None:
    """Delete the entry of the last complete build, so that the next build is a full one even if this build fails."""
    connection.execute("DELETE FROM sync.model_builds WHERE is_good")


def tables_with_open_loads(connection: duckdb.DuckDBPyConnection) -> set[str]:
    """Return the names of the raw tables with rows of open loads (loads that no complete build includes)."""
    rows = connection.execute("SELECT DISTINCT table_name FROM sync.loads WHERE build_id IS NULL").fetchall()
    return {name for (name,) in rows}


def tables_of_incomplete_builds(connection: duckdb.DuckDBPyConnection) -> set[tuple[str, str]]:
    """Return schema and name of the model tables that were written since the last complete build."""
    rows = connection.execute(
        """SELECT table_schema, table_name FROM sync.model_tables
           WHERE changed_by >= (SELECT min(build_id) FROM sync.model_builds WHERE NOT is_good)"""
    ).fetchall()
    return set(rows)


def delete_closed_loads(connection: duckdb.DuckDBPyConnection, *, before: datetime) -> int:
    """Delete the entries of loads before `before` (UTC) that a complete build includes; return their number."""
    ((count,),) = connection.execute(
        "DELETE FROM sync.loads WHERE build_id IS NOT NULL AND loaded_at < ?", [before.replace(tzinfo=None)]
    ).fetchall()
    return int(count)


def has_incomplete_builds(connection: duckdb.DuckDBPyConnection) -> bool:
    """Return whether some models were built since the last complete build, by hand or by a failed build."""
    return bool(connection.execute("SELECT 1 FROM sync.model_builds WHERE NOT is_good LIMIT 1").fetchall())


def hash_streams(connection: duckdb.DuckDBPyConnection) -> str:
    """Return a hash of the columns of `sync.streams` and `sync.quarantine` that models read.

    It changes if a watermark, a permission or a number of quarantined objects changes.
    """
    rows = connection.execute(
        """WITH quarantine AS (
               SELECT account_id, livemode, stream, count(*) AS objects FROM sync.quarantine GROUP BY ALL
           )
           SELECT md5(string_agg(
               concat_ws('|', account_id, livemode, stream, missing_permission, complete_through, known_since, objects),
               ';' ORDER BY account_id, livemode, stream
           )) FROM sync.streams FULL JOIN quarantine USING (account_id, livemode, stream)"""
    ).fetchall()
    return str(rows[0][0])


def begin_build(connection: duckdb.DuckDBPyConnection) -> tuple[int, int]:
    """Add a build to the ledger; return its number, and the smallest `_load_id` of the rows that are new to it.

    Call this in the transaction of the build's rows.
    """
    connection.execute(
        """INSERT INTO sync.model_builds (build_id, is_good, began_at)
           SELECT nextval('sync.load_ids'), false, CAST(now() AT TIME ZONE 'UTC' AS TIMESTAMP)"""
    )
    ((build_id, first_load_id),) = connection.execute("SELECT build_id, first_load_id FROM sync.next_build").fetchall()
    return int(build_id), int(first_load_id)


def find_incomplete_build(connection: duckdb.DuckDBPyConnection, fingerprint: str) -> int:
    """Return the number of the newest incomplete build that dbt started for this state of the project.

    Raises:
        LookupError: there is no such build.
    """
    ((build_id,),) = connection.execute(
        "SELECT max(build_id) FROM sync.model_builds WHERE NOT is_good AND fingerprint = ?", [fingerprint]
    ).fetchall()
    if build_id is None:
        raise LookupError("dbt started no build of this project.")
    return int(build_id)


def complete_build(
    connection: duckdb.DuckDBPyConnection, build_id: int, fingerprint: str, *, streams: str | None
) -> None:
    """Mark the build as complete and close every load with a smaller number, in the caller's transaction."""
    connection.execute(
        "UPDATE sync.loads SET build_id = $build WHERE build_id IS NULL AND load_id < $build", {"build": build_id}
    )
    connection.execute("DELETE FROM sync.model_builds WHERE build_id < ?", [build_id])
    connection.execute(
        "UPDATE sync.model_builds SET is_good = true, fingerprint = ?, streams = ? WHERE build_id = ?",
        [fingerprint, streams, build_id],
    )


def record_changed_table(
    connection: duckdb.DuckDBPyConnection, build_id: int, table: tuple[str, str], unique_key: Sequence[str]
) -> None:
    """Record that a build changed a table (schema and name): some rows by their key, or all if there is no key."""
    rows = connection.execute(
        "DELETE FROM sync.model_tables WHERE table_schema = ? AND table_name = ? RETURNING replaced_by", table
    ).fetchall()
    replaced_by = int(rows[0][0]) if rows and unique_key else build_id
    connection.execute(
        "INSERT INTO sync.model_tables VALUES (?, ?, ?, ?, ?)",
        [*table, build_id, replaced_by, list(unique_key) or None],
    )
