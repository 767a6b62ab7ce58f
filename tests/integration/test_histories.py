"""Single histories that are easily evaluated wrong, and what the published tables must show.

Each kind of mistake has the history that showed it, and others of its kind with the result that follows from the same
rule. A history is read by poll, by webhook alone, or both: some are older than Stripe's events, and the event of a
success names no card.
"""

import fcntl
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import duckdb
import pytest

from orchestration.config.settings import Settings
from tests.support import pipeline
from tests.support.built_folder import BuiltFolder
from tests.support.payment_histories import (
    DAY,
    HOUR,
    MINUTE,
    Payment,
    bank_account,
    card,
    deliver_events,
    sync_payments,
)

NOW: Final = 1_795_176_000
"""2026-11-20 12:00:00 UTC, when all histories are read."""
START: Final = NOW - 12 * DAY
"""When most histories begin: Stripe still lists their events, and the window of 30 days is open."""
LONG_AGO: Final = 1_785_574_800
"""2026-08-01 09:00:00 UTC: Stripe no longer lists events of that time, and the window is over."""
MIDNIGHT: Final = 1_794_182_400
"""2026-11-09 00:00:00 UTC."""

POLL, WEBHOOK = "poll", "webhook"
BOTH: Final = (POLL, WEBHOOK)

Row = dict[str, Any]


