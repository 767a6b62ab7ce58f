"""Publishing the marts into the analysts' file."""

import os
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from orchestration.base.account import AccountKey
from orchestration.warehouse.connection import open_warehouse
from orchestration.warehouse.ledger import record_changed_table
from orchestration.warehouse.load import Loader
from orchestration.warehouse.publish import publish
from orchestration.warehouse.rows import object_row

MART = "CREATE SCHEMA marts; CREATE TABLE marts.totals AS FROM (VALUES ('acct_1', true, 5), ('acct_1', false, 7)) AS t"


def load_payment(warehouse: duckdb.DuckDBPyConnection, *, livemode: bool) -> None:
    payload = {
        "id": "pi_1",
        "object": "payment_intent",
        "created": 1_700_000_000,
        "amount": 9,
        "currency": "eur",
        "livemode": livemode,
    }
    row = object_row(
        payload, as_of=1_700_000_000, read_no_later_than=1_700_000_000, api_version="", source="list", is_reread=False
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
def test_test_mode_has_its_own_schema_once_there_is_a_live_payment(
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
    """Open a warehouse with one mart and no payments."""
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
        assert path.stat().st_ino != before.st_ino, "the path must point to a new file"
        assert payments_in(reader) == 12
    with duckdb.connect(str(path), read_only=True) as reader:
        assert payments_in(reader) == 212


def test_a_publish_leaves_no_other_file_in_the_folder(marts: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    path = tmp_path / "published" / "recovery.duckdb"
    for _ in range(2):
        publish(marts, path)
        assert list(path.parent.iterdir()) == [path]


def test_a_failed_publish_leaves_the_old_file_and_no_other_file(
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


TOTALS = "CREATE SCHEMA marts; CREATE TABLE marts.totals (id VARCHAR, payments INT, _load_id BIGINT)"


def build(warehouse: duckdb.DuckDBPyConnection, build_id: int, *changes: str, key: tuple[str, ...] = ("id",)) -> None:
    """Change the mart and record it, as a build of this number does."""
    for change in changes:
        warehouse.execute(change)
    record_changed_table(warehouse, build_id, ("marts", "totals"), key)


@pytest.fixture
def warehouse(tmp_path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open a warehouse with one mart of two rows, written by the first build."""
    with open_warehouse(tmp_path / "warehouse.duckdb") as opened:
        opened.execute(TOTALS)
        build(opened, 1, "INSERT INTO marts.totals VALUES ('a', 1, 1), ('b', 2, 1)", key=())
        yield opened


def published_rows(path: Path) -> list[tuple[str, int]]:
    with duckdb.connect(str(path), read_only=True) as connection:
        return connection.execute("SELECT id, payments FROM marts.totals ORDER BY ALL").fetchall()


@pytest.mark.parametrize(
    ("changes", "rows_written", "expected"),
    [
        (["UPDATE marts.totals SET payments = 5, _load_id = 2 WHERE id = 'a'"], 1, [("a", 5), ("b", 2)]),
        (["INSERT INTO marts.totals VALUES ('c', 3, 2)"], 1, [("a", 1), ("b", 2), ("c", 3)]),
        (["INSERT INTO marts.totals VALUES ('a', 7, 2)"], 1, [("a", 7), ("b", 2)]),
        (["DELETE FROM marts.totals WHERE id = 'a'"], 0, [("b", 2)]),
        (
            ["DELETE FROM marts.totals WHERE id = 'a'", "INSERT INTO marts.totals VALUES ('c', 3, 2)"],
            1,
            [("b", 2), ("c", 3)],
        ),
    ],
    ids=["changed", "new", "replaced", "deleted", "deleted and new"],
)
def test_only_changed_rows_are_written_and_the_result_equals_a_new_file(
    changes: list[str],
    rows_written: int,
    expected: list[tuple[str, int]],
    warehouse: duckdb.DuckDBPyConnection,
    tmp_path: Path,
) -> None:
    path = tmp_path / "recovery.duckdb"
    publish(warehouse, path)
    if changes == ["INSERT INTO marts.totals VALUES ('a', 7, 2)"]:
        warehouse.execute("DELETE FROM marts.totals WHERE id = 'a'")
    build(warehouse, 2, *changes)
    published = publish(warehouse, path)
    assert (published.rows_written, published.is_new) == (rows_written, True)
    assert published_rows(path) == expected
    whole = publish(warehouse, tmp_path / "whole.duckdb")
    assert published_rows(whole.path) == expected
    assert whole.rows_written == len(expected)


def test_without_a_change_no_file_is_written(warehouse: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    path = tmp_path / "recovery.duckdb"
    first = publish(warehouse, path)
    before = path.stat()
    again = publish(warehouse, path)
    assert path.stat() == before
    assert (again.is_new, again.rows_written, again.rows) == (False, 0, first.rows)


@pytest.mark.parametrize("damage", ["changed by an analyst", "deleted", "a log of another program"])
def test_a_file_that_was_changed_or_deleted_after_its_publish_is_rebuilt(
    damage: str, warehouse: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    path = tmp_path / "recovery.duckdb"
    publish(warehouse, path)
    if damage == "deleted":
        path.unlink()
    elif damage == "changed by an analyst":
        with duckdb.connect(str(path)) as analyst:
            analyst.execute("UPDATE marts.totals SET payments = 0; CREATE TABLE notes (text VARCHAR)")
    else:
        path.with_name(f"{path.name}.wal").write_bytes(b"log of a program that was killed")
    build(warehouse, 2, "UPDATE marts.totals SET payments = 5, _load_id = 2 WHERE id = 'a'")
    published = publish(warehouse, path)
    assert published.rows_written == 2
    assert published_rows(path) == [("a", 5), ("b", 2)]
    with duckdb.connect(str(path), read_only=True) as connection:
        assert connection.execute("SELECT count(*) FROM duckdb_tables()").fetchall() == [(1,)]


def test_temporary_files_of_a_killed_publish_are_removed(warehouse: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    path = tmp_path / "recovery.duckdb"
    left = [path.with_name(f"{path.name}.1.tmp"), path.with_name(f"{path.name}.1.tmp.wal")]
    for leftover in left:
        leftover.write_bytes(b"half a file")
    publish(warehouse, path)
    assert [leftover for leftover in left if leftover.exists()] == []


def test_a_file_that_has_grown_too_much_is_rebuilt(warehouse: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    path = tmp_path / "recovery.duckdb"
    publish(warehouse, path)
    warehouse.execute("UPDATE sync.published_file SET first_size = first_size // 3")
    build(warehouse, 2, "UPDATE marts.totals SET payments = 5, _load_id = 2 WHERE id = 'a'")
    assert publish(warehouse, path).rows_written == 2, "all rows are written"
