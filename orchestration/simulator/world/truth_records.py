"""The true attempts and payments of the simulated account, which debts and episodes are computed from."""

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
    """One try to collect. Without a charge (`charge_id` None) it may be that no reader could know of it.

    `failure_code` is the most telling code Stripe shows: the charge's outcome.reason or failure_code, for a failure
    without a charge the error's code; for a debit taken back, the dispute's reason. `resolved_at` is the instant of the
    outcome: settlement, bounce, capture, dispute; else the attempt's own. `is_time_known` and
    `is_resolution_time_known` say whether a reader at the syncs could know the two instants.
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
    is_customer_there: bool
    is_knowable: bool
    is_time_known: bool
    is_resolution_time_known: bool


@dataclass(frozen=True)
class PaymentTruth:
    """One PaymentIntent. `order_key` is what Stripe shows of the order; `obligation` is what the payer really owed, so
    that payments which share it are tries to pay for one thing. `attempt_count` counts knowable attempts. `history` is
    every status with the instant at which it began; `is_history_known` whether all their events could be read.
    `waiting_for` and `waits_until` say what the payment waits for and until when; they are None if it waits for nothing
    from outside."""

    id: str
    created: int
    currency: str
    amount: int
    status: str
    amount_received: int
    canceled_at: int | None
    cancellation_reason: str | None
    order_key: str | None
    obligation: str
    attempt_count: int
    history: tuple[tuple[str, int], ...]
    is_history_known: bool
    waiting_for: str | None
    waits_until: int | None
