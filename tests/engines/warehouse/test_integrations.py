"""The accounts of integrations, as the warehouse stores them."""

from pathlib import Path

from orchestration.warehouse.connection import open_warehouse
from orchestration.warehouse.integrations import store_account, stored_account_id


def test_the_account_of_an_integration_is_known_only_for_the_key_that_it_was_read_with(tmp_path: Path) -> None:
    """A new key may belong to another account; until that is known, its events must not be stored under the old one."""
    with open_warehouse(tmp_path / "warehouse.duckdb") as connection:

        def known(key_digest: str | None, integration: str = "default") -> str | None:
            return stored_account_id(connection, integration, key_digest=key_digest)

        assert known("a") is None
        store_account(connection, "default", "acct_1", key_digest="a")
        assert [known("a"), known("b"), known(None), known("a", "other")] == ["acct_1", None, "acct_1", None]
        store_account(connection, "default", "acct_2", key_digest="b")
        store_account(connection, "default", "acct_2", key_digest="b")
        assert [known("a"), known("b"), known(None)] == [None, "acct_2", "acct_2"]
        assert connection.execute("SELECT count(*) FROM sync.integrations").fetchall() == [(1,)]
