"""The computation of an episode, with small handmade histories."""

from typing import Any

import pytest

from orchestration.simulator import EpisodeTruth
from orchestration.simulator.world.calibration import CARD_FAILURES, DAY, HOUR, Failure
from orchestration.simulator.world.steps import Act, Attempt, Dispute, Instrument, Intent, Refund, Step
from orchestration.simulator.world.truth import Truth, compute_truth

START = 1_760_000_000
NOW = START + 60 * DAY
FAILURE = next(each for each in CARD_FAILURES if each.name == "do_not_honor")
NEEDS_AUTHENTICATION = next(each for each in CARD_FAILURES if each.name == "authentication_required")
CARD, OTHER_CARD = (
    Instrument("card", f"pm_{name}", f"fp_{name}", "4242", "US", "visa", "credit", 12, 2030) for name in ("a", "b")
)


class Story:
    """A PaymentIntent whose steps are added by hand. Times are in hours since the start."""

    def __init__(self, name: str, amount: int = 100, currency: str = "usd", at: float = 0, **options: Any) -> None:
        created = self._instant(at)
        self.intent = Intent(f"pi_{name}", created, 1, currency, amount, "debt", **options)
        self.intent.steps.append(Step(created, Act.CREATED))

    def failed(self, at: float, act: Act = Act.FAILED, **options: Any) -> "Story":
        self._attempt(at, act, **{"failure": FAILURE} | options)
        return self

    def paid(self, at: float, received: int | None = None, **options: Any) -> "Story":
        self._attempt(at, Act.SUCCEEDED, self.intent.amount if received is None else received, **options)
        return self

    def captured(self, at: float, authorized_at: float, received: int) -> "Story":
        self._attempt(authorized_at, Act.AUTHORIZED)
        self._step(at, Act.CAPTURED, len(self.intent.attempts) - 1, amount=received)
        return self

    def bounced(self, at: float, debited_at: float) -> "Story":
        self._attempt(debited_at, Act.PROCESSING, failure=FAILURE)
        self._step(at, Act.BOUNCED, len(self.intent.attempts) - 1)
        return self

    def repriced(self, at: float, currency: str, amount: int) -> "Story":
        intent = self.intent
        intent.earlier_price = intent.currency, intent.amount
        intent.attempts = [attempt._replace(price=intent.earlier_price) for attempt in intent.attempts]
        intent.currency, intent.amount = currency, amount
        self._step(at, Act.REPRICED)
        return self

    def refunded(self, at: float, amount: int) -> "Story":
        self.intent.refunds.append(Refund("re", self._instant(at), amount, 0, "succeeded", None))
        self._step(at, Act.REFUNDED, len(self.intent.refunds) - 1)
        return self

    def disputed(self, at: float, amount: int) -> "Story":
        self.intent.disputes.append(Dispute("dp", self._instant(at), amount, 0, "lost", "fraudulent", False))
        self._step(at, Act.DISPUTED, len(self.intent.disputes) - 1)
        return self

    def canceled(self, at: float, reason: str = "abandoned") -> "Story":
        self._step(at, Act.CANCELED, detail=reason)
        return self

    def _attempt(self, at: float, act: Act, amount: int = 0, *, card: Instrument = CARD, **options: Any) -> None:
        index = len(self.intent.attempts)
        charge = f"ch_{self.intent.id}_{index}"
        self.intent.attempts.append(Attempt(self._instant(at), charge, card, **options))
        self._step(at, act, index, amount=amount)

    def _step(self, at: float, act: Act, nth: int = 0, **options: Any) -> None:
        self.intent.steps.append(Step(self._instant(at), act, nth, **options))

    @staticmethod
    def _instant(at: float) -> int:
        return START + int(at * HOUR)


def truth_of(*stories: Story) -> Truth:
    return compute_truth([story.intent for story in stories], NOW, [NOW])


def episode_of(*stories: Story) -> EpisodeTruth:
    """Return the episode of the stories as a single group."""
    (episode,) = truth_of(*stories).compute_episodes([{story.intent.id for story in stories}])
    return episode


def part(name: str, amount: int, at: float, **options: Any) -> Story:
    return Story(name, amount, at=at, **options).paid(at)


