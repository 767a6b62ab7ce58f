"""One day of a shop: its customers, their times and prices. A day depends only on the seed and its number."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from random import Random
from typing import Final, NamedTuple

from orchestration.simulator.world.calibration import DAY, HOUR
from orchestration.simulator.world.payers import Payer, make_payer
from orchestration.simulator.world.shops.parameters import ShopParameters
from orchestration.simulator.world.shops.sale import Sale
from orchestration.simulator.world.steps import token

_ONE_TIME_BUYERS: Final = 10_000_000
"""First number of one-time buyers. Lower numbers are regulars and subscribers."""
_DAYS_OF_MONTH: Final = 28
_MEAN_MONTH: Final = 30.4
_LAST_TO_JOIN: Final = 150
"""Last day of the account on which a subscriber may join."""


@dataclass(frozen=True)
class Visit:
    """A visit of a buyer. `name` is unique within the account; `at` is in Unix seconds."""

    name: str
    number: int
    at: int
    rng: Random
    who: Payer


@dataclass(frozen=True)
class Bill:
    """A subscriber's bill that is due. `name` is unique within the account; `at` is in Unix seconds."""

    name: str
    at: int
    rng: Random
    who: Payer


class Subscriber(NamedTuple):
    """The billing times of a subscriber.

    `time_of_day` is in seconds after midnight. `anchor` is the day of the interval or month, from 0. `starts_on` is the
    first day of the account on which the subscriber can be billed.
    """

    time_of_day: int
    anchor: int
    starts_on: int


@dataclass(frozen=True)
class ShopDay:
    """A day of a shop of kind `shop`.

    `midnight` is in Unix seconds. `per_day` is the approximate average number of PaymentIntents. `first_number` is the
    number of this shop's first payer, so that several shops of one account share no payers.
    """

    shop: str
    parameters: ShopParameters
    seed: int
    number: int
    midnight: int
    per_day: float
    first_number: int

    def rng(self, *name: object) -> Random:
        """Return a random generator that depends on the seed, the shop and the name."""
        return Random("/".join(map(str, (self.seed, self.shop, *name))))

    def sale(self, visit: Visit | Bill, amount: int, *, part: object = "", known: bool = True) -> Sale:
        """Return a debt of the payer, who is a customer of the account if `known`, else a guest."""
        return Sale(
            name=token(self.seed, self.shop, visit.name, part),
            rng=visit.rng,
            parameters=self.parameters,
            who=visit.who,
            amount=amount,
            customer=visit.who.number if known else None,
            metadata={"channel": "shop"} if isinstance(visit, Visit) else {"channel": "renewal"},
        )

    def visits(self, per_visit: float = 1.0) -> Iterator[Visit]:
        """Yield the visits of the day. `per_visit` is the average number of PaymentIntents of a visit."""
        rng = self.rng(self.number, "visits")
        mean = self.per_day / per_visit
        for n in range(int(mean) + (rng.random() < mean % 1)):
            name = f"{self.number}/{n}"
            own = self.rng(name)
            yield Visit(name, n, self.midnight + own.randrange(DAY), own, self._visitor(own, n))

    def _visitor(self, rng: Random, n: int) -> Payer:
        if rng.random() < self.parameters.returning_share:
            return make_payer(self.seed, self.first_number + rng.randrange(max(5, int(self.per_day * 20))))
        return make_payer(self.seed, self.first_number + _ONE_TIME_BUYERS + self.number * 1_000 + n)

    def bills(self, per_bill: float = 1.0) -> Iterator[Bill]:
        """Yield the bills due on this day. `per_bill` is the average number of PaymentIntents of a bill."""
        parameters, interval_days = self.parameters, self.parameters.interval_days
        mean = self.per_day / per_bill / (1 - parameters.skip_share)
        for n in range(max(1, round(mean * (interval_days or _MEAN_MONTH)))):
            subscriber = _subscriber(self.seed, self.shop, n, interval_days, parameters.joining_share)
            if not self._is_due(subscriber):
                continue
            at = self.midnight + subscriber.time_of_day
            rng = self.rng("bill", n, self.number)
            if rng.random() < parameters.skip_share:
                continue
            at += rng.randint(-parameters.jitter, parameters.jitter)
            yield Bill(f"{n}/{self.number}", at, rng, make_payer(self.seed, self.first_number + n))

    def _is_due(self, subscriber: Subscriber) -> bool:
        if self.number < subscriber.starts_on:
            return False
        if self.parameters.interval_days:
            return self.number % self.parameters.interval_days == subscriber.anchor
        return datetime.fromtimestamp(self.midnight, UTC).day == subscriber.anchor + 1


@lru_cache(maxsize=100_000)
def _subscriber(seed: int, shop: str, number: int, interval_days: int, joining_share: float) -> Subscriber:
    """Return the subscriber with this number, who is the same on every day."""
    rng = Random(f"{seed}/{shop}/subscriber/{number}")
    joins_later = rng.random() < joining_share
    return Subscriber(
        time_of_day=rng.randrange(2 * HOUR, DAY - 2 * HOUR),
        anchor=rng.randrange(interval_days or _DAYS_OF_MONTH),
        starts_on=rng.randrange(_LAST_TO_JOIN) if joins_later else 0,
    )
