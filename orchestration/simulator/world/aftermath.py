"""What follows an approved attempt: captures, settlement of debits, refunds, disputes.

Functions draw from a seeded source only. `stories` decides if and when an attempt is made.
"""

from random import Random

from orchestration.simulator.world import calibration as cal
from orchestration.simulator.world.calibration import DAY, HOUR, Failure
from orchestration.simulator.world.payers import draw_weighted
from orchestration.simulator.world.steps import Act, Attempt, Dispute, Instrument, Intent, Refund, Step

_RETURNED_CODES = {
    code: Failure(code, 0.0, 0.0, "same", code, None, network_status="approved_by_network")
    for code, _ in cal.DEBIT_FAILURES
}
"""Failures of bounced debits by `failure_code`. The network accepted the debit, and the payer's bank returned it."""


def settle_card(rng: Random, intent: Intent, index: int, *, is_recovery: bool) -> None:
    """Add the steps after a card's approval: a charge, or an authorization if the merchant captures later."""
    at = intent.attempts[index].at
    if intent.capture_method == "manual":
        captured_at, amount = _capture(rng, intent, index, at)
        if amount:
            _after_success(rng, intent, index, captured_at, amount, is_recovery=is_recovery)
        return
    intent.steps.append(Step(at, Act.SUCCEEDED, index, amount=intent.amount))
    if intent.capture_method == "automatic_async":
        intent.steps.append(Step(at + rng.randrange(4), Act.BALANCED, index))
    _after_success(rng, intent, index, at, intent.amount, is_recovery=is_recovery)


def settle_debit(rng: Random, intent: Intent, account: Instrument, at: int, chance_to_bounce: float) -> int | None:
    """Add one debit of a bank account, which is decided after 3 to 6 days.

    Returns:
        Unix seconds at which it bounced, or None if it settled.
    """
    index = len(intent.attempts)
    decided_at = at + rng.randrange(3 * DAY, 6 * DAY)
    bounces = rng.random() < chance_to_bounce
    failure = _RETURNED_CODES[draw_weighted(rng, cal.DEBIT_FAILURES)] if bounces else None
    intent.attempts.append(Attempt(at, f"py_{intent.token}{index}", account, failure, off_session=intent.is_saved))
    intent.steps.append(Step(at, Act.PROCESSING, index))
    if bounces:
        intent.steps.append(Step(decided_at, Act.BOUNCED, index))
        return decided_at
    intent.steps.append(Step(decided_at, Act.SETTLED, index, amount=intent.amount))
    if rng.random() < cal.DEBIT_RETURNED_LATE:
        _return_debit(rng, intent, index, decided_at)
    else:
        _after_success(rng, intent, index, decided_at, intent.amount, is_recovery=index > 0)
    return None


def _capture(rng: Random, intent: Intent, index: int, at: int) -> tuple[int, int]:
    """Add the end of an authorization and return its time and the captured amount, 0 if it expires or is voided."""
    intent.steps.append(Step(at, Act.AUTHORIZED, index))
    end = draw_weighted(rng, cal.CAPTURE_ENDS)
    ended_at = at + (
        cal.AUTHORIZATION_SECONDS if end == "expired" else rng.randrange(HOUR, cal.AUTHORIZATION_SECONDS - HOUR)
    )
    if end == "expired":
        intent.steps.append(Step(ended_at, Act.LAPSED, index, detail="automatic"))
        _release(intent, index, ended_at, "expired_uncaptured_charge")
        return ended_at, 0
    if end == "voided":
        reason = rng.choice(("requested_by_customer", "abandoned", None))
        intent.steps.append(Step(ended_at, Act.CANCELED, index, detail=reason))
        _release(intent, index, ended_at, None)
        return ended_at, 0
    amount = intent.amount if end == "full" else intent.amount * rng.randrange(3, 9) // 100 * 10 or intent.amount
    intent.steps.append(Step(ended_at, Act.CAPTURED, index, amount=amount))
    return ended_at, amount