def test_two_parts_pay_the_whole_and_the_second_completes_it() -> None:
    failed = Story("whole").failed(0)
    episode = episode_of(failed, part("first", 60, 1), part("second", 40, 2))
    assert episode.recovery_status == "recovered"
    assert episode.first_succeeded_at == START + 2 * HOUR
    assert (episode.at_risk_amount, episode.recovered_amount, episode.recovered_amount_net) == (100, 100, 100)
    assert (episode.attempts_to_recovery, episode.further_successes) == (3, 0)
    assert (episode.is_partially_recovered, episode.is_across_intents) == (False, True)


def test_a_single_part_leaves_the_debt_unpaid_and_counts_as_received() -> None:
    episode = episode_of(Story("whole").failed(0), part("first", 60, 1))
    assert (episode.recovery_status, episode.first_succeeded_at, episode.method) == ("lost_expired", None, None)
    assert (episode.recovered_amount, episode.recovered_amount_net, episode.is_partially_recovered) == (60, 60, True)
    assert (episode.attempts_to_recovery, episode.is_across_intents, episode.further_successes) == (None, False, 0)
    both = episode_of(Story("whole").failed(0), part("first", 60, 1), part("second", 30, 2))
    assert (both.recovery_status, both.recovered_amount, both.further_successes) == ("lost_expired", 90, 0)


def test_one_cent_of_an_order_does_not_recover_it() -> None:
    episode = episode_of(Story("whole", 10_000).failed(0).canceled(2), part("cent", 1, 1))
    assert (episode.recovery_status, episode.recovered_amount, episode.is_partially_recovered) == (
        "lost_expired", 1, True,
    )  # fmt: skip


def test_parts_above_the_amount_recover_no_more_than_was_at_risk() -> None:
    episode = episode_of(Story("whole").failed(0), part("first", 60, 1), part("second", 70, 2))
    assert (episode.recovered_amount, episode.recovered_amount_net, episode.further_successes) == (100, 100, 0)


def test_a_late_second_part_recovers_late() -> None:
    episode = episode_of(Story("whole").failed(0), part("first", 60, 1), part("second", 40, 31 * 24))
    assert (episode.recovery_status, episode.recovered_amount) == ("recovered_late", 100)


def test_the_same_payment_intent_pays_the_debt_in_another_currency() -> None:
    episode = episode_of(Story("one").failed(0).repriced(1, "eur", 90).paid(2))
    assert (episode.currency, episode.at_risk_amount, episode.recovery_status) == ("usd", 100, "recovered")
    assert (episode.recovered_amount, episode.recovered_amount_net) == (0, 0)
    assert (episode.other_currency_received_amount, episode.is_partially_recovered) == (90, True)
    assert (episode.attempts_to_recovery, episode.is_across_intents) == (2, False)


def test_another_payment_intent_in_another_currency_covers_nothing() -> None:
    abroad = Story("abroad", 100, "eur", at=1).paid(1)
    episode = episode_of(Story("one").failed(0), abroad)
    assert (episode.recovery_status, episode.recovered_amount) == ("lost_expired", 0)
    assert (episode.other_currency_received_amount, episode.is_partially_recovered) == (100, False)
    paid = episode_of(Story("one").failed(0), abroad, part("same", 100, 2))
    assert (paid.recovery_status, paid.first_succeeded_at) == ("recovered", START + 2 * HOUR)
    assert (paid.recovered_amount, paid.other_currency_received_amount, paid.further_successes) == (100, 100, 0)


def test_foreign_payments_after_the_debt_is_paid_do_not_count() -> None:
    episode = episode_of(Story("one").failed(0), part("same", 100, 1), Story("abroad", 100, "eur", at=2).paid(2))
    assert (episode.other_currency_received_amount, episode.further_successes) == (0, 1)
    assert episode.recovered_amount_net == 100


def test_a_refund_of_a_foreign_double_payment_changes_nothing() -> None:
    abroad = Story("abroad", 500, "eur", at=2).paid(2)
    refunded = part("same", 100, 1).refunded(3, 100)
    assert episode_of(Story("one").failed(0), refunded, abroad).recovered_amount_net == 0
    assert episode_of(Story("one").failed(0), part("same", 100, 1), abroad.refunded(3, 500)).recovered_amount_net == 100


