"""The connection to the warehouse file: how processes take turns, and its options."""

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


def test_a_pause_releases_the_warehouse_only_if_another_process_requests_it(path: Path) -> None:
    warehouse = Warehouse(path)
    warehouse.connection.execute("CREATE TABLE kept AS SELECT 1 AS one")
    warehouse.pause()
    assert is_open(warehouse)
    with request_access(path):
        warehouse.pause()
        assert not is_open(warehouse)
    assert warehouse.connection.execute("FROM kept").fetchall() == [(1,)]
    warehouse.close()


def test_a_process_that_yielded_waits_until_the_requester_is_done(path: Path) -> None:
    warehouse = Warehouse(path)
    reopened = threading.Event()

    def reopen() -> None:
        assert warehouse.connection
        reopened.set()

    with request_access(path):
        thread = threading.Thread(target=reopen)
        thread.start()
        assert not reopened.wait(0.2)
    assert reopened.wait(10)
    thread.join()
    warehouse.close()


def test_an_exclusive_task_runs_once_at_a_time_and_other_tasks_run_concurrently(path: Path) -> None:
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


def test_options_are_set_again_after_a_pause(path: Path) -> None:
    warehouse = Warehouse(path, options={"threads": 1})
    for _ in range(2):
        assert warehouse.connection.execute("SELECT current_setting('threads')").fetchall() == [(1,)]
        with request_access(path):
            warehouse.pause()
    warehouse.close()


def test_an_opened_warehouse_has_its_tables(path: Path) -> None:
    with open_warehouse(path) as connection:
        assert connection.execute("SELECT count(*) FROM raw_stripe.charges").fetchall() == [(0,)]


def test_a_small_batch_uses_more_than_one_thread_only_in_a_large_warehouse(path: Path) -> None:
    assert small_batch_options(path) == {"threads": 1}
    with path.open("wb") as large:
        large.truncate(300_000_000)
    assert small_batch_options(path) == {}
