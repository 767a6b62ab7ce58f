"""Loading rows: which payload of an object is stored, and when a row is marked to be read again."""

import itertools
import json
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestration.base.account import AccountKey
from orchestration.warehouse.connection import LOADING_OPTIONS, create_tables, open_warehouse, transaction
from orchestration.warehouse.load import LoadCounts, Loader
from orchestration.warehouse.rows import EventRow, ObjectRow, event_row, object_row

ACCOUNT = AccountKey("acct_1", False)
PINNED = "2026-10-28.endive"


def intent(status: str, **fields: Any) -> dict[str, Any]:
    return {
        "id": "pi_1",
        "object": "payment_intent",
        "created": 1_000,
        "amount": 900,
        "currency": "eur",
        "status": status,
        **fields,
    }


def listed(payload: dict[str, Any], as_of: int, **options: Any) -> ObjectRow:
    return object_row(
        payload, as_of=as_of, read_no_later_than=as_of, api_version=PINNED, **{"source": "list"} | options
    )


def event(
    payload: dict[str, Any],
    created: int,
    event_id: str,
    kind: str = "payment_intent.processing",
    version: str = PINNED,
) -> EventRow:
    body = {"id": event_id, "object": "event", "created": created, "type": kind, "api_version": version}
    return event_row(body | {"data": {"object": payload}}, "event")


def by_event(*event_fields: Any) -> ObjectRow:
    row = event(*event_fields).carried
    assert row is not None
    return row


def status_of(row: ObjectRow) -> str:
    return str(json.loads(row.payload)["status"])