def test_a_refund_of_a_counted_foreign_payment_does_not_lower_the_amount() -> None:
    abroad = Story("abroad", 50, "eur", at=1).paid(1).refunded(3, 50)
    assert episode_of(Story("one").failed(0), abroad, part("same", 100, 2)).recovered_amount_net == 100


def test_a_partial_capture_of_the_failed_payment_intent_pays_the_debt() -> None:
    episode = episode_of(Story("one").failed(0).captured(24, authorized_at=1, received=30))
    assert (episode.recovery_status, episode.first_succeeded_at) == ("recovered", START + DAY)
    assert (episode.recovered_amount, episode.is_partially_recovered) == (30, True)


def test_a_partial_capture_of_another_payment_intent_covers_its_amount() -> None:
    captured = Story("two", 100, at=1).captured(24, authorized_at=1, received=30)
    episode = episode_of(Story("one").failed(0), captured)
    assert (episode.recovery_status, episode.recovered_amount, episode.is_partially_recovered) == (
        "recovered", 30, True,
    )  # fmt: skip


@pytest.mark.parametrize("is_first_refunded", [True, False])
def test_a_double_payment_with_one_refund_is_one_payment(is_first_refunded: bool) -> None:
    one, two = part("first", 100, 1), part("second", 100, 2)
    episode = episode_of(Story("failed").failed(0), one, two)
    assert (episode.further_successes, episode.recovered_amount, episode.recovered_amount_net) == (1, 100, 100)
    assert episode.first_succeeded_at == START + HOUR
    (one if is_first_refunded else two).refunded(3, 100)
    assert episode_of(Story("failed").failed(0), one, two).recovered_amount_net == 100
    (two if is_first_refunded else one).disputed(4, 70)
    assert episode_of(Story("failed").failed(0), one, two).recovered_amount_net == 30


def test_refunds_beyond_the_debt_do_not_lower_the_kept_double_payment() -> None:
    first, second = part("first", 60, 1).refunded(4, 60), part("second", 70, 2).refunded(4, 70)
    assert episode_of(Story("whole").failed(0), first, second, part("double", 50, 3)).recovered_amount_net == 50


def test_a_refund_of_one_of_two_parts_leaves_the_other() -> None:
    stories = Story("whole").failed(0), part("first", 60, 1).refunded(3, 60), part("second", 40, 2)
    episode = episode_of(*stories)
    assert (episode.recovery_status, episode.recovered_amount, episode.recovered_amount_net) == ("recovered", 100, 40)


def test_the_payment_intent_that_failed_pays_after_a_part() -> None:
    """It covers all that was at risk, so together with the part it is more than the debt."""
    failed = Story("whole").failed(0).paid(2)
    episode = episode_of(failed, part("first", 60, 1))
    assert (episode.first_succeeded_at, episode.is_across_intents) == (START + 2 * HOUR, False)
    assert (episode.recovered_amount, episode.further_successes) == (100, 0)


def test_a_failure_counts_only_before_the_first_payment() -> None:
    paid, later = part("paid", 60, 1), Story("later", at=2).failed(2)
    assert truth_of(paid, later).compute_episodes([{"pi_paid", "pi_later"}]) == []
    bounced = Story("debit").bounced(72, debited_at=0)
    assert truth_of(paid, bounced).compute_episodes([{"pi_paid", "pi_debit"}]) == [], "paid before it bounced"
    (alone,) = truth_of(paid, bounced).compute_episodes([{"pi_paid"}, {"pi_debit"}])
    assert (alone.id, alone.first_failed_at) == ("pi_debit", START + 3 * DAY)


def test_a_failure_after_an_attempt_that_is_captured_later_does_not_count() -> None:
    held, other = Story("held").captured(24, authorized_at=1, received=100), Story("other", at=2).failed(2)
    assert truth_of(held, other).compute_episodes([{"pi_held", "pi_other"}]) == []


def test_the_failure_that_resolved_first_is_at_risk() -> None:
    episode = episode_of(Story("debit", 80).bounced(72, debited_at=0), Story("card", 100, at=1).failed(1))
    assert (episode.id, episode.payment_intent_ids) == ("pi_debit", ("pi_debit", "pi_card"))
    assert (episode.at_risk_amount, episode.first_failed_at) == (100, START + HOUR)