class Tables:
    """The published rows, by PaymentIntent."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.payments = {row["payment_intent_id"]: row for row in self.rows("payment_intents")}
        self.episodes = {row["episode_id"]: row for row in self.rows("recovery_episodes")}

    def rows(self, table: str) -> list[Row]:
        with duckdb.connect(str(self._settings.published_path), read_only=True) as published:
            found = published.execute(f"FROM marts.{table}")
            names = [column[0] for column in found.description]
            return [dict(zip(names, row, strict=True)) for row in found.fetchall()]

    def listed(self, table: str) -> set[str]:
        """Return the PaymentIntents that have a row in a table."""
        return {row["payment_intent_id"] for row in self.rows(table)}

    def episode_of(self, name: str) -> Row | None:
        return self.episodes.get(self.payments[f"pi_{name}"]["episode_id"])


Expectation = Callable[[Tables], Iterable[str]]
"""Yields the differences from what is expected."""


def _differences(subject: str, row: Row, columns: Row) -> Iterator[str]:
    for name, wanted in columns.items():
        found = row[name]
        if not (found in wanted if isinstance(wanted, set) else found == wanted):
            yield f"{subject}: {name} is {found!r}, not {wanted!r}"


def expect(name: str, **columns: Any) -> Expectation:
    """Expect that the payment failed and that its episode has these values. A set stands for one of its values."""

    def check(tables: Tables) -> Iterator[str]:
        episode = tables.episode_of(name)
        if episode is None:
            yield f"{name}: no episode"
        else:
            yield from _differences(name, episode, columns)

    return check


def no_episode(*names: str) -> Expectation:
    """Expect that the payments have no episode and belong to no failure of another payment."""

    def check(tables: Tables) -> Iterator[str]:
        for name in names:
            if (episode := tables.episode_of(name)) is not None:
                yield f"{name}: in the episode of {episode['episode_id']}"

    return check


def together(*names: str) -> Expectation:
    """Expect that the payments belong to one debt."""

    def check(tables: Tables) -> Iterator[str]:
        if len({tables.payments[f"pi_{name}"]["episode_id"] for name in names}) > 1:
            yield f"{', '.join(names)}: in several episodes"

    return check


def apart(*names: str) -> Expectation:
    """Expect that each of the payments belongs to another debt."""

    def check(tables: Tables) -> Iterator[str]:
        if len({tables.payments[f"pi_{name}"]["episode_id"] for name in names}) < len(names):
            yield f"{', '.join(names)}: some in the same episode"

    return check


def recovered(failed: str, by: str, after: int, **columns: Any) -> Expectation:
    """Expect that the payment failed and was recovered, by itself or another payment, so many seconds later."""
    days = pytest.approx(after / DAY, abs=3 / DAY)
    facts = {"recovery_status": "recovered", "recovering_payment_intent_id": f"pi_{by}", "days_to_recovery": days}
    return expect(failed, **facts, duplicate_success_count=0, **columns)


def open_until_now(*names: str) -> Expectation:
    """Expect that each of the payments failed, that none was recovered, and that their windows are open."""
    facts = {"recovery_status": "in_recovery", "recovered_amount": 0, "duplicate_success_count": 0}
    return every(apart(*names), *(expect(name, **facts) for name in names))


def lost(name: str) -> Expectation:
    """Expect that the payment failed and was not recovered before its window ended."""
    return expect(name, recovery_status="lost_expired", recovered_amount=0, duplicate_success_count=0)


def attempts(name: str, *wanted: Row) -> Expectation:
    """Expect that many attempts of the payment, in their order, with these values."""

    def check(tables: Tables) -> Iterator[str]:
        made = [row for row in tables.rows("payment_attempts") if row["payment_intent_id"] == f"pi_{name}"]
        if len(made) != len(wanted):
            yield f"{name}: {len(made)} attempts, not {len(wanted)}"
            return
        for row, columns in zip(sorted(made, key=lambda each: each["attempt_number"]), wanted, strict=True):
            yield from _differences(f"attempt {row['attempt_number']} of {name}", row, columns)

    return check


def listed_in(table: str, name: str) -> Expectation:
    def check(tables: Tables) -> Iterator[str]:
        if f"pi_{name}" not in tables.listed(table):
            yield f"{name}: not in {table}"

    return check


def not_listed_in(table: str, name: str) -> Expectation:
    def check(tables: Tables) -> Iterator[str]:
        if f"pi_{name}" in tables.listed(table):
            yield f"{name}: in {table}"

    return check


def exactly_one_of(*expectations: Expectation) -> Expectation:
    """Expect that exactly one of these holds."""

    def check(tables: Tables) -> Iterator[str]:
        result = [list(each(tables)) for each in expectations]
        if sum(not each for each in result) != 1:
            yield f"{sum(not each for each in result)} of {len(result)} hold, not 1: {result}"

    return check


def every(*expectations: Expectation) -> Expectation:
    def check(tables: Tables) -> Iterator[str]:
        for each in expectations:
            yield from each(tables)

    return check


def no_day_below_zero(tables: Tables) -> Iterator[str]:
    for row in tables.rows("recovery_activity_daily"):
        if min(row["closing_in_recovery_count"], row["closing_in_recovery_amount"]) < 0:
            yield f"{row['activity_date']}: {row['closing_in_recovery_count']} in recovery"


@dataclass(frozen=True)
class History:
    """Payments and what is expected of them. One that is `alone` has its own account and build.

    It could stop the publishing of every table, which other payments of its day or currency might hide.
    """

    payments: list[Payment]
    expected: list[Expectation]
    ways: tuple[str, ...] = BOTH
    is_alone: bool = field(default=False)


def order(number: str, **others: str) -> dict[str, Any]:
    return {"metadata": {"order_id": number} | others}


def reference(value: str) -> dict[str, Any]:
    """Return what Checkout fills in with a product if the merchant does not name the order."""
    return {"payment_details": {"customer_reference": None, "order_reference": value}}


def every_so_often(name: str, amount: int, interval: int, count: int, *, before: int, customer: str) -> list[Payment]:
    """Return payments that the customer made once in each interval before an instant."""
    return [
        Payment(f"{name}{number}", amount, at=before - number * interval, customer=customer).paid()
        for number in range(1, count + 1)
    ]


CARD_OPTIONS = {"payment_method_options": {"card": {"capture_method": "manual"}}}

ORDER_KEYS: dict[str, History] = {
    "c02: two shops share an order number": History(
        [
            Payment(
                "c02a", 8000, at=START, customer="cus_c02a", **order("1042", site_url="https://a.example")
            ).declined(),
            Payment(
                "c02b", 2500, at=START + DAY, customer="cus_c02b", **order("1042", site_url="https://b.example")
            ).paid(),
        ],
        [open_until_now("c02a"), no_episode("c02b")],
    ),
    "three shops share an order number, and one customer buys in two": History(
        [
            Payment("shopa", 8000, at=START, customer="cus_shops", **order("2077")).declined(),
            Payment("shopb", 2500, at=START + DAY, customer="cus_shops", **order("2077")).paid(),
            Payment("shopc", 6100, at=START + 2 * DAY, customer="cus_shopc", **order("2077")).paid(),
        ],
        [open_until_now("shopa"), no_episode("shopb", "shopc")],
    ),
    "a value that many guests have is no order": History(
        [
            Payment("guesta", 3100, at=START, **order("summer")).declined(),
            Payment("guestb", 3100, at=START + HOUR, **order("summer")).paid(),
            Payment("guestc", 3100, at=START + DAY, **order("summer")).paid(),
        ],
        [open_until_now("guesta"), no_episode("guestb", "guestc")],
    ),
    "an order of a guest who pays with another card": History(
        [
            Payment("carda", 3200, at=START, **order("3301")).declined(),
            Payment("cardb", 3200, at=START + HOUR, **order("3301")).paid(),
        ],
        [recovered("carda", by="cardb", after=HOUR)],
    ),
    **{
        f"a placeholder names no order: {value!r}": History(
            [
                Payment(f"empty{number}a", 3300 + number, at=START, **order(value)).declined(),
                Payment(f"empty{number}b", 3300 + number, at=START + HOUR, **order(value)).paid(),
            ],
            [open_until_now(f"empty{number}a"), no_episode(f"empty{number}b")],
        )
        for number, value in enumerate(("undefined", "null", "None", "0", " "))
    },
}

RHYTHM: dict[str, History] = {
    "c04: monthly, retried for four weeks": History(
        [
            Payment("c04a", 2900, at=LONG_AGO, customer="cus_c04")
            .declined()
            .declined(3 * DAY)
            .declined(7 * DAY)
            .declined(14 * DAY)
            .declined(21 * DAY)
            .declined(28 * DAY),
            Payment("c04b", 2900, at=LONG_AGO + 31 * DAY, customer="cus_c04").paid(),
        ],
        [lost("c04a"), no_episode("c04b")],
        (POLL,),
    ),
    "weekly, retried for six days": History(
        [
            *every_so_often("week", 1700, 7 * DAY, 2, before=START, customer="cus_week"),
            Payment("weeka", 1700, at=START, customer="cus_week").declined().declined(3 * DAY).declined(6 * DAY),
            Payment("weekb", 1700, at=START + 7 * DAY, customer="cus_week").paid(),
        ],
        [open_until_now("weeka"), no_episode("weekb", "week1", "week2")],
    ),
    "yearly, retried for four weeks": History(
        [
            *every_so_often("year", 9900, 365 * DAY, 1, before=LONG_AGO - 365 * DAY, customer="cus_year"),
            Payment("yeara", 9900, at=LONG_AGO - 365 * DAY, customer="cus_year").declined().declined(28 * DAY),
            Payment("yearb", 9900, at=LONG_AGO, customer="cus_year").paid(),
        ],
        [lost("yeara"), no_episode("yearb", "year1")],
        (POLL,),
    ),
    "monthly, and each retry is a new PaymentIntent": History(
        [
            *every_so_often("month", 3900, 30 * DAY, 2, before=LONG_AGO, customer="cus_month"),
            Payment("montha", 3900, at=LONG_AGO, customer="cus_month").declined(),
            Payment("monthb", 3900, at=LONG_AGO + 3 * DAY, customer="cus_month").declined(),
            Payment("monthc", 3900, at=LONG_AGO + 8 * DAY, customer="cus_month").paid(),
            Payment("monthd", 3900, at=LONG_AGO + 30 * DAY, customer="cus_month").paid(),
        ],
        [
            recovered("montha", by="monthc", after=8 * DAY),
            together("montha", "monthb", "monthc"),
            no_episode("monthd", "month1", "month2"),
        ],
        (POLL,),
    ),
}

SAME_AMOUNT: dict[str, History] = {
    "c05: weekly, one pair": History(
        [
            Payment("c05a", 1500, at=LONG_AGO, customer="cus_c05").declined(),
            Payment("c05b", 1500, at=LONG_AGO + 7 * DAY, customer="cus_c05").paid(),
        ],
        [
            exactly_one_of(
                every(lost("c05a"), no_episode("c05b")),
                expect("c05a", recovery_status="recovered", link_confidence={"medium", "low"}),
            )
        ],
        (POLL,),
    ),
    "weekly, as the payments before show": History(
        [
            *every_so_often("plan", 1600, 7 * DAY, 3, before=LONG_AGO, customer="cus_plan"),
            Payment("plana", 1600, at=LONG_AGO, customer="cus_plan").declined(),
            Payment("planb", 1600, at=LONG_AGO + 7 * DAY, customer="cus_plan").paid(),
        ],
        [lost("plana"), no_episode("planb", "plan1", "plan2", "plan3")],
        (POLL,),
    ),
    "weekly, as only the payments after show": History(
        [
            Payment("firsta", 1650, at=START - 5 * DAY, customer="cus_first").declined(),
            Payment("firstb", 1650, at=START + 2 * DAY, customer="cus_first").paid(),
            Payment("firstc", 1650, at=START + 9 * DAY, customer="cus_first").paid(),
        ],
        [open_until_now("firsta"), no_episode("firstb", "firstc")],
    ),
    "bought each day": History(
        [
            *every_so_often("day", 450, DAY, 5, before=START, customer="cus_day"),
            Payment("daya", 450, at=START, customer="cus_day").declined(),
            Payment("dayb", 450, at=START + DAY, customer="cus_day").paid(),
        ],
        [open_until_now("daya"), no_episode("dayb", "day1", "day5")],
    ),
    "bought each day, and tried again after an hour": History(
        [
            *every_so_often("hour", 470, DAY, 5, before=START, customer="cus_hour"),
            Payment("houra", 470, at=START, customer="cus_hour").declined(),
            Payment("hourb", 470, at=START + HOUR, customer="cus_hour").paid(),
            Payment("hourc", 470, at=START + DAY, customer="cus_hour").paid(),
        ],
        [recovered("houra", by="hourb", after=HOUR), no_episode("hourc", "hour1")],
    ),
    "bought once, and tried again after three days": History(
        [
            Payment("oncea", 7700, at=START, customer="cus_once").declined(),
            Payment("onceb", 7700, at=START + 3 * DAY, customer="cus_once").paid(),
        ],
        [recovered("oncea", by="onceb", after=3 * DAY, link_confidence={"medium", "low"})],
    ),
    "c07: two equal subscriptions, one fails": History(
        [
            Payment("c07a", 1000, at=START, customer="cus_c07").declined(decline_code="generic_decline"),
            Payment("c07b", 1000, at=START + 2, customer="cus_c07").paid(),
        ],
        [open_until_now("c07a"), no_episode("c07b")],
    ),
    "three seats, two fail": History(
        [
            Payment("seata", 1100, at=START, customer="cus_seat").declined(),
            Payment("seatb", 1100, at=START + 2, customer="cus_seat").declined(),
            Payment("seatc", 1100, at=START + 4, customer="cus_seat").paid(),
        ],
        [open_until_now("seata", "seatb"), no_episode("seatc")],
    ),
    "three seats, the one between two that are paid fails": History(
        [
            Payment("midb", 1150, at=START, customer="cus_mid").paid(),
            Payment("mida", 1150, at=START + 3, customer="cus_mid").declined(),
            Payment("midc", 1150, at=START + 5, customer="cus_mid").paid(),
        ],
        [open_until_now("mida"), no_episode("midb", "midc")],
    ),
    "two equal subscriptions fail, and one is paid two days later": History(
        [
            Payment("twina", 1200, at=START, customer="cus_twin").declined(),
            Payment("twinb", 1200, at=START + 2, customer="cus_twin").declined(),
            Payment("twinc", 1200, at=START + 2 * DAY, customer="cus_twin").paid(),
        ],
        [
            apart("twina", "twinb"),
            exactly_one_of(
                *(expect(name, recovery_status="recovered", recovered_amount=1200) for name in ("twina", "twinb"))
            ),
            exactly_one_of(open_until_now("twina"), open_until_now("twinb")),
        ],
    ),
    "a payment that is retried while another one succeeds": History(
        [
            Payment("spana", 1300, at=START, customer="cus_span").declined().declined(2 * DAY),
            Payment("spanb", 1300, at=START + DAY, customer="cus_span").paid(),
        ],
        [open_until_now("spana"), no_episode("spanb")],
    ),
}

PARTS: dict[str, History] = {
    "c10b: an order is paid in two parts after it failed as a whole": History(
        [
            Payment("c10d", 10_000, at=START, customer="cus_c10b", method=card("c10z"), **order("c10b")).declined(),
            Payment("c10e", 6000, at=START + MINUTE, customer="cus_c10b", method=card("c10z"), **order("c10b")).paid(),
            Payment(
                "c10f", 4000, at=START + 2 * MINUTE, customer="cus_c10b", method=card("c10q"), **order("c10b")
            ).paid(),
        ],
        [
            expect("c10d", recovery_status="recovered", recovered_amount=10_000, is_partially_recovered=False),
            expect("c10d", duplicate_success_count=0, recovered_excess_amount=0),
            together("c10d", "c10e", "c10f"),
        ],
    ),
    "the second part fails": History(
        [
            Payment("partd", 10_000, at=START, customer="cus_part", **order("part")).declined(),
            Payment("parte", 6000, at=START + MINUTE, customer="cus_part", **order("part")).paid(),
            Payment("partf", 4000, at=START + 2 * MINUTE, customer="cus_part", **order("part")).declined(),
        ],
        [
            expect("partd", at_risk_amount=10_000, recovered_amount=6000, is_partially_recovered=True),
            expect("partd", duplicate_success_count=0),
            together("partd", "parte", "partf"),
        ],
    ),
    "the second part fails, and is paid an hour later": History(
        [
            Payment("lastd", 10_000, at=START, customer="cus_last", **order("last")).declined(),
            Payment("laste", 6000, at=START + MINUTE, customer="cus_last", **order("last")).paid(),
            Payment("lastf", 4000, at=START + 2 * MINUTE, customer="cus_last", **order("last")).declined().paid(HOUR),
        ],
        [
            expect("lastd", at_risk_amount=10_000, recovered_amount=10_000, is_partially_recovered=False),
            expect("lastd", recovery_status="recovered", duplicate_success_count=0),
            together("lastd", "laste", "lastf"),
        ],
    ),
    "a balance does not recover a deposit that is tried beside it": History(
        [
            Payment("depo", 3000, at=START, customer="cus_depo", **order("depo")).declined().declined(MINUTE),
            Payment("bala", 7000, at=START + 30, customer="cus_depo", **order("depo")).paid(),
        ],
        [open_until_now("depo"), no_episode("bala")],
    ),
    "an order that was paid twice": History(
        [
            Payment("duea", 2000, at=START, customer="cus_due", **order("due")).declined(),
            Payment("dueb", 2000, at=START + HOUR, customer="cus_due", **order("due")).paid(),
            Payment("duec", 2000, at=START + DAY, customer="cus_due", **order("due")).paid(),
        ],
        [
            expect("duea", recovery_status="recovered", recovered_amount=2000, is_partially_recovered=False),
            expect("duea", recovering_payment_intent_id="pi_dueb"),
        ],
    ),
    "an order of which a part is paid in another currency": History(
        [
            Payment("curra", 10_000, at=START, customer="cus_curr", **order("curr")).declined(),
            Payment("currb", 6000, at=START + HOUR, customer="cus_curr", **order("curr")).paid(),
            Payment("currc", 4000, at=START + DAY, customer="cus_curr", currency="eur", **order("curr")).paid(),
        ],
        [expect("curra", currency="usd", recovered_amount=6000, is_partially_recovered=True)],
    ),
    "c12: one per cent of an order is paid": History(
        [
            Payment("c12a", 10_000, at=START, customer="cus_c12", **order("c12")).declined(),
            Payment("c12b", 100, at=START + MINUTE, customer="cus_c12", **order("c12")).paid(),
        ],
        [
            exactly_one_of(
                expect("c12a", recovery_status="in_recovery", is_partially_recovered=False, recovered_amount=0),
                expect("c12a", is_partially_recovered=True, recovered_amount=100),
            )
        ],
    ),
    "nine tenths of an order are paid": History(
        [
            Payment("most", 10_000, at=START, customer="cus_most", **order("most")).declined(),
            Payment("mostb", 9000, at=START + MINUTE, customer="cus_most", **order("most")).paid(),
        ],
        [
            expect("most", recovery_status="in_recovery", recovered_amount=9000, is_partially_recovered=True),
            together("most", "mostb"),
        ],
    ),
    "an order that has grown is paid": History(
        [
            Payment("grow", 10_000, at=START, customer="cus_grow", **order("grow")).declined(),
            Payment("growb", 10_500, at=START + MINUTE, customer="cus_grow", **order("grow")).paid(),
        ],
        [
            recovered("grow", by="growb", after=MINUTE, recovered_amount=10_000, recovered_excess_amount=500),
            expect("grow", is_partially_recovered=False),
        ],
    ),
}


def waiting(name: str, action: str, method: str, **shown: Any) -> History:
    """Return a payment that waits for money that arrives in another way."""
    made = Payment(name, 5000, at=NOW - 5 * DAY, customer=f"cus_{name}", currency="eur", payment_method_types=[method])
    return History(
        [made.waits(action, **shown)],
        [no_episode(name), not_listed_in("abandoned_authentications", name), listed_in("waiting_payments", name)],
    )


def asked(name: str, action: str) -> History:
    """Return a payment whose customer was asked to authenticate five days ago and left. Only a sync ends a window."""
    return History(
        [Payment(name, 5000, at=NOW - 5 * DAY, customer=f"cus_{name}").waits(action)],
        [no_episode(name), listed_in("abandoned_authentications", name), not_listed_in("waiting_payments", name)],
        (POLL,),
    )


WAITING: dict[str, History] = {
    "c13: a bank transfer": waiting(
        "c13", "display_bank_transfer_instructions", "customer_balance", expires_at=NOW + 5 * DAY
    ),
    "a voucher": waiting("oxxo", "oxxo_display_details", "oxxo", expires_after=NOW + DAY),
    "a boleto": waiting("boleto", "boleto_display_details", "boleto", expires_at=NOW + DAY),
    "microdeposits": waiting("micro", "verify_with_microdeposits", "us_bank_account", arrival_date=NOW - DAY),
    "3-D Secure in the page": asked("sdk", "use_stripe_sdk"),
    "3-D Secure by a redirect": asked("redirect", "redirect_to_url"),
}

STATES: dict[str, History] = {
    "c19: captured by hand, as the options of the card say": History(
        [
            Payment("c19", 9000, at=LONG_AGO, customer="cus_c19", **CARD_OPTIONS).declined().paid(MINUTE, card("c19b")),
        ],
        [expect("c19", recovery_status="recovered", is_first_succeeded_at_estimated=True)],
        (POLL,),
    ),
    "captured at once, though other methods would be by hand": History(
        [
            Payment(
                "bylink",
                9000,
                at=LONG_AGO,
                customer="cus_bylink",
                payment_method_options={"link": {"capture_method": "manual"}, "card": {}},
            )
            .declined()
            .paid(MINUTE),
        ],
        [recovered("bylink", by="bylink", after=MINUTE, is_first_succeeded_at_estimated=False)],
        (POLL,),
    ),
    "captured by hand after two days, as an event tells": History(
        [
            Payment("hand", 9100, at=START, customer="cus_hand", **CARD_OPTIONS)
            .declined()
            .authorized(MINUTE)
            .captured(2 * DAY),
        ],
        [recovered("hand", by="hand", after=2 * DAY, is_first_succeeded_at_estimated=False)],
    ),
    "captured by hand after two days, as the payment says": History(
        [
            Payment("manu", 9150, at=START, customer="cus_manu", capture_method="manual")
            .declined()
            .authorized(MINUTE)
            .captured(2 * DAY),
        ],
        [recovered("manu", by="manu", after=2 * DAY, is_first_succeeded_at_estimated=False)],
    ),
    "captured by hand long ago, as the payment says": History(
        [
            Payment("oldm", 9160, at=LONG_AGO, customer="cus_oldm", capture_method="manual")
            .declined()
            .authorized(MINUTE)
            .captured(2 * DAY),
        ],
        [expect("oldm", recovery_status="recovered", is_first_succeeded_at_estimated=True)],
        (POLL,),
    ),
    "a hold of a card only that expired": History(
        [
            Payment("hold", 9200, at=START, customer="cus_hold", **CARD_OPTIONS)
            .declined()
            .authorized(MINUTE)
            .lapsed(7 * DAY, "automatic"),
        ],
        [expect("hold", recovery_status="lost_canceled", lost_reason="authorization_expired", recovered_amount=0)],
    ),
    "c42: holds expired, by either name": History(
        [
            Payment(name, 10_000, at=START, customer=f"cus_{name}", capture_method="manual")
            .declined()
            .authorized(MINUTE, has_event=False)
            .lapsed(7 * DAY, reason)
            for name, reason in (("c42a", "automatic"), ("c42b", "expired"))
        ],
        [
            expect(name, recovery_status="lost_canceled", lost_reason="authorization_expired")
            for name in ("c42a", "c42b")
        ],
    ),
    "nothing was held, and the checkout expired": History(
        [
            Payment("never", 10_100, at=START, customer="cus_never").declined().canceled(DAY, "expired"),
            Payment("neverm", 10_200, at=START, customer="cus_neverm", capture_method="manual")
            .declined()
            .canceled(DAY, "expired"),
        ],
        [expect(name, recovery_status="lost_canceled", lost_reason="expired") for name in ("never", "neverm")],
    ),
    "a hold that the merchant let go": History(
        [
            Payment("letgo", 10_300, at=START, customer="cus_letgo", capture_method="manual")
            .declined()
            .authorized(MINUTE)
            .canceled(DAY, "requested_by_customer"),
        ],
        [expect("letgo", recovery_status="lost_canceled", lost_reason="requested_by_customer")],
    ),
    "c20: two events of one failure": History(
        [Payment("c20", 2000, at=START, customer="cus_c20").unauthenticated(MINUTE).repeats_event()],
        [
            expect("c20", attempt_count=1, failed_attempt_count=1),
            attempts("c20", {"outcome": "failed", "failure_class": "authentication_failed"}),
        ],
    ),
    "two events of one failure, a second apart": History(
        [Payment("apart", 2050, at=START, customer="cus_apart").unauthenticated(MINUTE).repeats_event(1)],
        [expect("apart", attempt_count=1, failed_attempt_count=1)],
    ),
    "two events of one decline": History(
        [Payment("again", 2060, at=START, customer="cus_again").declined(MINUTE).repeats_event(1)],
        [attempts("again", {"outcome": "failed", "failure_class": "declined"})],
    ),
    "two failures of a minute are two": History(
        [Payment("soon", 2070, at=START, customer="cus_soon").unauthenticated(MINUTE).unauthenticated(2 * MINUTE)],
        [attempts("soon", {"outcome": "failed"}, {"outcome": "failed"})],
    ),
    "two events of one failure, twice": History(
        [
            Payment("twice", 2100, at=START, customer="cus_twice")
            .unauthenticated(MINUTE)
            .repeats_event()
            .unauthenticated(HOUR)
            .repeats_event()
            .paid(2 * HOUR),
        ],
        [
            recovered("twice", by="twice", after=2 * HOUR - MINUTE, failed_attempt_count=2, attempts_to_recovery=3),
            attempts("twice", {"outcome": "failed"}, {"outcome": "failed"}, {"outcome": "succeeded"}),
        ],
    ),
}


def two_tries(name: str, amount: int, first: Row, second: Row, **taken: Any) -> list[Payment]:
    """Return a failure and a success of the same amount five minutes later, each with its own fields."""
    return [
        Payment(f"{name}a", amount, at=START, **{**taken, **first}).declined(decline_code="incorrect_cvc"),
        Payment(f"{name}b", amount, at=START + 5 * MINUTE, **{**taken, **second}).paid(),
    ]


IDENTITY: dict[str, History] = {
    "c22: the customer is made on success": History(
        two_tries("c22", 6500, {}, {"customer": "cus_c22"}, method=card("c22")),
        [recovered("c22a", by="c22b", after=5 * MINUTE)],
        (POLL,),
    ),
    "the customer is made on success, and the card is another": History(
        two_tries("othr", 6500, {"method": card("othra")}, {"customer": "cus_othr", "method": card("othrb")}),
        [open_until_now("othra"), no_episode("othrb")],
    ),
    "a new customer for each try": History(
        two_tries("newc", 6510, {"customer": "cus_newca"}, {"customer": "cus_newcb"}, method=card("newc")),
        [recovered("newca", by="newcb", after=5 * MINUTE)],
        (POLL,),
    ),
    "a customer of Accounts v2": History(
        two_tries("acct", 6520, {"method": card("accta")}, {"method": card("acctb")}, customer_account="acct_payer"),
        [recovered("accta", by="acctb", after=5 * MINUTE)],
    ),
    "a card at a terminal": History(
        two_tries("term", 6530, {}, {}, method=card("term", "card_present")),
        [recovered("terma", by="termb", after=5 * MINUTE)],
        (POLL,),
    ),
    "a wallet with the card of before": History(
        two_tries("apay", 6540, {"method": card("apay")}, {"method": card("apay", wallet={"type": "apple_pay"})}),
        [recovered("apaya", by="apayb", after=5 * MINUTE)],
        (POLL,),
    ),
    "a bank account of two customers": History(
        two_tries("bank", 6550, {"customer": "cus_banka"}, {"customer": "cus_bankb"}, method=bank_account("bank")),
        [recovered("banka", by="bankb", after=5 * MINUTE)],
        (POLL,),
    ),
    "c23: the order, then the Dashboard": History(
        [
            Payment("c23a", 6700, at=START, customer="cus_c23", **order("c23")).declined(),
            Payment("c23b", 6700, at=START + HOUR, customer="cus_c23").paid(),
        ],
        [recovered("c23a", by="c23b", after=HOUR)],
    ),
    "an order that only the second try names": History(
        two_tries("late", 6710, {}, order("late"), customer="cus_late"),
        [recovered("latea", by="lateb", after=5 * MINUTE)],
    ),
    "two orders of one customer, equal in amount": History(
        two_tries("twoo", 6720, order("twooa"), order("twoob"), customer="cus_twoo"),
        [open_until_now("twooa"), no_episode("twoob")],
    ),
}


def two_guests(name: str, value: str) -> History:
    """Return payments of guests who buy the same within minutes. What Stripe filled in does not make them one order."""
    return History(
        two_tries(name, 4900, {}, {}, **reference(value)), [open_until_now(f"{name}a"), no_episode(f"{name}b")]
    )


def one_guest(name: str, value: str) -> History:
    """Return two attempts of a guest with two cards. The merchant's reference makes them one order."""
    return History(
        two_tries(name, 4950, {}, {}, **reference(value)), [recovered(f"{name}a", by=f"{name}b", after=5 * MINUTE)]
    )


