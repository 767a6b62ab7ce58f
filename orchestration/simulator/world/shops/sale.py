"""One debt of a shop's customer, and the PaymentIntents, attempts and steps that are generated for it."""

from dataclasses import dataclass, field
from random import Random
from typing import Final

from orchestration.simulator.world import calibration as cal
from orchestration.simulator.world.aftermath import settle_card
from orchestration.simulator.world.calibration import HOUR, Failure
from orchestration.simulator.world.payers import Payer, draw_weighted, make_card
from orchestration.simulator.world.shops.parameters import ShopParameters
from orchestration.simulator.world.steps import Act, Attempt, Instrument, Intent, Step, Wait, token

CHARGELESS: Final = "payment_intent_authentication_failure"
_CANCEL_REASONS: Final = (("abandoned", 0.5), ("requested_by_customer", 0.3), (None, 0.2))


@dataclass
class Sale:
    """A debt of one customer, and how the shop describes it to Stripe.

    `name` is unique within the account and becomes the name of the debt (`Intent.debt`). `customer` is None for a
    guest. `method_types` are the payment method types of the PaymentIntents; None means those of the account.
    """

    name: str
    rng: Random
    parameters: ShopParameters
    who: Payer
    amount: int
    customer: int | None = None
    order_key: str | None = None
    is_order_in_details: bool = False
    is_customer_account: bool = False
    is_off_session: bool = False
    is_card_testing: bool = False
    method_types: tuple[str, ...] | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    intents: list[Intent] = field(default_factory=list)
    currency: str = ""
    _serial: int = 0

    def __post_init__(self) -> None:
        self.currency = self.currency or self.who.currency

    def new_name(self) -> str:
        """Return a name that is unique within the account."""
        self._serial += 1
        return token(self.name, self._serial)

    def other_card(self) -> Instrument:
        """Draw another card of the same payer."""
        return make_card(self.rng, self.who.currency, self.new_name())

    def open(self, at: int, amount: int | None = None) -> Intent:
        """Open a PaymentIntent for the debt, or for the part of it that `amount` gives, in minor units."""
        metadata = dict(self.metadata)
        if self.order_key and not self.is_order_in_details:
            metadata["order_id"] = self.order_key
        intent = Intent(
            id=f"pi_3{self.new_name()[:23]}",
            created=at,
            customer=self.customer,
            currency=self.currency,
            amount=self.amount if amount is None else amount,
            debt=self.name,
            order_key=self.order_key,
            is_order_in_details=self.is_order_in_details,
            is_saved=self.is_off_session,
            metadata=metadata,
            steps=[Step(at, Act.CREATED)],
            covers=amount,
            is_customer_account=self.is_customer_account,
            is_card_testing=self.is_card_testing,
            method_types=self.method_types,
        )
        self.intents.append(intent)
        return intent

    def decline(self, intent: Intent, instrument: Instrument, at: int, failure: Failure) -> int:
        """Add an attempt that fails, and return when it failed."""
        index = len(intent.attempts)
        at = max(at, intent.steps[-1].at)
        if failure.code == CHARGELESS:
            intent.steps.append(Step(at, Act.CHALLENGED, index))
            at += self.rng.randrange(5, 15)
            intent.attempts.append(Attempt(at, None, instrument, failure, "failed", self.is_off_session))
            intent.steps.append(Step(at, Act.AUTHENTICATION_FAILED, index))
            return at
        charge = f"ch_{intent.token}{index}"
        intent.attempts.append(Attempt(at, charge, instrument, failure, off_session=self.is_off_session))
        intent.steps.append(Step(at, Act.FAILED, index))
        return at

    def pay(self, intent: Intent, instrument: Instrument, at: int, *, is_challenged: bool = False) -> int:
        """Add an attempt that succeeds and what follows it, and return when it succeeded."""
        index = len(intent.attempts)
        at = max(at, intent.steps[-1].at)
        is_recovery = len(self.intents) > 1 or index > 0
        if is_challenged:
            intent.steps.append(Step(at, Act.CHALLENGED, index))
            at += self.rng.randrange(5, 40)
        result = "authenticated" if is_challenged else None
        prefix = "ch" if instrument.kind.startswith("card") else "py"
        charge = f"{prefix}_{intent.token}{index}"
        intent.attempts.append(Attempt(at, charge, instrument, three_d_secure=result, off_session=self.is_off_session))
        settle_card(self.rng, intent, index, is_recovery=is_recovery)
        return at

    def wait(self, intent: Intent, instrument: Instrument, at: int, expires_at: int | None) -> None:
        """Show the customer a voucher or bank details, so that the payment waits for the money."""
        intent.waits.append(Wait(instrument, expires_at))
        intent.steps.append(Step(at, Act.INSTRUCTED, len(intent.waits) - 1))

    def expire(self, intent: Intent, instrument: Instrument, at: int) -> int:
        """Let a voucher expire, which is a failure without a charge, and return when it expired."""
        index = len(intent.attempts)
        intent.attempts.append(Attempt(at, None, instrument, EXPIRED))
        intent.steps.append(Step(at, Act.EXPIRED, index))
        return at

    def change_currency(self, intent: Intent, at: int, currency: str, amount: int) -> None:
        """Change the currency of the PaymentIntent. Call it at most once for each PaymentIntent."""
        intent.earlier_price = intent.currency, intent.amount
        intent.attempts = [attempt._replace(price=intent.earlier_price) for attempt in intent.attempts]
        intent.currency, intent.amount = currency, amount
        intent.steps.append(Step(max(at, intent.steps[-1].at), Act.REPRICED))

    def cancel(self, intent: Intent, at: int) -> None:
        """Cancel an open PaymentIntent, as merchants do with abandoned or replaced orders."""
        intent.steps.append(
            Step(max(at, intent.steps[-1].at), Act.CANCELED, detail=draw_weighted(self.rng, _CANCEL_REASONS))
        )

    def abandon(self, intent: Intent) -> None:
        """End an unpaid debt: some merchants cancel its PaymentIntent."""
        if self.rng.random() < self.parameters.cancel_share:
            self.cancel(intent, intent.steps[-1].at + self.rng.randrange(HOUR, 20 * cal.DAY))

    def finish(self) -> list[Intent]:
        """Sort the steps of each PaymentIntent by time, and return the PaymentIntents."""
        for intent in self.intents:
            intent.steps.sort(key=lambda step: step.at)
        return self.intents


EXPIRED: Final = Failure("attempt_expired", 0.0, 0.0, "other", "payment_intent_payment_attempt_expired", None)
"""Failure of an unpaid voucher. Stripe sends payment_intent.payment_failed; it documents no charge."""
