"""Kinds of shop: accounts whose payments differ in what links them. Pure and seeded, like `stories`.

    SimulatedAccount(seed=1, payments=2_000, days=120, shop="weekly_plan", shop_parameters={"interval_days": 14})

Each story decides which debt a payment is for and writes that into the PaymentIntent; `debts` reads it there. Rooms:
`parameters` of each kind; `day` says who pays; `sale` is one debt; `retries` collect it by card; `visits`,
`subscriptions`, `parts` and `waiting` tell the kinds.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from orchestration.simulator.world.calibration import DAY
from orchestration.simulator.world.shops import parts, subscriptions, visits, waiting
from orchestration.simulator.world.shops.day import ShopDay
from orchestration.simulator.world.shops.parameters import DEFAULTS, SHOPS, ShopParameters, parameters_of
from orchestration.simulator.world.steps import Intent
from orchestration.simulator.world.stories import tell_day

__all__ = ["SHOPS", "DayTeller", "ShopParameters", "day_teller"]

DayTeller = Callable[[int, int, int, float], list[Intent]]
"""Tells all PaymentIntents of the debts that begin on a day, from seed, day, opening of the account, and PaymentIntents
per day."""

_TELLERS: Final[Mapping[str, Callable[[ShopDay], Iterator[Intent]]]] = {
    **visits.TELLERS,
    **subscriptions.TELLERS,
    **parts.TELLERS,
    **waiting.TELLERS,
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
"""The parts of a mixed account and their shares of the payments; None is the account that all others vary. texture."""


def day_teller(shop: str | None, given: ShopParameters | Mapping[str, Any] | None = None) -> DayTeller:
    """Return what tells the days of a kind of shop; None is the account that all others vary.

    Raises:
        ValueError: no such kind of shop, or no such parameter of it.
    """
    if shop is None:
        return tell_day
    parameters = parameters_of(shop, given)
    if shop == "mixed":
        return _tell_mixed_day

    def tell(seed: int, number: int, opened_at: int, per_day: float) -> list[Intent]:
        return _tell_shop_day(shop, parameters, seed, number, opened_at, per_day)

    return tell


def _tell_shop_day(
    shop: str, parameters: ShopParameters, seed: int, number: int, opened_at: int, per_day: float
) -> list[Intent]:
    first_number = (SHOPS.index(shop) + 1) * _PEOPLE_PER_SHOP
    day = ShopDay(shop, parameters, seed, number, opened_at + number * DAY, per_day, first_number)
    return list(_TELLERS[shop](day))


def _tell_mixed_day(seed: int, number: int, opened_at: int, per_day: float) -> list[Intent]:
    intents: list[Intent] = []
    for shop, share in MIXED.items():
        if shop is None:
            intents += tell_day(seed, number, opened_at, per_day * share)
        else:
            intents += _tell_shop_day(shop, DEFAULTS[shop], seed, number, opened_at, per_day * share)
    return intents
