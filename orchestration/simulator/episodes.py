"""Which PaymentIntents were tries to pay for one thing, as far as Stripe shows it, and what became of what failed.

By the rules that the models go by as well (DECISIONLOG.md, episodes), but from the stories and in plain loops.

An episode is what PaymentIntents with an attempt share that name the same order; where none is named, the same customer
and amount; without a customer, the same card or bank account and amount. It ends when something was paid before the
next one starts, or when nothing was tried for some days. It failed if an attempt failed before anything was paid.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from orchestration.simulator.calibration import DAY
from orchestration.simulator.steps import Intent

if TYPE_CHECKING:
    from orchestration.simulator.truth import AttemptTruth, PaymentTruth

RECOVERY_WINDOW: Final = 30 * DAY
PAUSE: Final = {"explicit": 30 * DAY, "customer_amount": 7 * DAY, "instrument_amount": 7 * DAY, "none": 0}
"""How long nothing may be tried within an episode, in seconds, by what links it."""

RecoveryStatus = Literal["recovered", "recovered_late", "lost_canceled", "lost_expired", "in_recovery"]
RecoveryMethod = Literal["new_instrument", "card_updated", "authenticated", "same_instrument_retry"]


@dataclass(frozen=True)
class EpisodeTruth:
    """Failed attempts to collect one payment, and what became of it. `id` is the first of its PaymentIntents.

    `recovered_amount` is at most what was at risk; net of refunds that succeeded and disputes that were lost.
    `status_without_guesses` is the status if only PaymentIntents of one order are linked. `is_in_scope` is False where
    every PaymentIntent was canceled as duplicate or fraudulent. `is_known` is False where instants that decide about
    the episode's limits cannot be known, so that a reader may see other ones.
    """

    id: str
    payment_intent_ids: tuple[str, ...]
    linked_by: str
    currency: str
    recovery_status: RecoveryStatus
    status_without_guesses: RecoveryStatus
    first_failed_at: int
    first_succeeded_at: int | None
    at_risk_amount: int
    recovered_amount: int
    recovered_amount_net: int
    attempts_to_recovery: int | None
    is_across_intents: bool
    method: RecoveryMethod | None
    is_customer_there: bool
    further_successes: int
    is_in_scope: bool
    is_known: bool
    is_first_failed_at_known: bool
    is_first_succeeded_at_known: bool


@dataclass(frozen=True)
class Told:
    """A PaymentIntent, the attempts that a reader knows of, and what it brought less what was given back."""

    intent: Intent
    payment: "PaymentTruth"
    attempts: Sequence["AttemptTruth"]
    kept_amount: int

    @property
    def started_at(self) -> int:
        return self.attempts[0].attempted_at

    @property
    def last_activity_at(self) -> int:
        return max(a.resolved_at if a.outcome == "failed" else a.attempted_at for a in self.attempts)

    @property
    def success(self) -> "AttemptTruth | None":
        return next((attempt for attempt in self.attempts if attempt.outcome == "succeeded"), None)

    @property
    def link(self) -> tuple[str, Any]:
        """By what it belongs to others, and the value that it shares with them."""
        intent, instrument = self.intent, self.attempts[0].instrument
        if intent.order_key:
            where = "details" if intent.is_order_in_details else "metadata"
            return "explicit", (intent.currency, where, intent.order_key)
        if intent.customer is not None:
            return "customer_amount", (intent.currency, intent.customer, intent.amount)
        if instrument.fingerprint:
            return "instrument_amount", (intent.currency, instrument.fingerprint, intent.amount)
        return "none", intent.id


def tell_episodes(told: Iterable[Told], at: int) -> list[EpisodeTruth]:
    """What failed by `at`, and what became of it by then."""
    linked: dict[tuple[str, Any], list[Told]] = defaultdict(list)
    for each in told:
        if each.attempts:
            linked[each.link].append(each)
    episodes = []
    for (linked_by, _), members in linked.items():
        is_known = len(members) == 1 or all(
            attempt.is_time_known and attempt.is_resolution_time_known
            for member in members
            for attempt in member.attempts
        )
        for episode in _divided(sorted(members, key=lambda m: (m.started_at, m.intent.id)), PAUSE[linked_by]):
            failed = _judged(episode, linked_by, at, is_known=is_known)
            if failed is not None:
                episodes.append(failed)
    return episodes


def _divided(members: Sequence[Told], pause: int) -> list[list[Told]]:
    paid_at = [member.success.resolved_at for member in members if member.success is not None]
    episodes: list[list[Told]] = []
    active_until, previous = 0, 0
    for member in members:
        is_paid = any(previous <= instant < member.started_at for instant in paid_at)
        if not episodes or is_paid or member.started_at > active_until + pause:
            episodes.append([])
        episodes[-1].append(member)
        active_until, previous = max(active_until, member.last_activity_at), member.started_at
    return episodes


def _judged(members: Sequence[Told], linked_by: str, at: int, *, is_known: bool) -> EpisodeTruth | None:
    attempts = sorted((attempt for member in members for attempt in member.attempts), key=_order)
    payer = _first_to_succeed(members)
    success = payer.success if payer else None
    failures = [
        attempt
        for index, attempt in enumerate(attempts)
        if attempt.outcome == "failed"
        and (success is None or (attempt.resolved_at <= success.resolved_at and index < attempts.index(success)))
    ]
    if not failures:
        return None
    first = min(failures, key=lambda failure: failure.resolved_at)
    own = members if linked_by == "explicit" else [m for m in members if m.intent.id == first.payment_intent_id]
    recovered = min(payer.payment.amount_received, first.amount) if payer else 0
    return EpisodeTruth(
        id=members[0].intent.id,
        payment_intent_ids=tuple(member.intent.id for member in members),
        linked_by=linked_by,
        currency=first.currency,
        recovery_status=_status(first, members, at),
        status_without_guesses=_status(first, own, at),
        first_failed_at=first.resolved_at,
        first_succeeded_at=success.resolved_at if success else None,
        at_risk_amount=first.amount,
        recovered_amount=recovered,
        recovered_amount_net=_net(recovered, payer, members),
        attempts_to_recovery=attempts.index(success) + 1 if success else None,
        is_across_intents=success is not None and success.payment_intent_id != first.payment_intent_id,
        method=_method(failures, success) if success else None,
        is_customer_there=success is not None and success.is_customer_there,
        further_successes=max(0, sum(member.success is not None for member in members) - 1),
        is_in_scope=not all(m.payment.cancellation_reason in ("duplicate", "fraudulent") for m in members),
        is_known=is_known,
        is_first_failed_at_known=all(failure.is_resolution_time_known for failure in failures),
        is_first_succeeded_at_known=success is None or success.is_resolution_time_known,
    )


def _order(attempt: "AttemptTruth") -> tuple[int, bool, bool, str]:
    """In time; a success is the last of its second, what has no charge comes after what has one."""
    is_success = attempt.outcome == "succeeded"
    return attempt.attempted_at, is_success, attempt.charge_id is None, attempt.charge_id or attempt.payment_intent_id


def _first_to_succeed(members: Sequence[Told]) -> Told | None:
    paid = [(member.success.resolved_at, member.intent.id, member) for member in members if member.success is not None]
    return min(paid, key=lambda each: each[:2])[2] if paid else None


def _status(first: "AttemptTruth", members: Sequence[Told], at: int) -> RecoveryStatus:
    payer = _first_to_succeed(members)
    window_end = first.resolved_at + RECOVERY_WINDOW
    if payer is not None and payer.success is not None:
        return "recovered" if payer.success.resolved_at <= window_end else "recovered_late"
    if all(member.payment.status == "canceled" for member in members):
        return "lost_canceled"
    return "lost_expired" if window_end <= at else "in_recovery"


def _net(recovered: int, payer: Told | None, members: Sequence[Told]) -> int:
    """Who paid twice and got one payment back has paid once, whichever it was."""
    if payer is None:
        return 0
    given_back = payer.payment.amount_received - payer.kept_amount
    kept_of_others = sum(member.kept_amount for member in members if member is not payer and member.success)
    return min(recovered, max(0, recovered - given_back) + kept_of_others)


def _method(failures: Sequence["AttemptTruth"], success: "AttemptTruth") -> RecoveryMethod:
    paid_with, failed_with = success.instrument, [failure.instrument for failure in failures]
    if not any(
        each.fingerprint == paid_with.fingerprint or each.payment_method == paid_with.payment_method
        for each in failed_with
    ):
        return "new_instrument"
    if not any(
        (each.fingerprint, each.exp_month, each.exp_year)
        == (paid_with.fingerprint, paid_with.exp_month, paid_with.exp_year)
        for each in failed_with
    ):
        return "card_updated"
    needed = any(
        failure.failure_class == "authentication_failed" or failure.failure_code == "authentication_required"
        for failure in failures
    )
    return "authenticated" if needed and success.is_authenticated else "same_instrument_retry"