@pytest.fixture
def warehouse(tmp_path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    with open_warehouse(tmp_path / "warehouse.duckdb", options=LOADING_OPTIONS) as connection:
        yield connection


def load(connection: duckdb.DuckDBPyConnection, *objects: ObjectRow, table: str = "payment_intents") -> LoadCounts:
    with transaction(connection):
        return Loader(connection, ACCOUNT, PINNED).load_objects(table, objects)  # type: ignore[arg-type]


def stored(connection: duckdb.DuckDBPyConnection, columns: str, table: str = "payment_intents") -> tuple[Any, ...]:
    rows = connection.execute(f"SELECT {columns} FROM raw_stripe.{table}").fetchall()
    assert len(rows) == 1
    return rows[0]


STATUS = "payload->>'$.status'"


def test_an_older_event_never_overwrites_a_newer_listing(warehouse: duckdb.DuckDBPyConnection) -> None:
    load(warehouse, listed(intent("requires_payment_method"), 2_000))
    counts = load(warehouse, by_event(intent("processing"), 1_999, "evt_1"))
    assert stored(warehouse, f"{STATUS}, _needs_read") == ("requires_payment_method", False)
    assert counts == LoadCounts(read=1, outdated=1)


def test_an_identical_newer_payload_changes_only_the_age_of_the_row(
    warehouse: duckdb.DuckDBPyConnection,
) -> None:
    load(warehouse, listed(intent("processing"), 2_000))
    before = stored(warehouse, "payload, _loaded_at, _load_id")
    assert load(warehouse, listed(intent("processing"), 3_000)) == LoadCounts(read=1, unchanged=1)
    assert stored(warehouse, "payload, _loaded_at, _load_id") == before
    load(warehouse, by_event(intent("requires_action"), 2_500, "evt_1"))
    assert stored(warehouse, STATUS) == ("processing",)


@pytest.mark.parametrize(
    ("winner", "loser"),
    [
        pytest.param(by_event(intent("succeeded"), 2_000, "evt_a"), listed(intent("processing"), 2_000), id="final"),
        pytest.param(
            listed(intent("processing"), 2_000), by_event(intent("requires_action"), 2_000, "evt_z"), id="list"
        ),
        pytest.param(
            by_event(intent("requires_action"), 2_000, "evt_a", "payment_intent.requires_action"),
            by_event(intent("requires_payment_method"), 2_000, "evt_z", "payment_intent.created"),
            id="created loses",
        ),
        pytest.param(
            by_event(intent("processing"), 2_000, "evt_b"), by_event(intent("requires_action"), 2_000, "evt_a"), id="id"
        ),
    ],
)
def test_within_one_second_the_winner_does_not_depend_on_the_order_of_arrival(
    tmp_path: Path, winner: ObjectRow, loser: ObjectRow
) -> None:
    for number, order in enumerate(([winner, loser], [loser, winner])):
        with open_warehouse(tmp_path / f"{number}.duckdb", options=LOADING_OPTIONS) as connection:
            for row in order:
                load(connection, row)
            assert stored(connection, STATUS) == (status_of(winner),)


def either_object(kind: str, status: str) -> dict[str, Any]:
    return {"id": "obj_1", "object": kind, "created": 1_000, "amount": 900, "currency": "eur", "status": status}


FINAL_STATES = [
    ("payment_intent", "succeeded", "processing", True),
    ("payment_intent", "canceled", "requires_action", True),
    ("charge", "succeeded", "pending", False),
    ("charge", "failed", "pending", False),
    ("refund", "succeeded", "pending", False),
    ("refund", "failed", "succeeded", True),
    ("refund", "canceled", "requires_action", True),
    ("refund", "canceled", "succeeded", True),
    ("dispute", "won", "under_review", False),
    ("dispute", "lost", "under_review", False),
    ("dispute", "warning_closed", "warning_under_review", False),
    ("dispute", "prevented", "needs_response", False),
]
"""Type of object, the state that wins within a second, the one that loses, and whether the winner never changes."""


@pytest.mark.parametrize(("kind", "winner", "loser", "is_for_good"), FINAL_STATES)
def test_a_later_state_from_an_event_beats_an_earlier_state_from_a_list_of_the_same_second(
    kind: str, winner: str, loser: str, is_for_good: bool, warehouse: duckdb.DuckDBPyConnection
) -> None:
    table = f"{kind}s"
    load(warehouse, listed(either_object(kind, loser), 2_000), table=table)
    load(warehouse, by_event(either_object(kind, winner), 2_000, "evt_1", f"{kind}.updated"), table=table)
    assert stored(warehouse, STATUS, table) == (winner,)


@pytest.mark.parametrize(("kind", "winner", "loser", "is_for_good"), FINAL_STATES)
def test_a_tie_is_read_again_unless_the_winner_is_a_state_that_never_changes(
    kind: str, winner: str, loser: str, is_for_good: bool, warehouse: duckdb.DuckDBPyConnection
) -> None:
    rows = [
        by_event(either_object(kind, status), 2_000, event_id, f"{kind}.updated")
        for status, event_id in ((loser, "evt_b"), (winner, "evt_a"))
    ]
    load(warehouse, *rows, table=f"{kind}s")
    assert stored(warehouse, f"{STATUS}, _needs_read", f"{kind}s") == (winner, not is_for_good)


@pytest.mark.parametrize(
    ("kind", "states"),
    [("charge", ("succeeded", "failed")), ("dispute", ("won", "lost")), ("refund", ("failed", "canceled"))],
)
def test_of_two_final_states_in_one_second_that_of_the_list_wins(
    kind: str, states: tuple[str, str], warehouse: duckdb.DuckDBPyConnection
) -> None:
    for from_list, from_event in (states, states[::-1]):
        warehouse.execute(f"DELETE FROM raw_stripe.{kind}s")
        load(warehouse, by_event(either_object(kind, from_event), 2_000, "evt_z", f"{kind}.updated"), table=f"{kind}s")
        load(warehouse, listed(either_object(kind, from_list), 2_000), table=f"{kind}s")
        assert stored(warehouse, STATUS, f"{kind}s") == (from_list,)


def test_events_of_one_second_that_disagree_mark_the_row_to_be_read_again(warehouse: duckdb.DuckDBPyConnection) -> None:
    load(warehouse, by_event(intent("processing"), 2_000, "evt_b"), by_event(intent("requires_action"), 2_000, "evt_a"))
    assert stored(warehouse, "_needs_read") == (True,)


@pytest.mark.parametrize("third", ["evt_0", "evt_c"], ids=["loses by its id", "wins by its id"])
def test_a_third_event_that_equals_the_winner_leaves_the_mark(third: str, warehouse: duckdb.DuckDBPyConnection) -> None:
    load(warehouse, by_event(intent("processing"), 2_000, "evt_b"), by_event(intent("requires_action"), 2_000, "evt_a"))
    load(warehouse, by_event(intent("processing"), 2_000, third))
    assert stored(warehouse, f"{STATUS}, _needs_read") == ("processing", True)


def test_three_events_of_one_second_leave_the_mark_in_every_order(tmp_path: Path) -> None:
    rows = [
        by_event(intent("processing"), 2_000, "evt_a"),
        by_event(intent("requires_action"), 2_000, "evt_b"),
        by_event(intent("processing"), 2_000, "evt_c"),
    ]
    for number, order in enumerate(itertools.permutations(rows)):
        with open_warehouse(tmp_path / f"{number}.duckdb", options=LOADING_OPTIONS) as connection:
            for row in order:
                load(connection, row)
            assert stored(connection, f"{STATUS}, _needs_read") == ("processing", True)


def test_an_event_of_a_later_second_clears_the_mark(warehouse: duckdb.DuckDBPyConnection) -> None:
    load(warehouse, by_event(intent("processing"), 2_000, "evt_b"), by_event(intent("requires_action"), 2_000, "evt_a"))
    load(warehouse, by_event(intent("processing"), 2_001, "evt_c"))
    assert stored(warehouse, f"{STATUS}, _needs_read") == ("processing", False)


def test_an_older_event_leaves_the_mark(warehouse: duckdb.DuckDBPyConnection) -> None:
    load(warehouse, by_event(intent("processing"), 2_000, "evt_b"), by_event(intent("requires_action"), 2_000, "evt_a"))
    load(warehouse, by_event(intent("requires_payment_method"), 1_999, "evt_c"))
    assert stored(warehouse, f"{STATUS}, _needs_read") == ("processing", True)


def test_a_listing_that_disagrees_with_an_event_of_its_second_is_settled_by_a_retrieve(
    warehouse: duckdb.DuckDBPyConnection,
) -> None:
    load(warehouse, by_event(intent("processing"), 2_000, "evt_a"))
    load(warehouse, listed(intent("requires_action"), 2_000))
    assert stored(warehouse, f"{STATUS}, _needs_read") == ("requires_action", True)
    load(warehouse, listed(intent("requires_action"), 2_000, source="retrieve", is_reread=True))
    assert stored(warehouse, f"{STATUS}, _needs_read") == ("requires_action", False)


def test_a_retrieve_clears_the_mark_until_another_event_of_that_second_disagrees(
    warehouse: duckdb.DuckDBPyConnection,
) -> None:
    load(warehouse, by_event(intent("processing"), 2_000, "evt_b"), by_event(intent("requires_action"), 2_000, "evt_a"))
    load(warehouse, listed(intent("requires_action"), 2_000, source="retrieve", is_reread=True))
    assert stored(warehouse, f"{STATUS}, _needs_read") == ("requires_action", False)
    load(warehouse, by_event(intent("requires_payment_method"), 2_000, "evt_c", "payment_intent.payment_failed"))
    assert stored(warehouse, f"{STATUS}, _needs_read") == ("requires_action", True)


def test_a_payment_created_and_succeeded_in_one_second_is_not_marked(warehouse: duckdb.DuckDBPyConnection) -> None:
    load(
        warehouse,
        by_event(intent("requires_payment_method"), 2_000, "evt_z", "payment_intent.created"),
        by_event(intent("succeeded"), 2_000, "evt_a", "payment_intent.succeeded"),
    )
    assert stored(warehouse, f"{STATUS}, _needs_read") == ("succeeded", False)


CREATED = [
    ("payment_intent", "payment_intent.created", "requires_payment_method", "requires_action"),
    ("refund", "refund.created", "pending", "requires_action"),
    ("dispute", "charge.dispute.created", "needs_response", "under_review"),
]
"""Type of object, the event of its creation, its state then, and another state that is not final."""


@pytest.mark.parametrize(("kind", "created", "first", "second"), CREATED)
def test_a_created_event_loses_to_another_event_of_its_second_without_a_mark(
    kind: str, created: str, first: str, second: str, tmp_path: Path
) -> None:
    rows = [
        by_event(either_object(kind, first), 2_000, "evt_z", created),
        by_event(either_object(kind, second), 2_000, "evt_a", f"{kind}.updated"),
    ]
    for number, batches in enumerate(([rows], [rows[:1], rows[1:]], [rows[1:], rows[:1]])):
        with open_warehouse(tmp_path / f"{number}.duckdb", options=LOADING_OPTIONS) as connection:
            for batch in batches:
                load(connection, *batch, table=f"{kind}s")
            assert stored(connection, f"{STATUS}, _needs_read", f"{kind}s") == (second, False)


def test_a_payload_of_another_api_version_is_kept_and_read_again(warehouse: duckdb.DuckDBPyConnection) -> None:
    load(warehouse, by_event(intent("succeeded"), 2_000, "evt_1", "payment_intent.succeeded", "2020-08-27"))
    assert stored(warehouse, f"{STATUS}, _needs_read, _api_version") == ("succeeded", True, "2020-08-27")


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("charge", "payment_intent"),
        ("refund", "payment_intent"),
        ("refund", "charge"),
        ("dispute", "payment_intent"),
        ("dispute", "charge"),
    ],
)
def test_an_object_cannot_be_moved_to_another_payment_or_charge(
    kind: str, name: str, warehouse: duckdb.DuckDBPyConnection
) -> None:
    """A build would not find the payment that lost an object. Gaining a payment, or expanding it, is accepted."""
    versions: list[Any] = [None, "x_1", {"id": "x_1", "amount": 1}, "x_2", {"id": "x_2"}, None, "x_1"]
    for at, version in enumerate(versions):
        changed = either_object(kind, "pending") | {name: version, "reason": f"n{at}", "failure_code": f"n{at}"}
        load(warehouse, listed(changed, 2_000 + at), table=f"{kind}s")
        payload = json.loads(stored(warehouse, "payload", f"{kind}s")[0])
        assert payload["reason"] == f"n{(0, 1, 2, 2, 2, 2, 6)[at]}"


