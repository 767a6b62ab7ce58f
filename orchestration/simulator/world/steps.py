"""The vocabulary of a payment's life: intents, attempts, steps. Plain data, in the order in which it happened.

`stories` writes it, `objects` renders it, `truth` judges it; they share no more than these types. No behaviour but ids.
"""

from base64 import b64encode
from dataclasses import dataclass, field
from enum import Enum, auto
from hashlib import blake2b
from typing import NamedTuple

from orchestration.simulator.world.calibration import Failure


class Act(Enum):
    """One thing that happens to a PaymentIntent or to what hangs on it. Stripe's events follow from it."""

    CREATED = auto()
    CHALLENGED = auto()
    INSTRUCTED = auto()
    AUTHENTICATION_FAILED = auto()
    EXPIRED = auto()
    FAILED = auto()
    SUCCEEDED = auto()
    AUTHORIZED = auto()
    CAPTURED = auto()
    LAPSED = auto()
    PROCESSING = auto()
    SETTLED = auto()
    BOUNCED = auto()
    CANCELED = auto()
    EDITED = auto()
    REPRICED = auto()
    BALANCED = auto()
    REFUNDED = auto()
    REFUND_SETTLED = auto()
    REFUND_FAILED = auto()
    DISPUTED = auto()
    DISPUTE_ANSWERED = auto()
    DISPUTE_CLOSED = auto()


class Instrument(NamedTuple):
    """What is paid with. `kind` is Stripe's payment method type; the card fields are empty for all but cards."""

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
    """One try to collect. `charge` is None where Stripe makes none; `failure` says how it failed, at once or later.

    `three_d_secure` is the result on the charge, None where the card was not challenged. `price` is the currency and
    the amount of the attempt, None for those of its PaymentIntent.
    """

    at: int
    charge: str | None
    instrument: Instrument
    failure: Failure | None = None
    three_d_secure: str | None = None
    off_session: bool = False
    price: tuple[str, int] | None = None


class Wait(NamedTuple):
    """A voucher or bank details that the customer was shown: what the payment waits for, and until when."""

    instrument: Instrument
    expires_at: int | None


class Refund(NamedTuple):
    """`status` is the first one; steps change it."""

    id: str
    at: int
    amount: int
    attempt: int
    status: str
    reason: str | None


class Dispute(NamedTuple):
    """`status` is the first one; steps change it. `is_return`: a bank took a settled debit back."""

    id: str
    at: int
    amount: int
    attempt: int
    status: str
    reason: str
    is_return: bool


class Step(NamedTuple):
    """Something happened at `at` (unix seconds). `nth` points into the intent's attempts, waits, refunds or disputes,
    by the act; `word` is a cancellation reason or a new dispute status; `amount` what was captured."""

    at: int
    act: Act
    nth: int = 0
    word: str | None = None
    amount: int = 0


@dataclass(slots=True, eq=False)
class Intent:
    """One PaymentIntent and all that hangs on it. `steps` are in true order, several in one second possible.

    `obligation` is what the payer owes: intents that share it are tries to pay for one thing. `order_key` is that
    fact where Stripe shows it, in `payment_details.order_reference` if `is_order_in_details`, else in
    `metadata.order_id`; None where the merchant passes nothing.

    `covers` is how much of the debt this PaymentIntent pays, in the debt's currency; None means all of it.
    `earlier_price` is its currency and amount until Act.REPRICED. `is_customer_account` says that the customer is an
    account of Accounts v2. `is_card_testing` says that nobody owes anything: somebody tests stolen cards.
    `doubled_failures` are attempts for whose failure Stripe makes each event twice. `method_types` are the payment
    method types, None for those of the account.
    """

    id: str
    created: int
    customer: int | None
    currency: str
    amount: int
    obligation: str
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
        """The part of the id that its charges and events are named after."""
        return self.id[3:]


def token(*parts: object) -> str:
    """24 letters and digits that look random and depend on `parts` only, as in Stripe's ids."""
    digest = blake2b("/".join(map(str, parts)).encode(), digest_size=18).digest()
    return b64encode(digest, altchars=b"Zq").decode()