FILLED_IN: dict[str, History] = {
    "d02: the merchant's order beside a product": History(
        [
            Payment("d02a", 4999, at=START, method=card("d02a"), **order("501"), **reference("prod_D02")).declined(),
            Payment("d02b", 4999, at=START + MINUTE, **order("502"), **reference("prod_D02")).paid(),
            Payment("d02c", 4999, at=START + HOUR, method=card("d02a"), **order("501"), **reference("prod_D02")).paid(),
        ],
        [recovered("d02a", by="d02c", after=HOUR), no_episode("d02b")],
    ),
    "a product": two_guests("prod", "prod_Guests"),
    "a price": two_guests("price", "price_1Guests"),
    "a payment link": two_guests("plink", "plink_1Guests"),
    "a value of the merchant's": one_guest("own", "R-7731"),
    "an invoice": one_guest("inv", "in_1Invoice"),
}

OTHER_PURCHASES: dict[str, History] = {
    "d03: a debit that settles later": History(
        [
            Payment("d03a", 50_000, at=START, customer="cus_d03", method=bank_account("d03"))
            .debited()
            .settled(4 * DAY),
            Payment("d03b", 50_000, at=START + DAY, customer="cus_d03").declined(decline_code="card_velocity_exceeded"),
        ],
        [open_until_now("d03b"), expect("d03b", at_risk_amount=50_000), no_episode("d03a")],
    ),
    "a debit that is still under way": History(
        [
            Payment("waya", 51_000, at=NOW - 3 * DAY, customer="cus_way", method=bank_account("way")).debited(),
            Payment("wayb", 51_000, at=NOW - 2 * DAY, customer="cus_way").declined(),
        ],
        [open_until_now("wayb"), expect("wayb", at_risk_amount=51_000), no_episode("waya")],
    ),
    "a payment on hold": History(
        [
            Payment("onha", 52_000, at=START, customer="cus_onh", capture_method="manual").authorized(),
            Payment("onhb", 52_000, at=START + DAY, customer="cus_onh").declined(),
        ],
        [open_until_now("onhb"), expect("onhb", at_risk_amount=52_000), no_episode("onha")],
    ),
    "a payment on hold that is captured later": History(
        [
            Payment("capa", 53_000, at=START, customer="cus_cap", capture_method="manual")
            .authorized()
            .captured(3 * DAY),
            Payment("capb", 53_000, at=START + DAY, customer="cus_cap").declined(),
        ],
        [open_until_now("capb"), expect("capb", at_risk_amount=53_000), no_episode("capa")],
    ),
}


