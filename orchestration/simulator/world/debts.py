"""What every payment was for, and what became of each debt: from the story alone, without any rule of linking.

The story writes into each PaymentIntent which debt it is for (`Intent.obligation`). Nothing here compares customers,
cards, order numbers or times to find that out.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from orchestration.simulator.world.calibration import DAY
from orchestration.simulator.world.steps import Intent
from orchestration.simulator.world.truth_records import AttemptTruth, PaymentTruth

RECOVERY_WINDOW: Final = 30 * DAY


@dataclass(frozen=True)
class Debt:
    """One thing that somebody owed, as of the instant of the truth. Amounts are in minor units of `currency`.

    Args:
        currency: that of the first attempt, as is `amount`, which is what was at risk if it failed.
        payment_intent_ids: all PaymentIntents that were for this debt, in the order of their creation.
        first_failed_at: when the first attempt failed before the debt was paid; None if none did.
        paid_at: when the debt was paid in full, after a failure or not.
        received_amount: how much of the debt has come in, at most `amount`.
        received_by_currency: what has come in altogether, also what was paid twice, per currency.
        is_in_scope: False if nobody owed it (card testing), or if each PaymentIntent was canceled as a duplicate or as
            fraudulent.
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
        """When the debt was paid in full after it had failed."""
        return None if self.first_failed_at is None else self.paid_at

    @property
    def is_partially_recovered(self) -> bool:
        """Whether a part of a failed debt has come in, but not all of it."""
        return self.first_failed_at is not None and 0 < self.received_amount < self.amount

    def is_recovered_in_time(self) -> bool:
        """Whether the debt was paid in full within 30 days after it failed."""
        if self.first_failed_at is None or self.paid_at is None:
            return False
        return self.paid_at <= self.first_failed_at + RECOVERY_WINDOW

    def is_matured(self, at: int) -> bool:
        """Whether the 30 days after the failure are over."""
        return self.first_failed_at is not None and self.first_failed_at + RECOVERY_WINDOW <= at


def recovery_rate(debts: Iterable[Debt], at: int) -> float:
    """Return the share of matured failed debts in scope that were recovered within 30 days, 0 to 1."""
    matured = [debt for debt in debts if debt.is_in_scope and debt.is_matured(at)]
    return sum(debt.is_recovered_in_time() for debt in matured) / len(matured) if matured else 0.0


def tell_debts(
    intents: Iterable[Intent], attempts: Iterable[AttemptTruth], payments: Iterable[PaymentTruth]
) -> list[Debt]:
    """Return every debt for which there was a PaymentIntent, with what the attempts made of it."""
    tried: dict[str, list[AttemptTruth]] = defaultdict(list)
    for attempt in attempts:
        tried[attempt.payment_intent_id].append(attempt)
    paid = {payment.id: payment for payment in payments}
    owed: dict[str, list[Intent]] = defaultdict(list)
    for intent in intents:
        owed[intent.obligation].append(intent)
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
    """The currency and the amount of the first attempt; without one, those of the first PaymentIntent."""
    if attempts:
        return attempts[0].currency, attempts[0].amount
    return first.earlier_price or (first.currency, first.amount)


def _paid_at(receipts: Sequence[tuple[int, int]], amount: int) -> int | None:
    """When what came in reached the amount."""
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
