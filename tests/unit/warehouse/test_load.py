"""The newer-wins load: which payload of an object is kept, and when a row is in doubt."""

import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestration.warehouse.connection import FOR_LOADING, create_tables, open_warehouse, transaction
from orchestration.warehouse.load import AccountKey, LoadCounts, Loader
from orchestration.warehouse.rows import EventRow, ObjectRow, event_row, object_row

ACCOUNT = AccountKey("acct_1", False)
PINNED = "2026-10-28.endive"


def intent(status: str, **fields: Any) -> dict[str, Any]:
    return {"id": "pi_1", "object": "payment_intent", "created": 1_000, "status": status, **fields}


def listed(payload: dict[str, Any], as_of: int, **options: Any) -> ObjectRow:
    return object_row(payload, as_of=as_of, seen_by=as_of, api_version=PINNED, **{"source": "list"} | options)


def event(
    payload: dict[str, Any],
    created: int,
    event_id: str,
    kind: str = "payment_intent.processing",
    version: str = PINNED,
) -> EventRow:
    body = {"id": event_id, "object": "event", "created": created, "type": kind, "api_version": version}
    return event_row(body | {"data": {"object": payload}}, "event")


def by_event(*of_event: Any) -> ObjectRow:
    row = event(*of_event).carried
    assert row is not None
    return row


def status_of(row: ObjectRow) -> str:
    return str(json.loads(row.payload)["status"])


@pytest.fixture
def warehouse(tmp_path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    with open_warehouse(tmp_path / "warehouse.duckdb", options=FOR_LOADING) as connection:
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


def test_an_identical_newer_payload_changes_no_row_but_is_remembered_as_newer(
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
def test_within_one_second_the_winner_does_not_depend_on_arrival(
    tmp_path: Path, winner: ObjectRow, loser: ObjectRow
) -> None:
    for number, order in enumerate(([winner, loser], [loser, winner])):
        with open_warehouse(tmp_path / f"{number}.duckdb", options=FOR_LOADING) as connection:
            for row in order:
                load(connection, row)
            assert stored(connection, STATUS) == (status_of(winner),)


def test_events_of_one_second_that_disagree_put_the_row_in_doubt(warehouse: duckdb.DuckDBPyConnection) -> None:
    load(warehouse, by_event(intent("processing"), 2_000, "evt_b"), by_event(intent("requires_action"), 2_000, "evt_a"))
    assert stored(warehouse, "_needs_read") == (True,)


def test_a_retrieve_settles_a_doubt_until_another_event_of_that_second_disagrees(
    warehouse: duckdb.DuckDBPyConnection,
) -> None:
    load(warehouse, by_event(intent("processing"), 2_000, "evt_b"), by_event(intent("requires_action"), 2_000, "evt_a"))
    load(warehouse, listed(intent("requires_action"), 2_000, source="retrieve", is_read_again=True))
    assert stored(warehouse, f"{STATUS}, _needs_read") == ("requires_action", False)
    load(warehouse, by_event(intent("requires_payment_method"), 2_000, "evt_c", "payment_intent.payment_failed"))
    assert stored(warehouse, f"{STATUS}, _needs_read") == ("requires_action", True)


def test_created_and_succeeded_in_one_second_is_no_doubt(warehouse: duckdb.DuckDBPyConnection) -> None:
    load(
        warehouse,
        by_event(intent("requires_payment_method"), 2_000, "evt_z", "payment_intent.created"),
        by_event(intent("succeeded"), 2_000, "evt_a", "payment_intent.succeeded"),
    )
    assert stored(warehouse, f"{STATUS}, _needs_read") == ("succeeded", False)


def test_a_payload_of_another_api_version_is_kept_and_read_again(warehouse: duckdb.DuckDBPyConnection) -> None:
    load(warehouse, by_event(intent("succeeded"), 2_000, "evt_1", "payment_intent.succeeded", "2020-08-27"))
    assert stored(warehouse, f"{STATUS}, _needs_read, _api_version") == ("succeeded", True, "2020-08-27")


def test_accounts_and_modes_never_touch_each_other(warehouse: duckdb.DuckDBPyConnection) -> None:
    keys = [AccountKey("acct_1", False), AccountKey("acct_1", True), AccountKey("acct_2", False)]
    for number, key in enumerate(keys):
        with transaction(warehouse):
            Loader(warehouse, key, PINNED).load_objects(
                "payment_intents", [listed(intent("processing", amount=number), 2_000 - number)]
            )
    rows = warehouse.execute("SELECT account_id, livemode, (payload->>'$.amount')::INT FROM raw_stripe.payment_intents")
    assert sorted(rows.fetchall()) == [("acct_1", False, 0), ("acct_1", True, 1), ("acct_2", False, 2)]


def test_a_failure_without_a_charge_outlives_the_field_that_told_of_it(warehouse: duckdb.DuckDBPyConnection) -> None:
    error = {"code": "payment_intent_authentication_failure", "type": "invalid_request_error", "charge": None}
    load(warehouse, listed(intent("requires_payment_method", last_payment_error=error), 2_000))
    load(warehouse, listed(intent("requires_payment_method", last_payment_error=error), 2_500))
    load(warehouse, listed(intent("succeeded", last_payment_error=None), 3_000))
    rows = warehouse.execute(
        "SELECT payment_intent_id, epoch(first_seen_at)::INT FROM raw_stripe.last_payment_errors"
    ).fetchall()
    assert rows == [("pi_1", 2_000)]


def test_an_event_is_kept_once_and_never_applied_twice(warehouse: duckdb.DuckDBPyConnection) -> None:
    processing = event(intent("processing"), 2_000, "evt_1")
    for _ in range(2):
        with transaction(warehouse):
            Loader(warehouse, ACCOUNT, PINNED).load_events([processing, processing])
    assert warehouse.execute("SELECT count(*) FROM raw_stripe.events").fetchone() == (1,)


SIGHTINGS: list[ObjectRow] = [
    listed(intent("requires_payment_method"), 2_000),
    by_event(intent("requires_payment_method", step=1), 1_999, "evt_c", "payment_intent.created"),
    by_event(intent("requires_action"), 2_000, "evt_b"),
    by_event(intent("processing"), 2_001, "evt_a"),
    by_event(intent("requires_payment_method", step=2), 2_001, "evt_d", "payment_intent.payment_failed"),
    by_event(intent("succeeded"), 2_001, "evt_0", "payment_intent.succeeded"),
]


@st.composite
def _deliveries(draw: st.DrawFn) -> list[Sequence[ObjectRow]]:
    """Any order, any batches, repeats included."""
    chosen = draw(st.permutations(SIGHTINGS + draw(st.lists(st.sampled_from(SIGHTINGS), max_size=3))))
    cuts = sorted(draw(st.sets(st.integers(1, len(chosen) - 1))))
    return [chosen[start:end] for start, end in itertools.pairwise([0, *cuts, len(chosen)])]


@settings(max_examples=60, deadline=None)
@given(st.sets(st.integers(0, len(SIGHTINGS) - 1), min_size=2), _deliveries())
def test_the_kept_payload_is_the_same_whatever_the_order_of_arrival(
    kept: set[int], deliveries: list[Sequence[ObjectRow]]
) -> None:
    some = [SIGHTINGS[index] for index in kept]
    expected = max(some, key=lambda row: (row.as_of, row.precedence))
    with duckdb.connect() as connection:
        create_tables(connection)
        for batch in deliveries:
            load(connection, *[row for row in batch if row in some])
        assert stored(connection, STATUS) == (status_of(expected),)
