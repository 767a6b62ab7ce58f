"""Customers, their instruments and their amounts, as functions of the seed.

A payer is the same on every day: a customer returns with the same card and, for renewals, the same amount.

Every field that Stripe would fill with personal data has a synthetic value that contains one of `PERSONAL_MARKERS`.
Nothing else in a response contains a marker, so a redacted warehouse contains none.
"""

from random import Random
from typing import Final, NamedTuple, TypeVar

from orchestration.simulator.world.calibration import CURRENCIES
from orchestration.simulator.world.steps import Instrument, token

T = TypeVar("T")

PERSONAL_MARKERS: Final = ("Specimen", "@payer.example.com", "+1555010", "_secret_", "203.0.113.")
"""In this order: names and addresses; e-mail; telephone numbers; client secrets, also inside URLs; IP addresses."""

_HOME: Final = {"usd": "US", "eur": "DE", "gbp": "GB", "jpy": "JP", "kwd": "KW"}
_ABROAD: Final = ("FR", "NL", "CA", "BR", "IN", "AU")
FUNDING: Final = (("credit", 0.52), ("debit", 0.38), ("prepaid", 0.10))
_BRANDS: Final = (("visa", 0.56), ("mastercard", 0.34), ("amex", 0.10))
WALLETS: Final = ((None, 0.82), ("apple_pay", 0.11), ("google_pay", 0.07))
_PLANS: Final = {
    "usd": (900, 1900, 2900, 4900, 9900, 19900),
    "eur": (900, 1900, 2900, 4900, 9900),
    "gbp": (800, 1500, 2500, 4500),
    "jpy": (980, 1980, 4980, 9800),
    "kwd": (2500, 4900, 9900, 14900),
}
_BASKET: Final = {"usd": (4500, 5), "eur": (4200, 5), "gbp": (3800, 5), "jpy": (5200, 10), "kwd": (14000, 50)}
"""Median basket and rounding step in minor units. The last digit of a dinar amount is always 0."""


class Payer(NamedTuple):
    """A customer of the account. `plan` is the amount of each renewal in minor units of `currency`."""

    number: int
    currency: str
    plan: int
    instrument: Instrument


class Person(NamedTuple):
    """The synthetic personal data of a payer."""

    name: str
    email: str
    phone: str
    street: str
    town: str
    ip: str


def draw_weighted(rng: Random, weighted: tuple[tuple[T, float], ...]) -> T:
    """Draw one of the values by their weights."""
    left = rng.random() * sum(weight for _, weight in weighted)
    for value, weight in weighted:
        left -= weight
        if left < 0:
            return value
    return weighted[-1][0]


def make_payer(seed: int, number: int) -> Payer:
    """Return the payer with this number, always the same for a seed."""
    rng = Random(seed << 32 | number)
    currency = draw_weighted(rng, CURRENCIES)
    return Payer(number, currency, rng.choice(_PLANS[currency]), make_card(rng, currency, token(seed, "pm", number)))


def make_card(rng: Random, currency: str, name: str) -> Instrument:
    """Draw a card of a payer with `currency`; `name` determines its payment method id."""
    return Instrument(
        kind="card",
        payment_method=f"pm_1{name[:23]}",
        fingerprint=name[4:20],
        last4=f"{rng.randrange(10_000):04d}",
        country=rng.choice(_ABROAD) if rng.random() < 0.12 else _HOME[currency],
        brand=draw_weighted(rng, _BRANDS),
        funding=draw_weighted(rng, FUNDING),
        exp_month=rng.randrange(1, 13),
        exp_year=rng.randrange(2027, 2032),
        wallet=draw_weighted(rng, WALLETS),
    )


def reissue_card(rng: Random, old: Instrument) -> Instrument:
    """Return the card reissued by its bank: same payment method, later expiry, and in half the cases a new number."""
    renewed = old._replace(exp_year=old.exp_year + 3)
    if rng.random() < 0.5:
        return renewed
    return renewed._replace(fingerprint=old.fingerprint[::-1], last4=f"{rng.randrange(10_000):04d}")


def make_bank_account(rng: Random, currency: str, name: str) -> Instrument:
    """Draw a bank account for debits. `currency` is `usd` or `eur`, the two that the account debits."""
    kind, country = {"usd": ("us_bank_account", "US"), "eur": ("sepa_debit", "DE")}[currency]
    return Instrument(kind, f"pm_1{name[:23]}", name[4:20], f"{rng.randrange(10_000):04d}", country)


def is_foreign(instrument: Instrument, currency: str) -> bool:
    """Return whether the card's country is not the home country of the currency."""
    return instrument.country != _HOME[currency]


def draw_basket(rng: Random, currency: str) -> int:
    """Draw the amount of a basket in minor units, at least Stripe's minimum."""
    median, step = _BASKET[currency]
    return max(step * 20, round(rng.lognormvariate(0.0, 0.8) * median / step) * step)


def make_person(number: int | None) -> Person:
    """Return the personal data of the payer with this number, or of a guest for None."""
    called = "Guest" if number is None else f"No{number}"
    return Person(
        name=f"{called} Specimen",
        email=f"{called.lower()}@payer.example.com",
        phone=f"+1555010{(number or 0) % 10_000:04d}",
        street=f"{(number or 0) % 900 + 1} Specimen Street",
        town="Specimenville",
        ip=f"203.0.113.{(number or 0) % 254 + 1}",
    )
