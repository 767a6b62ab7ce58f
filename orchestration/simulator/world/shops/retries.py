"""Collection of a debt by card: the first attempt, the retries, and the outcome."""

from collections.abc import Callable
from typing import Final

from orchestration.simulator.world import calibration as cal
from orchestration.simulator.world.calibration import Failure
from orchestration.simulator.world.payers import FUNDING, WALLETS, draw_weighted, reissue_card
from orchestration.simulator.world.shops.sale import CHARGELESS, Sale
from orchestration.simulator.world.steps import Instrument, Intent

_BY_NAME: Final = {failure.name: failure for failure in cal.CARD_FAILURES}
_FAILURES: Final = tuple((failure, failure.weight) for failure in cal.CARD_FAILURES)
_IN_PERSON: Final = tuple(
    (failure, failure.weight) for failure in cal.CARD_FAILURES if failure.code in ("card_declined", "processing_error")
)
_MEAN_RECOVERY: Final = sum(failure.weight * failure.recovery for failure in cal.CARD_FAILURES) / sum(
    failure.weight for failure in cal.CARD_FAILURES
)
_MEAN_RISK: Final = sum(cal.FAILURE_FACTOR["funding", funding] * share for funding, share in FUNDING) * sum(
    cal.FAILURE_FACTOR["entry", "wallet" if wallet else "keyed"] * share for wallet, share in WALLETS
)
_EARLIER_RETRY: Final = 0.6
"""Probability that a retry is the one that pays, if any does. Earlier retries recover more. preset."""

_MIN_RETRY_GAP_SECONDS: Final = 30
"""Smallest number of seconds between two retries: people type no faster."""

Reopen = Callable[[Sale, int], Intent]
"""Function that opens a new PaymentIntent for a retry at the given Unix seconds."""


def draw_failure(sale: Sale, instrument: Instrument) -> Failure:
    """Draw the failure of the first attempt of a debt."""
    if instrument.kind == "card_present":
        return draw_weighted(sale.rng, _IN_PERSON)
    failure = draw_weighted(sale.rng, _FAILURES)
    return _BY_NAME["authentication_required"] if sale.is_off_session and failure.code == CHARGELESS else failure


def chance_to_fail(sale: Sale, instrument: Instrument) -> float:
    """Return the probability that the first attempt fails, 0 to 1.

    Cards differ as in `calibration`, and the mean is the shop's failure rate.
    """
    funding, entry = ("funding", instrument.funding), ("entry", "wallet" if instrument.wallet else "keyed")
    return sale.parameters.failure_rate * cal.FAILURE_FACTOR[funding] * cal.FAILURE_FACTOR[entry] / _MEAN_RISK


def is_recovered(sale: Sale, failure: Failure) -> bool:
    """Draw whether a debt with this failure is paid in the end."""
    return sale.rng.random() < min(0.97, failure.recovery / _MEAN_RECOVERY * sale.parameters.recovery_rate)


def collect(sale: Sale, at: int, *, fails: bool | None = None) -> bool:
    """Collect the debt by card with a new PaymentIntent at `at`, and return whether the debt is paid in the end.

    `fails` says whether the first attempt fails; by default the failure rate decides.
    """
    return attempt(sale, sale.open(at), sale.who.instrument, at, fails=fails)


def attempt(sale: Sale, intent: Intent, instrument: Instrument, at: int, *, fails: bool | None = None) -> bool:
    """Collect the debt by card with this PaymentIntent, and return whether the debt is paid in the end."""
    if fails is None:
        fails = sale.rng.random() < chance_to_fail(sale, instrument)
    at += sale.rng.randrange(4) if sale.is_off_session else sale.rng.randrange(5, 120)
    if not fails:
        sale.pay(intent, instrument, at)
        return True
    failure = draw_failure(sale, instrument)
    failed_at = sale.decline(intent, instrument, at, failure)
    return retry(sale, intent, instrument, failed_at, failure)


def retry(
    sale: Sale, intent: Intent, instrument: Instrument, failed_at: int, failure: Failure, reopen: Reopen = Sale.open
) -> bool:
    """Retry a failed debt as the parameters say, and return whether the debt is paid in the end."""
    paid = is_recovered(sale, failure)
    times = retry_times(sale, failed_at, is_paid=paid)
    for number, at in enumerate(times):
        is_last = number == len(times) - 1
        intent, is_new = _next_intent(sale, intent, at, reopen)
        used = _next_instrument(sale, instrument, failure, is_new=is_new)
        if paid and is_last:
            sale.pay(intent, used, at, is_challenged=failure.needs == "authenticate")
        else:
            sale.decline(intent, used, at, failure if sale.rng.random() < 0.75 else _BY_NAME["generic_decline"])
    if not paid:
        sale.abandon(intent)
    return paid


def retry_times(sale: Sale, failed_at: int, *, is_paid: bool) -> list[int]:
    """Draw the times of the retries. The last retry pays if `is_paid`."""
    delays = sale.parameters.retry_delays
    if not is_paid and sale.rng.random() >= sale.parameters.retry_share:
        return []
    count = 1
    while count < len(delays) and sale.rng.random() > (_EARLIER_RETRY if is_paid else 0.2):
        count += 1
    times = sorted(failed_at + sale.rng.randint(*delay) for delay in delays[:count])
    return [max(at, times[0] + number * _MIN_RETRY_GAP_SECONDS) for number, at in enumerate(times)]


def _next_intent(sale: Sale, intent: Intent, at: int, reopen: Reopen) -> tuple[Intent, bool]:
    """Return the PaymentIntent of a retry, and whether it is new. A replaced PaymentIntent may be canceled."""
    if sale.rng.random() >= sale.parameters.new_intent_share:
        return intent, False
    opened_at = max(intent.steps[-1].at + 1, at - (0 if sale.is_off_session else sale.rng.randrange(40)))
    if sale.rng.random() < sale.parameters.cancel_share:
        sale.cancel(intent, opened_at)
    return reopen(sale, opened_at), True


def _next_instrument(sale: Sale, instrument: Instrument, failure: Failure, *, is_new: bool) -> Instrument:
    parameters = sale.parameters
    share = parameters.other_card_in_new_intent_share if is_new else parameters.other_card_share
    if sale.rng.random() < share:
        other = sale.other_card()
        return other._replace(kind=instrument.kind, wallet=None) if instrument.kind == "card_present" else other
    if failure.needs != "update":
        return instrument
    return instrument._replace(exp_year=instrument.exp_year + 3) if is_new else reissue_card(sale.rng, instrument)
