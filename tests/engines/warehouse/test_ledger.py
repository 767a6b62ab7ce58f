"""The ledger of loads and builds: loads stay open until a complete build has processed them."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pytest

from orchestration.base.account import AccountKey
from orchestration.warehouse.checkpoints import Checkpoint, write_checkpoint
from orchestration.warehouse.connection import open_warehouse, transaction
from orchestration.warehouse.ledger import (
    CompleteBuild,
    begin_build,
    complete_build,
    delete_closed_loads,
    delete_complete_build,
    find_incomplete_build,
    has_incomplete_builds,
    hash_streams,
    last_complete_build,
    record_changed_table,
    tables_of_incomplete_builds,
    tables_with_open_loads,
)
from orchestration.warehouse.load import Loader
from orchestration.warehouse.rows import event_row

ACCOUNT = AccountKey("acct_1", False)
INTENT = {"id": "pi_1", "object": "payment_intent", "amount": 500, "created": 1_767_225_600, "currency": "eur"}


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    with open_warehouse(tmp_path / "warehouse.duckdb") as opened:
        yield opened


def load_event(connection: duckdb.DuckDBPyConnection, event_id: str) -> int:
    """Load an event with the PaymentIntent it carries; return the number of the load."""
    event = {"id": event_id, "object": "event", "created": 1_767_225_601, "type": "payment_intent.created"}
    loader = Loader(connection, ACCOUNT, "2026-10-28.endive")
    loader.load_events([event_row(event | {"data": {"object": dict(INTENT)}}, "webhook")])
    return loader.load_id


def test_a_load_is_open_for_each_table_that_it_wrote_until_a_build_is_complete(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    assert tables_with_open_loads(connection) == set()
    load_event(connection, "evt_1")
    assert tables_with_open_loads(connection) == {"events", "payment_intents"}
    build_id, _ = begin_build(connection)
    assert tables_with_open_loads(connection) == {"events", "payment_intents"}, "beginning a build closes no load"
    complete_build(connection, build_id, "project", streams="hash")
    assert tables_with_open_loads(connection) == set()
    assert last_complete_build(connection) == CompleteBuild(build_id, "project", "hash")


def test_a_load_that_writes_nothing_is_not_open(connection: duckdb.DuckDBPyConnection) -> None:
    load_event(connection, "evt_1")
    build_id, _ = begin_build(connection)
    complete_build(connection, build_id, "project", streams=None)
    load_event(connection, "evt_1")
    assert tables_with_open_loads(connection) == set()


def test_a_load_and_its_ledger_entry_are_one_transaction(connection: duckdb.DuckDBPyConnection) -> None:
    with pytest.raises(ZeroDivisionError), transaction(connection):
        assert load_event(connection, "evt_1") / 0
    assert tables_with_open_loads(connection) == set()


def test_a_build_closes_no_load_that_came_after_it_began(connection: duckdb.DuckDBPyConnection) -> None:
    load_event(connection, "evt_1")
    build_id, _ = begin_build(connection)
    load_event(connection, "evt_2")
    complete_build(connection, build_id, "project", streams=None)
    assert tables_with_open_loads(connection) == {"events"}, "the second event carries the same PaymentIntent"


def test_a_build_starts_at_the_oldest_open_load_whatever_incomplete_builds_there_were(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    first, _ = begin_build(connection)
    complete_build(connection, first, "project", streams=None)
    oldest = load_event(connection, "evt_1")
    assert begin_build(connection)[1] == oldest, "before the first build of only some models"
    load_event(connection, "evt_2")
    build_id, first_load_id = begin_build(connection)
    assert first_load_id == oldest
    assert has_incomplete_builds(connection)
    complete_build(connection, build_id, "project", streams=None)
    assert not has_incomplete_builds(connection)
    build_id, first_load_id = begin_build(connection)
    assert first_load_id == build_id, "nothing is open"


def test_a_build_starts_at_an_incomplete_build_even_without_a_load(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    complete, _ = begin_build(connection)
    complete_build(connection, complete, "project", streams=None)
    by_hand, _ = begin_build(connection)
    assert begin_build(connection)[1] == by_hand


def test_a_deleted_build_is_no_longer_the_last_complete_one_but_its_loads_stay_closed(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    load_event(connection, "evt_1")
    build_id, _ = begin_build(connection)
    complete_build(connection, build_id, "project", streams=None)
    delete_complete_build(connection)
    assert last_complete_build(connection) is None
    assert tables_with_open_loads(connection) == set()


def test_an_incomplete_build_is_found_by_the_fingerprint_of_its_project(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute("INSERT INTO sync.model_builds VALUES (5, false, now()::TIMESTAMP, 'project', NULL)")
    connection.execute("INSERT INTO sync.model_builds VALUES (6, false, now()::TIMESTAMP, NULL, NULL)")
    assert find_incomplete_build(connection, "project") == 5
    with pytest.raises(LookupError):
        find_incomplete_build(connection, "another project")


def test_the_hash_of_the_streams_changes_only_with_checkpoints(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    hashes = [hash_streams(connection)]
    for through in (1_700_000_000, 1_700_000_001):
        write_checkpoint(connection, ACCOUNT, Checkpoint("charges", complete_through=through), now=through)
        hashes.append(hash_streams(connection))
    write_checkpoint(connection, ACCOUNT, Checkpoint("charges", complete_through=1_700_000_001), now=1_800_000_000)
    assert len(set(hashes)) == 3
    assert hash_streams(connection) == hashes[-1], "the time of writing is not part of the hash"


def test_only_closed_loads_are_deleted_by_age(connection: duckdb.DuckDBPyConnection) -> None:
    now = datetime.now(UTC)
    load_event(connection, "evt_1")
    assert delete_closed_loads(connection, before=now + timedelta(days=1)) == 0, "the load is still open"
    build_id, _ = begin_build(connection)
    complete_build(connection, build_id, "project", streams=None)
    assert delete_closed_loads(connection, before=now - timedelta(days=1)) == 0
    assert delete_closed_loads(connection, before=now + timedelta(days=1)) == 2, "events and payment intents"


def test_tables_of_incomplete_builds_are_listed_until_a_build_is_complete(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    complete, _ = begin_build(connection)
    record_changed_table(connection, complete, ("marts", "earlier"), ("id",))
    complete_build(connection, complete, "project", streams=None)
    assert tables_of_incomplete_builds(connection) == set()
    by_hand, _ = begin_build(connection)
    record_changed_table(connection, by_hand, ("marts", "totals"), ())
    assert tables_of_incomplete_builds(connection) == {("marts", "totals")}
    build_id, _ = begin_build(connection)
    complete_build(connection, build_id, "project", streams=None)
    assert tables_of_incomplete_builds(connection) == set()


def test_a_table_without_a_key_or_without_an_entry_counts_as_replaced(connection: duckdb.DuckDBPyConnection) -> None:
    for build_id, key in ((1, ()), (2, ("id",)), (3, ("id",)), (4, ())):
        record_changed_table(connection, build_id, ("marts", "totals"), key)
        record_changed_table(connection, build_id, ("marts", f"new_{build_id}"), ("id",))
    query = "SELECT table_name, changed_by, replaced_by FROM sync.model_tables ORDER BY ALL"
    found = connection.execute(query).fetchall()
    assert found == [*((f"new_{number}", number, number) for number in (1, 2, 3, 4)), ("totals", 4, 4)]
    record_changed_table(connection, 5, ("marts", "totals"), ("id",))
    assert ("totals", 5, 4) in connection.execute(query).fetchall()