def checked(name: str, check: str, code: str, rule: str, *, has_event: bool) -> Payment:
    """Return a payment that a rule blocks after a failed check; forty seconds later the input is right."""
    wrong, right = (card(name, checks={check: result}) for result in ("fail", "pass"))
    made = Payment(name, 8800, at=START, customer=f"cus_{name}", method=wrong)
    made.blocked("rule", code=code, network_status="reversed_after_approval", risk_level="normal", rule=rule)
    if not has_event:
        made.events.clear()
    return made.paid(40, right)


def blocked(name: str, reason: str, **fields: Any) -> Payment:
    return Payment(name, 8900, at=START, customer=f"cus_{name}").blocked(reason, **fields)


BLOCKS: dict[str, History] = {
    "d04: a rule on the security code": History(
        [checked("d04", "cvc_check", "incorrect_cvc", "block_if_cvc_fails", has_event=False)],
        [recovered("d04", by="d04", after=40, is_in_scope=True), expect("d04", failed_attempt_count=1)],
        (POLL,),
    ),
    "a rule on the security code, as an event tells": History(
        [checked("cvc", "cvc_check", "incorrect_cvc", "block_if_cvc_fails", has_event=True)],
        [recovered("cvc", by="cvc", after=40, is_in_scope=True), expect("cvc", failed_attempt_count=1)],
    ),
    "a rule on the postal code": History(
        [checked("zip", "address_postal_code_check", "incorrect_zip", "block_if_zip_fails", has_event=True)],
        [recovered("zip", by="zip", after=40, is_in_scope=True), expect("zip", failed_attempt_count=1)],
    ),
    **{
        f"Stripe foresees that the bank declines: {reason}": History(
            [blocked(f"foreseen{number}", reason)],
            [open_until_now(f"foreseen{number}"), expect(f"foreseen{number}", is_in_scope=True)],
            (POLL,),
        )
        for number, reason in enumerate(("previously_declined_do_not_retry", "low_probability_of_authorization"))
    },
    "Radar foresees a risk": History(
        [blocked("risk", "highest_risk_level", risk_level="highest")],
        [no_episode("risk"), attempts("risk", {"outcome": "blocked"})],
    ),
    "a rule of the merchant's on something else": History(
        [blocked("rule", "rule", rule="block_if_country")],
        [no_episode("rule"), attempts("rule", {"outcome": "blocked"})],
    ),
}

