"""The data types of a payment: intents, attempts, steps.

`stories` generates them, `objects` renders them, and `truth` evaluates them. These modules share only these types.
"""

from base64 import b64encode
from dataclasses import dataclass, field
from enum import Enum, auto
from hashlib import blake2b
from typing import NamedTuple

from orchestration.simulator.world.calibration import Failure


class Act(Enum):
    """The kind of a step: what happens to a PaymentIntent or to one of its objects. It determines Stripe's events."""

    CREATED = auto()
    CHALLENGED = auto()  # the customer was sent to 3-D Secure
    INSTRUCTED = auto()  # the customer was shown a voucher or bank details
    AUTHENTICATION_FAILED = auto()
    EXPIRED = auto()  # a voucher was not paid in time
    FAILED = auto()
    SUCCEEDED = auto()
    AUTHORIZED = auto()
    CAPTURED = auto()
    LAPSED = auto()  # an authorization expired without a capture
    PROCESSING = auto()  # a bank debit was sent
    SETTLED = auto()  # a bank debit arrived
    BOUNCED = auto()  # a bank debit failed
    CANCELED = auto()
    EDITED = auto()  # the merchant changed the metadata
    REPRICED = auto()  # currency or amount changed
    BALANCED = auto()  # the charge got its balance transaction
    REFUNDED = auto()
    REFUND_SETTLED = auto()
    REFUND_FAILED = auto()
    DISPUTED = auto()
    DISPUTE_ANSWERED = auto()
    DISPUTE_CLOSED = auto()


class Instrument(NamedTuple):
    """A means of payment. `kind` is Stripe's payment method type. The card fields are empty for other kinds."""

    kind: str
    payment_method: str
    fingerprint: str
    last4: str
    country: str
    brand: str = ""
    funding: str = ""
    exp_month: int = 0
    exp_year: int = 0
    wallet: str | None = None


class Attempt(NamedTuple):
    """One payment attempt at `at` (Unix seconds).

    `charge` is None if Stripe creates none. `failure` says how the attempt failed, at once or later. `three_d_secure`
    is the result on the charge, None without a challenge. `price` is the currency and the amount of the attempt, None
    if they are those of the PaymentIntent.
    """

    at: int
    charge: str | None
    instrument: Instrument
    failure: Failure | None = None
    three_d_secure: str | None = None
    off_session: bool = False
    price: tuple[str, int] | None = None


class Wait(NamedTuple):
    """A voucher or bank details that the customer was shown, and the end of the wait in Unix seconds."""

    instrument: Instrument
    expires_at: int | None


class Refund(NamedTuple):
    """A refund. `status` is the initial one; steps change it. `attempt` is the index of the refunded attempt."""

    id: str
    at: int
    amount: int
    attempt: int
    status: str
    reason: str | None


class Dispute(NamedTuple):
    """A dispute. `status` is the initial one; steps change it. `attempt` is the index of the disputed attempt.

    `is_return` is True if a bank returned a settled debit.
    """

    id: str
    at: int
    amount: int
    attempt: int
    status: str
    reason: str
    is_return: bool


class Step(NamedTuple):
    """One thing that happened at `at` (Unix seconds).

    `nth` is an index into the intent's attempts, waits, refunds or disputes, depending on the act. `detail` is a
    cancellation reason or a new dispute status. `amount` is the captured amount.
    """

    at: int
    act: Act
    nth: int = 0
    detail: str | None = None
    amount: int = 0


@dataclass(slots=True, eq=False)
class Intent:
    """One PaymentIntent with its attempts, refunds, disputes and steps.

    Args:
        customer: number of the payer; None for a guest.
        amount: amount in minor units of `currency`.
        debt: name of the debt. Several intents can try to pay one debt.
        order_key: the order as Stripe shows it, in `payment_details.order_reference` if `is_order_in_details`, else in
            `metadata.order_id`. None if the merchant passes none.
        starts_confirmable: whether the first status is `requires_confirmation`.
        steps: what happened, in true order; several steps can share a second.
        covers: amount of the debt that this PaymentIntent pays, in the debt's currency; None means all of it.
        earlier_price: currency and amount until Act.REPRICED.
        is_customer_account: whether the customer is an account of Accounts v2.
        is_card_testing: whether this is a test of a stolen card, so that there is no debt.
        doubled_failures: indices of failed attempts for which Stripe creates each event twice.
        method_types: payment method types; None for those of the account.
    """

    id: str
    created: int
    customer: int | None
    currency: str
    amount: int
    debt: str
    order_key: str | None = None
    is_order_in_details: bool = False
    is_saved: bool = False
    capture_method: str = "automatic_async"
    starts_confirmable: bool = False
    metadata: dict[str, str] = field(default_factory=dict)
    attempts: list[Attempt] = field(default_factory=list)
    refunds: list[Refund] = field(default_factory=list)
    disputes: list[Dispute] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    waits: list[Wait] = field(default_factory=list)
    covers: int | None = None
    earlier_price: tuple[str, int] | None = None
    is_customer_account: bool = False
    is_card_testing: bool = False
    doubled_failures: frozenset[int] = frozenset()
    method_types: tuple[str, ...] | None = None

    @property
    def token(self) -> str:
        """The part of the id that the ids of its charges, refunds and disputes are built from."""
        return self.id[3:]


def token(*parts: object) -> str:
    """Return 24 letters and digits that look random, as in Stripe's ids, and depend only on `parts`."""
    digest = blake2b("/".join(map(str, parts)).encode(), digest_size=18).digest()
    return b64encode(digest, altchars=b"Zq").decode()
