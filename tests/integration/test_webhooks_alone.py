"""Marts from a PaymentIntent's events alone, compared with those of an account that was read in full.

A webhook event reports a failure minutes or hours before the charge is read. The marts must be right then, and must not
change when the charge arrives.
"""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import duckdb
import pytest

from orchestration.base.account import AccountKey
from orchestration.config.settings import Settings
from orchestration.simulator import SimulatedAccount, SimulatorServer
from orchestration.simulator.stripe.objects import Renderer
from orchestration.simulator.world.account import API_VERSION
from orchestration.warehouse.connection import open_warehouse, transaction
from orchestration.warehouse.load import Loader
from orchestration.warehouse.rows import event_row, object_row
from tests.support import pipeline
from tests.support.built_folder import BuiltFolder
from tests.support.truth import read_tables

DAY = 86_400
FIVE = tuple(
    f"payment_intent.{what}" for what in ("canceled", "payment_failed", "processing", "requires_action", "succeeded")
)
"""Event types to which an endpoint for payments commonly subscribes."""
ALL = (*FIVE, "payment_intent.created", "payment_intent.amount_capturable_updated")
DISPUTES = ("charge.dispute.created", "charge.dispute.closed")

ATTEMPT = """attempt_id, payment_intent_id, charge_id, customer_id, attempt_source, currency, outcome, failure_class,
    failure_code, decline_code, charge_failure_code, advice_code, network_advice_code, network_decline_code,
    attempt_number, amount, captured_amount, is_retry, is_returned, is_attempted_at_estimated,
    is_resolved_at_estimated, payment_method_id, attempted_at, hours_since_previous_attempt, resolved_at"""
INSTRUMENT = """attempt_id, payment_method_type, card_brand, card_funding, card_country, card_fingerprint, card_wallet,
    card_exp_month, card_exp_year"""
EPISODE = """episode_id, recovering_attempt_id, currency, first_failure_code, first_failure_class,
    first_payment_method_type, first_card_brand, first_card_funding, first_card_country, attempt_count,
    failed_attempt_count, attempts_to_recovery, at_risk_amount, recovered_amount, exclusion_reason, is_in_scope,
    nullif(lost_reason, 'window_ended') AS lost_reason, is_first_failed_at_estimated, is_first_succeeded_at_estimated,
    is_partially_recovered, first_failed_at, first_succeeded_at, window_ends_at, canceled_at"""
"""Columns of an episode. The end of a window is left out: it depends on `data_through_at`, which only a sync knows."""
ONLY_FROM_CHARGES = """outcome_type, outcome_reason, network_status, risk_level, card_network, card_cvc_check,
    three_d_secure_result, three_d_secure_result_reason, three_d_secure_flow"""

Table = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Account:
    """A simulated account, and the marts of a warehouse that was synced often enough to miss no event."""

    simulated: SimulatedAccount
    synced: Settings

    @property
    def returned(self) -> set[str]:
        """Return payments whose failure only a dispute shows."""
        return {row["payment_intent_id"] for row in attempts(self.synced).values() if row["is_returned"]}

    @property
    def linked_by_instrument(self) -> set[str]:
        """Return payments linked only by their card or bank account, which the event of a success does not contain."""
        intents = read_mart(
            self.synced, "payment_intent_id, episode_id, link_tier, customer_id", "payment_intents"
        ).values()
        of_guests = {row["episode_id"] for row in intents if row["link_tier"] == "card" and row["customer_id"] is None}
        return {row["payment_intent_id"] for row in intents if row["episode_id"] in of_guests}

    def with_their_episodes(self, payments: set[str]) -> set[str]:
        """Return the payments and all others of their episodes."""
        intents = read_mart(self.synced, "payment_intent_id, episode_id", "payment_intents").values()
        episodes = {row["episode_id"] for row in intents if row["payment_intent_id"] in payments}
        return {row["payment_intent_id"] for row in intents if row["episode_id"] in episodes}

    def events(self, kinds: Iterable[str]) -> list[dict[str, Any]]:
        wanted, now, renderer = set(kinds), self.simulated.now, Renderer(self.simulated)
        listed = self.simulated.list_entries("events", now, created=(0, now))
        return [renderer.render("events", entry, now) for entry in listed if entry.event_type in wanted]


@pytest.fixture(scope="module")
def account(built_folder: BuiltFolder, tmp_path_factory: pytest.TempPathFactory) -> Account:
    simulated = SimulatedAccount(seed=12, payments=400, days=20)
    with SimulatorServer(simulated) as server:
        settings = Settings(
            stripe_api_key="rk_test_simulated_account_reads_everything",  # type: ignore[arg-type]
            stripe_api_base=server.url,
            recoup_data_dir=built_folder.copy(tmp_path_factory.mktemp("synced")),
        )
        for _ in range(3):
            pipeline.extract(settings)
            simulated.now += 20 * DAY
        pipeline.extract(settings)
    pipeline.build(settings)
    return Account(simulated, settings)


