"""Shops with single orders. Each order is a debt."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

from orchestration.simulator.world import calibration as cal
from orchestration.simulator.world.calibration import Failure
from orchestration.simulator.world.payers import draw_basket, make_card
from orchestration.simulator.world.shops.day import ShopDay, Visit
from orchestration.simulator.world.shops.retries import attempt, collect, draw_failure, retry
from orchestration.simulator.world.shops.sale import CHARGELESS, Sale
from orchestration.simulator.world.steps import Intent, token

_PRODUCT_PRICES: Final = (900, 1900, 2500, 3900, 5900, 7900, 9900, 12900)
_PREDICTED: Final = tuple(
    Failure(reason, 0.0, 0.42, "same", "card_declined", code, "blocked", "not_sent_to_network", "do_not_try_again",
            outcome_reason=reason)
    for reason, code in (
        ("low_probability_of_authorization", "generic_decline"),
        ("previously_declined_do_not_retry", "do_not_honor"),
    )
)  # fmt: skip
"""Declines that Stripe predicts and makes in place of the bank. They are failed payments, unlike those Radar blocks."""

_EXCHANGE_RATES: Final = {"usd": ("eur", 90), "eur": ("usd", 110), "gbp": ("eur", 115)}
"""For each currency, another currency to pay in and the price of 100 units in it."""


def checkout_guests(day: ShopDay) -> Iterator[Intent]:
    """Generate Checkout orders of guests. Stripe writes the id of the product into `order_reference`."""
    for visit in day.visits(1.05):
        product = visit.rng.randrange(day.parameters.product_count)
        sale = day.sale(visit, _PRODUCT_PRICES[product % len(_PRODUCT_PRICES)], known=False)
        sale.currency = "usd"
        sale.order_key = f"prod_{token(day.seed, day.shop, 'product', product)[:14]}"
        sale.is_order_in_details = True
        collect(sale, visit.at)
        yield from sale.finish()


def three_shops(day: ShopDay) -> Iterator[Intent]:
    """Generate orders of several shops. Each shop numbers its own orders, so each number occurs once in every shop."""
    shops = day.parameters.shop_count
    per_shop = int(day.per_day / shops) + 2
    for visit in day.visits(1.05):
        sale = day.sale(visit, draw_basket(visit.rng, visit.who.currency))
        sale.order_key = str(1_001 + day.number * per_shop + visit.number // shops)
        collect(sale, visit.at)
        yield from sale.finish()


def customer_per_order(day: ShopDay) -> Iterator[Intent]:
    """Generate orders with a new customer object for each PaymentIntent and the same card."""
    for visit in day.visits(1.1):
        sale = day.sale(visit, draw_basket(visit.rng, visit.who.currency))
        first = day.first_number + 50_000_000 + (day.number * 1_000 + visit.number) * 8
        sale.customer = first
        collect(sale, visit.at)
        for serial, intent in enumerate(sale.intents):
            intent.customer = first + serial
        yield from sale.finish()


def one_off(day: ShopDay) -> Iterator[Intent]:
    """Generate orders of known customers without order numbers. The merchant retries days later."""
    for visit in day.visits(1.1):
        sale = day.sale(visit, draw_basket(visit.rng, visit.who.currency))
        collect(sale, visit.at)
        yield from sale.finish()


def accounts_v2(day: ShopDay) -> Iterator[Intent]:
    """Generate orders whose customers are accounts of Accounts v2, in `customer_account` instead of `customer`."""
    for visit in day.visits(1.05):
        sale = day.sale(visit, draw_basket(visit.rng, visit.who.currency))
        sale.is_customer_account = True
        collect(sale, visit.at)
        yield from sale.finish()


def terminal(day: ShopDay) -> Iterator[Intent]:
    """Generate card payments at a terminal, with fingerprints but without customers and order numbers."""
    for visit in day.visits(1.05):
        who = visit.who._replace(instrument=visit.who.instrument._replace(kind="card_present", wallet=None))
        sale = day.sale(visit, draw_basket(visit.rng, who.currency), known=False)
        sale.who, sale.method_types = who, ("card_present",)
        collect(sale, visit.at)
        yield from sale.finish()


def adaptive_acceptance(day: ShopDay) -> Iterator[Intent]:
    """Generate orders with declines that Stripe predicts without asking the bank, and with duplicated failure events.

    Stripe's retries within one charge are invisible: charges and events show only the final outcome.
    """
    for visit in day.visits(1.05):
        sale = day.sale(visit, draw_basket(visit.rng, visit.who.currency))
        _collect_with_predictions(sale, visit.at)
        for intent in sale.intents:
            failed = [n for n, each in enumerate(intent.attempts) if each.failure is not None]
            doubled = [n for n in failed if visit.rng.random() < day.parameters.doubled_event_share]
            intent.doubled_failures = frozenset(doubled)
        yield from sale.finish()


def _collect_with_predictions(sale: Sale, at: int) -> None:
    rng, parameters = sale.rng, sale.parameters
    fails = rng.random() < parameters.failure_rate
    if not fails or rng.random() >= parameters.prediction_share:
        collect(sale, at, fails=fails)
        return
    intent, failure = sale.open(at), rng.choice(_PREDICTED)
    failed_at = sale.decline(intent, sale.who.instrument, at + rng.randrange(5, 120), failure)
    retry(sale, intent, sale.who.instrument, failed_at, failure)


def changed_currency(day: ShopDay) -> Iterator[Intent]:
    """Generate orders in which the buyer changes the PaymentIntent's currency after a decline."""
    for visit in day.visits(1.02):
        sale = day.sale(visit, draw_basket(visit.rng, visit.who.currency))
        intent = sale.open(visit.at)
        fails = visit.rng.random() < day.parameters.failure_rate
        changes = visit.rng.random() < day.parameters.currency_change_share and sale.currency in _EXCHANGE_RATES
        if fails and changes:
            _collect_in_other_currency(sale, intent, visit.at)
        else:
            attempt(sale, intent, visit.who.instrument, visit.at, fails=fails)
        yield from sale.finish()