def test_the_method_compares_the_completing_payment_with_all_failures_before_it() -> None:
    """A failure between two parts also counts, but not one after the debt is paid."""
    whole, first = Story("whole").failed(0), part("first", 60, 1)
    second = Story("second", 40, at=2).failed(2, card=OTHER_CARD).paid(3, card=OTHER_CARD)
    episode = episode_of(whole, first, second)
    assert (episode.method, episode.attempts_to_recovery) == ("same_instrument_retry", 4)
    new = Story("second", 40, at=2).paid(3, card=OTHER_CARD)
    after = Story("after", 40, at=4).failed(4, card=OTHER_CARD)
    assert episode_of(whole, first, new, after).method == "new_instrument"
    updated = Story("second", 40, at=2).paid(3, card=CARD._replace(exp_year=2034))
    assert episode_of(whole, first, updated).method == "card_updated"
    asked = Story("second", 40, at=2).failed(2, failure=NEEDS_AUTHENTICATION).paid(3, three_d_secure="authenticated")
    assert (episode_of(whole, first, asked).method, episode_of(whole, first, asked).is_customer_present) == (
        "authenticated", True,
    )  # fmt: skip


def test_a_card_that_is_entered_again_is_the_same_instrument() -> None:
    entered_again = CARD._replace(payment_method="pm_again")
    assert episode_of(Story("one").failed(0).paid(1, card=entered_again)).method == "same_instrument_retry"


@pytest.mark.parametrize(
    ("act", "failure", "result", "method"),
    [
        (Act.FAILED, NEEDS_AUTHENTICATION, "authenticated", "authenticated"),
        (Act.FAILED, NEEDS_AUTHENTICATION, None, "same_instrument_retry"),
        (Act.FAILED, FAILURE, "authenticated", "same_instrument_retry"),
        (Act.AUTHENTICATION_FAILED, FAILURE, "authenticated", "authenticated"),
    ],
)
def test_authentication_recovers_failures_that_required_it(
    act: Act, failure: Failure, result: str | None, method: str
) -> None:
    failed = Story("one").failed(0, act=act, failure=failure)
    failed.paid(1, three_d_secure=result)
    (episode,) = compute_truth([failed.intent], NOW, [START + DAY]).compute_episodes([{"pi_one"}])
    assert episode.method == method


def test_a_voucher_has_no_comparable_instrument() -> None:
    voucher, another = (Instrument("boleto", payment_method, "", "", "BR") for payment_method in ("pm_v", "pm_w"))
    expected = {
        (voucher, another): None,
        (CARD, voucher): None,
        (voucher, CARD): "new_instrument",
        (voucher, voucher): "same_instrument_retry",
    }
    for (failed_with, paid_with), method in expected.items():
        episode = episode_of(Story("one").failed(0, card=failed_with).paid(1, card=paid_with))
        assert (episode.recovery_status, episode.method) == ("recovered", method)


@pytest.mark.parametrize(
    ("failed", "paid", "expected"),
    [
        ({"order_key": "1001"}, {"order_key": "1001"}, "recovered"),
        ({"order_key": "1001"}, {"order_key": "1002"}, "lost_expired"),
        ({"order_key": "1001"}, {"order_key": "1001", "is_order_in_details": True}, "lost_expired"),
        ({"order_key": "1001"}, {}, "lost_expired"),
        ({}, {}, "lost_expired"),
        *(
            ({"order_key": key, "is_order_in_details": True}, {"order_key": key, "is_order_in_details": True}, status)
            for key, status in (("prod_1", "lost_expired"), ("price_1", "lost_expired"), ("plink_1", "lost_expired"),
                                ("product-1", "recovered"))
        ),
    ],
)  # fmt: skip
def test_strict_links_payments_that_name_the_same_order(failed: Any, paid: Any, expected: str) -> None:
    episode = episode_of(Story("one", **failed).failed(0), Story("two", at=1, **paid).paid(1))
    assert (episode.recovery_status, episode.status_strict) == ("recovered", expected)


def test_strict_adds_up_the_parts_of_the_order_alone() -> None:
    whole = Story("whole", order_key="1").failed(0)
    first, second = part("first", 60, 1, order_key="1"), part("second", 40, 2)
    assert episode_of(whole, first, second).status_strict == "lost_expired"
    assert episode_of(whole, first, second, part("third", 40, 3, order_key="1")).status_strict == "recovered"
    assert episode_of(Story("whole").failed(0).paid(3), part("first", 100, 1)).status_strict == "recovered"


