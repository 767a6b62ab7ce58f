"""Which stored objects are due to be read again."""

from pathlib import Path

import pytest

from orchestration.base.account import AccountKey
from orchestration.sync.reread import FIRST_REREAD_SECONDS, find_due
from orchestration.warehouse.connection import open_warehouse, transaction
from orchestration.warehouse.load import Loader
from orchestration.warehouse.rows import EventRow, event_row, object_row

ACCOUNT = AccountKey("acct_1", False)
DAY = 86_400
T0 = 1_767_225_600


@pytest.mark.parametrize(
    ("status", "age", "last_read_age", "is_due"),
    [
        ("requires_payment_method", FIRST_REREAD_SECONDS, 0, True),
        ("requires_payment_method", FIRST_REREAD_SECONDS - 1, 0, False),
        ("requires_payment_method", 7 * DAY, 4 * DAY, False),
        ("requires_payment_method", 8 * DAY, 4 * DAY, True),
        ("processing", 40 * DAY, 15 * DAY, True),
        ("succeeded", 400 * DAY, 0, False),
        ("canceled", 400 * DAY, 0, False),
    ],
)
def test_an_object_that_is_not_final_is_due_when_its_age_has_doubled_since_the_last_read(
    status: str, age: int, last_read_age: int, is_due: bool, tmp_path: Path
) -> None:
    intent = {
        "id": "pi_1",
        "object": "payment_intent",
        "created": T0,
        "amount": 900,
        "currency": "eur",
        "status": status,
    }
    read_at = T0 + last_read_age
    row = object_row(intent, as_of=read_at, read_no_later_than=read_at, api_version="v", source="list")
    with open_warehouse(tmp_path / "warehouse.duckdb") as connection:
        with transaction(connection):
            Loader(connection, ACCOUNT, "v").load_objects("payment_intents", [row])
        due = find_due(connection, ACCOUNT, "payment_intents", now=T0 + age)
        assert [each.id for each in due] == (["pi_1"] if is_due else [])
        assert find_due(connection, AccountKey("acct_2", False), "payment_intents", now=T0 + age) == []


def about_charge(event_type: str, status: str, created: int) -> EventRow:
    """Return an event about a refund or dispute of the charge `ch_1`."""
    about = {
        "id": "about_1",
        "object": "dispute" if "dispute" in event_type else "refund",
        "created": T0,
        "amount": 900,
        "currency": "eur",
        "charge": "ch_1",
        "status": status,
    }
    event = {"id": "evt_1", "object": "event", "created": created, "type": event_type, "api_version": "v"}
    return event_row(event | {"data": {"object": about}}, "event")


def is_charge_due(path: Path, event: EventRow, *, as_of: int, now: int, is_reread: bool = False) -> bool:
    """Return whether a succeeded charge that was read at `as_of` is due because of the event."""
    charge = {"id": "ch_1", "object": "charge", "created": T0, "amount": 900, "currency": "eur", "status": "succeeded"}
    row = object_row(charge, as_of=as_of, read_no_later_than=as_of, api_version="v", source="list", is_reread=is_reread)
    with open_warehouse(path) as connection:
        with transaction(connection):
            loader = Loader(connection, ACCOUNT, "v")
            loader.load_objects("charges", [row])
            loader.load_events([event])
        return bool(find_due(connection, ACCOUNT, "charges", now=now))


@pytest.mark.parametrize(
    ("seconds_later", "is_reread", "is_due"),
    [(-1, False, False), (0, False, True), (1, False, True), (-1, True, False), (0, True, False), (1, True, True)],
)
def test_a_charge_is_due_unless_it_was_read_after_the_event_of_its_dispute(
    seconds_later: int, is_reread: bool, is_due: bool, tmp_path: Path
) -> None:
    """A re-read in the second of the event was requested after it. A page of a list may have been requested before."""
    as_of = T0 + DAY
    event = about_charge("charge.dispute.created", "needs_response", as_of + seconds_later)
    path = tmp_path / "warehouse.duckdb"
    assert is_charge_due(path, event, as_of=as_of, now=as_of + DAY, is_reread=is_reread) is is_due


@pytest.mark.parametrize(
    ("event_type", "status", "is_due"),
    [
        ("charge.dispute.created", "needs_response", True),
        ("charge.dispute.closed", "won", True),
        ("refund.failed", "failed", True),
        ("refund.updated", "canceled", True),
        ("charge.refund.updated", "failed", True),
        ("refund.created", "succeeded", False),
        ("refund.updated", "pending", False),
    ],
)
def test_only_a_dispute_or_a_failed_or_canceled_refund_makes_a_charge_due(
    event_type: str, status: str, is_due: bool, tmp_path: Path
) -> None:
    event = about_charge(event_type, status, T0 + DAY)
    assert is_charge_due(tmp_path / "warehouse.duckdb", event, as_of=T0, now=T0 + 2 * DAY) is is_due


@pytest.mark.parametrize(("days", "is_due"), [(29, True), (31, False)])
def test_an_event_that_stripe_no_longer_lists_makes_no_charge_due(days: int, is_due: bool, tmp_path: Path) -> None:
    event = about_charge("charge.dispute.created", "needs_response", T0 + 1)
    assert is_charge_due(tmp_path / "warehouse.duckdb", event, as_of=T0, now=T0 + days * DAY) is is_due
