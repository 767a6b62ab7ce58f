"""Kinds of shop: each has the histories that it is named after, and its own truth."""

import hashlib
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from copy import deepcopy
from functools import cache
from itertools import combinations, pairwise
from typing import Any

import orjson
import pytest
import requests

from orchestration.simulator import SHOPS, Debt, SimulatedAccount, SimulatorServer, WebhookEndpoint
from orchestration.simulator.stripe.objects import Renderer
from orchestration.simulator.world.account import RESOURCES, Resource
from orchestration.simulator.world.calibration import CARD_FAILURES, DAY, HOUR
from orchestration.simulator.world.shops import MIXED
from orchestration.simulator.world.shops.parameters import DEFAULTS, ShopParameters
from orchestration.simulator.world.steps import Act, Intent, Step
from orchestration.simulator.world.truth import compute_truth
from tests.engines.simulator.conftest import Receiver, settled
from tests.engines.simulator.test_fields import BY_OBJECT, CLASSES, faults_of_object

Json = dict[str, Any]
SEEDS = (1, 2)
PAYMENTS, DAYS = 1_000, 150
FAILING = (Act.FAILED, Act.AUTHENTICATION_FAILED, Act.EXPIRED)
each_shop = pytest.mark.parametrize("shop", SHOPS)
each_seed = pytest.mark.parametrize("seed", SEEDS)


@cache
def account_of(shop: str, seed: int = 1) -> SimulatedAccount:
    """Return an account that tests must not move."""
    return SimulatedAccount(seed, PAYMENTS, DAYS, shop=shop)


@cache
def debts_of(shop: str, seed: int = 1) -> list[Debt]:
    account = account_of(shop, seed)
    return account.truth(account.now).debts


def intents_of(shop: str, seed: int = 1) -> dict[str, Intent]:
    account = account_of(shop, seed)
    return {key: intent for key, intent in account.intents.items() if intent.created <= account.now}


def by_debt(shop: str, seed: int = 1) -> list[list[Intent]]:
    """Return the PaymentIntents of each debt in the order of their creation."""
    debts: dict[str, list[Intent]] = defaultdict(list)
    for intent in sorted(intents_of(shop, seed).values(), key=lambda each: each.created):
        debts[intent.debt].append(intent)
    return list(debts.values())


def rendered(account: SimulatedAccount, resource: Resource, at: int | None = None) -> Iterator[Json]:
    renderer, at = Renderer(account), at or account.now
    for entry in account.list_entries(resource, at, created=(0, at)):
        yield renderer.render(resource, entry, at)


def digest(account: SimulatedAccount, at: int | None = None) -> str:
    """Return a digest of everything that the account shows at a given time."""
    sha = hashlib.sha256()
    for resource in RESOURCES:
        for body in rendered(account, resource, at):
            sha.update(orjson.dumps(body))
    return sha.hexdigest()[:16]


@pytest.mark.parametrize(
    ("seed", "account_id", "expected"),
    [(1, "acct_1zKoQ5YdJL4ZeMaH", "0225d32cc6af257f"), (2, "acct_1tq1jE0JnPzU6h1p", "ae2cc4315cf70171")],
)
def test_the_basic_account_is_unchanged_by_kinds_of_shop(seed: int, account_id: str, expected: str) -> None:
    account = SimulatedAccount(seed, 400, 60)
    assert (account.id, digest(account)) == (account_id, expected)


@each_shop
def test_a_shop_is_reproducible_by_seed_however_many_days_are_generated(shop: str) -> None:
    one, again, longer, other = (
        SimulatedAccount(seed, days * 5, days, shop=shop) for seed, days in ((1, 40), (1, 40), (1, 90), (2, 40))
    )
    at = one.now
    assert one.id == again.id
    assert digest(one) == digest(again) != digest(other)
    assert [body["id"] for body in rendered(one, "charges")] == [body["id"] for body in rendered(longer, "charges", at)]


def test_shops_of_one_seed_have_different_ids_and_payments() -> None:
    accounts = [SimulatedAccount(1, 200, 40, shop=shop) for shop in (*SHOPS[:-1], None)]
    assert len({account.id for account in accounts}) == len(accounts)
    assert all(one.intents.keys().isdisjoint(other.intents) for one, other in combinations(accounts, 2))


