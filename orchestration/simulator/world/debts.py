"""Compute the correct debts: which PaymentIntents each debt had, and its outcome.

Each generated PaymentIntent states its debt (`Intent.debt`). Nothing here compares customers, cards, order
numbers or times to link payments.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from orchestration.simulator.world.calibration import DAY
from orchestration.simulator.world.steps import Intent
from orchestration.simulator.world.truth_records import AttemptTruth, PaymentTruth

RECOVERY_WINDOW_SECONDS: Final = 30 * DAY


@dataclass(frozen=True)
class Debt:
    """One debt as of the time of the truth. Amounts are in minor units of `currency`, times are Unix seconds.

    Args:
        id: name of the debt (`Intent.debt`).
        currency: currency of the first attempt.
        amount: amount of the first attempt, which was at risk if that attempt failed.
        payment_intent_ids: ids of all PaymentIntents for this debt, in the order of their creation.
        first_failed_at: when the first attempt failed before the debt was paid; None if none did.
        paid_at: when the debt was paid in full, with or without a failure; None if it is not.
        received_amount: part of the debt that was received, at most `amount`.
        received_by_currency: everything received, including double payments, by currency.
        is_in_scope: False for card testing, and if each PaymentIntent was canceled as duplicate or fraudulent.
    """

    id: str
    currency: str
    amount: int
    payment_intent_ids: tuple[str, ...]
    first_failed_at: int | None
    paid_at: int | None
    received_amount: int
    received_by_currency: tuple[tuple[str, int], ...]
    is_in_scope: bool

    @property
    def recovered_at(self) -> int | None:
        """Unix seconds at which the failed debt was paid in full; None if it did not fail or is not paid."""
        return None if self.first_failed_at is None else self.paid_at

    @property
    def is_partially_recovered(self) -> bool:
        """Whether a part of a failed debt was received, but not all of it."""
        return self.first_failed_at is not None and 0 < self.received_amount < self.amount

    def is_recovered_in_time(self) -> bool:
        """Return whether the debt was paid in full within 30 days after it failed."""
        if self.first_failed_at is None or self.paid_at is None:
            return False
        return self.paid_at <= self.first_failed_at + RECOVERY_WINDOW_SECONDS

    def is_matured(self, at: int) -> bool:
        """Return whether the 30 days after the failure are over at `at` (Unix seconds)."""
        return self.first_failed_at is not None and self.first_failed_at + RECOVERY_WINDOW_SECONDS <= at


def recovery_rate(debts: Iterable[Debt], at: int) -> float:
    """Return the share of matured failed debts in scope that were recovered within 30 days, 0 to 1."""
    matured = [debt for debt in debts if debt.is_in_scope and debt.is_matured(at)]
    return sum(debt.is_recovered_in_time() for debt in matured) / len(matured) if matured else 0.0


def compute_debts(
    intents: Iterable[Intent], attempts: Iterable[AttemptTruth], payments: Iterable[PaymentTruth]
) -> list[Debt]:
    """Return each debt that had a PaymentIntent, with its outcome."""
    tried: dict[str, list[AttemptTruth]] = defaultdict(list)
    for attempt in attempts:
        tried[attempt.payment_intent_id].append(attempt)
    paid = {payment.id: payment for payment in payments}
    owed: dict[str, list[Intent]] = defaultdict(list)
    for intent in intents:
        owed[intent.debt].append(intent)
    return [_debt(name, sorted(own, key=lambda i: (i.created, i.id)), tried, paid) for name, own in owed.items()]


def _debt(
    name: str,
    intents: Sequence[Intent],
    tried: dict[str, list[AttemptTruth]],
    paid: dict[str, PaymentTruth],
) -> Debt:
    attempts = sorted((each for intent in intents for each in tried[intent.id]), key=lambda each: each.attempted_at)
    currency, amount = _owed(intents[0], attempts)
    receipts = sorted(
        (attempt.resolved_at, amount if intent.covers is None else intent.covers)
        for intent in intents
        for attempt in tried[intent.id]
        if attempt.outcome == "succeeded"
    )
    paid_at = _paid_at(receipts, amount)
    failures = [each.resolved_at for each in attempts if each.outcome == "failed"]
    received: Counter[str] = Counter()
    for intent in intents:
        received[paid[intent.id].currency] += paid[intent.id].amount_received
    return Debt(
        id=name,
        currency=currency,
        amount=amount,
        payment_intent_ids=tuple(intent.id for intent in intents),
        first_failed_at=min((at for at in failures if paid_at is None or at <= paid_at), default=None),
        paid_at=paid_at,
        received_amount=min(amount, sum(part for _, part in receipts)),
        received_by_currency=tuple(sorted((+received).items())),
        is_in_scope=_is_in_scope(intents, paid),
    )


def _owed(first: Intent, attempts: Sequence[AttemptTruth]) -> tuple[str, int]:
    """Return currency and amount of the first attempt, or of the first PaymentIntent if there is no attempt."""
    if attempts:
        return attempts[0].currency, attempts[0].amount
    return first.earlier_price or (first.currency, first.amount)


def _paid_at(receipts: Sequence[tuple[int, int]], amount: int) -> int | None:
    """Return the time at which the received parts reached the amount, or None."""
    total = 0
    for at, part in receipts:
        total += part
        if total >= amount:
            return at
    return None


def _is_in_scope(intents: Sequence[Intent], paid: dict[str, PaymentTruth]) -> bool:
    reasons = [paid[intent.id].cancellation_reason for intent in intents]
    is_void = all(reason in ("duplicate", "fraudulent") for reason in reasons)
    return not is_void and not intents[0].is_card_testing
