"""What of the warehouse goes into the analysts' file, and where."""

from pathlib import Path

import duckdb
import pytest

from orchestration.warehouse.connection import open_warehouse
from orchestration.warehouse.load import AccountKey, Loader
from orchestration.warehouse.publish import publish
from orchestration.warehouse.rows import object_row

MART = "CREATE SCHEMA marts; CREATE TABLE marts.totals AS FROM (VALUES ('acct_1', true, 5), ('acct_1', false, 7)) AS t"


def load_payment(warehouse: duckdb.DuckDBPyConnection, *, livemode: bool) -> None:
    payload = {"id": "pi_1", "object": "payment_intent", "created": 1_700_000_000, "livemode": livemode}
    row = object_row(
        payload, as_of=1_700_000_000, seen_by=1_700_000_000, api_version="", source="list", is_read_again=False
    )
    Loader(warehouse, AccountKey("acct_1", livemode), "").load_objects("payment_intents", [row])


@pytest.mark.parametrize(
    ("modes", "expected"),
    [
        ((False,), {"marts": [5, 7]}),
        ((True,), {"marts": [5]}),
        ((True, False), {"marts": [5], "marts_test": [7]}),
    ],
)
def test_once_a_live_payment_is_known_test_mode_is_in_a_schema_of_its_own(
    modes: tuple[bool, ...], expected: dict[str, list[int]], tmp_path: Path
) -> None:
    path = tmp_path / "recovery.duckdb"
    with open_warehouse(tmp_path / "warehouse.duckdb") as warehouse:
        warehouse.execute(f"{MART} (account_id, livemode, payments)")
        for livemode in modes:
            load_payment(warehouse, livemode=livemode)
        published = publish(warehouse, path)
    assert published.rows == {f"{schema}.totals": len(rows) for schema, rows in expected.items()}
    with duckdb.connect(str(path), read_only=True) as connection:
        for schema, rows in expected.items():
            found = connection.execute(f"SELECT payments FROM {schema}.totals ORDER BY ALL").fetchall()
            assert [payments for (payments,) in found] == rows