def _collect_in_other_currency(sale: Sale, intent: Intent, at: int) -> None:
    instrument = sale.who.instrument
    failure = draw_failure(sale, instrument)
    failed_at = sale.decline(intent, instrument, at + sale.rng.randrange(5, 120), failure)
    currency, rate = _EXCHANGE_RATES[sale.currency]
    sale.change_currency(intent, failed_at + sale.rng.randrange(5, 50), currency, sale.amount * rate // 100)
    retry(sale, intent, instrument, failed_at, failure, reopen=partial(_reopen_in, currency, intent.amount))


def _reopen_in(currency: str, amount: int, sale: Sale, at: int) -> Intent:
    """Open a PaymentIntent for the whole debt in another currency."""
    intent = sale.open(at)
    intent.currency, intent.amount = currency, amount
    return intent


def card_testing(day: ShopDay) -> Iterator[Intent]:
    """Generate ordinary orders, and batches of small payments that test stolen cards within minutes."""
    parameters = day.parameters
    for visit in day.visits(1.0):
        if visit.rng.random() < parameters.testing_share / max(1, parameters.testing_batch):
            yield from _test_cards(day, visit)
        elif visit.rng.random() >= parameters.testing_share:
            sale = day.sale(visit, draw_basket(visit.rng, visit.who.currency))
            collect(sale, visit.at)
            yield from sale.finish()


def _test_cards(day: ShopDay, visit: Visit) -> Iterator[Intent]:
    """Generate a batch of card tests. Issuers decline almost all of them, and there is no real debt."""
    rng, at = visit.rng, visit.at
    is_guest, amount = rng.random() < 0.5, rng.choice((50, 100, 100, 200))
    declines = [each for each in cal.CARD_FAILURES if each.code in ("card_declined", "incorrect_cvc")]
    tests = rng.randint(max(1, day.parameters.testing_batch // 2), max(1, day.parameters.testing_batch * 3 // 2))
    for number in range(tests):
        at += rng.randrange(2, 40)
        sale = day.sale(visit, amount, part=number, known=not is_guest)
        sale.currency, sale.is_card_testing = "usd", True
        intent, stolen = sale.open(at), make_card(rng, "usd", sale.new_name())
        if rng.random() < 0.03:
            sale.pay(intent, stolen, at)
        else:
            sale.decline(intent, stolen, at, rng.choice([each for each in declines if each.code != CHARGELESS]))
        yield from sale.finish()


GENERATORS: Final[dict[str, Callable[[ShopDay], Iterator[Intent]]]] = {
    generator.__name__: generator
    for generator in (
        checkout_guests,
        three_shops,
        customer_per_order,
        one_off,
        accounts_v2,
        terminal,
        adaptive_acceptance,
        changed_currency,
        card_testing,
    )
}
