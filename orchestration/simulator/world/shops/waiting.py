"""Shops with payments that wait for the customer: vouchers paid at a counter, and bank transfers."""

from collections.abc import Callable, Iterator
from typing import Final

from orchestration.simulator.world.calibration import DAY, HOUR
from orchestration.simulator.world.payers import draw_basket
from orchestration.simulator.world.shops.day import ShopDay, Visit
from orchestration.simulator.world.shops.retries import collect, draw_failure, is_recovered, retry, retry_times
from orchestration.simulator.world.shops.sale import EXPIRED, Sale
from orchestration.simulator.world.steps import Instrument, Intent

_VOUCHERS: Final = (("boleto", "brl", "BR"), ("oxxo", "mxn", "MX"), ("konbini", "jpy", "JP"))
"""Payment method type, currency, country. Stripe accepts each only in its own currency."""


def vouchers(day: ShopDay) -> Iterator[Intent]:
    """Generate orders paid by card or by voucher. After a voucher expires, the buyer may use another one or a card."""
    for visit in day.visits(1.15):
        kind, currency, country = visit.rng.choice(_VOUCHERS)
        sale = day.sale(visit, draw_basket(visit.rng, "jpy" if currency == "jpy" else "eur"))
        sale.currency, sale.method_types = currency, ("card", kind)
        if visit.rng.random() < day.parameters.waiting_share:
            _collect_by_voucher(sale, Instrument(kind, f"pm_1{sale.new_name()[:23]}", "", "", country), visit.at)
        else:
            collect(sale, visit.at)
        yield from sale.finish()


def _collect_by_voucher(sale: Sale, voucher: Instrument, at: int) -> None:
    intent = sale.open(at)
    if not _wait_for_voucher(sale, intent, voucher, at, is_paid=sale.rng.random() >= sale.parameters.unpaid_share):
        _collect_after_expiry(sale, intent, voucher)


def _wait_for_voucher(sale: Sale, intent: Intent, voucher: Instrument, at: int, *, is_paid: bool) -> bool:
    """Show a voucher and let it be paid or expire, and return `is_paid`."""
    valid = sale.parameters.voucher_days * DAY
    sale.wait(intent, voucher, at + sale.rng.randrange(5, 120), at + valid)
    if is_paid:
        sale.pay(intent, voucher, at + sale.rng.randrange(HOUR, valid))
    else:
        sale.expire(intent, voucher, at + valid)
    return is_paid


def _collect_after_expiry(sale: Sale, intent: Intent, voucher: Instrument) -> None:
    """Draw whether the debt is paid in the end: half of those paid use another voucher, the others a card."""
    expired_at = intent.steps[-1].at
    if not is_recovered(sale, _BY_VOUCHER):
        sale.abandon(intent)
        return
    at = retry_times(sale, expired_at, is_paid=True)[-1]
    if sale.rng.random() < sale.parameters.new_intent_share:
        intent = sale.open(at)
    if sale.rng.random() < 0.5:
        _wait_for_voucher(
            sale, intent, voucher._replace(payment_method=f"pm_1{sale.new_name()[:23]}"), at, is_paid=True
        )
    else:
        sale.pay(intent, sale.who.instrument, at + 30)


_BY_VOUCHER: Final = EXPIRED._replace(recovery=0.5)


def bank_transfers(day: ShopDay) -> Iterator[Intent]:
    """Generate orders paid by card or bank transfer. Some transfers never arrive, and some replace a failed card."""
    for visit in day.visits(1.1):
        sale = day.sale(visit, draw_basket(visit.rng, "eur"))
        sale.currency, sale.method_types = "eur", ("card", "customer_balance")
        if visit.rng.random() < day.parameters.waiting_share:
            _collect_by_transfer(sale, visit.at)
        else:
            _collect_by_card_or_transfer(sale, visit)
        yield from sale.finish()


def _collect_by_transfer(sale: Sale, at: int) -> None:
    intent = sale.open(at)
    is_paid = sale.rng.random() >= sale.parameters.unpaid_share
    _wait_for_transfer(sale, intent, at, is_paid=is_paid)
    if not is_paid:
        sale.abandon(intent)


def _wait_for_transfer(sale: Sale, intent: Intent, at: int, *, is_paid: bool) -> None:
    transfer = Instrument("customer_balance", f"pm_1{sale.new_name()[:23]}", "", "", "DE")
    sale.wait(intent, transfer, at + 5, None)
    if is_paid:
        sale.pay(intent, transfer, at + sale.rng.randrange(DAY, 6 * DAY))


def _collect_by_card_or_transfer(sale: Sale, visit: Visit) -> None:
    """Collect by card. A third of the failures can only be recovered by a bank transfer with a new PaymentIntent."""
    rng, instrument = visit.rng, sale.who.instrument
    if rng.random() >= sale.parameters.failure_rate:
        collect(sale, visit.at, fails=False)
        return
    intent, failure = sale.open(visit.at), draw_failure(sale, instrument)
    failed_at = sale.decline(intent, instrument, visit.at + rng.randrange(5, 120), failure)
    if rng.random() < 1 / 3:
        for at in retry_times(sale, failed_at, is_paid=True)[:1] if is_recovered(sale, failure) else ():
            _wait_for_transfer(sale, sale.open(at), at, is_paid=True)
    else:
        retry(sale, intent, instrument, failed_at, failure)


GENERATORS: Final[dict[str, Callable[[ShopDay], Iterator[Intent]]]] = {
    "vouchers": vouchers,
    "bank_transfers": bank_transfers,
}