@each_shop
def test_objects_and_events_have_the_fields_that_the_sdk_declares(shop: str) -> None:
    account = SimulatedAccount(3, 200, 60, shop=shop)
    faults: set[str] = set()
    for resource, declared in CLASSES.items():
        for body in rendered(account, resource):
            faults.update(faults_of_object(body, declared, resource))
            if resource == "events":
                subject = body["data"]["object"]
                faults.update(faults_of_object(subject, BY_OBJECT[subject["object"]], body["type"]))
    assert faults == set()


@each_shop
def test_the_last_event_of_an_object_shows_the_object(shop: str) -> None:
    account = account_of(shop)
    renderer = Renderer(account)
    last: dict[str, Json] = {}
    for entry in account.events_between(0, account.now):
        event = renderer.render("events", entry, account.now)
        last[event["data"]["object"]["id"]] = event["data"]["object"]
    told = 0
    shown: dict[Resource, tuple[str, ...]] = {
        "payment_intents": ("status", "amount_received", "canceled_at", "latest_charge"),
        "charges": ("status", "amount", "currency", "amount_captured", "outcome", "payment_method_details"),
    }
    for resource, fields in shown.items():
        for body in rendered(account, resource):
            told += 1
            assert {key: body[key] for key in fields} == {key: last[body["id"]][key] for key in fields}
            if resource == "payment_intents" and body["status"] == "requires_action":
                assert body["next_action"] == last[body["id"]]["next_action"]
    assert told > 1_200


@each_seed
@each_shop
def test_each_payment_is_for_one_debt_and_the_truth_adds_up(shop: str, seed: int) -> None:
    """The expected values are computed from the steps, without the attempts of the truth."""
    intents, debts = intents_of(shop, seed), debts_of(shop, seed)
    assert Counter(each for debt in debts for each in debt.payment_intent_ids) == Counter(intents.keys())
    now = account_of(shop, seed).now
    for debt in debts:
        own = [intents[each] for each in debt.payment_intent_ids]
        steps = [(step.at, step.act, intent) for intent in own for step in intent.steps if step.at <= now]
        paid = sorted((at, intent.covers or debt.amount) for at, act, intent in steps if act is Act.SUCCEEDED)
        if shop != "mixed":  # it also has authorizations, debits and returns
            total, paid_at = 0, None
            for at, amount in paid:
                total += amount
                paid_at = at if total >= debt.amount and paid_at is None else paid_at
            failed = [at for at, act, _ in steps if act in FAILING and (paid_at is None or at <= paid_at)]
            blocked_at = {
                each.at for intent in own for each in intent.attempts if each.failure and each.failure.name == "blocked"
            }
            assert debt.paid_at == paid_at
            assert debt.first_failed_at == min((at for at in failed if at not in blocked_at), default=None)
            assert debt.received_amount == total, "no debt is paid twice"
        assert len({intent.debt for intent in own}) == 1
        assert 0 <= debt.received_amount <= debt.amount
        if debt.recovered_at is not None and debt.first_failed_at is not None:
            assert debt.recovered_at > debt.first_failed_at
            assert debt.received_amount == debt.amount


def test_the_true_recovery_rate_is_between_30_and_60_percent() -> None:
    """The table is printed if a rate is out of range, or with `pytest -s`."""
    wrong = []
    print(f"\n{'kind':20} {'seed':>4} {'payments':>9} {'debts':>6} {'failed':>6} {'matured':>7} {'30-day rate':>11}")
    for shop in SHOPS:
        for seed in SEEDS:
            account = account_of(shop, seed)
            truth = account.truth(account.now)
            failed = [debt for debt in truth.debts if debt.is_in_scope and debt.first_failed_at is not None]
            matured = sum(debt.is_matured(account.now) for debt in failed)
            print(
                f"{shop:20} {seed:4} {len(truth.payments):9} {len(truth.debts):6} {len(failed):6} {matured:7} "
                f"{truth.recovery_rate():11.1%}"
            )
            if not 0.3 <= truth.recovery_rate() <= 0.6 or matured < 40 or not 700 < len(truth.payments) < 1_300:
                wrong.append((shop, seed))
    assert wrong == []


@each_shop
def test_the_truth_contains_nothing_later_than_its_time(shop: str) -> None:
    account = account_of(shop)
    at = account.now - 40 * DAY
    later = {debt.id: debt for debt in account.truth(account.now).debts}
    for debt in account.truth(at).debts:
        end = later[debt.id]
        assert (debt.currency, debt.amount) == (end.currency, end.amount)
        if end.paid_at is not None and end.paid_at > at:
            assert debt.paid_at is None
        if debt.paid_at is not None and shop != "mixed":  # there, a bank may return a payment
            assert debt.paid_at == end.paid_at