def test_accounts_and_modes_never_change_rows_of_each_other(warehouse: duckdb.DuckDBPyConnection) -> None:
    keys = [AccountKey("acct_1", False), AccountKey("acct_1", True), AccountKey("acct_2", False)]
    for number, key in enumerate(keys):
        with transaction(warehouse):
            Loader(warehouse, key, PINNED).load_objects(
                "payment_intents", [listed(intent("processing", amount=number), 2_000 - number)]
            )
    rows = warehouse.execute("SELECT account_id, livemode, (payload->>'$.amount')::INT FROM raw_stripe.payment_intents")
    assert sorted(rows.fetchall()) == [("acct_1", False, 0), ("acct_1", True, 1), ("acct_2", False, 2)]


def test_a_failure_without_a_charge_is_kept_after_stripe_clears_its_field(warehouse: duckdb.DuckDBPyConnection) -> None:
    error = {"code": "payment_intent_authentication_failure", "type": "invalid_request_error", "charge": None}
    load(warehouse, listed(intent("requires_payment_method", last_payment_error=error), 2_000))
    load(warehouse, listed(intent("requires_payment_method", last_payment_error=error), 2_500))
    load(warehouse, listed(intent("succeeded", last_payment_error=None), 3_000))
    rows = warehouse.execute(
        "SELECT payment_intent_id, epoch(first_seen_at)::INT FROM raw_stripe.last_payment_errors"
    ).fetchall()
    assert rows == [("pi_1", 2_000)]


