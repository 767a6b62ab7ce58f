"""Odd data from Stripe: no build fails, the payment is listed with its issues, and other payments stay right."""

import copy
import os
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb
import orjson
import pytest
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as cases
from hypothesis import strategies as st

from orchestration.base.account import AccountKey
from orchestration.config.settings import Settings
from orchestration.stripe_api import API_VERSION
from orchestration.warehouse.connection import open_warehouse, transaction
from orchestration.warehouse.load import Loader
from orchestration.warehouse.redact import stored_json
from orchestration.warehouse.rows import OBJECT_TABLES, EventRow, ObjectRow, event_row, object_row
from tests.support import pipeline
from tests.support.built_folder import BuiltFolder
from tests.support.full_models import find_full_refresh_differences
from tests.support.payment_histories import (
    DAY,
    MIDNIGHT,
    Payload,
    canceled,
    charge,
    dispute,
    failed_event,
    intent,
    recovered,
    refund,
)

CASES = int(os.environ.get("RECOUP_BUILT_CASES", "3"))
NOW = MIDNIGHT + 90 * DAY
PARTS = 4
"""Builds of all odd payments. Each build costs a CPU second."""
STREAMS = ("payment_intents", "charges", "refunds", "disputes", "payment_intent_events", "charge_events")

ODD: dict[str, tuple[list[Payload], set[str], bool]] = {
    "currency_changed": ([intent("odd", currency="eur"), charge("odd")], {"currency_changed"}, False),
    "currency_changed_and_paid": (
        [
            intent("odd", currency="eur", status="succeeded", amount_received=4500, amount=4500),
            charge("odd"),
            charge("odd", 2, currency="eur", amount=4500, amount_captured=4500),
        ],
        {"currency_changed"},
        False,
    ),
    "failed_after_canceled": (
        [canceled("odd", MIDNIGHT + 10), failed_event("odd", MIDNIGHT + 13)],
        {"failed_after_cancellation"},
        False,
    ),
    "failed_and_canceled_around_midnight": (
        [canceled("odd", MIDNIGHT - 1), charge("odd", created=MIDNIGHT + 1)],
        {"failed_after_cancellation"},
        False,
    ),
    "canceled_days_before": (
        [canceled("odd", MIDNIGHT - 5 * DAY), charge("odd")],
        {"failed_after_cancellation", "canceled_before_creation"},
        False,
    ),
    "two_successes": (
        [*recovered("odd", amount=5000), charge("odd", 3)],
        {"several_successes", "received_exceeds_amount"},
        False,
    ),
    "two_successes_captured_the_other_way_round": (
        [
            intent("odd", status="succeeded", amount_received=5000, capture_method="manual", created=MIDNIGHT - 300),
            charge("odd", created=MIDNIGHT - 300, payment_method_details={"type": "us_bank_account"}),
            charge("odd", 2),
            charge("odd", 3),
            *(
                {"object": "event", "id": f"evt_{kind}_{number}", "created": MIDNIGHT + after, "type": f"charge.{kind}"}
                | {"data": {"object": charge("odd", number, **({"created": MIDNIGHT - 300} if number == 1 else {}))}}
                for kind, number, after in (("failed", 1, 500), ("captured", 2, 900), ("captured", 3, 400))
            ),
        ],
        {"several_successes", "received_exceeds_amount"},
        False,
    ),
    "overcapture": (
        [
            intent("odd", status="succeeded", amount_received=5500),
            charge("odd"),
            charge("odd", 2, amount_captured=5500),
        ],
        {"received_exceeds_amount", "captured_exceeds_amount"},
        False,
    ),
    "refunds_beyond_the_charge": (
        [*recovered("odd"), refund("odd", 1), refund("odd", 2)],
        {"reversed_exceeds_received"},
        False,
    ),
    "dispute_in_another_currency": (
        [*recovered("odd"), dispute("odd", currency="eur", amount=4600)],
        {"reversed_in_another_currency"},
        False,
    ),
    "new_status_of_payment": ([intent("odd", status="requires_review"), charge("odd")], {"status_unknown"}, True),
    "new_status_of_charge": (
        [intent("odd"), charge("odd"), charge("odd", 2, status="held")],
        {"status_unknown"},
        True,
    ),
    "new_outcome_type": (
        [intent("odd"), charge("odd", outcome={"type": "wallet_declined"})],
        {"outcome_type_unknown"},
        False,
    ),
    "new_words_elsewhere": (
        [
            canceled("odd", MIDNIGHT + DAY) | {"cancellation_reason": "regretted", "capture_method": "whenever"},
            charge("odd", failure_code="new_code", payment_method_details={"type": "new_method"}),
            charge("odd", 2, status="failed", outcome={"type": "invalid", "network_status": "new_status"}),
            refund("odd", 1, status="new_status", reason="new_reason"),
            dispute("odd", status="new_status", reason="new_reason"),
        ],
        set(),
        False,
    ),
    "no_intent": ([charge("odd")], {"payment_not_read"}, True),
    "refund_without_payment": (
        [
            *recovered("odd"),
            refund("odd", 1, payment_intent=None),
            refund("unrelated", 1, payment_intent=None, charge="ch_legacy"),
            refund("unrelated", 2, payment_intent="pi_unrelated"),
        ],
        set(),
        False,
    ),
    "no_charge": ([intent("odd", status="succeeded", amount_received=5000)], {"charge_not_read"}, False),
    "success_denied_by_the_payment": (
        [intent("odd", status="canceled", canceled_at=MIDNIGHT), charge("odd"), charge("odd", 2)],
        {"status_contradicts_charge"},
        False,
    ),
    "created_after_its_charges": (
        [*recovered("odd", created=MIDNIGHT + 3600)],
        {"attempted_before_creation"},
        False,
    ),
    "charges_days_before_the_payment": (
        [*recovered("odd", created=MIDNIGHT + 40 * DAY)],
        {"attempted_before_creation"},
        False,
    ),
    "event_days_before_the_payment": (
        [
            intent("odd", created=MIDNIGHT + 9 * DAY),
            failed_event("odd", MIDNIGHT, created=MIDNIGHT + 9 * DAY),
        ],
        {"attempted_before_creation"},
        False,
    ),
    "currency_in_capitals": (
        [
            *(
                each | {"currency": code}
                for each, code in zip([*recovered("odd"), refund("odd", 1)], ("USD", "usd", "Usd", "USD"), strict=True)
            ),
        ],
        set(),
        False,
    ),
    "no_currency": (
        [each | {"currency": ""} for each in recovered("odd")],
        {"currency_unknown"},
        True,
    ),
    "nothing_to_pay": ([intent("odd", amount=0), charge("odd", amount=0)], {"amount_zero"}, True),
    "negative": (
        [intent("odd", amount=-5), charge("odd", amount=-5), charge("odd", 2, amount=-5, amount_captured=-5)],
        {"amount_unknown", "status_contradicts_charge"},
        True,
    ),
    "beyond_all_amounts": (
        [
            intent("odd", amount=2**63 - 1, status="succeeded", amount_received=2**63 - 1),
            charge("odd", amount=2**63 - 1),
            charge("odd", 2, amount=2**63 - 1, amount_captured=2**63 - 1),
        ],
        {"amount_unknown"},
        True,
    ),
    "no_amount_of_one_customer_and_of_another": (
        [
            intent("odd", amount=None),
            charge("odd", amount=None),
            intent("other", amount=None, customer="cus_other"),
            charge("other", amount=None, customer="cus_other"),
        ],
        {"amount_unknown"},
        True,
    ),
    "nulls": (
        [
            intent("odd", amount=None, currency=None, status=None, customer=None),
            charge("odd", amount=None, currency=None, outcome=None, payment_method_details=None),
        ],
        {"amount_unknown", "currency_unknown", "status_unknown"},
        True,
    ),
}


