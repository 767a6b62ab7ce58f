"""The account matches the ranges of `calibration`, measured on the generated payments of several seeds.

A debt is what a payer owes, over all PaymentIntents that try to collect it. Bank debits and payments that Radar
blocks at first are left out; so are debts of the last 30 days, which have not had their time to recover.
"""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import pytest

from orchestration.simulator import SimulatedAccount
from orchestration.simulator.world.calibration import DAY, HOUR
from orchestration.simulator.world.payers import is_foreign
from orchestration.simulator.world.steps import Act, Attempt, Intent

SEEDS = (1, 2, 3)
FAILED = (Act.FAILED, Act.AUTHENTICATION_FAILED)
APPROVED = (Act.SUCCEEDED, Act.AUTHORIZED)


@dataclass(frozen=True)
class Try:
    at: int
    is_approved: bool
    attempt: Attempt
    intent: Intent


def tries(intents: list[Intent]) -> list[Try]:
    tried = [
        Try(step.at, step.act in APPROVED, intent.attempts[step.nth], intent)
        for intent in intents
        for step in intent.steps
        if step.act in FAILED + APPROVED
    ]
    return sorted(tried, key=lambda each: (each.at, each.is_approved))


def is_blocked(attempt: Attempt) -> bool:
    return attempt.failure is not None and attempt.failure.outcome_type == "blocked"


@dataclass(frozen=True)
class Figures:
    """Card debts that are old enough, the failed ones, and the recoveries."""

    debts: list[list[Try]]
    failed: list[list[Try]]
    recoveries: list[tuple[Try, Try]]

    def share(self, holds: Callable[[Try, Try], bool]) -> float:
        return sum(holds(first, success) for first, success in self.recoveries) / len(self.recoveries)

    def failure_rate(self, holds: Callable[[Try], bool]) -> float:
        chosen = [each[0] for each in self.debts if holds(each[0])]
        return sum(not first.is_approved for first in chosen) / len(chosen)


@pytest.fixture(scope="module", params=SEEDS)
def figures(request: pytest.FixtureRequest) -> Figures:
    account = SimulatedAccount(request.param)
    by_debt: dict[str, list[Intent]] = defaultdict(list)
    for intent in account.intents.values():
        by_debt[intent.debt].append(intent)
    tried = [tries(intents) for intents in by_debt.values()]
    chosen = [
        each
        for each in tried
        if each
        and each[0].at < account.now - 30 * DAY
        and each[0].attempt.instrument.kind == "card"
        and not is_blocked(each[0].attempt)
    ]
    failed = [each for each in chosen if not each[0].is_approved]
    successes = [(each[0], next((one for one in each if one.is_approved), None)) for each in failed]
    return Figures(chosen, failed, [(first, success) for first, success in successes if success])


def test_a_tenth_of_first_attempts_fail(figures: Figures) -> None:
    assert 0.08 <= figures.failure_rate(lambda first: True) <= 0.13


def test_half_of_the_failed_debts_recover_within_30_days(figures: Figures) -> None:
    in_time = figures.share(lambda first, success: success.at - first.at <= 30 * DAY) * len(figures.recoveries)
    assert 0.45 <= in_time / len(figures.failed) <= 0.58


def test_nine_of_ten_recoveries_take_at_most_ten_days(figures: Figures) -> None:
    assert 0.85 <= figures.share(lambda first, success: success.at - first.at <= 10 * DAY) <= 0.95


def test_a_sixth_of_recoveries_happen_within_an_hour_and_some_happen_late(figures: Figures) -> None:
    assert 0.10 <= figures.share(lambda first, success: success.at - first.at < HOUR) <= 0.21
    assert figures.share(lambda first, success: success.at - first.at > 30 * DAY) > 0.005


def test_three_of_five_recoveries_use_the_same_instrument(figures: Figures) -> None:
    same = figures.share(
        lambda first, success: (
            success.attempt.instrument == first.attempt.instrument and success.attempt.three_d_secure is None
        )
    )
    assert 0.55 <= same <= 0.65


def test_a_quarter_of_recoveries_use_another_payment_intent(figures: Figures) -> None:
    assert 0.18 <= figures.share(lambda first, success: success.intent is not first.intent) <= 0.30


def test_every_further_retry_is_less_likely_to_succeed(figures: Figures) -> None:
    reached: dict[int, int] = defaultdict(int)
    won: dict[int, int] = defaultdict(int)
    for each in figures.failed:
        for number, one in enumerate(each, start=1):
            reached[number] += 1
            if one.is_approved:
                won[number] += 1
                break
    rates = [won[number] / reached[number] for number in (2, 3, 4, 5)]
    assert all(later < earlier for earlier, later in pairwise(rates))


def test_cards_fail_in_the_order_that_stripe_publishes(figures: Figures) -> None:
    def rate_of_funding(funding: str) -> float:
        return figures.failure_rate(lambda first: first.attempt.instrument.funding == funding)

    def rate_where(holds: Callable[[Try], bool], expected: bool) -> float:
        return figures.failure_rate(lambda first: holds(first) is expected)

    assert rate_of_funding("credit") < rate_of_funding("debit") < rate_of_funding("prepaid")
    for is_better in (
        lambda first: not is_foreign(first.attempt.instrument, first.intent.currency),
        lambda first: first.attempt.instrument.wallet is not None,
        lambda first: first.intent.is_saved,
    ):
        assert rate_where(is_better, True) < rate_where(is_better, False)
