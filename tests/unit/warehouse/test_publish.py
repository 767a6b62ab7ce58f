"""What of the warehouse goes into the analysts' file, and where."""

import os
from collections.abc import Iterator
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


@pytest.fixture
def marts(tmp_path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """A warehouse with one mart, and no payments."""
    with open_warehouse(tmp_path / "warehouse.duckdb") as warehouse:
        warehouse.execute(f"{MART} (account_id, livemode, payments)")
        yield warehouse


def payments_in(reader: duckdb.DuckDBPyConnection) -> int:
    (row,) = reader.execute("SELECT sum(payments)::INT FROM marts.totals").fetchall()
    return int(row[0])


def test_a_reader_that_holds_the_old_file_open_keeps_its_snapshot(
    marts: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    path = tmp_path / "recovery.duckdb"
    publish(marts, path)
    with path.open("rb") as file, duckdb.connect(str(path), read_only=True) as reader:
        content, before = file.read(), os.fstat(file.fileno())
        marts.execute("UPDATE marts.totals SET payments = payments + 100")
        publish(marts, path)
        file.seek(0)
        assert file.read() == content
        assert path.stat().st_ino != before.st_ino, "the path names a new file"
        assert payments_in(reader) == 12
    with duckdb.connect(str(path), read_only=True) as reader:
        assert payments_in(reader) == 212


def test_nothing_but_the_published_file_is_left_beside_it(marts: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    path = tmp_path / "published" / "recovery.duckdb"
    for _ in range(2):
        publish(marts, path)
        assert list(path.parent.iterdir()) == [path]


def test_a_publish_that_fails_leaves_the_old_file_and_nothing_beside_it(
    marts: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    path = tmp_path / "published" / "recovery.duckdb"
    publish(marts, path)
    content, before = path.read_bytes(), path.stat()
    marts.execute("UPDATE marts.totals SET payments = payments + 100")
    marts.execute("CREATE VIEW marts.unreadable AS SELECT error('unreadable') AS reason")
    with pytest.raises(duckdb.Error, match="unreadable"):
        publish(marts, path)
    assert (path.read_bytes(), path.stat().st_ino) == (content, before.st_ino)
    assert list(path.parent.iterdir()) == [path]
    marts.execute("DROP VIEW marts.unreadable")
    publish(marts, path)
    with duckdb.connect(str(path), read_only=True) as reader:
        assert payments_in(reader) == 212
