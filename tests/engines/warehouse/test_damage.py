"""Damaged files: the log is repaired, the published file is replaced, and only damage is reported as damage."""

import os
import random
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest

from orchestration.warehouse.connection import WarehouseDamaged, WarehouseError, open_warehouse
from orchestration.warehouse.ledger import record_changed_table
from orchestration.warehouse.publish import publish

Damage = Callable[[bytes], bytes]

KILLED = """
import os, sys
from pathlib import Path
from orchestration.warehouse.connection import open_warehouse
with open_warehouse(Path(sys.argv[1])) as warehouse:
    warehouse.execute("CREATE TABLE loads (number INT, filling VARCHAR)")
    warehouse.execute("CHECKPOINT")
    for number in range(20):
        warehouse.execute("INSERT INTO loads SELECT ?, repeat('x', 100) FROM range(1000)", [number])
    os._exit(9)
"""
"""Leave twenty loads of a thousand rows in the log, as a power failure does."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return a warehouse whose writer was killed."""
    path = tmp_path / "warehouse.duckdb"
    subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    assert wal(path).stat().st_size > 1_000_000
    return path


def wal(path: Path) -> Path:
    return path.with_name(f"{path.name}.wal")


def zeroed_from(part: float) -> Damage:
    return lambda content: content[: int(len(content) * part)].ljust(len(content), b"\0")


def garbage_at(part: float) -> Damage:
    at, size = part, 500
    return lambda content: (
        content[: int(len(content) * at)] + random.Random(3).randbytes(size) + content[int(len(content) * at) + size :]
    )


def loads_in(path: Path) -> list[tuple[int, int]]:
    with open_warehouse(path) as warehouse:
        return warehouse.execute("SELECT number, count(*) FROM loads GROUP BY ALL ORDER BY ALL").fetchall()


@pytest.mark.parametrize(
    ("damage", "at_least", "is_moved"),
    [
        (lambda content: content, 20, False),
        (
            lambda content: content + bytes(4096),
            20,
            duckdb.__version__ < "2",
        ),  # DuckDB 2 reads zeros as the end of the log
        (zeroed_from(0.98), 18, True),
        (zeroed_from(0.5), 8, True),
        (garbage_at(0.5), 8, True),
        (garbage_at(0.00001), 0, True),
        (lambda content: content[:-1], 19, False),
        (lambda content: content[: len(content) // 3], 5, False),
        (lambda content: bytes(len(content)), 0, False),
        (lambda content: b"", 0, False),
    ],
    ids=[
        "whole",
        "zeros appended",
        "end zeroed",
        "half zeroed",
        "garbage inside",
        "garbage at the start",
        "torn",
        "torn off",
        "all zero",
        "empty",
    ],
)
def test_loads_before_the_damage_of_a_log_are_kept_and_new_ones_can_be_added(
    damage: Damage, at_least: int, is_moved: bool, path: Path
) -> None:
    content = damage(wal(path).read_bytes())
    wal(path).write_bytes(content)
    kept = loads_in(path)
    assert kept == [(number, 1000) for number in range(len(kept))], "only whole loads are kept, without a gap"
    assert len(kept) >= at_least
    assert [each.read_bytes() for each in path.parent.glob("warehouse.duckdb.wal.damaged-*")] == [content] * is_moved
    with open_warehouse(path) as warehouse:
        warehouse.execute("INSERT INTO loads VALUES (99, '')")
    assert loads_in(path) == [*kept, (99, 1)]


def test_a_log_of_another_warehouse_is_moved_aside(path: Path) -> None:
    """The file was restored from a backup without its log."""
    backup = path.with_name("backup.duckdb")
    with open_warehouse(backup) as other:
        other.execute("CREATE TABLE loads AS SELECT 7 AS number")
    backup.replace(path)
    assert loads_in(path) == [(7, 1)]
    assert len(list(path.parent.glob("warehouse.duckdb.wal.damaged-*"))) == 1


def with_storage_version(content: bytes, version: int) -> bytes:
    """Return the content with another storage version, and the matching checksum of the first block."""
    head = content[8:12] + version.to_bytes(8, "little") + content[20:4096]
    checksum = 5381
    for at in range(0, len(head) // 8 * 8, 8):
        checksum ^= int.from_bytes(head[at : at + 8], "little") * 0xBF58476D1CE4E5B9 % 2**64
    return checksum.to_bytes(8, "little") + head + content[4096:]


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda content: b"", WarehouseDamaged),
        (lambda content: bytes(len(content)), WarehouseDamaged),
        (lambda content: content[:100], WarehouseDamaged),
        (lambda content: content[:4096] + bytes(8192) + content[12288:], WarehouseDamaged),
        (lambda content: with_storage_version(content, 64), None),
        (lambda content: with_storage_version(content, 999), WarehouseError),
        (lambda content: b"a text\n" * 10_000, WarehouseError),
        (lambda content: b"SQLite format 3\0" + content, WarehouseError),
    ],
    ids=["empty", "zeroed", "torn", "heads zeroed", "of this DuckDB", "of a newer DuckDB", "text", "another database"],
)
def test_only_a_damaged_warehouse_is_reported_as_damaged_and_no_file_is_changed(
    damage: Damage, expected: type[WarehouseError] | None, path: Path
) -> None:
    loads_in(path)
    path.write_bytes(damage(path.read_bytes()))
    content = path.read_bytes()
    if expected is None:
        loads_in(path)
        return
    with pytest.raises(WarehouseError) as error:
        loads_in(path)
    assert type(error.value) is expected
    assert ("recoup repair" in str(error.value)) is (expected is WarehouseDamaged)
    assert path.read_bytes() == content
    assert not list(path.parent.glob("*.damaged-*"))