def test_a_failure_after_a_debt_is_paid_does_not_make_it_a_failed_debt() -> None:
    paid, tried = (deepcopy(by_debt("one_off")[number][0]) for number in (0, 1))
    paid.attempts, paid.steps = (
        [paid.attempts[0]._replace(failure=None)],
        [Step(paid.created, Act.SUCCEEDED, amount=paid.amount)],
    )
    failure = next(each for each in CARD_FAILURES if each.name == "do_not_honor")
    later = paid.created + HOUR
    tried.attempts, tried.steps = [tried.attempts[0]._replace(at=later, failure=failure)], [Step(later, Act.FAILED)]
    tried.debt = paid.debt
    (debt,) = compute_truth([paid, tried], later, [later]).debts
    assert (debt.first_failed_at, debt.paid_at, debt.recovered_at) == (None, paid.created, None)
    (other,) = compute_truth([tried], later, [later]).debts
    assert (other.first_failed_at, other.paid_at) == (later, None)


def test_checkout_guests_share_product_ids_in_order_reference() -> None:
    bodies = list(rendered(account_of("checkout_guests"), "payment_intents"))
    references = Counter(body["payment_details"]["order_reference"] for body in bodies)
    assert len(references) == DEFAULTS["checkout_guests"].product_count
    assert all(key.startswith("prod_") for key in references)
    assert {body["customer"] for body in bodies} == {None}
    again = [intents for intents in by_debt("checkout_guests") if len(intents[0].attempts) > 1 or len(intents) > 1]
    cards = [[a.instrument.fingerprint for intent in intents for a in intent.attempts] for intents in again]
    assert {len(intents) > 1 for intents in again} == {True, False}
    assert {len(set(prints)) > 1 for prints in cards} == {True, False}


def test_each_of_three_shops_uses_each_order_number_once() -> None:
    debts: dict[str, set[str]] = defaultdict(set)
    customers: dict[str, set[int | None]] = defaultdict(set)
    for intent in intents_of("three_shops").values():
        debts[intent.metadata["order_id"]].add(intent.debt)
        customers[intent.metadata["order_id"]].add(intent.customer)
    counts = Counter(len(each) for each in debts.values())
    assert max(counts) == 3
    assert counts[2] + counts[3] > counts[1]
    assert sum(len(each) > 1 for each in customers.values()) > 0.9 * (counts[2] + counts[3])


def test_each_payment_intent_has_its_own_customer_and_the_same_card() -> None:
    intents = intents_of("customer_per_order").values()
    assert len({intent.customer for intent in intents}) == len(intents)
    several = [debt for debt in by_debt("customer_per_order") if len(debt) > 1]
    assert len(several) > 20
    for debt in several:
        assert len({intent.attempts[0].instrument.fingerprint for intent in debt if intent.attempts}) == 1


@pytest.mark.parametrize(
    ("shop", "interval", "jitter"), [("daily_price", DAY, 2 * HOUR + 120), ("weekly_plan", 7 * DAY, 5)]
)
def test_customers_pay_the_same_amount_at_their_interval(shop: str, interval: int, jitter: int) -> None:
    bills: dict[int | None, list[Intent]] = defaultdict(list)
    for debt in by_debt(shop):
        bills[debt[0].customer].append(debt[0])
    regular = [intents for intents in bills.values() if len(intents) > 2]
    assert len(regular) > 5
    for intents in regular:
        assert len({intent.amount for intent in intents}) == 1
        for one, other in pairwise(intents):
            gap = other.created - one.created
            assert gap >= interval - jitter
            assert min(gap % interval, interval - gap % interval) <= jitter