def keep_loader_fields(payload: Payload) -> Payload:
    """Return the fields of an object that the loader needs, without those that its checks might refuse."""
    kept = ("object", "id", "created", "status", "last_payment_error")
    return {"amount": 1, "currency": "usd"} | {name: copy.deepcopy(payload[name]) for name in kept if name in payload}


def make_unchecked_row(payload: Payload) -> ObjectRow:
    """Return the row of an object as a version without checks stored it, which the models must accept too."""
    made = object_row(
        keep_loader_fields(payload), as_of=NOW, read_no_later_than=NOW, api_version=API_VERSION, source="list"
    )
    return made._replace(payload=stored_json(payload))


def make_unchecked_event_rows(event: Payload) -> EventRow:
    """Return the rows of an event as a version without checks stored them."""
    carried = event["data"]["object"]
    made = event_row(event | {"data": {"object": keep_loader_fields(carried)}}, "event")
    assert made.carried is not None
    stored = made.carried._replace(payload=stored_json(carried))
    return made._replace(payload=stored_json(event), carried=stored)


def load(settings: Settings, payloads: Sequence[Payload]) -> None:
    """Load objects as from lists, and events as from polls. The streams are complete to `NOW`."""
    events = [make_unchecked_event_rows(each) for each in payloads if each["object"] == "event"]
    with open_warehouse(settings.warehouse_path) as connection, transaction(connection):
        loader = Loader(connection, AccountKey("acct_1", False), API_VERSION)
        for table in OBJECT_TABLES:
            loader.load_objects(table, [make_unchecked_row(each) for each in payloads if f"{each['object']}s" == table])
        loader.load_events(events)
        connection.execute("DELETE FROM sync.streams")
        connection.execute(
            """INSERT INTO sync.streams (account_id, livemode, stream, complete_through, updated_at, _updated_at)
               SELECT 'acct_1', false, unnest(?), now, now, now
               FROM (SELECT make_timestamp(? * 1000000::BIGINT) AS now)""",
            [list(STREAMS), NOW],
        )


