"""Shops that collect an order in several payments: split tender, or deposit and balance."""

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from orchestration.simulator.world.calibration import DAY
from orchestration.simulator.world.payers import draw_basket
from orchestration.simulator.world.shops.day import ShopDay, Visit
from orchestration.simulator.world.shops.retries import attempt, collect, draw_failure, is_recovered, retry_times
from orchestration.simulator.world.shops.sale import Sale
from orchestration.simulator.world.steps import Intent, token


def split_tender(day: ShopDay) -> Iterator[Intent]:
    """Generate orders that are paid as a whole or in parts.

    Each part is a debt of its own, unless it is part of the recovery of a whole payment that failed.
    """
    for visit in day.visits(1.6):
        order_key = f"order_{token(day.seed, day.shop, visit.name, 'order')[:12]}"
        amount = max(1_000, draw_basket(visit.rng, visit.who.currency))
        if visit.rng.random() < day.parameters.part_share:
            yield from _collect_parts(day, visit, order_key, amount)
        else:
            sale = day.sale(visit, amount)
            sale.order_key = order_key
            _collect_whole(sale, visit.at)
            yield from sale.finish()


def _collect_parts(day: ShopDay, visit: Visit, order_key: str, amount: int) -> Iterator[Intent]:
    """Collect each part with its own card, all at once or one after the other until one is not paid."""
    is_at_once = visit.rng.random() < day.parameters.at_once_share
    sales = [_part(day, visit, order_key, *part) for part in enumerate(_parts(day, visit, amount))]
    yield from _collect_at_once(sales, visit.at) if is_at_once else _collect_in_turn(sales, visit.at)


def _part(day: ShopDay, visit: Visit, order_key: str, number: int, amount: int) -> Sale:
    sale = day.sale(visit, amount, part=number)
    sale.order_key = order_key
    if number:
        sale.who = visit.who._replace(instrument=sale.other_card())
    return sale


def _collect_at_once(sales: Sequence[Sale], at: int) -> Iterator[Intent]:
    """Open all PaymentIntents one second apart, then attempt each. No part waits for another one."""
    opened = [sale.open(at + number) for number, sale in enumerate(sales)]
    for sale, intent in zip(sales, opened, strict=True):
        attempt(sale, intent, sale.who.instrument, at + len(sales))
        yield from sale.finish()


def _collect_in_turn(sales: Sequence[Sale], at: int) -> Iterator[Intent]:
    """Open each PaymentIntent after the last attempt of the previous part, until a part is not paid."""
    for sale in sales:
        is_paid = collect(sale, at)
        yield from sale.finish()
        if not is_paid:
            return
        at = max(each.at for intent in sale.intents for each in intent.attempts) + sale.rng.randrange(60, 600)


def _parts(day: ShopDay, visit: Visit, amount: int) -> list[int]:
    """Return the amounts of the parts, each a multiple of ten minor units."""
    rng = visit.rng
    count = rng.randint(2, max(2, day.parameters.part_count))
    step = max(10, amount // count // 10 * 10)
    if rng.random() < day.parameters.equal_parts_share:
        return [step] * count
    first = [max(10, step // 10 * rng.randrange(3, 10) // 10 * 10) for _ in range(count - 1)]
    return [*first, max(10, amount // 10 * 10 - sum(first))]


def _collect_whole(sale: Sale, at: int) -> None:
    """Collect an order as a whole. If it fails, it may be paid in two successive parts, not always in full."""
    rng, parameters = sale.rng, sale.parameters
    fails = rng.random() < parameters.failure_rate
    if not fails or rng.random() >= parameters.split_after_failure_share:
        collect(sale, at, fails=fails)
        return
    intent, instrument = sale.open(at), sale.who.instrument
    failure = draw_failure(sale, instrument)
    failed_at = sale.decline(intent, instrument, at + rng.randrange(5, 120), failure)
    is_paid = is_recovered(sale, failure)
    first = max(10, sale.amount // 10 * rng.randrange(3, 7) // 10 * 10)
    for paid_at in retry_times(sale, failed_at, is_paid=is_paid)[-1:]:
        sale.pay(sale.open(paid_at, first), instrument, paid_at + 20)
        if is_paid:
            rest_at = paid_at + rng.randrange(60, 900)
            sale.pay(sale.open(rest_at, sale.amount - first), sale.other_card(), rest_at + 20)


def deposits(day: ShopDay) -> Iterator[Intent]:
    """Generate orders with two PaymentIntents each: a deposit, and a balance that is charged weeks later."""
    for visit in day.visits(2.0):
        amount = max(2_000, draw_basket(visit.rng, visit.who.currency))
        order_key = f"order_{token(day.seed, day.shop, visit.name, 'order')[:12]}"
        deposit, balance = (day.sale(visit, 0, part=part) for part in ("deposit", "balance"))
        deposit.amount = max(10, int(amount * day.parameters.deposit_share) // 10 * 10)
        balance.amount = amount // 10 * 10 - deposit.amount
        deposit.order_key = balance.order_key = order_key
        is_paid = collect(deposit, visit.at)
        opened = balance.open(visit.at)
        if is_paid or visit.rng.random() < day.parameters.balance_after_lost_deposit_share:
            at = visit.at + visit.rng.randint(*(days * DAY for days in day.parameters.balance_after_days))
            balance.is_off_session = True
            attempt(balance, opened, visit.who.instrument, at)
        else:
            balance.cancel(opened, visit.at + visit.rng.randrange(DAY, 5 * DAY))
        yield from deposit.finish()
        yield from balance.finish()


GENERATORS: Final[dict[str, Callable[[ShopDay], Iterator[Intent]]]] = {
    "split_tender": split_tender,
    "deposits": deposits,
}
