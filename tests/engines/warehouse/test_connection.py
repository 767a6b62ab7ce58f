"""Who gives way to whom on the one file."""

import threading
from pathlib import Path

import pytest

from orchestration.warehouse.connection import (
    Warehouse,
    WarehouseBusy,
    open_warehouse,
    request_access,
    small_batch_options,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "warehouse.duckdb"


def is_open(warehouse: Warehouse) -> bool:
    return warehouse._connection is not None


def test_at_a_pause_the_warehouse_is_kept_unless_somebody_wants_it(path: Path) -> None:
    warehouse = Warehouse(path)
    warehouse.connection.execute("CREATE TABLE kept AS SELECT 1 AS one")
    warehouse.pause()
    assert is_open(warehouse)
    with request_access(path):
        warehouse.pause()
        assert not is_open(warehouse)
    assert warehouse.connection.execute("FROM kept").fetchall() == [(1,)]
    warehouse.close()


def test_whoever_gave_way_does_not_come_back_while_it_is_wanted(path: Path) -> None:
    warehouse = Warehouse(path)
    came_back = threading.Event()

    def come_back() -> None:
        assert warehouse.connection
        came_back.set()

    with request_access(path):
        thread = threading.Thread(target=come_back)
        thread.start()
        assert not came_back.wait(0.2)
    assert came_back.wait(10)
    thread.join()
    warehouse.close()


def test_the_same_thing_is_done_by_one_at_a_time_and_other_things_beside_it(path: Path) -> None:
    first, second = Warehouse(path), Warehouse(path, wait=0.1)
    with first.exclusive("sync of acct_1 in test mode"):
        with (
            pytest.raises(WarehouseBusy, match="Another sync of acct_1 in test mode is under way"),
            second.exclusive("sync of acct_1 in test mode"),
        ):
            pass
        with second.exclusive("sync of acct_1 in live mode"):
            pass
    with second.exclusive("sync of acct_1 in test mode"):
        pass


def test_options_hold_again_after_a_pause(path: Path) -> None:
    warehouse = Warehouse(path, options={"threads": 1})
    for _ in range(2):
        assert warehouse.connection.execute("SELECT current_setting('threads')").fetchall() == [(1,)]
        with request_access(path):
            warehouse.pause()
    warehouse.close()


def test_a_short_use_opens_and_closes(path: Path) -> None:
    with open_warehouse(path) as connection:
        assert connection.execute("SELECT count(*) FROM raw_stripe.charges").fetchall() == [(0,)]


def test_only_a_large_warehouse_is_worth_more_than_one_thread_for_a_small_batch(path: Path) -> None:
    assert small_batch_options(path) == {"threads": 1}
    with path.open("wb") as large:
        large.truncate(300_000_000)
    assert small_batch_options(path) == {}
