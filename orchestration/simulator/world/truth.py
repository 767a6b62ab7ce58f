"""Compute what really happened: attempts, payments and debts as of a given time.

The pipeline's tables are compared with this. It is computed from the generated steps, reads no JSON and shares no rule
with `state` or `objects`, so that the same mistake cannot be in both. Times are Unix seconds, amounts minor units.

Definitions: a card payment succeeds when it is charged, a bank debit when it settles, a manual capture when it is
captured. A bank debit fails when it bounces. A settled debit that the bank returns fails when the dispute is opened. An
unfinished authentication is not an attempt.

`debts` says which PaymentIntents were for one debt, and whether it was paid (`Debt`). `episodes` takes any groups of
PaymentIntents, such as those that the models linked, and says what became of each (`EpisodeTruth`), with the part of
each PaymentIntent in it (`Member`).
"""

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import takewhile
from typing import Any, Final

from orchestration.simulator.world.calibration import DAY, Failure
from orchestration.simulator.world.debts import Debt, compute_debts, recovery_rate
from orchestration.simulator.world.episodes import EpisodeTruth, Member, compute_episodes
from orchestration.simulator.world.steps import Act, Attempt, Intent, Step, Wait
from orchestration.simulator.world.truth_records import AttemptTruth, FailureClass, Outcome, PaymentTruth

WAITING_FOR: Final = {
    "boleto": "voucher",
    "oxxo": "voucher",
    "konbini": "voucher",
    "customer_balance": "bank_transfer",
}
"""Kind of wait by payment method type."""

EVENT_RETENTION_SECONDS: Final = 30 * DAY
"""Seconds for which Stripe lists an event. A failure without a charge is visible in little else."""


