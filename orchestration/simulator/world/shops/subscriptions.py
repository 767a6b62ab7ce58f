"""Shops whose customers pay the same amount repeatedly. Each bill is a debt."""

from collections.abc import Callable, Iterator
from typing import Final

from orchestration.simulator.world.shops.day import Bill, ShopDay
from orchestration.simulator.world.shops.retries import collect
from orchestration.simulator.world.steps import Intent

_DAILY_PRICE: Final = 450


def daily_price(day: ShopDay) -> Iterator[Intent]:
    """Generate daily purchases: the same customers, one price, each at about the customer's usual time of day."""
    for bill in day.bills(1.05):
        sale = day.sale(bill, _DAILY_PRICE)
        sale.currency = "usd"
        collect(sale, bill.at)
        yield from sale.finish()


def plan(day: ShopDay) -> Iterator[Intent]:
    """Generate bills of a plan at an interval, with retries of those that fail."""
    for bill in day.bills(1.0 + day.parameters.failure_rate * day.parameters.new_intent_share):
        sale = day.sale(bill, bill.who.plan)
        sale.is_off_session = True
        collect(sale, bill.at)
        yield from sale.finish()


def equal_subscriptions(day: ShopDay) -> Iterator[Intent]:
    """Generate bills of several equal subscriptions of a customer, billed in the same minute. One or all may fail."""
    count = day.parameters.subscription_count
    for bill in day.bills(1.05 * count):
        failing = _failing(bill, day, count)
        at = bill.at - bill.at % 60
        for number in range(count):
            sale = day.sale(bill, bill.who.plan, part=number)
            sale.is_off_session = True
            collect(sale, at + min(number * 5, 50), fails=number in failing)
            yield from sale.finish()


def _failing(bill: Bill, day: ShopDay, count: int) -> frozenset[int]:
    """Draw the numbers of the subscriptions that fail. On average, the failure rate is their share."""
    both = day.parameters.both_fail_share
    per_customer = day.parameters.failure_rate * count / (both * count + 1 - both)
    if bill.rng.random() >= per_customer:
        return frozenset()
    return frozenset(range(count)) if bill.rng.random() < both else frozenset({bill.rng.randrange(count)})


GENERATORS: Final[dict[str, Callable[[ShopDay], Iterator[Intent]]]] = {
    "daily_price": daily_price,
    "weekly_plan": plan,
    "monthly_one_intent": plan,
    "monthly_new_intents": plan,
    "equal_subscriptions": equal_subscriptions,
}