def test_of_the_same_failure_twice_in_one_batch_the_earlier_one_is_kept(warehouse: duckdb.DuckDBPyConnection) -> None:
    error = {"code": "payment_intent_authentication_failure", "type": "invalid_request_error", "charge": None}
    failed = intent("requires_payment_method", last_payment_error=error)
    load(warehouse, listed(failed, 2_000), listed(failed, 2_500))
    assert stored(warehouse, "epoch(first_seen_at)::INT", "last_payment_errors") == (2_000,)


def test_rows_have_the_id_of_the_load_that_wrote_them_and_load_ids_grow(
    warehouse: duckdb.DuckDBPyConnection,
) -> None:
    error = {"code": "payment_intent_authentication_failure", "type": "invalid_request_error", "charge": None}
    load_ids = []
    for second, status in ((2_000, "processing"), (2_001, "requires_payment_method")):
        with transaction(warehouse):
            loader = Loader(warehouse, ACCOUNT, PINNED)
            loader.load_objects("payment_intents", [listed(intent(status, last_payment_error=error), second)])
            loader.load_events([event(intent(status), second, f"evt_{second}")])
        load_ids.append(loader.load_id)
        assert stored(warehouse, "_load_id") == (loader.load_id,)
    assert load_ids[0] < load_ids[1]
    events = warehouse.execute("SELECT _load_id FROM raw_stripe.events ORDER BY id").fetchall()
    assert events == [(load_id,) for load_id in load_ids]
    assert stored(warehouse, "_load_id", "last_payment_errors") == (load_ids[0],)


