"""Links between payments with few customers, cards, orders and prices do not depend on the order of arrival."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import duckdb
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as cases
from hypothesis import strategies as st

from orchestration.base.account import AccountKey
from orchestration.config.settings import Settings
from orchestration.stripe_api import API_VERSION
from orchestration.warehouse.connection import open_warehouse, transaction
from orchestration.warehouse.load import Loader
from orchestration.warehouse.rows import object_row
from tests.support import pipeline
from tests.support.built_folder import BuiltFolder
from tests.support.payment_histories import DAY, HOUR, MIDNIGHT, charge, intent
from tests.support.truth import read_models

CASES: Final = int(os.environ.get("RECOUP_LINKED_CASES", "5"))
NOW: Final = MIDNIGHT + 120 * DAY
STARTS: Final = sorted(
    days * DAY + seconds for days in (0, 1, 2, 3, 7, 8, 14, 28, 30, 31, 60) for seconds in (0, 5, 12, 61, HOUR)
)
"""Seconds after midnight: months and days apart, and around the limits that decide."""


@dataclass(frozen=True)
class Version:
    """A payment as Stripe shows it at some time. A later version replaces it."""

    customer: str | None
    card: str | None
    orders: tuple[str | None, str | None]
    amount: int
    outcome: str


VERSIONS = st.builds(
    Version,
    customer=st.sampled_from(["cus_1", "cus_2", None]),
    card=st.sampled_from(["card_1", "card_2", None]),
    orders=st.tuples(st.sampled_from(["1", "2", "0", None, None]), st.sampled_from(["prod_1", "9", None])),
    amount=st.sampled_from([500, 500, 700]),
    outcome=st.sampled_from(["failed", "failed", "succeeded", "processing", "canceled", "failed_and_succeeded"]),
)


@st.composite
def histories(draw: st.DrawFn) -> list[list[tuple[int, int, Version]]]:
    """Return batches of (number of the payment, start, version), in the order in which Stripe shows them."""
    count = draw(st.integers(6, 30))
    starts = draw(st.lists(st.sampled_from(STARTS), min_size=count, max_size=count))
    versions = [draw(st.lists(VERSIONS, min_size=1, max_size=2)) for _ in range(count)]
    batches: list[list[tuple[int, int, Version]]] = [[], [], []]
    for number, (start, payment_versions) in enumerate(zip(starts, versions, strict=True)):
        first = draw(st.integers(0, 2 if len(payment_versions) == 1 else 1))
        batches[first].append((number, start, payment_versions[0]))
        if len(payment_versions) == 2:
            batches[draw(st.integers(first + 1, 2))].append((number, start, payment_versions[1]))
    return batches


def render_version(number: int, start: int, version: Version) -> list[dict[str, Any]]:
    """Return the payment's objects in that version."""
    name, at = f"p{number:02}", MIDNIGHT + start
    status = {"failed": "requires_payment_method", "failed_and_succeeded": "succeeded"}.get(
        version.outcome, version.outcome
    )
    paid = status == "succeeded"
    shared = {"customer": version.customer, "amount": version.amount}
    method = {"type": "card", "card": {"fingerprint": version.card}} if version.card else None
    charges = []
    if version.outcome in ("failed", "canceled", "failed_and_succeeded"):
        charges.append(charge(name, 1, created=at, payment_method_details=method, **shared))
    if paid or status == "processing":
        facts: dict[str, Any] = (
            {"amount_captured": version.amount} if paid else {"status": "pending", "captured": False}
        )
        charges.append(charge(name, 2, created=at + 30, payment_method_details=method, **shared, **facts))
    order, reference = version.orders
    made = intent(
        name,
        created=at,
        status=status,
        amount_received=version.amount if paid else 0,
        canceled_at=at + HOUR if status == "canceled" else None,
        metadata={"order_id": order} if order else {},
        payment_details={"order_reference": reference},
        **shared,
    )
    return [made, *charges]


def load(settings: Settings, payloads: Sequence[dict[str, Any]], as_of: int) -> None:
    """Load objects as a list at `as_of` shows them."""
    with open_warehouse(settings.warehouse_path) as connection, transaction(connection):
        loader = Loader(connection, AccountKey("acct_1", False), API_VERSION)
        for table in ("payment_intents", "charges"):
            rows = [
                object_row(each, as_of=as_of, read_no_later_than=as_of, api_version=API_VERSION, source="list")
                for each in payloads
                if f"{each['object']}s" == table
            ]
            loader.load_objects(table, rows)


def build_batches(built_folder: BuiltFolder, folder: Path, batches: Sequence[Sequence[dict[str, Any]]]) -> Settings:
    """Return a data folder into which the batches were loaded one after the other, with a build after each."""
    settings = Settings(recoup_data_dir=built_folder.copy(folder))
    for number, batch in enumerate(batches):
        load(settings, batch, NOW + number)
        pipeline.build(settings)
    return settings


@cases(
    max_examples=CASES,
    deadline=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(batches=histories())
def test_links_are_the_same_whether_built_in_parts_or_at_once(
    built_folder: BuiltFolder, batches: list[list[tuple[int, int, Version]]]
) -> None:
    """Link payments that change their customer, card, order, price or outcome as if they had always been so."""
    parts = [[each for entry in batch for each in render_version(*entry)] for batch in batches]
    last = {each["id"]: each for batch in parts for each in batch}
    with TemporaryDirectory() as folder:
        in_parts = build_batches(built_folder, Path(folder) / "parts", [batch for batch in parts if batch])
        at_once = build_batches(built_folder, Path(folder) / "once", [list(last.values())])
        found, expected = read_models(in_parts), read_models(at_once)
        assert [
            table
            for table in found.keys() | expected.keys()
            if not table.startswith("raw_stripe.") and found.get(table) != expected.get(table)
        ] == []
        for settings in (in_parts, at_once):
            assert_one_to_one(settings)


def assert_one_to_one(settings: Settings) -> None:
    """Check that each payment follows an earlier one and that at most one success follows a payment."""
    with duckdb.connect(str(settings.warehouse_path), read_only=True) as connection:
        wrong = connection.execute(
            """SELECT later.payment_intent_id FROM marts.payment_intents later
               JOIN marts.payment_intents earlier ON earlier.payment_intent_id = later.predecessor_id
               WHERE later.created_at <= earlier.created_at OR later.currency <> earlier.currency
                  OR (later.order_key <> earlier.order_key
                      AND split_part(later.order_key, ':', 1) = split_part(earlier.order_key, ':', 1))
               UNION ALL
               SELECT predecessor_id FROM marts.payment_intents
               WHERE link_tier IN ('card', 'customer') AND first_succeeded_at IS NOT NULL
               GROUP BY ALL HAVING count(*) > 1"""
        ).fetchall()
    assert wrong == []