def test_a_folder_in_place_of_the_log_is_not_reported_as_damage(path: Path) -> None:
    wal(path).unlink()
    wal(path).mkdir()
    with pytest.raises(WarehouseError, match="Is a directory") as error:
        loads_in(path)
    assert type(error.value) is WarehouseError
    assert wal(path).is_dir()


def build(warehouse: duckdb.DuckDBPyConnection, number: int) -> None:
    """Write the mart as a build of this number does: the first writes all rows, later ones add a row."""
    if number == 1:
        warehouse.execute("CREATE SCHEMA marts; CREATE TABLE marts.totals (id INT, filling UBIGINT, _load_id BIGINT)")
        warehouse.execute("INSERT INTO marts.totals SELECT i, hash(i), 1 FROM range(30_000) AS t (i)")
    else:
        warehouse.execute(f"INSERT INTO marts.totals VALUES (-{number}, {number}, {number})")
    record_changed_table(warehouse, number, ("marts", "totals"), ("id",) if number > 1 else ())


def counts_in(path: Path) -> list[tuple[int, int]]:
    with duckdb.connect(str(path), read_only=True) as connection:
        return connection.execute("SELECT count(*), count(DISTINCT filling) FROM marts.totals").fetchall()


@pytest.mark.parametrize("has_changed", [False, True], ids=["nothing new", "one row new"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: bytes(len(content)),
        lambda content: content[: len(content) // 2],
        zeroed_from(0.02),
        lambda content: content[:4096] + bytes(8192) + content[12288:],
        lambda content: b"a text\n" * 10_000,
    ],
    ids=["empty", "zeroed", "torn", "end zeroed", "heads zeroed", "text"],
)
def test_a_damaged_published_file_is_replaced_even_if_its_time_is_unchanged(
    damage: Damage, has_changed: bool, tmp_path: Path
) -> None:
    published = tmp_path / "recovery.duckdb"
    with open_warehouse(tmp_path / "warehouse.duckdb") as warehouse:
        build(warehouse, 1)
        publish(warehouse, published)
        status, content = published.stat(), published.read_bytes()
        with published.open("rb+") as file:
            file.truncate(0)
            file.write(damage(content))
        os.utime(published, ns=(status.st_atime_ns, status.st_mtime_ns))
        if has_changed:
            build(warehouse, 2)
        assert publish(warehouse, published).is_new
    assert counts_in(published) == [(30_000 + has_changed, 30_000 + has_changed)]


WRITER = """
import os, sys, duckdb
connection = duckdb.connect(sys.argv[1])
connection.execute("CREATE TABLE notes AS SELECT 1 AS a")
print("open", flush=True)
if sys.argv[2] == "killed":
    os._exit(9)
sys.stdin.readline()
connection.execute("INSERT INTO notes VALUES (2)")
os._exit(9)
"""


@pytest.mark.parametrize("ending", ["killed", "alive"])
@pytest.mark.parametrize("has_changed", [False, True], ids=["nothing new", "one row new"])
def test_a_publish_removes_the_log_of_another_writer(ending: str, has_changed: bool, tmp_path: Path) -> None:
    published = tmp_path / "recovery.duckdb"
    (tmp_path / "recovery.duckdb.tmp").mkdir()  # a reader that is short of memory spills to this folder
    (tmp_path / "recovery.duckdb.tmp" / "spilled").touch()
    with open_warehouse(tmp_path / "warehouse.duckdb") as warehouse:
        build(warehouse, 1)
        publish(warehouse, published)
        command = [sys.executable, "-c", WRITER, str(published), ending]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "open\n"
            assert wal(published).exists()
            if has_changed:
                build(warehouse, 2)
            publish(warehouse, published)
            assert counts_in(published) == [(30_000 + has_changed, 30_000 + has_changed)]
            writer.communicate("go on\n")
        publish(warehouse, published)  # the writer that was alive has written to its log again
    assert counts_in(published) == [(30_000 + has_changed, 30_000 + has_changed)]
    assert (tmp_path / "recovery.duckdb.tmp" / "spilled").exists()


def test_a_publish_through_a_symbolic_link_replaces_the_file_that_it_points_to(tmp_path: Path) -> None:
    shared, link = tmp_path / "shared" / "analysts.duckdb", tmp_path / "recovery.duckdb"
    shared.parent.mkdir()
    link.symlink_to(shared)
    with open_warehouse(tmp_path / "warehouse.duckdb") as warehouse:
        build(warehouse, 1)
        for number in (2, 3):
            publish(warehouse, link)
            wal(link).write_bytes(b"log of a program that opened the link")
            build(warehouse, number)
        assert publish(warehouse, link).rows_written == 1
    assert link.is_symlink()
    assert counts_in(shared) == counts_in(link) == [(30_002, 30_002)]
    assert list(shared.parent.iterdir()) == [shared]


@pytest.mark.parametrize("has_changed", [False, True], ids=["from nothing", "one row new"])
def test_the_published_file_keeps_its_mode_and_its_group(has_changed: bool, tmp_path: Path) -> None:
    published = tmp_path / "recovery.duckdb"
    group = next((group for group in (*os.getgroups(), 12_345) if group != os.getegid()), os.getegid())
    with open_warehouse(tmp_path / "warehouse.duckdb") as warehouse:
        build(warehouse, 1)
        publish(warehouse, published)
        try:
            os.chown(published, -1, group)
        except PermissionError:
            group = os.getegid()
        published.chmod(0o640)
        build(warehouse, 2)
        if not has_changed:
            warehouse.execute("DELETE FROM sync.published_file")
        before = published.stat()
        publish(warehouse, published)
    after = published.stat()
    assert after.st_ino != before.st_ino
    assert (stat.S_IMODE(after.st_mode), after.st_gid) == (0o640, group)


@pytest.mark.parametrize("name", ["recovery.duckdb", "recovery.duckdb.wal", "recovery.duckdb.1.tmp"])
def test_a_folder_with_the_name_of_a_published_file_is_an_error_and_is_kept(name: str, tmp_path: Path) -> None:
    folder = tmp_path / name
    folder.mkdir()
    (folder / "file").touch()
    with open_warehouse(tmp_path / "warehouse.duckdb") as warehouse:
        build(warehouse, 1)
        with pytest.raises(OSError, match=name):
            publish(warehouse, tmp_path / "recovery.duckdb")
    assert (folder / "file").exists()