def test_equal_subscriptions_are_billed_in_one_minute_and_one_or_both_fail() -> None:
    pairs: dict[tuple[int | None, int], list[list[Intent]]] = defaultdict(list)
    for debt in by_debt("equal_subscriptions"):
        pairs[debt[0].customer, debt[0].created // 60].append(debt)
    assert {len(pair) for pair in pairs.values()} == {2}
    failing = Counter(sum(debt[0].attempts[0].failure is not None for debt in pair) for pair in pairs.values())
    assert failing.keys() == {0, 1, 2}
    assert all(len({debt[0].amount for debt in pair}) == 1 for pair in pairs.values())


def test_monthly_retries_use_one_or_several_payment_intents() -> None:
    assert {len(debt) for debt in by_debt("monthly_one_intent")} == {1}
    spans = [each.attempts[-1].at - each.attempts[0].at for (each,) in by_debt("monthly_one_intent") if each.attempts]
    assert 27 * DAY < max(spans) <= 28 * DAY + HOUR
    waits = {
        round((intent.created - debt[0].attempts[0].at) / DAY)
        for debt in by_debt("monthly_new_intents")
        for intent in debt[1:]
    }
    assert waits == {3, 8, 15}
    assert all(len(each.attempts) <= 1 for debt in by_debt("monthly_new_intents") for each in debt)


def test_one_off_orders_are_retried_after_one_to_five_days_without_order_numbers() -> None:
    waits = [debt[1].attempts[0].at - debt[0].attempts[0].at for debt in by_debt("one_off") if len(debt) > 1]
    assert len(waits) > 20
    assert all(0.99 * DAY < wait < 5.01 * DAY for wait in waits)
    assert all("order_id" not in intent.metadata and intent.customer for intent in intents_of("one_off").values())


def test_orders_are_paid_in_parts_at_once_later_or_after_the_whole_failed() -> None:
    orders: dict[str | None, set[str]] = defaultdict(set)
    for debt in by_debt("split_tender"):
        orders[debt[0].order_key].add(debt[0].debt)
    assert {len(debts) for debts in orders.values()} == {1, 2, 3}
    debts = debts_of("split_tender")
    intents = intents_of("split_tender")
    whole = [debt for debt in debts if any(intents[each].covers for each in debt.payment_intent_ids)]
    assert {debt.is_partially_recovered for debt in whole} == {True, False}
    assert all(debt.recovered_at for debt in whole if not debt.is_partially_recovered)
    assert len({len(debt.payment_intent_ids) for debt in whole}) > 1


@pytest.mark.parametrize("part_count", [3, 12])
def test_parts_paid_at_once_are_opened_before_any_is_attempted(part_count: int) -> None:
    """This also holds if the parts fail and are retried hours and days later."""
    given = {"part_share": 1.0, "at_once_share": 1.0, "failure_rate": 0.5, "part_count": part_count}
    orders: dict[str | None, list[Intent]] = defaultdict(list)
    for intent in SimulatedAccount(1, 600, 60, shop="split_tender", shop_parameters=given).intents.values():
        orders[intent.order_key].append(intent)
    opened: Counter[int] = Counter()
    for intents in orders.values():
        first = {}
        for intent in sorted(intents, key=lambda each: each.created):
            first.setdefault(intent.debt, intent)
        parts = list(first.values())
        assert [part.created - parts[0].created for part in parts] == list(range(len(parts)))
        tried_at = [attempt.at for part in parts for attempt in part.attempts[:1]]
        assert parts[-1].created < min(tried_at) <= max(tried_at) < parts[0].created + 200
        opened[len(parts)] += 1
    assert set(opened) == set(range(2, part_count + 1))
    assert any(len(intents) > part_count for intents in orders.values()), "some are tried again"


def test_parts_paid_in_turn_are_opened_after_the_previous_part_is_paid() -> None:
    given = {"part_share": 1.0, "at_once_share": 0.0, "failure_rate": 0.3}
    account = SimulatedAccount(1, 600, 60, shop="split_tender", shop_parameters=given)
    orders: dict[str | None, dict[str, list[Intent]]] = defaultdict(lambda: defaultdict(list))
    for intent in account.intents.values():
        orders[intent.order_key][intent.debt].append(intent)
    for parts in orders.values():
        in_turn = sorted(parts.values(), key=lambda part: min(intent.created for intent in part))
        for one, other in pairwise(in_turn):
            last = max(attempt.at for intent in one for attempt in intent.attempts)
            assert any(step.act is Act.SUCCEEDED for intent in one for step in intent.steps)
            assert min(intent.created for intent in other) >= last + 60
    assert {len(parts) for parts in orders.values()} == {1, 2, 3}


def test_a_deposit_and_its_balance_are_two_debts_of_one_order() -> None:
    orders: dict[str | None, list[list[Intent]]] = defaultdict(list)
    for debt in by_debt("deposits"):
        orders[debt[0].order_key].append(debt)
    assert {len(debts) for debts in orders.values()} == {2}
    assert all(one[0].amount != other[0].amount for one, other in orders.values())
    paid = {debt.payment_intent_ids[0]: debt.paid_at for debt in debts_of("deposits")}
    lost_deposit = [pair for pair in orders.values() if sum(paid[debt[0].id] is None for debt in pair) == 1]
    assert lost_deposit, "a balance that is paid does not recover a deposit that is not"


def test_cards_at_a_terminal_have_fingerprints_and_no_customers() -> None:
    charges = list(rendered(account_of("terminal"), "charges"))
    assert {body["payment_method_details"]["type"] for body in charges} == {"card_present"}
    assert all(body["payment_method_details"]["card_present"]["fingerprint"] for body in charges)
    assert {body["customer"] for body in charges} == {None}


def test_vouchers_wait_until_they_are_paid_or_expire() -> None:
    shown: dict[str, Json] = {}
    account = account_of("vouchers")
    renderer = Renderer(account)
    for entry in account.events_between(0, account.now):
        if entry.event_type == "payment_intent.requires_action":
            body = renderer.render("events", entry, account.now)["data"]["object"]
            if body["next_action"]["type"] != "redirect_to_url":
                shown[body["id"]] = body
    kinds = {"boleto_display_details", "oxxo_display_details", "konbini_display_details"}
    assert {body["next_action"]["type"] for body in shown.values()} == kinds
    assert all(body["payment_method"] and body["latest_charge"] is None for body in shown.values())
    ends = Counter(body["status"] for body in rendered(account, "payment_intents") if body["id"] in shown)
    assert {"succeeded", "requires_payment_method", "requires_action"} <= ends.keys()
    errors = {
        body["last_payment_error"]["code"]
        for body in rendered(account, "payment_intents")
        if body["id"] in shown and body["last_payment_error"]
    }
    assert "payment_intent_payment_attempt_expired" in errors
    expired = [
        renderer.render("events", entry, account.now)["data"]["object"]
        for entry in account.events_between(0, account.now)
        if entry.intent.steps[entry.nth].act is Act.EXPIRED
    ]
    assert expired
    assert {(body["status"], body["payment_method"], body["next_action"]) for body in expired} == {
        ("requires_payment_method", None, None)
    }


def test_bank_transfers_wait_indefinitely_and_may_replace_a_card() -> None:
    waiting = [
        body
        for body in rendered(account_of("bank_transfers"), "payment_intents")
        if body["status"] == "requires_action"
    ]
    assert {body["next_action"]["type"] for body in waiting} >= {"display_bank_transfer_instructions"}
    replaced = [
        debt
        for debt in by_debt("bank_transfers")
        if len(debt) > 1 and debt[-1].waits and debt[0].attempts[0].instrument.kind == "card"
    ]
    assert replaced
    assert all(intent.steps[-1].at - intent.created >= DAY for (*_, intent) in replaced if intent.attempts)


def test_customer_accounts_can_be_used_as_a_filter() -> None:
    account = account_of("accounts_v2")
    bodies = list(rendered(account, "payment_intents"))
    assert {body["customer"] for body in bodies} == {None}
    assert all(body["customer_account"].startswith("acct_") for body in bodies)
    wanted = Counter(body["customer_account"] for body in bodies).most_common(1)[0]
    with SimulatorServer(account) as server:
        found = requests.get(
            f"{server.url}/v1/payment_intents",
            params={"customer_account": wanted[0], "limit": 100},
            headers=server_key(server),
            timeout=10,
        ).json()
    assert len(found["data"]) == wanted[1]


def server_key(server: SimulatorServer) -> dict[str, str]:
    return {"Authorization": f"Bearer {next(iter(server.keys.known()))}"}


def test_card_testing_has_many_cards_small_amounts_and_no_debt() -> None:
    tests = [debt for debt in debts_of("card_testing") if not debt.is_in_scope]
    intents = intents_of("card_testing")
    tested = [intents[debt.payment_intent_ids[0]] for debt in tests]
    assert 0.1 < len(tests) / len(intents) < 0.5
    assert max(intent.amount for intent in tested) <= 200
    cards = {intent.attempts[0].instrument.fingerprint for intent in tested if intent.attempts}
    assert len(cards) == len([intent for intent in tested if intent.attempts])
    assert {intent.customer is None for intent in tested} == {True, False}
    assert len({intent.created // HOUR for intent in tested}) < len(tested) / 4
    declined = [intent.attempts[0].failure is not None for intent in tested]
    assert sum(declined) / len(declined) > 0.9


def test_adaptive_acceptance_has_predicted_declines_and_duplicate_events() -> None:
    account = account_of("adaptive_acceptance")
    reasons = {
        body["outcome"]["reason"] for body in rendered(account, "charges") if body["outcome"]["type"] == "blocked"
    }
    assert reasons == {"low_probability_of_authorization", "previously_declined_do_not_retry"}
    failed = [entry for entry in account.events_between(0, account.now) if entry.event_type == "charge.failed"]
    per_charge = Counter((entry.intent.id, entry.intent.steps[entry.nth].nth) for entry in failed)
    assert set(per_charge.values()) == {1, 2}
    predicted = [each for each in account.truth(account.now).attempts if each.failure_code in reasons]
    assert {each.outcome for each in predicted} == {"failed"}


def test_a_changed_currency_applies_only_to_later_attempts() -> None:
    account = account_of("changed_currency")
    changed = [intent for intent in intents_of("changed_currency").values() if intent.earlier_price is not None]
    now = {body["id"]: body for body in rendered(account, "payment_intents")}
    charges: dict[str, list[Json]] = defaultdict(list)
    for body in rendered(account, "charges"):
        charges[body["payment_intent"]].insert(0, body)
    assert len(changed) > 20
    for intent in changed:
        earlier, later = intent.earlier_price, (intent.currency, intent.amount)
        assert (now[intent.id]["currency"], now[intent.id]["amount"]) == later != earlier
        shown = [(body["currency"], body["amount"]) for body in charges[intent.id]]
        assert shown[1:] == [later] * len(shown[1:])
        assert shown[:1] in ([earlier], [later], [])
        entry = account.find("payment_intents", intent.id, account.now)
        assert entry is not None
        before = Renderer(account).render("payment_intents", entry, intent.created)
        assert (before["currency"], before["amount"]) == earlier
    debts = {debt.payment_intent_ids[0]: debt for debt in debts_of("changed_currency")}
    paid = [debts[intent.id] for intent in changed if debts[intent.id].recovered_at]
    assert any(debt.currency not in dict(debt.received_by_currency) for debt in paid)


def test_a_mixed_account_has_histories_of_each_of_its_kinds() -> None:
    intents = list(SimulatedAccount(1, 4_000, 60, shop="mixed").intents.values())
    kinds = {intent.method_types[0] for intent in intents if intent.method_types}
    assert "card_present" in kinds
    assert any((intent.order_key or "").startswith("prod_") for intent in intents)
    assert any(intent.is_card_testing for intent in intents)
    assert any(intent.waits for intent in intents)
    people = {(intent.customer or 0) // 100_000_000 for intent in intents}
    assert len(people) >= len(MIXED) - 3


def test_parameters_replace_the_defaults_of_a_kind() -> None:
    fortnightly = SimulatedAccount(1, 400, 100, shop="weekly_plan", shop_parameters={"interval_days": 14})
    bills: dict[int | None, list[int]] = defaultdict(list)
    for intent in fortnightly.intents.values():
        if intent.attempts[0].failure is None:
            bills[intent.customer].append(intent.created)
    gaps = [b - a for times in bills.values() for a, b in pairwise(sorted(times))]
    assert min(gaps) > 9 * DAY
    never = SimulatedAccount(1, 400, 100, shop="one_off", shop_parameters=ShopParameters(failure_rate=0.0))
    assert all(debt.first_failed_at is None for debt in never.truth(never.now).debts)
    assert never.id != SimulatedAccount(1, 400, 100, shop="one_off").id


@pytest.mark.parametrize(("shop", "given"), [("no_such_shop", None), ("one_off", {"no_such_parameter": 1})])
def test_unknown_kinds_and_parameters_are_refused(shop: str, given: dict[str, int] | None) -> None:
    with pytest.raises(ValueError, match="no_such"):
        SimulatedAccount(shop=shop, shop_parameters=given)


@pytest.mark.parametrize("shop", ["vouchers", "adaptive_acceptance"])
def test_webhooks_of_a_shop_are_its_events(shop: str, receiver: Receiver) -> None:
    account = SimulatedAccount(1, 600, 60, shop=shop)
    start = account.now
    with SimulatorServer(account) as server:
        endpoint = server.deliverer.register(WebhookEndpoint(receiver.url, enabled_events=("*",)))
        account.now += 3 * DAY
        settled(server, endpoint)
    happened = account.events_between(start, account.now)
    assert len(happened) > 30
    assert Counter(receiver.ids) == Counter(event.id for event in happened)


def test_the_process_serves_the_kind_of_its_option() -> None:
    options = ["--shop=terminal", "--payments=50", "--days=20", "--port=0", "--until-eof"]
    command = [sys.executable, "-m", "orchestration.simulator", *options]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert process.stdin is not None
        process.stdin.close()
    assert line.startswith(SimulatedAccount(1, 50, 20, shop="terminal").id)