CURRENCY_AND_CLOCK: dict[str, History] = {
    "b0b: the currency changes after a failure without a charge": History(
        [
            Payment("b0b", 5000, at=START, customer="cus_b0b")
            .unauthenticated(1)
            .becomes(currency="eur", amount=4600)
            .paid(HOUR),
        ],
        [
            expect("b0b", currency="usd", at_risk_amount=5000, recovered_amount=0),
            attempts(
                "b0b",
                {"outcome": "failed", "currency": "usd", "amount": 5000},
                {"outcome": "succeeded", "currency": "eur", "amount": 4600},
            ),
            no_day_below_zero,
        ],
        is_alone=True,
    ),
    "the currency changes after a decline": History(
        [Payment("chcu", 5100, at=START, customer="cus_chcu").declined().becomes(currency="eur", amount=4700)],
        [expect("chcu", currency="usd", at_risk_amount=5100, recovered_amount=0), no_day_below_zero],
        is_alone=True,
    ),
    "the currency changes twice": History(
        [
            Payment("back", 5200, at=START, customer="cus_back")
            .declined()
            .becomes(currency="eur", amount=4800)
            .declined(MINUTE)
            .becomes(currency="usd", amount=5200)
            .paid(HOUR),
        ],
        [
            expect("back", currency="usd", at_risk_amount=5200),
            attempts("back", {"currency": "usd"}, {"currency": "eur", "amount": 4800}, {"currency": "usd"}),
            no_day_below_zero,
        ],
        is_alone=True,
    ),
    "b2: canceled before midnight, the event of the failure after": History(
        [
            Payment("b2", 5000, at=MIDNIGHT - MINUTE, customer="cus_b2")
            .unauthenticated(MINUTE + 1)
            .canceled(MINUTE - 1, "abandoned", event_after=MINUTE + 2),
        ],
        [expect("b2", recovery_status="lost_canceled", lost_reason="abandoned"), no_day_below_zero],
        is_alone=True,
    ),
    "canceled before midnight, the event of a declined charge after": History(
        [
            Payment("nite", 5000, at=MIDNIGHT - MINUTE, customer="cus_nite")
            .declined(MINUTE + 1)
            .canceled(MINUTE - 1, "abandoned", event_after=MINUTE + 3),
        ],
        [expect("nite", recovery_status="lost_canceled", lost_reason="abandoned"), no_day_below_zero],
        is_alone=True,
    ),
    "paid before midnight, the event of the failure after": History(
        [
            Payment("paid", 5000, at=MIDNIGHT - MINUTE, customer="cus_paid")
            .unauthenticated(MINUTE + 1)
            .paid(MINUTE - 1),
        ],
        [expect("paid", recovery_status="recovered", recovered_amount=5000), no_day_below_zero],
        is_alone=True,
    ),
}

