"""Identities of the truth, and the cases that a reader may be unable to know."""

from collections import Counter

import pytest

from orchestration.simulator import AttemptTruth, EpisodeTruth, SimulatedAccount, Truth
from orchestration.simulator.stripe.objects import Renderer
from orchestration.simulator.world.calibration import DAY
from orchestration.simulator.world.steps import Act, Intent
from orchestration.simulator.world.truth import EVENT_RETENTION_SECONDS


@pytest.fixture(scope="module", params=[0, 35, 90])
def truth(account: SimulatedAccount, request: pytest.FixtureRequest) -> Truth:
    """Return the truth some days before the clock, for a reader who synced every 20 days."""
    at = account.now - request.param * DAY
    return account.truth(at, syncs=range(account.opened_at, at + 1, 20 * DAY))


@pytest.fixture(scope="module")
def attempts(truth: Truth) -> dict[str, list[AttemptTruth]]:
    grouped: dict[str, list[AttemptTruth]] = {payment.id: [] for payment in truth.payments}
    for attempt in truth.attempts:
        grouped[attempt.payment_intent_id].append(attempt)
    return grouped


def episodes_of_debts(truth: Truth) -> list[EpisodeTruth]:
    """Return the episodes of correctly linked debts."""
    return truth.compute_episodes(debt.payment_intent_ids for debt in truth.debts)


def test_the_summary_counts_the_failed_debts(truth: Truth) -> None:
    failed = [debt for debt in truth.debts if debt.is_in_scope and debt.first_failed_at is not None]
    states = ("recovered", "recovered_late", "unpaid")
    summary = truth.summary()
    assert sum(total["payments"] for total in summary.values()) == len(truth.payments)
    assert sum(total.get("failed", 0) for total in summary.values()) == len(failed)
    for currency, total in summary.items():
        own = [debt for debt in failed if debt.currency == currency]
        assert sum(total.get(state, 0) for state in states) == total.get("failed", 0) == len(own)
        assert sum(total.get(f"at_risk_{state}", 0) for state in states) == sum(debt.amount for debt in own)
        paid = [debt for debt in own if debt.paid_at is not None]
        assert total.get("recovered", 0) + total.get("recovered_late", 0) == len(paid)
        assert total.get("recovered", 0) == sum(debt.is_recovered_in_time() for debt in paid)
        assert total.get("recovered_amount", 0) == sum(debt.received_amount for debt in own)


def test_an_episode_recovers_no_more_than_was_at_risk(truth: Truth) -> None:
    for episode in episodes_of_debts(truth):
        assert 0 <= episode.recovered_amount_net <= episode.recovered_amount <= episode.at_risk_amount
        is_recovered = episode.recovery_status in ("recovered", "recovered_late")
        assert is_recovered == (episode.first_succeeded_at is not None)
        assert is_recovered == (episode.attempts_to_recovery is not None)
        assert is_recovered == (episode.method is not None)
        assert (episode.recovered_amount == episode.at_risk_amount) <= is_recovered
        assert episode.is_partially_recovered == (0 < episode.recovered_amount < episode.at_risk_amount)


def test_a_payment_succeeded_exactly_if_an_attempt_succeeded_or_was_returned(
    truth: Truth, attempts: dict[str, list[AttemptTruth]]
) -> None:
    reasons = {"insufficient_funds", "debit_not_authorized", "bank_cannot_process", "incorrect_account_details"}
    for payment in truth.payments:
        paid = [attempt for attempt in attempts[payment.id] if attempt.outcome == "succeeded"]
        if payment.status == "succeeded":
            last = attempts[payment.id][-1]
            assert len(paid) == 1 or (last.failure_class == "bank_return" and last.failure_code in reasons)
            assert payment.amount_received > 0
        else:
            assert paid == []
            assert payment.amount_received == 0


def test_only_canceled_payments_have_a_time_of_cancellation(truth: Truth) -> None:
    assert all((payment.status == "canceled") == (payment.canceled_at is not None) for payment in truth.payments)


def test_only_failed_attempts_have_a_failure_class(truth: Truth) -> None:
    for attempt in truth.attempts:
        assert (attempt.outcome == "failed") == (attempt.failure_class is not None)
        assert (attempt.outcome in ("failed", "blocked")) == (attempt.failure_code is not None)
        assert attempt.attempted_at <= attempt.resolved_at <= truth.at
        assert attempt.is_knowable or attempt.charge_id is None


def test_the_truth_agrees_with_what_stripe_shows_of_every_payment(account: SimulatedAccount, truth: Truth) -> None:
    renderer = Renderer(account)
    told = {payment.id: payment for payment in truth.payments}
    shown = [
        renderer.render("payment_intents", entry, truth.at)
        for entry in account.list_entries("payment_intents", truth.at, created=(0, truth.at))
    ]
    assert len(shown) == len(told)
    for body in shown:
        payment = told[body["id"]]
        assert (body["status"], body["amount_received"]) == (payment.status, payment.amount_received)
        assert (body["canceled_at"], body["cancellation_reason"]) == (payment.canceled_at, payment.cancellation_reason)