def _release(intent: Intent, index: int, at: int, reason: str | None) -> None:
    """Add the refund that Stripe shows when it releases an authorization."""
    intent.refunds.append(Refund(f"re_{intent.token}0", at, intent.amount, index, "succeeded", reason))
    intent.steps.append(Step(at, Act.REFUNDED))


def _after_success(rng: Random, intent: Intent, index: int, at: int, amount: int, *, is_recovery: bool) -> None:
    """Add a refund, a dispute or neither, but never both."""
    lot = rng.random()
    refund = cal.REFUND_OF_RECOVERED if is_recovery else cal.REFUND
    dispute = cal.DISPUTE_OF_RECOVERED if is_recovery else cal.DISPUTE
    if lot < refund:
        _refund(rng, intent, index, at, amount)
    elif lot < refund + dispute and intent.attempts[index].instrument.kind == "card":
        _dispute(rng, intent, index, at, amount)


def _refund(rng: Random, intent: Intent, index: int, at: int, amount: int) -> None:
    """Add one full refund, or one or two partial ones. Some are pending at first, and a few fail weeks later."""
    portions = [amount] if rng.random() < 0.6 else [amount // 20 * 10 or amount]
    if portions[0] < amount and rng.random() < 0.3:
        portions.append(amount - portions[0])
    for portion in portions:
        at += rng.randrange(60, 25 * DAY)
        is_pending = rng.random() < cal.REFUND_PENDING
        number = len(intent.refunds)
        reason = rng.choice(("requested_by_customer", "requested_by_customer", "duplicate", None))
        prefix = "re" if intent.attempts[index].instrument.kind == "card" else "pyr"
        status = "pending" if is_pending else "succeeded"
        intent.refunds.append(Refund(f"{prefix}_{intent.token}{number}", at, portion, index, status, reason))
        intent.steps.append(Step(at, Act.REFUNDED, number))
        settled_at = at
        if is_pending:
            settled_at += rng.randrange(HOUR, 5 * DAY)
            intent.steps.append(Step(settled_at, Act.REFUND_SETTLED, number))
        if rng.random() < cal.REFUND_FAILS:
            intent.steps.append(Step(settled_at + rng.randrange(DAY, 20 * DAY), Act.REFUND_FAILED, number))
            return


def _dispute(rng: Random, intent: Intent, index: int, at: int, amount: int) -> None:
    """Add a cardholder's dispute days to months after the payment, and its end."""
    at += rng.randrange(3 * DAY, 100 * DAY)
    end = draw_weighted(rng, cal.DISPUTE_ENDS)
    status = "warning_needs_response" if end == "warning_closed" else "needs_response"
    reason = rng.choice(("fraudulent", "product_not_received", "subscription_canceled", "unrecognized"))
    intent.disputes.append(Dispute(f"du_1{intent.token[1:]}", at, amount, index, status, reason, is_return=False))
    intent.steps.append(Step(at, Act.DISPUTED))
    if end == "open":
        return
    answered_at = at + rng.randrange(HOUR, 8 * DAY)
    under_review = "warning_under_review" if end == "warning_closed" else "under_review"
    intent.steps.append(Step(answered_at, Act.DISPUTE_ANSWERED, detail=under_review))
    intent.steps.append(Step(answered_at + rng.randrange(10 * DAY, 70 * DAY), Act.DISPUTE_CLOSED, detail=end))


def _return_debit(rng: Random, intent: Intent, index: int, at: int) -> None:
    """Add the return of a settled debit by the payer's bank, as a dispute that is lost at once or decided by review."""
    at += rng.randrange(DAY, 40 * DAY)
    is_reviewed = rng.random() < 0.25
    status = "needs_response" if is_reviewed else "lost"
    reason = draw_weighted(rng, cal.RETURN_REASONS)
    intent.disputes.append(Dispute(f"du_1{intent.token[1:]}", at, intent.amount, index, status, reason, is_return=True))
    intent.steps.append(Step(at, Act.DISPUTED))
    if is_reviewed:
        at += rng.randrange(2 * DAY, 30 * DAY)
    end = "won" if is_reviewed and rng.random() < 0.5 else "lost"
    intent.steps.append(Step(at, Act.DISPUTE_CLOSED, detail=end))
