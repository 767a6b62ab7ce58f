"""Record in the ledger the raw rows that a test writes without the loader."""

import duckdb


def record_new_loads(connection: duckdb.DuckDBPyConnection, table: str) -> None:
    """Add the loads of a raw table that the ledger lacks, as the loader does for the rows that it writes."""
    connection.execute(
        f"""INSERT INTO sync.loads (load_id, table_name, loaded_at)
            SELECT DISTINCT _load_id, '{table}', now()::TIMESTAMP FROM raw_stripe.{table}
            WHERE _load_id > (SELECT max(build_id) FROM sync.model_builds)
            EXCEPT SELECT load_id, table_name, now()::TIMESTAMP FROM sync.loads"""
    )