def test_every_outcome_and_every_status_occurs() -> None:
    account = SimulatedAccount(1)
    truth = account.truth(account.now)
    assert set(Counter(attempt.outcome for attempt in truth.attempts)) == {
        "succeeded", "authorized", "processing", "failed", "blocked",
    }  # fmt: skip
    assert {attempt.failure_class for attempt in truth.attempts} == {
        None, "declined", "bank_return", "authentication_failed", "invalid_or_processing",
    }  # fmt: skip
    assert {episode.recovery_status for episode in episodes_of_debts(truth)} == {
        "recovered", "recovered_late", "lost_canceled", "lost_expired", "in_recovery",
    }  # fmt: skip
    assert not all(attempt.is_knowable for attempt in truth.attempts)
    assert not all(episode.is_in_scope for episode in episodes_of_debts(truth))


def test_a_predicted_decline_is_a_failed_payment() -> None:
    account = SimulatedAccount(1, 400, 60, shop="adaptive_acceptance")
    predicted = [
        attempt for attempt in account.truth(account.now).attempts if attempt.failure_class == "predicted_decline"
    ]
    assert {attempt.failure_code for attempt in predicted} == {
        "low_probability_of_authorization", "previously_declined_do_not_retry",
    }  # fmt: skip
    assert {attempt.outcome for attempt in predicted} == {"failed"}


def chargeless(account: SimulatedAccount, *, is_left_alone: bool) -> tuple[Intent, int]:
    """Return a payment whose first failure has no charge, and its time. If `is_left_alone`, nothing happened later."""
    for intent in account.intents.values():
        acts = [step.act for step in intent.steps if step.act is not Act.CHALLENGED]
        if acts[1:2] == [Act.AUTHENTICATION_FAILED] and (len(acts) == 2) is is_left_alone:
            step = next(step for step in intent.steps if step.act is Act.AUTHENTICATION_FAILED)
            return intent, step.at
    raise AssertionError("no such story")


def true_attempt(account: SimulatedAccount, intent: Intent, syncs: list[int]) -> AttemptTruth:
    truth = account.truth(syncs[-1], syncs)
    return next(attempt for attempt in truth.attempts if attempt.payment_intent_id == intent.id)


def test_a_failure_without_a_charge_is_known_from_its_event_for_thirty_days() -> None:
    account = SimulatedAccount(1)
    intent, at = chargeless(account, is_left_alone=False)
    in_time = true_attempt(account, intent, [at + EVENT_RETENTION_SECONDS])
    assert in_time.is_knowable
    assert in_time.is_time_known
    too_late = true_attempt(account, intent, [at + 90 * DAY])
    assert not too_late.is_knowable
    assert true_attempt(account, intent, [at, at + 90 * DAY]).is_knowable


def test_a_failure_without_a_charge_stays_known_from_an_uncleared_error() -> None:
    account = SimulatedAccount(1)
    intent, at = chargeless(account, is_left_alone=True)
    attempt = true_attempt(account, intent, [at + EVENT_RETENTION_SECONDS + 1])
    assert attempt.is_knowable
    assert not attempt.is_time_known


def test_an_unknowable_failure_creates_no_episode() -> None:
    account = SimulatedAccount(1)
    intent = next(
        intent
        for intent in account.intents.values()
        if [attempt.failure is None for attempt in intent.attempts] == [False, True]
        and any(step.act is Act.AUTHENTICATION_FAILED for step in intent.steps)
    )
    at = next(step.at for step in intent.steps if step.act is Act.AUTHENTICATION_FAILED)
    late = account.truth(at + 90 * DAY)
    in_time = account.truth(at + 90 * DAY, syncs=[at])
    assert len(in_time.compute_episodes([{intent.id}])) == 1
    assert late.compute_episodes([{intent.id}]) == []
    told = [attempt for attempt in late.attempts if attempt.payment_intent_id == intent.id]
    payment = next(payment for payment in late.payments if payment.id == intent.id)
    assert payment.attempt_count == sum(attempt.is_knowable for attempt in told) < len(told)


def test_a_returned_debit_fails_when_the_dispute_begins() -> None:
    account = SimulatedAccount(1)
    intent, dispute = next(
        (intent, dispute)
        for intent in account.intents.values()
        for dispute in intent.disputes
        if dispute.is_return and dispute.status == "lost"
    )
    before, after = (account.truth(at) for at in (dispute.at - 1, dispute.at))
    charge = intent.attempts[dispute.attempt].charge
    settled, returned = (
        next(attempt for attempt in truth.attempts if attempt.charge_id == charge) for truth in (before, after)
    )
    assert settled.outcome == "succeeded"
    assert (returned.outcome, returned.resolved_at) == ("failed", dispute.at)
    (episode,) = after.compute_episodes([{intent.id}])
    assert (episode.recovery_status, episode.first_succeeded_at) == ("in_recovery", None)
