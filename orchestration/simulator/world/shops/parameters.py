"""The parameters of each kind of shop, and their defaults. Durations are in seconds unless the name says otherwise.

Failure codes, their weights and their recovery rates come from `calibration`. In the terms defined there, shares of
special cases are `texture` and everything else is `preset`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Final

from orchestration.simulator.world.calibration import DAY, HOUR

MINUTE: Final = 60


@dataclass(frozen=True)
class ShopParameters:
    """The parameters of a shop. A kind of shop ignores the parameters that it does not need.

    Args:
        failure_rate: share of debts whose first attempt fails.
        recovery_rate: share of failed debts that are paid in the end. The order of the failure codes is kept.
        retry_delays: for each retry, the shortest and the longest time from the first failure.
        retry_share: share of the debts never paid that are retried. Paid ones are always retried until they succeed.
        new_intent_share: share of retries with a new PaymentIntent; the others use the last one.
        other_card_share: share of retries in the same PaymentIntent that use another card.
        other_card_in_new_intent_share: the same for retries with a new PaymentIntent.
        cancel_share: share of lost debts, and of replaced PaymentIntents, that the merchant cancels.
        returning_share: share of orders by regular customers; the others are one-time buyers.
        interval_days: days between two bills of a customer; 0 means monthly, on the same day of the month.
        jitter: largest difference between a purchase and the customer's usual time of day.
        skip_share: share of a customer's bills that are skipped, since not every customer buys every day.
        joining_share: share of subscribers who join after the first interval.
        subscription_count: number of equal subscriptions of one customer, billed in the same minute.
        both_fail_share: share of failing bills of equal subscriptions in which all of them fail.
        product_count: number of products, each with one price.
        shop_count: number of shops that share the account.
        part_share: share of orders that are paid in several parts.
        equal_parts_share: share of split orders whose parts are equal.
        at_once_share: share of split orders whose parts are paid at the same time.
        split_after_failure_share: share of failed whole payments that are retried in parts.
        part_count: largest number of parts of a split order.
        deposit_share: the deposit as a share of the order.
        balance_after_days: fewest and most days from the deposit to the balance.
        balance_after_lost_deposit_share: share of lost deposits whose balance is charged anyway.
        waiting_share: share of orders paid by voucher or bank transfer.
        voucher_days: days for which a voucher is valid.
        unpaid_share: share of vouchers and bank transfers that are never paid.
        testing_share: share of payments that are tests of stolen cards.
        testing_batch: average number of tests within a few minutes.
        prediction_share: share of failures in which Stripe predicts the bank's decline and does not ask the bank.
        doubled_event_share: share of failures for which Stripe creates two Event objects.
        currency_change_share: share of failures after which the PaymentIntent gets another currency.
    """

    failure_rate: float = 0.12
    recovery_rate: float = 0.45
    retry_delays: tuple[tuple[int, int], ...] = ((MINUTE, HOUR), (HOUR, DAY), (DAY, 4 * DAY))
    retry_share: float = 0.6
    new_intent_share: float = 0.5
    other_card_share: float = 0.25
    other_card_in_new_intent_share: float = 0.03
    cancel_share: float = 0.3
    returning_share: float = 0.3
    interval_days: int = 0
    jitter: int = 0
    skip_share: float = 0.0
    joining_share: float = 0.25
    subscription_count: int = 2
    both_fail_share: float = 0.4
    product_count: int = 5
    shop_count: int = 3
    part_share: float = 0.5
    equal_parts_share: float = 0.5
    at_once_share: float = 0.5
    split_after_failure_share: float = 0.5
    part_count: int = 3
    deposit_share: float = 0.3
    balance_after_days: tuple[int, int] = (7, 20)
    balance_after_lost_deposit_share: float = 0.3
    waiting_share: float = 0.5
    voucher_days: int = 3
    unpaid_share: float = 0.3
    testing_share: float = 0.3
    testing_batch: int = 15
    prediction_share: float = 0.3
    doubled_event_share: float = 0.3
    currency_change_share: float = 0.5


_MERCHANT_RETRIES: Final = ((3 * DAY, 3 * DAY), (8 * DAY, 8 * DAY), (15 * DAY, 15 * DAY))
_RETRIES_OF_28_DAYS: Final = tuple((days * DAY, days * DAY) for days in (1, 3, 5, 7, 14, 21, 28))

DEFAULTS: Final[Mapping[str, ShopParameters]] = {
    "checkout_guests": ShopParameters(recovery_rate=0.42, retry_delays=((MINUTE, HOUR), (MINUTE, 3 * HOUR))),
    "three_shops": ShopParameters(recovery_rate=0.40),
    "customer_per_order": ShopParameters(recovery_rate=0.40, new_intent_share=0.9, other_card_in_new_intent_share=0.0),
    "daily_price": ShopParameters(
        failure_rate=0.10,
        recovery_rate=0.40,
        retry_delays=((MINUTE, HOUR), (MINUTE, 3 * HOUR)),
        interval_days=1,
        jitter=HOUR,
        skip_share=0.1,
    ),
    "weekly_plan": ShopParameters(
        recovery_rate=0.42, retry_delays=((DAY, DAY), (3 * DAY, 3 * DAY)), interval_days=7, other_card_share=0.1
    ),
    "equal_subscriptions": ShopParameters(
        recovery_rate=0.44, retry_delays=((DAY, DAY), (3 * DAY, 3 * DAY), (5 * DAY, 5 * DAY)), new_intent_share=0.8
    ),
    "monthly_one_intent": ShopParameters(
        recovery_rate=0.48, retry_delays=_RETRIES_OF_28_DAYS, retry_share=1.0, new_intent_share=0.0
    ),
    "monthly_new_intents": ShopParameters(
        recovery_rate=0.52, retry_delays=_MERCHANT_RETRIES, retry_share=1.0, new_intent_share=1.0
    ),
    "one_off": ShopParameters(recovery_rate=0.46, retry_delays=((DAY, 5 * DAY),), new_intent_share=1.0),
    "split_tender": ShopParameters(new_intent_share=0.7),
    "deposits": ShopParameters(new_intent_share=0.7),
    "terminal": ShopParameters(
        retry_delays=((20, 5 * MINUTE), (MINUTE, 10 * MINUTE)),
        new_intent_share=0.6,
        other_card_in_new_intent_share=0.01,
        returning_share=0.2,
    ),
    "vouchers": ShopParameters(recovery_rate=0.40),
    "bank_transfers": ShopParameters(failure_rate=0.18),
    "accounts_v2": ShopParameters(new_intent_share=0.7),
    "card_testing": ShopParameters(testing_share=0.4, testing_batch=10),
    "adaptive_acceptance": ShopParameters(),
    "changed_currency": ShopParameters(new_intent_share=0.2),
    "mixed": ShopParameters(),
}
"""The defaults of each kind of shop. Those of `mixed` are unused, since each of its parts has its own."""

SHOPS: Final = tuple(DEFAULTS)
"""The names of all kinds of shop."""


def parameters_of(shop: str, given: Mapping[str, Any] | ShopParameters | None) -> ShopParameters:
    """Return the parameters of a kind of shop. Those in `given` replace the defaults.

    Raises:
        ValueError: unknown kind of shop or unknown parameter.
    """
    if shop not in DEFAULTS:
        raise ValueError(f"There is no kind of shop {shop!r}. Choose one of: {', '.join(SHOPS)}")
    if isinstance(given, ShopParameters):
        return given
    unknown = set(given or ()) - {field.name for field in fields(ShopParameters)}
    if unknown:
        raise ValueError(f"Shops have no parameter {', '.join(sorted(unknown))}. See ShopParameters.")
    return replace(DEFAULTS[shop], **(given or {}))
