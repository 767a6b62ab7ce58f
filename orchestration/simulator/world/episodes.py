"""Compute the correct episode of each group of PaymentIntents that belong to one debt.

The computation uses plain loops over the generated payments and shares nothing with the SQL of the models. The groups
are given; `debts` says what the correct groups are.

A group failed if an attempt failed before any of its PaymentIntents succeeded. The amount of that attempt is at risk,
in its currency. Payments count in the order of their success until together they cover that amount. The payment that
reaches it completes the recovery, and later ones are double payments.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from orchestration.simulator.world.calibration import DAY
from orchestration.simulator.world.steps import Instrument, Intent
from orchestration.simulator.world.truth_records import AttemptTruth, PaymentTruth

RECOVERY_WINDOW_SECONDS: Final = 30 * DAY
STRIPE_ID_PREFIXES: Final = ("prod_", "price_", "plink_")
"""Prefixes of ids that Stripe itself writes into `order_reference`. They do not name an order."""

RecoveryStatus = Literal["recovered", "recovered_late", "lost_canceled", "lost_expired", "in_recovery"]
RecoveryMethod = Literal["new_instrument", "card_updated", "authenticated", "same_instrument_retry"]


@dataclass(frozen=True)
class EpisodeTruth:
    """Failed attempts to collect one debt, and the outcome.

    Amounts are in minor units of `currency`, times are Unix seconds.

    Args:
        id: id of the PaymentIntent that was attempted first.
        payment_intent_ids: ids of the PaymentIntents with a known attempt, in the order of their first attempts.
        status_strict: the status if only PaymentIntents that name the order of the first failure are linked to it.
        first_succeeded_at: when the debt was paid in full; None if it was not.
        at_risk_amount: amount of the first failed attempt.
        recovered_amount: amount received in `currency` until the debt was paid in full, at most `at_risk_amount`.
        recovered_amount_net: `recovered_amount` less succeeded refunds and lost disputes.
        other_currency_received_amount: amount received in other currencies until then, in their own minor units.
        is_partially_recovered: whether `recovered_amount` is less than `at_risk_amount`, although something was
            received or the debt is paid.
        attempts_to_recovery: number of the attempt that paid the debt in full, counted from 1.
        is_across_intents: whether another PaymentIntent than that of the first failure paid the debt in full.
        method: how the instrument that paid differs from those that failed. None if the debt is not paid, or if
            Stripe shows no fingerprint of the instrument that paid, as for vouchers and bank transfers.
        further_successes: number of payments after the debt was paid in full.
        is_in_scope: False if every PaymentIntent was canceled as duplicate or fraudulent.
        is_known: False if a reader cannot know the times that decide the order of several PaymentIntents.
    """

    id: str
    payment_intent_ids: tuple[str, ...]
    currency: str
    recovery_status: RecoveryStatus
    status_strict: RecoveryStatus
    first_failed_at: int
    first_succeeded_at: int | None
    at_risk_amount: int
    recovered_amount: int
    recovered_amount_net: int
    other_currency_received_amount: int
    is_partially_recovered: bool
    attempts_to_recovery: int | None
    is_across_intents: bool
    method: RecoveryMethod | None
    is_customer_present: bool
    further_successes: int
    is_in_scope: bool
    is_known: bool
    is_first_failed_at_known: bool
    is_first_succeeded_at_known: bool


@dataclass(frozen=True)
class Member:
    """A PaymentIntent of a group with its knowable attempts.

    `kept_amount` is the amount received less succeeded refunds and lost disputes.
    """

    intent: Intent
    payment: PaymentTruth
    attempts: Sequence[AttemptTruth]
    kept_amount: int

    @property
    def started_at(self) -> int:
        """Unix seconds of the first attempt."""
        return self.attempts[0].attempted_at

    @property
    def success(self) -> AttemptTruth | None:
        """The attempt that succeeded, if any."""
        return next((attempt for attempt in self.attempts if attempt.outcome == "succeeded"), None)

    @property
    def order_reference(self) -> tuple[str, str] | None:
        """Place and value of the order that the merchant names, if any. The place is `details` or `metadata`."""
        key = self.intent.order_key
        if not key or key.startswith(STRIPE_ID_PREFIXES):
            return None
        return ("details" if self.intent.is_order_in_details else "metadata"), key


class _Receipt(NamedTuple):
    """A PaymentIntent that succeeded, and its successful attempt."""

    success: AttemptTruth
    member: Member


class _Settlement(NamedTuple):
    """The payments that count, the one of them that completes the recovery, and the double payments after it."""

    counted: Sequence[_Receipt]
    completing: _Receipt | None
    doubles: Sequence[_Receipt]


def compute_episodes(groups: Iterable[Iterable[str]], members: Mapping[str, Member], at: int) -> list[EpisodeTruth]:
    """Return the episode of each group of PaymentIntent ids that failed by `at` (Unix seconds).

    A PaymentIntent without a known attempt is in no episode.

    Raises:
        ValueError: an id is unknown or in several groups.
    """
    seen: set[str] = set()
    episodes = []
    for group in groups:
        ids = set(group)
        if not ids <= members.keys() or not seen.isdisjoint(ids):
            raise ValueError(f"unknown or in several groups: {sorted((ids - members.keys()) | (ids & seen))}")
        seen |= ids
        own = sorted(
            (members[each] for each in ids if members[each].attempts), key=lambda m: (m.started_at, m.intent.id)
        )
        episode = _compute_episode(own, at)
        if episode is not None:
            episodes.append(episode)
    return episodes


def _compute_episode(members: Sequence[Member], at: int) -> EpisodeTruth | None:
    attempts = sorted((attempt for member in members for attempt in member.attempts), key=_sort_key)
    receipts = _receipts(members)
    failures = _failures_before(receipts[0].success if receipts else None, attempts)
    if not failures:
        return None
    first = min(failures, key=lambda failure: failure.resolved_at)
    settlement = _settle(first, members)
    paid_by = settlement.completing.success if settlement.completing else None
    recovered = min(
        first.amount,
        sum(each.member.payment.amount_received for each in _in_currency(first.currency, settlement.counted)),
    )
    return EpisodeTruth(
        id=members[0].intent.id,
        payment_intent_ids=tuple(member.intent.id for member in members),
        currency=first.currency,
        recovery_status=_status(first, members, at),
        status_strict=_status(first, _strict_members(first, members), at),
        first_failed_at=first.resolved_at,
        first_succeeded_at=paid_by.resolved_at if paid_by else None,
        at_risk_amount=first.amount,
        recovered_amount=recovered,
        recovered_amount_net=_net_recovered_amount(first.currency, recovered, settlement),
        other_currency_received_amount=sum(
            receipt.member.payment.amount_received
            for receipt in settlement.counted
            if receipt.member.payment.currency != first.currency
        ),
        is_partially_recovered=(recovered > 0 or paid_by is not None) and recovered < first.amount,
        attempts_to_recovery=attempts.index(paid_by) + 1 if paid_by else None,
        is_across_intents=paid_by is not None and paid_by.payment_intent_id != first.payment_intent_id,
        method=_method(_failures_before(paid_by, attempts), paid_by) if paid_by else None,
        is_customer_present=paid_by is not None and paid_by.is_customer_present,
        further_successes=len(settlement.doubles),
        is_in_scope=not all(m.payment.cancellation_reason in ("duplicate", "fraudulent") for m in members),
        is_known=len(members) == 1 or all(a.is_time_known and a.is_resolution_time_known for a in attempts),
        is_first_failed_at_known=all(failure.is_resolution_time_known for failure in failures),
        is_first_succeeded_at_known=all(receipt.success.is_resolution_time_known for receipt in receipts),
    )


def _sort_key(attempt: AttemptTruth) -> tuple[int, bool, bool, str]:
    """Return a sort key: by time, in one second successes last, and attempts without a charge after the others."""
    is_success = attempt.outcome == "succeeded"
    return attempt.attempted_at, is_success, attempt.charge_id is None, attempt.charge_id or attempt.payment_intent_id


def _receipts(members: Iterable[Member]) -> list[_Receipt]:
    """Return the successful payments in the order of their success."""
    receipts = [_Receipt(member.success, member) for member in members if member.success is not None]
    return sorted(receipts, key=lambda receipt: (receipt.success.resolved_at, receipt.member.intent.id))


def _failures_before(success: AttemptTruth | None, attempts: Sequence[AttemptTruth]) -> list[AttemptTruth]:
    """Return the failed attempts made before the success and resolved by then, or all if there is no success."""
    made_before = attempts if success is None else attempts[: attempts.index(success)]
    return [
        attempt
        for attempt in made_before
        if attempt.outcome == "failed" and (success is None or attempt.resolved_at <= success.resolved_at)
    ]


def _settle(first: AttemptTruth, members: Sequence[Member]) -> _Settlement:
    """Add up payments in order until they cover the amount at risk."""
    price = next(member.payment for member in members if member.intent.id == first.payment_intent_id)
    receipts, covered = _receipts(members), 0
    for number, receipt in enumerate(receipts, 1):
        covered += _covered(first, price, receipt.member.payment)
        if covered >= first.amount:
            return _Settlement(receipts[:number], receipt, receipts[number:])
    return _Settlement(receipts, None, [])


def _covered(first: AttemptTruth, price: PaymentTruth, paid: PaymentTruth) -> int:
    """Return how much of the debt a payment covers, regardless of the captured amount.

    The PaymentIntent that failed covers all of it. So does one with the price that the failed PaymentIntent has now.
    """
    if paid.id == price.id or (paid.currency == price.currency and paid.amount >= price.amount):
        return first.amount
    return paid.amount if paid.currency == first.currency else 0


def _in_currency(currency: str, receipts: Iterable[_Receipt]) -> list[_Receipt]:
    return [receipt for receipt in receipts if receipt.member.payment.currency == currency]


def _strict_members(first: AttemptTruth, members: Sequence[Member]) -> list[Member]:
    """Return the PaymentIntent of the first failure and those that name the same order in the same field."""
    order = next(member.order_reference for member in members if member.intent.id == first.payment_intent_id)
    return [
        member
        for member in members
        if member.intent.id == first.payment_intent_id or (order is not None and member.order_reference == order)
    ]


def _status(first: AttemptTruth, members: Sequence[Member], at: int) -> RecoveryStatus:
    completing = _settle(first, members).completing
    window_end = first.resolved_at + RECOVERY_WINDOW_SECONDS
    if completing is not None:
        return "recovered" if completing.success.resolved_at <= window_end else "recovered_late"
    if all(member.payment.status == "canceled" for member in members):
        return "lost_canceled"
    return "lost_expired" if window_end <= at else "in_recovery"


def _net_recovered_amount(currency: str, recovered: int, settlement: _Settlement) -> int:
    """Return the recovered amount that is kept; a double payment makes up for a returned one."""
    counted = [receipt.member for receipt in _in_currency(currency, settlement.counted)]
    given_back = sum(member.payment.amount_received - member.kept_amount for member in counted)
    kept_of_doubles = sum(receipt.member.kept_amount for receipt in _in_currency(currency, settlement.doubles))
    return min(recovered, max(0, recovered - given_back) + kept_of_doubles)


def _method(failures: Sequence[AttemptTruth], success: AttemptTruth) -> RecoveryMethod | None:
    """Return how the instrument that paid differs from those that failed."""
    paid_with, failed_with = success.instrument, [failure.instrument for failure in failures]
    same = [each for each in failed_with if _is_same(each, paid_with)]
    if not same:
        return "new_instrument" if paid_with.fingerprint else None
    if paid_with.fingerprint and not any(_card(each) == _card(paid_with) for each in same):
        return "card_updated"
    needed = any(
        failure.failure_class == "authentication_failed" or failure.failure_code == "authentication_required"
        for failure in failures
    )
    return "authenticated" if needed and success.is_authenticated else "same_instrument_retry"


def _is_same(one: Instrument, other: Instrument) -> bool:
    """Return whether Stripe shows both as one instrument. Vouchers and bank transfers have no fingerprint."""
    return one.payment_method == other.payment_method or "" != one.fingerprint == other.fingerprint


def _card(card: Instrument) -> tuple[str, int, int]:
    """Return the fingerprint, which identifies the card number, and the expiry."""
    return card.fingerprint, card.exp_year, card.exp_month
