"""Kinds of shop: accounts that differ in what links the payments of a debt. Everything depends on the seed.

    SimulatedAccount(seed=1, payments=2_000, days=120, shop="weekly_plan", shop_parameters={"interval_days": 14})

Each PaymentIntent states its debt, and `debts` reads it there. `parameters` has the parameters of each kind, `day` the
customers of a day, `sale` one debt, and `retries` its collection by card. `visits`, `subscriptions`, `parts` and
`waiting` generate the kinds.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from orchestration.simulator.world.calibration import DAY
from orchestration.simulator.world.shops import parts, subscriptions, visits, waiting
from orchestration.simulator.world.shops.day import ShopDay
from orchestration.simulator.world.shops.parameters import DEFAULTS, SHOPS, ShopParameters, parameters_of
from orchestration.simulator.world.steps import Intent
from orchestration.simulator.world.stories import generate_day

__all__ = ["SHOPS", "DayGenerator", "ShopParameters", "day_generator"]

DayGenerator = Callable[[int, int, int, float], list[Intent]]
"""Function that returns all PaymentIntents of the debts that begin on a day.

Its arguments are the seed, the number of the day, the opening of the account in Unix seconds, and the PaymentIntents
per day.
"""

_GENERATORS: Final[Mapping[str, Callable[[ShopDay], Iterator[Intent]]]] = {
    **visits.GENERATORS,
    **subscriptions.GENERATORS,
    **parts.GENERATORS,
    **waiting.GENERATORS,
}
_PEOPLE_PER_SHOP: Final = 100_000_000

MIXED: Final[Mapping[str | None, float]] = {
    None: 0.26,
    "monthly_one_intent": 0.16,
    "monthly_new_intents": 0.13,
    "three_shops": 0.07,
    "one_off": 0.06,
    "weekly_plan": 0.05,
    "terminal": 0.05,
    "split_tender": 0.04,
    "equal_subscriptions": 0.04,
    "checkout_guests": 0.04,
    "card_testing": 0.04,
    "deposits": 0.03,
    "vouchers": 0.03,
}
"""The parts of a mixed account and their shares of the payments. None is the basic account. texture."""


def day_generator(shop: str | None, given: ShopParameters | Mapping[str, Any] | None = None) -> DayGenerator:
    """Return the function that generates the days of a kind of shop. None is the basic account.

    Raises:
        ValueError: unknown kind of shop or unknown parameter.
    """
    if shop is None:
        return generate_day
    parameters = parameters_of(shop, given)
    if shop == "mixed":
        return _generate_mixed_day

    def generate(seed: int, number: int, opened_at: int, per_day: float) -> list[Intent]:
        return _generate_shop_day(shop, parameters, seed, number, opened_at, per_day)

    return generate


def _generate_shop_day(
    shop: str, parameters: ShopParameters, seed: int, number: int, opened_at: int, per_day: float
) -> list[Intent]:
    first_number = (SHOPS.index(shop) + 1) * _PEOPLE_PER_SHOP
    day = ShopDay(shop, parameters, seed, number, opened_at + number * DAY, per_day, first_number)
    return list(_GENERATORS[shop](day))


def _generate_mixed_day(seed: int, number: int, opened_at: int, per_day: float) -> list[Intent]:
    intents: list[Intent] = []
    for shop, share in MIXED.items():
        if shop is None:
            intents += generate_day(seed, number, opened_at, per_day * share)
        else:
            intents += _generate_shop_day(shop, DEFAULTS[shop], seed, number, opened_at, per_day * share)
    return intents