def query_published(settings: Settings, query: str) -> list[Any]:
    pipeline.publish_marts(settings)
    with duckdb.connect(str(settings.published_path), read_only=True) as connection:
        return connection.execute(query).fetchall()


def query_issues(settings: Settings, name: str) -> dict[str, bool]:
    query = f"SELECT issue, is_excluded_from_rates FROM marts.data_issues WHERE payment_intent_id = 'pi_{name}'"
    return dict(query_published(settings, query))


@pytest.fixture
def settings(built_folder: BuiltFolder, tmp_path: Path) -> Settings:
    """Return the settings of a data folder with one normal payment."""
    settings = Settings(recoup_data_dir=built_folder.copy(tmp_path / "data"))
    load(settings, recovered("neighbour"))
    pipeline.build(settings)
    return settings


def test_odd_data_do_not_stop_a_build_and_are_listed(settings: Settings, tmp_path: Path) -> None:
    """Build in parts. The rates include the other payments, and a full build gives the same tables."""
    named = [
        orjson.loads(orjson.dumps(payloads).replace(b"odd", name.encode())) for name, (payloads, _, _) in ODD.items()
    ]
    for part in range(PARTS):
        load(settings, [payload for payloads in named[part::PARTS] for payload in payloads])
        assert not pipeline.build(settings).is_full, list(ODD)[part::PARTS]
    pipeline.publish_marts(settings)
    with duckdb.connect(str(settings.published_path), read_only=True) as connection:
        ask = connection.execute
        found: dict[str, dict[str, bool]] = {}
        for payment, issue, is_excluded, detail in ask(
            "SELECT payment_intent_id, issue, is_excluded_from_rates, detail FROM marts.data_issues"
        ).fetchall():
            assert detail.endswith("."), detail
            found.setdefault(payment[3:], {})[issue] = is_excluded
        reasons = dict(ask("SELECT episode_id, exclusion_reason FROM marts.recovery_episodes").fetchall())
        ((listed, counted),) = ask(
            "SELECT (SELECT count(*) FROM marts.data_issues), data_issue_count FROM marts.data_coverage"
        ).fetchall()
        ((failed, left_out),) = ask(
            "SELECT sum(failed_count), sum(out_of_scope_count) FROM marts.recovery_cohorts"
        ).fetchall()
        neighbour = ask(
            """SELECT exclusion_reason, at_risk_amount, recovered_amount, recovered_amount_net
               FROM marts.recovery_episodes WHERE episode_id = 'pi_neighbour'"""
        ).fetchall()
    assert neighbour == [(None, 5000, 5000, 5000)]
    assert "neighbour" not in found
    assert {name: set(found.get(name, ())) for name in ODD} == {name: issues for name, (_, issues, _) in ODD.items()}
    assert {name: any(found.get(name, {}).values()) for name in ODD} == {
        name: is_out for name, (*_, is_out) in ODD.items()
    }
    for name, (*_, is_out) in ODD.items():
        assert reasons.get(f"pi_{name}") == ("data_issue" if is_out and f"pi_{name}" in reasons else None), name
    assert listed == counted == sum(map(len, found.values()))
    assert (failed, left_out) == (sum(each is None for each in reasons.values()), sum(map(bool, reasons.values())))
    assert find_full_refresh_differences(settings, tmp_path / "again") == []