def test_a_row_that_is_only_marked_to_be_read_again_keeps_its_load_id(
    warehouse: duckdb.DuckDBPyConnection,
) -> None:
    load(warehouse, by_event(intent("processing"), 2_000, "evt_b"))
    before = stored(warehouse, "_load_id")
    load(warehouse, by_event(intent("requires_action"), 2_000, "evt_a"))
    assert stored(warehouse, f"{STATUS}, _needs_read") == ("processing", True)
    assert stored(warehouse, "_load_id") == before


def test_only_a_changed_payload_changes_the_time_of_loading(warehouse: duckdb.DuckDBPyConnection) -> None:
    for day, status in ((1, "processing"), (2, "processing"), (3, "requires_action")):
        with transaction(warehouse):
            loader = Loader(warehouse, ACCOUNT, PINNED)
            loader.loaded_at = datetime(2026, 1, day)
            loader.load_objects("payment_intents", [listed(intent(status), 2_000 + day)])
        assert stored(warehouse, "day(_loaded_at)") == (3 if day == 3 else 1,)


def test_an_event_is_kept_once_and_never_applied_twice(warehouse: duckdb.DuckDBPyConnection) -> None:
    processing = event(intent("processing"), 2_000, "evt_1")
    for _ in range(2):
        with transaction(warehouse):
            Loader(warehouse, ACCOUNT, PINNED).load_events([processing, processing])
    assert warehouse.execute("SELECT count(*) FROM raw_stripe.events").fetchone() == (1,)


VERSIONS: list[ObjectRow] = [
    listed(intent("requires_payment_method"), 2_000),
    by_event(intent("requires_payment_method", step=1), 1_999, "evt_c", "payment_intent.created"),
    by_event(intent("requires_action"), 2_000, "evt_b"),
    by_event(intent("processing"), 2_001, "evt_a"),
    by_event(intent("requires_payment_method", step=2), 2_001, "evt_d", "payment_intent.payment_failed"),
    by_event(intent("succeeded"), 2_001, "evt_0", "payment_intent.succeeded"),
]


@st.composite
def _deliveries(draw: st.DrawFn) -> list[Sequence[ObjectRow]]:
    """Draw rows in any order and any batches, with repetitions."""
    chosen = draw(st.permutations(VERSIONS + draw(st.lists(st.sampled_from(VERSIONS), max_size=3))))
    cuts = sorted(draw(st.sets(st.integers(1, len(chosen) - 1))))
    return [chosen[start:end] for start, end in itertools.pairwise([0, *cuts, len(chosen)])]


@settings(max_examples=60, deadline=None)
@given(st.sets(st.integers(0, len(VERSIONS) - 1), min_size=2), _deliveries())
def test_the_stored_payload_does_not_depend_on_the_order_of_arrival(
    kept: set[int], deliveries: list[Sequence[ObjectRow]]
) -> None:
    some = [VERSIONS[index] for index in kept]
    expected = max(some, key=lambda row: (row.as_of, row.precedence))
    with duckdb.connect() as connection:
        create_tables(connection)
        for batch in deliveries:
            load(connection, *[row for row in batch if row in some])
        assert stored(connection, STATUS) == (status_of(expected),)