def load(
    account: Account,
    settings: Settings,
    events: Sequence[dict[str, Any]],
    *,
    source: Literal["event", "webhook"] = "webhook",
    charges: Iterable[str] = (),
) -> None:
    """Load events and charges, as they are now, a few at a time, and build the models."""
    simulated, now = account.simulated, account.simulated.now
    with open_warehouse(settings.warehouse_path) as warehouse, transaction(warehouse):
        loader = Loader(warehouse, AccountKey(simulated.id, simulated.livemode), API_VERSION)
        for first in range(0, len(events), 500):
            loader.load_events([event_row(event, source) for event in events[first : first + 500]])
        found = [simulated.find("charges", charge, now) for charge in charges]
        rendered = [Renderer(simulated).render("charges", entry, now) for entry in found if entry is not None]
        rows = [
            object_row(charge, as_of=now, read_no_later_than=now, api_version=API_VERSION, source="list")
            for charge in rendered
        ]
        loader.load_objects("charges", rows)
    pipeline.build(settings)


def read_mart(settings: Settings, columns: str, table: str) -> Table:
    with duckdb.connect(str(settings.warehouse_path), read_only=True) as warehouse:
        found = warehouse.execute(f"SELECT {columns} FROM marts.{table}")
        names = [column[0] for column in found.description]
        return {row[0]: dict(zip(names, row, strict=True)) for row in found.fetchall()}


def attempts(settings: Settings) -> Table:
    return read_mart(settings, ATTEMPT, "payment_attempts")


def episodes(settings: Settings) -> Table:
    return read_mart(settings, EPISODE, "recovery_episodes")


def marts(settings: Settings) -> dict[str, Any]:
    tables = read_tables(settings.warehouse_path)
    return {name: rows for name, rows in tables.items() if name.startswith("marts.")}


def without(table: Table, columns: Iterable[str] = (), payments: Iterable[str] = ()) -> Table:
    left_out, gone = set(columns), set(payments)
    return {
        key: {name: value for name, value in row.items() if name not in left_out}
        for key, row in table.items()
        if row.get("payment_intent_id", row.get("episode_id")) not in gone
    }


def attempts_known_from_events(synced: Settings) -> Table:
    """Return the attempts as events show them: an error names a block by Radar only `fraudulent`, without its rule."""
    return {
        key: row | ({"failure_code": "fraudulent"} if row["outcome"] == "blocked" else {})
        for key, row in attempts(synced).items()
    }


def episodes_known_from_events(synced: Settings) -> Table:
    """Return the episodes as events show them.

    A success lacks the payment method, which shows whether the bank can return the payment.
    """
    returned = {
        (row["payment_intent_id"], row["resolved_at"]) for row in attempts(synced).values() if row["is_returned"]
    }
    return {
        key: row | ({"first_payment_method_type": None} if (key, row["first_failed_at"]) in returned else {})
        for key, row in episodes(synced).items()
    }


def test_the_account_contains_every_case(account: Account) -> None:
    found = attempts(account.synced).values()
    shown = episodes(account.synced).values()
    assert {row["outcome"] for row in found} == {"succeeded", "authorized", "processing", "failed", "blocked"}
    assert {row["failure_class"] for row in found} >= {"declined", "bank_return", "authentication_failed"}
    assert any(row["failure_class"] == "bank_return" and not row["is_returned"] for row in found)
    assert any(row["is_returned"] for row in found)
    assert any(row["outcome"] == "succeeded" and row["captured_amount"] < row["amount"] for row in found)
    assert any(row["failure_class"] == "invalid_or_processing" for row in found)
    assert {row["attempt_source"] for row in found} == {"charge", "event"}
    assert any(row["attempt_number"] > 4 for row in found)
    assert any(row["outcome"] == "blocked" and row["is_retry"] for row in found)
    assert any(row["lost_reason"] for row in shown)
    assert any(row["is_first_succeeded_at_estimated"] is False for row in shown)
    assert not any(row["is_attempted_at_estimated"] or row["is_resolved_at_estimated"] for row in found)