def test_a_resolved_issue_is_no_longer_listed(settings: Settings) -> None:
    """Check it also if another issue appears in the same build, so that the number of rows stays the same."""
    load(settings, [*recovered("odd"), intent("later"), charge("later")])
    pipeline.build(settings)
    assert query_issues(settings, "odd") == {}
    load(settings, [intent("odd", currency="eur"), *recovered("late")])
    with open_warehouse(settings.warehouse_path) as connection:  # a later version of the payment wins by its time
        connection.execute(
            """UPDATE raw_stripe.payment_intents SET payload = json_merge_patch(payload, '{"currency": "eur"}'),
                   _load_id = (SELECT max(load_id) FROM sync.loads) WHERE id = 'pi_odd'"""
        )
    pipeline.build(settings)
    assert query_issues(settings, "odd") == {"currency_changed": False}
    load(settings, [intent("new", status="requires_review"), charge("new")])
    with open_warehouse(settings.warehouse_path) as connection:
        connection.execute(
            """UPDATE raw_stripe.payment_intents SET payload = json_merge_patch(payload, '{"currency": "usd"}'),
                   _load_id = (SELECT max(load_id) FROM sync.loads) WHERE id = 'pi_odd'"""
        )
    pipeline.build(settings)
    assert query_issues(settings, "odd") == {}
    assert query_issues(settings, "new") == {"status_unknown": True}
    reasons = dict(query_published(settings, "SELECT episode_id, exclusion_reason FROM marts.recovery_episodes"))
    assert (reasons["pi_odd"], reasons["pi_new"]) == (None, "data_issue")


AMOUNTS = st.sampled_from([0, 1, 4999, 5000, 5001, 10**12 - 1, 10**12, -1, None])
CURRENCIES = st.sampled_from(["usd", "eur", "jpy", None])
INSTANTS = st.sampled_from([MIDNIGHT + each for each in (-DAY, -3600, -61, -30, -1, 0, 1, 45, DAY, 40 * DAY)])
METHODS = st.sampled_from([{"type": "card", "card": {"fingerprint": "same"}}, {"type": "us_bank_account"}, None])
ODD_INTENTS = {
    "amount": AMOUNTS,
    "amount_received": AMOUNTS,
    "currency": CURRENCIES,
    "canceled_at": st.one_of(st.none(), INSTANTS),
    "status": st.sampled_from(["succeeded", "canceled", "processing", "requires_payment_method", "brand_new", None]),
    "cancellation_reason": st.sampled_from(["duplicate", "fraudulent", "automatic", "brand_new", None]),
    "capture_method": st.sampled_from(["automatic", "manual", None]),
    "customer": st.sampled_from(["cus_1", None]),
    "metadata": st.sampled_from([{"order_id": "1"}, {}, None]),
}
ODD_CHARGES = {
    "amount": AMOUNTS,
    "amount_captured": AMOUNTS,
    "currency": CURRENCIES,
    "status": st.sampled_from(["succeeded", "failed", "pending", "brand_new", None]),
    "captured": st.sampled_from([True, False, None]),
    "payment_method_details": METHODS,
    "outcome": st.sampled_from([{"type": "blocked"}, {"type": "issuer_declined"}, {"type": "brand_new"}, None]),
}
ODD_REVERSALS = {
    "amount": AMOUNTS,
    "currency": CURRENCIES,
    "status": st.sampled_from(["succeeded", "lost", "brand_new", None]),
    "reason": st.sampled_from(["insufficient_funds", "fraudulent", "brand_new"]),
    "payment_intent": st.sampled_from(["pi_a", "pi_b", "pi_unrelated", None]),
    "charge": st.sampled_from(["ch_a_1", "ch_a_2", "ch_b_1", "ch_unrelated", None]),
}