HISTORIES: dict[str, History] = {
    name: history
    for histories in (
        *(ORDER_KEYS, RHYTHM, SAME_AMOUNT, PARTS, WAITING, STATES),
        *(IDENTITY, FILLED_IN, OTHER_PURCHASES, BLOCKS, CURRENCY_AND_CLOCK),
    )
    for name, history in histories.items()
}

Read = Callable[[str, str], Tables]


def publish(settings: Settings, histories: Iterable[History], way: str) -> None:
    """Load the payments in this way, by one load and one build, and publish them."""
    payments = [payment for each in histories if way in each.ways for payment in each.payments]
    if way == POLL:
        sync_payments(settings, payments, NOW)
    else:
        deliver_events(settings, payments)
    pipeline.build(settings)
    pipeline.publish_marts(settings)


@pytest.fixture(scope="module")
def read(built_folder: BuiltFolder, shared_folder: Path) -> Read:
    """Return the published rows of all histories that share an account, or of one that is alone.

    Each is built once for all workers.
    """

    def read_once(name: str, way: str) -> Tables:
        histories = {name: HISTORIES[name]}
        if not HISTORIES[name].is_alone:
            histories = {each: history for each, history in HISTORIES.items() if not history.is_alone}
        number = list(HISTORIES).index(next(iter(histories)))
        settings = Settings(recoup_data_dir=shared_folder / f"histories-{way}-{number}")
        with (shared_folder / f"{settings.recoup_data_dir.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not settings.published_path.exists():
                built_folder.copy(settings.recoup_data_dir)
                publish(settings, histories.values(), way)
        return Tables(settings)

    return read_once


@pytest.mark.parametrize(
    ("name", "way"),
    [pytest.param(name, way, id=f"{way}: {name}") for name, history in HISTORIES.items() for way in history.ways],
)
def test_the_published_tables_show_what_is_expected(name: str, way: str, read: Read) -> None:
    tables = read(name, way)
    result = [each for expectation in HISTORIES[name].expected for each in expectation(tables)]
    assert not result, "\n".join(result)


def test_histories_share_no_id_and_no_payer() -> None:
    """Check it because they share one account: a history must not link to a payment of another."""
    seen: dict[str, str] = {}
    for name, history in HISTORIES.items():
        for payment in history.payments:
            payer = payment.intent["customer"] or payment.name
            used = {payment.intent["id"], payer, *(each["payment_method"] for each in payment.charges)}
            assert {seen.setdefault(each, name) for each in used} == {name}
