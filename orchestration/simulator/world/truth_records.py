"""Records of the true attempts and payments of a simulated account. `debts` and `episodes` are computed from them."""

from dataclasses import dataclass
from typing import Literal

from orchestration.simulator.world.steps import Instrument

Outcome = Literal["succeeded", "authorized", "processing", "failed", "blocked"]
FailureClass = Literal[
    "declined",
    "predicted_decline",
    "verification_failed",
    "bank_return",
    "authentication_failed",
    "invalid_or_processing",
]


@dataclass(frozen=True)
class AttemptTruth:
    """One payment attempt. Times are Unix seconds; `amount` is in minor units of `currency`.

    Args:
        charge_id: None if the attempt has no charge. A reader may be unable to know of such an attempt.
        failure_code: the most specific code that Stripe shows: the charge's outcome.reason or failure_code; without a
            charge, the error's code; for a returned debit, the dispute's reason.
        resolved_at: time of the outcome: settlement, bounce, capture or dispute, else `attempted_at`.
        is_knowable: whether a reader at the syncs could know of the attempt.
        is_time_known: whether that reader could know `attempted_at`.
        is_resolution_time_known: whether that reader could know `resolved_at`.
    """

    payment_intent_id: str
    charge_id: str | None
    currency: str
    amount: int
    attempted_at: int
    outcome: Outcome
    failure_class: FailureClass | None
    failure_code: str | None
    resolved_at: int
    instrument: Instrument
    is_authenticated: bool
    is_customer_present: bool
    is_knowable: bool
    is_time_known: bool
    is_resolution_time_known: bool


@dataclass(frozen=True)
class PaymentTruth:
    """One PaymentIntent. Times are Unix seconds; amounts are in minor units of `currency`.

    Args:
        order_key: the order as Stripe shows it.
        debt: name of the debt. Several payments can try to pay one debt.
        attempt_count: number of knowable attempts.
        history: each status with the time at which it began.
        is_history_known: whether the events of all these statuses could be read.
        waiting_for: `voucher` or `bank_transfer` if the payment waits for one, else None.
        waits_until: when the wait ends; None if the payment does not wait or waits without an end.
    """

    id: str
    created: int
    currency: str
    amount: int
    status: str
    amount_received: int
    canceled_at: int | None
    cancellation_reason: str | None
    order_key: str | None
    debt: str
    attempt_count: int
    history: tuple[tuple[str, int], ...]
    is_history_known: bool
    waiting_for: str | None
    waits_until: int | None
