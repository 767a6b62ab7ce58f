"""The ledger of loads and builds: what the raw tables hold, what the models have taken, which build changed a table.

Loads and builds are numbered by one sequence. A load stays open until a complete build, one of all models whose
blocking tests passed, has taken it. Nothing else closes it, so a build of some models never hides it from the others.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import duckdb

LOADS_KEPT_DAYS: Final = 30
"""Days for which a load is listed after a complete build has taken it. Only people read it then."""


@dataclass(frozen=True)
class CompleteBuild:
    """The last build of all models whose blocking tests passed.

    `fingerprint` identifies the state of the dbt project that it was made from. `streams` is a hash of `sync.streams`
    as the models took it; None: not known.
    """

    build_id: int
    fingerprint: str | None
    streams: str | None


def last_complete_build(connection: duckdb.DuckDBPyConnection) -> CompleteBuild | None:
    """Return the last complete build; None before the first one."""
    rows = connection.execute(
        "SELECT build_id, fingerprint, streams FROM sync.model_builds WHERE is_good ORDER BY build_id DESC LIMIT 1"
    ).fetchall()
    return CompleteBuild(*rows[0]) if rows else None


def forget_complete_build(connection: duckdb.DuckDBPyConnection) -> None:
    """Make the next build one of everything, whatever becomes of the build that begins now."""
    connection.execute("DELETE FROM sync.model_builds WHERE is_good")


def open_tables(connection: duckdb.DuckDBPyConnection) -> set[str]:
    """Return the raw tables that hold rows of loads which no complete build has taken."""
    rows = connection.execute("SELECT DISTINCT table_name FROM sync.loads WHERE build_id IS NULL").fetchall()
    return {name for (name,) in rows}


def has_incomplete_builds(connection: duckdb.DuckDBPyConnection) -> bool:
    """Return whether models were built, by hand or by a build that failed, since the last complete build."""
    return bool(connection.execute("SELECT 1 FROM sync.model_builds WHERE NOT is_good LIMIT 1").fetchall())


def hash_streams(connection: duckdb.DuckDBPyConnection) -> str:
    """Return a hash of what the models read of `sync.streams`: it changes whenever the watermark moves."""
    rows = connection.execute(
        """SELECT md5(string_agg(
               concat_ws('|', account_id, livemode, stream, missing_permission, complete_through, known_since),
               ';' ORDER BY account_id, livemode, stream
           )) FROM sync.streams"""
    ).fetchall()
    return str(rows[0][0])


def begin_build(connection: duckdb.DuckDBPyConnection) -> tuple[int, int]:
    """Enter a new build; return its number, and the number from which on rows are new to it.

    In the caller's transaction, which also holds what the build writes.
    """
    connection.execute(
        """INSERT INTO sync.model_builds (build_id, is_good, began_at)
           SELECT nextval('sync.load_ids'), false, CAST(now() AT TIME ZONE 'UTC' AS TIMESTAMP)"""
    )
    ((build_id, first_load_id),) = connection.execute("SELECT build_id, first_load_id FROM sync.next_build").fetchall()
    return int(build_id), int(first_load_id)


def build_of(connection: duckdb.DuckDBPyConnection, fingerprint: str) -> int:
    """Return the number of the newest incomplete build that dbt began for this state of the project.

    Raises:
        LookupError: there is none.
    """
    ((build_id,),) = connection.execute(
        "SELECT max(build_id) FROM sync.model_builds WHERE NOT is_good AND fingerprint = ?", [fingerprint]
    ).fetchall()
    if build_id is None:
        raise LookupError("dbt began no build of this project.")
    return int(build_id)


def complete_build(
    connection: duckdb.DuckDBPyConnection, build_id: int, fingerprint: str, *, streams: str | None
) -> None:
    """Enter the build as complete: it has taken every load with a smaller number. In the caller's transaction.

    Loads that were taken are deleted when they are old: at one webhook event a second there are 50,000 a day.
    """
    connection.execute(
        "UPDATE sync.loads SET build_id = $build WHERE build_id IS NULL AND load_id < $build", {"build": build_id}
    )
    connection.execute(
        f"""DELETE FROM sync.loads WHERE build_id IS NOT NULL
            AND loaded_at < CAST(now() AT TIME ZONE 'UTC' AS TIMESTAMP) - INTERVAL {LOADS_KEPT_DAYS} DAY"""
    )
    connection.execute("DELETE FROM sync.model_builds WHERE build_id < ?", [build_id])
    connection.execute(
        "UPDATE sync.model_builds SET is_good = true, fingerprint = ?, streams = ? WHERE build_id = ?",
        [fingerprint, streams, build_id],
    )


def note_changed_table(
    connection: duckdb.DuckDBPyConnection, build_id: int, table: tuple[str, str], unique_key: Sequence[str]
) -> None:
    """Enter that a build has changed a table of the models (schema and name): the rows of some keys, or all rows where
    it has no unique key."""
    rows = connection.execute(
        "DELETE FROM sync.model_tables WHERE table_schema = ? AND table_name = ? RETURNING replaced_by", table
    ).fetchall()
    replaced_by = int(rows[0][0]) if rows and unique_key else build_id
    connection.execute(
        "INSERT INTO sync.model_tables VALUES (?, ?, ?, ?, ?)",
        [*table, build_id, replaced_by, list(unique_key) or None],
    )
