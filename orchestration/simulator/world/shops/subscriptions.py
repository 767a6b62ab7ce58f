"""Shops whose customers pay the same amount again and again: each bill is a debt of its own."""

from collections.abc import Callable, Iterator
from typing import Final

from orchestration.simulator.world.shops.day import Bill, ShopDay
from orchestration.simulator.world.shops.retries import collect
from orchestration.simulator.world.steps import Intent

_DAILY_PRICE: Final = 450


def daily_price(day: ShopDay) -> Iterator[Intent]:
    """The same customers buy the same thing at one price, about daily and at about their usual time of day."""
    for bill in day.bills(1.05):
        sale = day.sale(bill, _DAILY_PRICE)
        sale.currency = "usd"
        collect(sale, bill.at)
        yield from sale.told()


def plan(day: ShopDay) -> Iterator[Intent]:
    """The merchant bills a plan at an interval, and tries again what failed."""
    for bill in day.bills(1.0 + day.parameters.failure_rate * day.parameters.new_intent_share):
        sale = day.sale(bill, bill.who.plan)
        sale.is_off_session = True
        collect(sale, bill.at)
        yield from sale.told()


def equal_subscriptions(day: ShopDay) -> Iterator[Intent]:
    """Customers have several equal subscriptions, billed in the same minute. A refusal hits one of them or each."""
    count = day.parameters.subscription_count
    for bill in day.bills(1.05 * count):
        failing = _failing(bill, day, count)
        at = bill.at - bill.at % 60
        for number in range(count):
            sale = day.sale(bill, bill.who.plan, part=number)
            sale.is_off_session = True
            collect(sale, at + min(number * 5, 50), fails=number in failing)
            yield from sale.told()


def _failing(bill: Bill, day: ShopDay, count: int) -> frozenset[int]:
    """Which of the subscriptions fail. On average, the failure rate is the share of failing ones."""
    both = day.parameters.both_fail_share
    per_customer = day.parameters.failure_rate * count / (both * count + 1 - both)
    if bill.rng.random() >= per_customer:
        return frozenset()
    return frozenset(range(count)) if bill.rng.random() < both else frozenset({bill.rng.randrange(count)})


TELLERS: Final[dict[str, Callable[[ShopDay], Iterator[Intent]]]] = {
    "daily_price": daily_price,
    "weekly_plan": plan,
    "monthly_one_intent": plan,
    "monthly_new_intents": plan,
    "equal_subscriptions": equal_subscriptions,
}