@dataclass(frozen=True)
class Truth:
    """What had happened by `at`, inclusive, and what a reader could know who synced everything at each of `syncs`."""

    at: int
    syncs: tuple[int, ...]
    attempts: list[AttemptTruth] = field(default_factory=list)
    payments: list[PaymentTruth] = field(default_factory=list)
    debts: list[Debt] = field(default_factory=list)
    members: Mapping[str, Member] = field(default_factory=dict, repr=False, compare=False)

    def compute_episodes(self, groups: Iterable[Iterable[str]]) -> list[EpisodeTruth]:
        """Return the episode of each group of PaymentIntents that failed, as if each group had one debt.

        A reader at `syncs` should compute the same episodes from these groups. A PaymentIntent in no group has no
        episode.

        Raises:
            ValueError: an id is unknown or in several groups.
        """
        return compute_episodes(groups, self.members, self.at)

    def summary(self) -> dict[str, dict[str, int]]:
        """Return counts and amounts by currency.

        The counts are: payments; knowable attempts, also by outcome; failed debts in scope, also by state:
        `recovered`, `recovered_late` (after the window) or `unpaid`. The amounts, in minor units, are: `at_risk`,
        `at_risk_<state>` and `recovered_amount`, which includes partial recoveries.
        """
        totals: dict[str, Counter[str]] = defaultdict(Counter)
        for payment in self.payments:
            totals[payment.currency]["payments"] += 1
        for attempt in self.attempts:
            totals[attempt.currency]["attempts"] += attempt.is_knowable
            totals[attempt.currency][f"attempts_{attempt.outcome}"] += attempt.is_knowable
        for debt in self.debts:
            if debt.is_in_scope and debt.first_failed_at is not None:
                is_paid = debt.paid_at is not None
                state = "recovered" if debt.is_recovered_in_time() else "recovered_late" if is_paid else "unpaid"
                totals[debt.currency].update({"failed": 1, state: 1, "recovered_amount": debt.received_amount})
                totals[debt.currency].update({"at_risk": debt.amount, f"at_risk_{state}": debt.amount})
        return {currency: dict(sorted(total.items())) for currency, total in sorted(totals.items())}

    def recovery_rate(self) -> float:
        """Return the true recovery rate of failed debts in scope whose 30 days are over, 0 to 1."""
        return recovery_rate(self.debts, self.at)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain JSON types, with the summary but without `members`."""
        attempts = [asdict(each) | {"instrument": each.instrument._asdict()} for each in self.attempts]
        payments, debts = [asdict(each) for each in self.payments], [asdict(each) for each in self.debts]
        content = {"at": self.at, "syncs": self.syncs, "attempts": attempts, "payments": payments, "debts": debts}
        return content | {"summary": self.summary()}


def compute_truth(intents: Sequence[Intent], at: int, syncs: Sequence[int]) -> Truth:
    """Return the truth about these intents as of `at`, for a reader who synced everything at each of `syncs`."""
    reader = _Reader(sync for sync in syncs if sync <= at)
    members: dict[str, Member] = {}
    truth = Truth(at, tuple(reader.syncs), members=members)
    for intent in intents:
        past = list(takewhile(lambda step: step.at <= at, intent.steps))
        attempts = _attempts(intent, past, reader)
        knowable = [attempt for attempt in attempts if attempt.is_knowable]
        payment = _payment(intent, past, len(knowable), reader)
        truth.attempts.extend(attempts)
        truth.payments.append(payment)
        kept_amount = max(0, payment.amount_received - _returned_amount(intent, past))
        members[intent.id] = Member(intent, payment, knowable, kept_amount)
    truth.debts.extend(compute_debts(intents, truth.attempts, truth.payments))
    return truth


class _Reader:
    """A reader who syncs everything at certain times, and what that reader can know."""

    def __init__(self, syncs: Iterable[int]) -> None:
        self.syncs = sorted(set(syncs))

    def has_sync_between(self, first: int, last: float) -> bool:
        """Return whether there is a sync with `first <= sync < last`."""
        index = bisect_left(self.syncs, first)
        return index < len(self.syncs) and self.syncs[index] < last

    def can_read_event_at(self, instant: int) -> bool:
        """Return whether an event created at `instant` is still listed at the next sync."""
        return self.has_sync_between(instant, instant + EVENT_RETENTION_SECONDS + 1)


def _attempts(intent: Intent, past: Sequence[Step], reader: _Reader) -> list[AttemptTruth]:
    decisive = {
        Act.FAILED: _failed_at_once,
        Act.AUTHENTICATION_FAILED: _failed_without_charge,
        Act.EXPIRED: _failed_without_charge,
        Act.SUCCEEDED: _succeeded_at_once,
        Act.AUTHORIZED: _unresolved,
        Act.PROCESSING: _unresolved,
        Act.CAPTURED: _resolved_later,
        Act.SETTLED: _resolved_later,
        Act.BOUNCED: _resolved_later,
    }
    by_index: dict[int, AttemptTruth] = {}
    for step in past:
        if step.act in decisive:
            by_index[step.nth] = decisive[step.act](intent, intent.attempts[step.nth], step, reader)
    for attempt_index, taken_back in _returned_attempts(intent, past).items():
        by_index[attempt_index] = _as_returned(by_index[attempt_index], *taken_back)
    return [by_index[index] for index in sorted(by_index)]


def _attempt(
    intent: Intent,
    attempt: Attempt,
    outcome: Outcome,
    resolved_at: int,
    *,
    failure_class: FailureClass | None = None,
    failure_code: str | None = None,
    is_knowable: bool = True,
    is_time_known: bool = True,
    is_resolution_time_known: bool = True,
) -> AttemptTruth:
    currency, amount = attempt.price or (intent.currency, intent.amount)
    return AttemptTruth(
        payment_intent_id=intent.id,
        charge_id=attempt.charge,
        currency=currency,
        amount=amount,
        attempted_at=attempt.at,
        outcome=outcome,
        failure_class=failure_class,
        failure_code=failure_code,
        resolved_at=resolved_at,
        instrument=attempt.instrument,
        is_authenticated=attempt.three_d_secure == "authenticated",
        is_customer_present=_is_customer_there(attempt),
        is_knowable=is_knowable,
        is_time_known=is_time_known,
        is_resolution_time_known=is_resolution_time_known,
    )


def _is_customer_there(attempt: Attempt) -> bool:
    if attempt.instrument.kind == "card_present":
        return True
    gives_code = not attempt.off_session and attempt.instrument.wallet is None
    return attempt.instrument.kind == "card" and (gives_code or attempt.three_d_secure is not None)


def _failed_at_once(intent: Intent, attempt: Attempt, step: Step, reader: _Reader) -> AttemptTruth:
    failure = attempt.failure
    assert failure is not None
    if failure.outcome_type == "blocked" and failure.outcome_reason is None:
        return _attempt(intent, attempt, "blocked", step.at, failure_code="highest_risk_level")
    return _attempt(
        intent,
        attempt,
        "failed",
        step.at,
        failure_class=_class_of_refusal(failure),
        failure_code=failure.outcome_reason or failure.decline_code or failure.code,
    )


def _class_of_refusal(failure: Failure) -> FailureClass:
    if failure.outcome_type == "blocked":
        return "predicted_decline"
    return "declined" if failure.network_status == "declined_by_network" else "invalid_or_processing"


def _failed_without_charge(intent: Intent, attempt: Attempt, step: Step, reader: _Reader) -> AttemptTruth:
    """Return a failed attempt without a charge.

    It is visible in its event, and in the intent's last_payment_error until something else happens to the intent.
    """
    failure = attempt.failure
    assert failure is not None
    keeps_error = (Act.CANCELED,)
    later = intent.steps[intent.steps.index(step) + 1 :]
    cleared_at = next((each.at for each in later if each.act not in keeps_error), float("inf"))
    is_event_read = reader.can_read_event_at(step.at)
    return _attempt(
        intent,
        attempt,
        "failed",
        step.at,
        failure_class="authentication_failed" if step.act is Act.AUTHENTICATION_FAILED else "invalid_or_processing",
        failure_code=failure.decline_code or failure.code,
        is_knowable=is_event_read or reader.has_sync_between(step.at, cleared_at),
        is_time_known=is_event_read,
        is_resolution_time_known=is_event_read,
    )


def _succeeded_at_once(intent: Intent, attempt: Attempt, step: Step, reader: _Reader) -> AttemptTruth:
    return _attempt(intent, attempt, "succeeded", step.at)


def _unresolved(intent: Intent, attempt: Attempt, step: Step, reader: _Reader) -> AttemptTruth:
    return _attempt(intent, attempt, "authorized" if step.act is Act.AUTHORIZED else "processing", step.at)


def _resolved_later(intent: Intent, attempt: Attempt, step: Step, reader: _Reader) -> AttemptTruth:
    is_known = reader.can_read_event_at(step.at)
    if step.act is not Act.BOUNCED:
        return _attempt(intent, attempt, "succeeded", step.at, is_resolution_time_known=is_known)
    assert attempt.failure is not None
    return _attempt(
        intent,
        attempt,
        "failed",
        step.at,
        failure_class="bank_return",
        failure_code=attempt.failure.code,
        is_resolution_time_known=is_known,
    )


def _returned_attempts(intent: Intent, past: Sequence[Step]) -> dict[int, tuple[int, str]]:
    """Return the attempts whose money a bank took back and kept, each with the time and reason of its dispute."""
    returns: dict[int, tuple[int, str]] = {}
    for step in past:
        if step.act in (Act.DISPUTED, Act.DISPUTE_CLOSED):
            dispute = intent.disputes[step.nth]
            if dispute.is_return and step.detail != "won":
                returns[dispute.attempt] = dispute.at, dispute.reason
            else:
                returns.pop(dispute.attempt, None)
    return returns


def _as_returned(settled: AttemptTruth, at: int, reason: str) -> AttemptTruth:
    """Return the attempt as failed by a return. Its time is always known, since the dispute shows it."""
    changed: dict[str, Any] = {"outcome": "failed", "failure_class": "bank_return", "failure_code": reason}
    return AttemptTruth(**vars(settled) | changed | {"resolved_at": at, "is_resolution_time_known": True})


def _payment(intent: Intent, past: Sequence[Step], attempt_count: int, reader: _Reader) -> PaymentTruth:
    status = "requires_confirmation" if intent.starts_confirmable else "requires_payment_method"
    after = {
        Act.CHALLENGED: "requires_action",
        Act.INSTRUCTED: "requires_action",
        Act.EXPIRED: "requires_payment_method",
        Act.AUTHENTICATION_FAILED: "requires_payment_method",
        Act.FAILED: "requires_payment_method",
        Act.BOUNCED: "requires_payment_method",
        Act.PROCESSING: "processing",
        Act.AUTHORIZED: "requires_capture",
        Act.SUCCEEDED: "succeeded",
        Act.SETTLED: "succeeded",
        Act.CAPTURED: "succeeded",
        Act.CANCELED: "canceled",
        Act.LAPSED: "canceled",
    }
    history: list[tuple[str, int]] = []
    for step in past:
        status = after.get(step.act, status)
        if not history or status != history[-1][0]:
            history.append((status, step.at))
    is_repriced = any(step.act is Act.REPRICED for step in past)
    price = intent.currency, intent.amount
    currency, amount = price if is_repriced or intent.earlier_price is None else intent.earlier_price
    end = next((step for step in past if step.act in (Act.CANCELED, Act.LAPSED)), None)
    wait = _current_wait(intent, past)
    return PaymentTruth(
        id=intent.id,
        created=intent.created,
        currency=currency,
        amount=amount,
        status=status,
        amount_received=sum(step.amount for step in past),
        canceled_at=end.at if end else None,
        cancellation_reason=end.detail if end else None,
        order_key=intent.order_key,
        debt=intent.debt,
        attempt_count=attempt_count,
        history=tuple(history),
        is_history_known=all(reader.can_read_event_at(instant) for _, instant in history),
        waiting_for=wait and WAITING_FOR[wait.instrument.kind],
        waits_until=wait and wait.expires_at,
    )


def _current_wait(intent: Intent, past: Sequence[Step]) -> Wait | None:
    """Return the last voucher or bank details shown to the customer, if the payment still waits for them."""
    shown = None
    for step in past:
        if step.act is Act.INSTRUCTED:
            shown = intent.waits[step.nth]
        elif step.act not in (Act.EDITED, Act.REPRICED):
            shown = None
    return shown


def _returned_amount(intent: Intent, past: Sequence[Step]) -> int:
    """Return the sum of succeeded refunds and lost disputes."""
    given: dict[tuple[str, int], int] = {}
    for step in past:
        if (
            step.act is Act.REFUNDED and intent.refunds[step.nth].status == "succeeded"
        ) or step.act is Act.REFUND_SETTLED:
            given["refund", step.nth] = intent.refunds[step.nth].amount
        elif step.act is Act.REFUND_FAILED:
            given.pop(("refund", step.nth), None)
        elif step.act in (Act.DISPUTED, Act.DISPUTE_CLOSED):
            dispute = intent.disputes[step.nth]
            if (step.detail or dispute.status) == "lost":
                given["dispute", step.nth] = dispute.amount
    return sum(given.values())
