from pathlib import Path

from orchestration.warehouse.builds import good_load_id, newest_load_id, remember_good_build
from orchestration.warehouse.connection import open_warehouse
from orchestration.warehouse.load import AccountKey, Loader
from orchestration.warehouse.rows import event_row


def test_the_last_good_build_is_remembered_until_another_project_begins(tmp_path: Path) -> None:
    with open_warehouse(tmp_path / "warehouse.duckdb") as connection:
        assert good_load_id(connection, "one") is None
        remember_good_build(connection, "one", 7)
        remember_good_build(connection, "one", 9)
        assert good_load_id(connection, "one") == 9
        assert good_load_id(connection, "two") is None
        assert good_load_id(connection, "one") is None, "the other one may have left tables of its own"


def test_the_newest_load_is_that_of_the_rows(tmp_path: Path) -> None:
    intent = {"id": "pi_1", "object": "payment_intent", "amount": 500, "created": 1_767_225_600, "currency": "eur"}
    event = {"id": "evt_1", "object": "event", "created": 1_767_225_601, "type": "payment_intent.created"}
    with open_warehouse(tmp_path / "warehouse.duckdb") as connection:
        assert newest_load_id(connection) == 0
        loader = Loader(connection, AccountKey("acct_1", False), "2026-10-28.endive")
        Loader(connection, AccountKey("acct_1", False), "2026-10-28.endive")  # takes a number and loads nothing
        loader.load_events([event_row(event | {"data": {"object": intent}}, "webhook")])
        assert newest_load_id(connection) == loader.load_id
