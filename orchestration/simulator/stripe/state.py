"""The state of a PaymentIntent and its objects after a number of steps, by Stripe's rules.

Only `objects` uses it. `truth` does not, so that a mistake here cannot hide one there.
"""

from dataclasses import dataclass, field

from orchestration.simulator.world.steps import Act, Intent, Step


@dataclass(slots=True)
class ChargeState:
    """The mutable fields of a charge."""

    status: str
    captured: bool = False
    amount_captured: int = 0
    amount_refunded: int = 0
    is_disputed: bool = False
    is_balanced: bool = False


@dataclass(slots=True)
class State:
    """The mutable fields of a PaymentIntent and its objects. Amounts are in minor units.

    Args:
        failed: index of the attempt in `last_payment_error`.
        latest: index of the attempt of `latest_charge`.
        used: index of the attempt whose instrument is the `payment_method`.
        waiting: index of the wait in `next_action`.
    """

    status: str = "requires_payment_method"
    failed: int | None = None
    latest: int | None = None
    used: int | None = None
    waiting: int | None = None
    is_repriced: bool = False
    received: int = 0
    capturable: int = 0
    canceled_at: int | None = None
    cancellation_reason: str | None = None
    charges: dict[int, ChargeState] = field(default_factory=dict)
    refunds: dict[int, str] = field(default_factory=dict)
    disputes: dict[int, str] = field(default_factory=dict)


def steps_until(intent: Intent, at: int) -> int:
    """Return the number of the intent's steps that have happened by `at` (Unix seconds)."""
    count = 0
    for step in intent.steps:
        if step.at > at:
            break
        count += 1
    return count


def state_after(intent: Intent, count: int) -> State:
    """Return the state right after the first `count` steps."""
    state = State()
    for step in intent.steps[:count]:
        _apply(state, intent, step)
    return state


def _apply(state: State, intent: Intent, step: Step) -> None:
    match step.act:
        case Act.CREATED:
            state.status = "requires_confirmation" if intent.starts_confirmable else "requires_payment_method"
        case Act.CHALLENGED:
            state.status, state.failed, state.waiting = "requires_action", None, None
        case Act.INSTRUCTED:
            state.status, state.failed, state.waiting = "requires_action", None, step.nth
        case Act.AUTHENTICATION_FAILED | Act.EXPIRED:
            state.status, state.failed, state.waiting = "requires_payment_method", step.nth, None
        case Act.REPRICED:
            state.failed, state.is_repriced = None, True
        case Act.EDITED:
            state.failed = None
        case Act.CANCELED | Act.LAPSED:
            state.status, state.capturable = "canceled", 0
            state.canceled_at, state.cancellation_reason = step.at, step.detail
        case Act.REFUNDED | Act.REFUND_SETTLED | Act.REFUND_FAILED:
            _apply_refund(state, intent, step)
        case Act.DISPUTED | Act.DISPUTE_ANSWERED | Act.DISPUTE_CLOSED:
            dispute = intent.disputes[step.nth]
            state.disputes[step.nth] = step.detail or dispute.status
            state.charges[dispute.attempt].is_disputed = True
        case Act.BALANCED:
            state.charges[step.nth].is_balanced = True
        case _:
            _apply_charge(state, intent, step)


def _apply_charge(state: State, intent: Intent, step: Step) -> None:
    """Apply a step that creates or resolves a charge. Each is a confirmation, which clears the last error."""
    state.latest = state.used = step.nth
    state.failed = state.waiting = None
    charge = state.charges.setdefault(step.nth, ChargeState("pending"))
    match step.act:
        case Act.FAILED | Act.BOUNCED:
            state.status, state.failed, state.used = "requires_payment_method", step.nth, None
            charge.status = "failed"
        case Act.PROCESSING:
            state.status = "processing"
        case Act.AUTHORIZED:
            state.status, state.capturable = "requires_capture", intent.amount
            charge.status = "succeeded"
        case Act.SUCCEEDED | Act.CAPTURED | Act.SETTLED:
            state.status, state.received, state.capturable = "succeeded", step.amount, 0
            charge.status, charge.captured, charge.amount_captured = "succeeded", True, step.amount
            charge.is_balanced = intent.capture_method != "automatic_async"


def _apply_refund(state: State, intent: Intent, step: Step) -> None:
    """Apply a step of a refund. A pending refund counts as refunded; a failed one no longer does."""
    refund = intent.refunds[step.nth]
    charge = state.charges[refund.attempt]
    if step.act is Act.REFUNDED:
        state.refunds[step.nth] = refund.status
        charge.amount_refunded += refund.amount
    elif step.act is Act.REFUND_SETTLED:
        state.refunds[step.nth] = "succeeded"
    else:
        state.refunds[step.nth] = "failed"
        charge.amount_refunded -= refund.amount