def test_events_alone_give_the_same_marts_as_charges(
    account: Account, built_folder: BuiltFolder, tmp_path: Path
) -> None:
    settings = Settings(recoup_data_dir=built_folder.copy(tmp_path))
    load(account, settings, account.events(ALL))
    returned, linked = account.returned, account.linked_by_instrument
    synced, from_events = attempts_known_from_events(account.synced), attempts(settings)
    assert linked
    gone = account.with_their_episodes(returned) | linked
    assert without(from_events, payments=gone) == without(synced, payments=gone)
    assert {from_events[key]["outcome"] for key, row in synced.items() if row["is_returned"]} == {"succeeded"}
    assert without(episodes(settings), payments=gone) == without(episodes(account.synced), payments=gone)

    failures = [key for key, row in from_events.items() if row["outcome"] in ("failed", "blocked")]
    instruments, true_instruments = (
        read_mart(each, INSTRUMENT, "payment_attempts") for each in (settings, account.synced)
    )
    assert [instruments[key] for key in failures] == [true_instruments[key] for key in failures]

    load(account, settings, account.events(DISPUTES))
    assert without(attempts(settings), payments=linked) == without(synced, payments=linked)
    assert without(episodes(settings), payments=linked) == without(
        episodes_known_from_events(account.synced), payments=linked
    )


def test_values_unknown_from_events_are_null_and_counted(
    account: Account, built_folder: BuiltFolder, tmp_path: Path
) -> None:
    settings = Settings(recoup_data_dir=built_folder.copy(tmp_path))
    load(account, settings, account.events(ALL))
    left_open = read_mart(settings, f"attempt_id, {ONLY_FROM_CHARGES}", "payment_attempts")
    assert {value for row in left_open.values() for name, value in row.items() if name != "attempt_id"} == {None}
    by_charge = read_mart(settings, "attempt_id, charge_id, is_charge_known", "payment_attempts").values()
    assert all(row["is_charge_known"] is (None if row["charge_id"] is None else False) for row in by_charge)
    (coverage,) = read_mart(settings, "*", "data_coverage").values()
    assert coverage["attempts_of_unknown_charges_count"] == sum(row["charge_id"] is not None for row in by_charge)
    assert coverage["charge_count"] == coverage["succeeded_without_charge_count"] == 0


def test_charges_change_only_values_that_were_unknown(
    account: Account, built_folder: BuiltFolder, tmp_path: Path
) -> None:
    settings = Settings(recoup_data_dir=built_folder.copy(tmp_path))
    load(account, settings, account.events([*ALL, *DISPUTES]))
    from_events, synced = attempts(settings), attempts(account.synced)
    charges = sorted(row["charge_id"] for row in synced.values() if row["charge_id"])
    some = set(random.Random(5).sample(charges, len(charges) // 2))

    load(account, settings, [], charges=some)
    columns, linked = ["first_payment_method_type"], account.linked_by_instrument
    half_updated = {key: synced[key] if key in some else row for key, row in from_events.items()}
    assert without(attempts(settings), payments=linked) == without(half_updated, payments=linked)
    assert without(episodes(settings), columns, linked) == without(episodes(account.synced), columns, linked)

    load(account, settings, [], charges=charges)
    everything = "attempt_id, * EXCLUDE (attempt_id, _load_id)"
    assert read_mart(settings, everything, "payment_attempts") == read_mart(
        account.synced, everything, "payment_attempts"
    )
    assert episodes(settings) == episodes(account.synced)


def test_a_missing_authorization_event_leaves_only_the_time_unknown(
    account: Account, built_folder: BuiltFolder, tmp_path: Path
) -> None:
    """Check that a captured or canceled payment still has its authorization as an attempt with an estimated time."""
    settings = Settings(recoup_data_dir=built_folder.copy(tmp_path))
    load(account, settings, account.events(FIVE))
    synced, alone = attempts_known_from_events(account.synced), attempts(settings)
    by_hand = {intent.id for intent in account.simulated.intents.values() if intent.capture_method == "manual"}
    estimated = {key for key, row in alone.items() if row["is_attempted_at_estimated"]}
    held = {
        key
        for key, row in synced.items()
        if row["payment_intent_id"] in by_hand and row["outcome"] in ("succeeded", "authorized")
    }
    assert estimated
    assert estimated <= held
    assert {synced[key]["outcome"] for key in held - estimated} <= {"authorized"}, "neither captured nor canceled yet"
    assert all(alone[key]["attempted_at"] > synced[key]["attempted_at"] for key in estimated)
    open_ones = {synced[key]["payment_intent_id"] for key in held - estimated}
    gone = account.with_their_episodes(account.returned | open_ones) | account.linked_by_instrument
    times = ("is_attempted_at_estimated", "attempted_at", "hours_since_previous_attempt")
    assert without(alone, times, gone) == without(synced, times, gone)
    assert without(episodes(settings), payments=gone) == without(episodes(account.synced), payments=gone)


def test_marts_do_not_depend_on_arrival_order_or_route(
    account: Account, built_folder: BuiltFolder, tmp_path: Path
) -> None:
    straight, shuffled = (
        Settings(recoup_data_dir=built_folder.copy(tmp_path / name)) for name in ("straight", "shuffled")
    )
    load(account, straight, account.events(ALL), source="webhook")
    events = account.events(ALL)
    random.Random(6).shuffle(events)
    load(account, shuffled, events, source="event")
    assert marts(shuffled) == marts(straight)