@st.composite
def histories(draw: st.DrawFn) -> list[list[Payload]]:
    """Draw loads of objects and events that contradict each other; `created` of an id is fixed."""

    def odd(made: Payload, fields: dict[str, Any]) -> Payload:
        return made | draw(st.fixed_dictionaries({}, optional=fields))

    made: list[Payload] = []
    for name in ("a", "b", "c"):
        begun = draw(INSTANTS)
        made.append(odd(intent(name, created=begun), ODD_INTENTS))
        tried = [charge(name, number, created=draw(INSTANTS)) for number in range(1, draw(st.integers(1, 4)))]
        made += [odd(each, ODD_CHARGES) for each in tried]
        made += [odd(refund(name, 1), ODD_REVERSALS), odd(dispute(name), ODD_REVERSALS)]
        failure = failed_event(name, draw(INSTANTS), created=begun)
        failure["data"]["object"] = odd(failure["data"]["object"], ODD_INTENTS)
        made.append(failure)
        carried = [("charge.failed", each) for each in tried] + [("charge.captured", each) for each in tried]
        for kind in ("succeeded", "canceled", "processing", "amount_capturable_updated"):
            latest = draw(st.sampled_from([f"ch_{name}_1", f"ch_{name}_2", None]))
            odd_intent = odd(intent(name, created=begun, latest_charge=latest), ODD_INTENTS)
            carried.append((f"payment_intent.{kind}", odd_intent))
        for number, (kind, each) in enumerate(carried):
            event = {"object": "event", "id": f"evt_{number}_{name}", "created": draw(INSTANTS), "type": kind}
            made.append(event | {"data": {"object": each}})
    order = draw(st.permutations(made))
    cut = draw(st.integers(0, len(order)))
    return [order[:cut], order[cut:]]


@cases(
    max_examples=CASES, deadline=None, phases=(Phase.explicit, Phase.generate), suppress_health_check=list(HealthCheck)
)
@given(histories())
def test_contradictory_data_never_fail_a_build(built_folder: BuiltFolder, loads: list[list[Payload]]) -> None:
    with TemporaryDirectory() as folder:
        settings = Settings(recoup_data_dir=built_folder.copy(Path(folder) / "data"))
        for payloads in loads:
            load(settings, payloads)
            assert not pipeline.build(settings).is_full
        if loads[0]:
            assert find_full_refresh_differences(settings, Path(folder) / "again") == []


def test_charges_dated_before_their_payment_belong_to_it(settings: Settings, tmp_path: Path) -> None:
    """Check that a build, which skips old rows, skips none of a changed payment, in any order of arrival."""
    paid, failed, success = recovered("odd", created=MIDNIGHT + 40 * DAY)
    expanded = success | {"payment_method": {"id": "pm_1", "object": "payment_method"}}
    later = [each | {"id": each["id"] + "_later", "payment_intent": "pi_later"} for each in (failed, success)]
    for payloads in ([paid], [failed], [expanded], later, [paid | {"id": "pi_later", "customer": "cus_later"}]):
        load(settings, payloads)
        pipeline.build(settings)
    query = "SELECT charge_id, payment_method_id FROM marts.payment_attempts WHERE charge_id LIKE 'ch_odd%' ORDER BY 1"
    assert query_published(settings, query) == [
        ("ch_odd_1", None), ("ch_odd_1_later", None), ("ch_odd_2", "pm_1"), ("ch_odd_2_later", None)
    ]  # fmt: skip
    assert find_full_refresh_differences(settings, tmp_path / "again") == []


def test_a_refund_that_names_another_payments_charge_is_built_the_same_every_time(
    settings: Settings, tmp_path: Path
) -> None:
    """Check that the refund does not depend on whether the charge's own payment has changed too."""
    partly = [*recovered("odd")[:2], charge("odd", 2, amount_captured=1)]
    reversal = refund("new", 1, charge="ch_odd_2", balance_transaction=None)
    for payloads in (partly, [*recovered("new"), reversal]):
        load(settings, payloads)
        pipeline.build(settings)
    assert find_full_refresh_differences(settings, tmp_path / "again") == []