def test_strict_is_canceled_if_all_that_name_the_order_are() -> None:
    whole, other = Story("whole").failed(0).canceled(1), Story("other", at=2).failed(2)
    episode = episode_of(whole, other)
    assert (episode.recovery_status, episode.status_strict) == ("lost_expired", "lost_canceled")
    assert episode_of(whole, Story("other", at=2).failed(2).canceled(3)).recovery_status == "lost_canceled"


def test_an_episode_is_out_of_scope_if_all_of_it_is_canceled_as_a_duplicate_or_fraudulent() -> None:
    void, fraud = Story("one").failed(0).canceled(1, "duplicate"), Story("two").failed(1).canceled(2, "fraudulent")
    assert not episode_of(void, fraud).is_in_scope
    assert episode_of(void, Story("two").failed(1).canceled(2)).is_in_scope


def test_payments_of_one_second_count_in_the_order_of_their_ids() -> None:
    episode = episode_of(Story("failed").failed(0), part("b", 100, 1).refunded(2, 100), part("a", 100, 1))
    assert (episode.attempts_to_recovery, episode.further_successes) == (2, 1)
    parts = episode_of(Story("failed").failed(0), part("b", 40, 1), part("a", 60, 1))
    assert (parts.attempts_to_recovery, parts.further_successes) == (3, 0)
    first, second = (
        Story(name, at=at).captured(24, authorized_at=at, received=100) for name, at in (("b", 1), ("a", 2))
    )
    assert episode_of(Story("failed").failed(0), first, second).attempts_to_recovery == 3, "that of pi_a"


def test_unknowable_times_are_marked() -> None:
    one, two = Story("one").bounced(72, debited_at=0), part("two", 100, 80)
    known, late = (compute_truth([one.intent, two.intent], NOW, [at]) for at in (START + 5 * DAY, NOW))
    assert [each.is_known for each in late.compute_episodes([{"pi_one", "pi_two"}])] == [False]
    assert [each.is_known for each in late.compute_episodes([{"pi_one"}, {"pi_two"}])] == [True]
    assert [each.is_first_failed_at_known for each in late.compute_episodes([{"pi_one"}])] == [False]
    assert all(
        each.is_known and each.is_first_failed_at_known for each in known.compute_episodes([{"pi_one", "pi_two"}])
    )


def test_the_time_of_success_is_known_if_those_of_all_payments_are() -> None:
    failed, held = Story("one").failed(0), Story("two", at=1).captured(24, authorized_at=1, received=100)
    groups = [{"pi_one", "pi_two"}]
    (late,) = truth_of(failed, held).compute_episodes(groups)
    (in_time,) = compute_truth([failed.intent, held.intent], NOW, [START + 2 * DAY]).compute_episodes(groups)
    assert (late.is_first_failed_at_known, late.is_first_succeeded_at_known) == (True, False)
    assert in_time.is_first_succeeded_at_known
    (both,) = truth_of(failed, held, part("at_once", 100, 2)).compute_episodes([{"pi_one", "pi_two", "pi_at_once"}])
    assert not both.is_first_succeeded_at_known, "the one held may have been captured first"


def test_groups_with_shared_or_unknown_payment_intents_are_refused() -> None:
    truth = truth_of(Story("one").failed(0), Story("untried"))
    assert [each.payment_intent_ids for each in truth.compute_episodes([{"pi_one"}, {"pi_untried"}])] == [("pi_one",)]
    for groups in ([{"pi_one"}, {"pi_one", "pi_untried"}], [{"pi_unknown"}]):
        with pytest.raises(ValueError, match=r"pi_(one|unknown)"):
            truth.compute_episodes(groups)


def test_groups_do_not_change_the_truth() -> None:
    truth = truth_of(Story("one").failed(0), part("two", 100, 1))
    apart = truth.compute_episodes([{"pi_one"}, {"pi_two"}])
    together = truth.compute_episodes([{"pi_two", "pi_one"}])
    assert [each.recovery_status for each in apart + together] == ["lost_expired", "recovered"]
