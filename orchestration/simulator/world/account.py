"""The account: all stories of a seed, its clock, and which objects are to be seen at an instant, in which order.

Objects appear here as `Entry`, by reference; how they look as JSON is `objects`, what really happened is `truth`.
"""

import threading
import time
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple
from zlib import crc32

from orchestration.simulator.world.calibration import DAY
from orchestration.simulator.world.clock import Clock
from orchestration.simulator.world.events import emitted
from orchestration.simulator.world.shops import ShopParameters, day_teller
from orchestration.simulator.world.steps import Act, Intent, Step, token
from orchestration.simulator.world.truth import Truth, tell_truth

API_VERSION: Final = "2026-10-28.endive"
"""The version that answers are rendered in, and events unless the account says otherwise."""

EVENT_RETENTION: Final = 30 * DAY
"""Seconds for which an event can be read."""

OPENED_AT: Final = 1_767_225_600
"""2026-01-01 00:00:00 UTC."""

Resource = Literal["payment_intents", "charges", "refunds", "disputes", "events"]
RESOURCES: Final[tuple[Resource, ...]] = ("payment_intents", "charges", "refunds", "disputes", "events")
TieOrder = Literal["forward", "reverse", "shuffled"]

_SLACK_DAYS: Final = 14
_INTENTS_PER_OBLIGATION: Final = 1.015


class Entry(NamedTuple):
    """Where an object of the account is found. Sorts as listed, oldest first.

    `nth` points into the intent's attempts, refunds, disputes, or (events) steps; `about` is an event's type.
    """

    created: int
    tie: int
    id: str
    intent: Intent
    nth: int
    about: str = ""


class SimulatedAccount:
    """A Stripe account that is a function of its options.

    Args:
        payments: about how many PaymentIntents are created in the first `days` days; afterwards the account lives on
            at the same pace, generated as the clock gets there.
        opened_at: unix seconds of a midnight UTC.
        tie_order: how objects of one second are listed: `forward` lists what happened last first, `reverse` the other
            way round, `shuffled` in an order that means nothing. Stripe promises none.
        event_api_version: the version that events say they were rendered in.
        events_late: seconds after which an event is first listed; Stripe's list is behind its own clock, too. May be
            set at any time.
        events_lost: share of events, 0 to 1, that are never made: Stripe does not promise one for every change.
        tick: seconds that pass as one: everything happens at multiples of it, in its true order, and very much of it
            in the same second.
        speed: simulated seconds per real second; 0 is a clock that stands until it is moved.
        shop: the kind of shop, one of `SHOPS`; None is the account with the histories that all others vary.
        shop_parameters: what distinguishes this shop from others of its kind.
    """

    def __init__(
        self,
        seed: int = 1,
        payments: int = 20_000,
        days: int = 180,
        opened_at: int = OPENED_AT,
        *,
        livemode: bool = False,
        tie_order: TieOrder = "forward",
        event_api_version: str | None = API_VERSION,
        events_late: int = 0,
        events_lost: float = 0.0,
        tick: int = 1,
        speed: float = 0.0,
        monotonic: Callable[[], float] = time.monotonic,
        shop: str | None = None,
        shop_parameters: ShopParameters | Mapping[str, Any] | None = None,
    ) -> None:
        self.seed = seed
        variant = () if shop is None else (shop, shop_parameters)
        self.id = f"acct_1{token(seed, payments, days, 'account', *variant)[:15]}"
        self._tell_day = day_teller(shop, shop_parameters)
        self.opened_at = opened_at
        self.livemode = livemode
        self.event_api_version = event_api_version
        self.events_late = events_late
        self._events_lost = events_lost
        self._tick = tick
        self.intents: dict[str, Intent] = {}
        self._per_day = payments / days / _INTENTS_PER_OBLIGATION
        self._tie_order = tie_order
        self._days_told = 0
        self._telling = threading.Lock()
        self._entries: dict[Resource, list[Entry]] = {resource: [] for resource in RESOURCES}
        self._fresh: dict[Resource, list[Entry]] = {resource: [] for resource in RESOURCES}
        self._by_id: dict[Resource, dict[str, Entry]] = {resource: {} for resource in RESOURCES}
        self._of_intent: dict[Resource, dict[str, list[Entry]]] = {
            resource: defaultdict(list) for resource in RESOURCES
        }
        self._of_customer: dict[str, list[Intent]] = defaultdict(list)
        grown_up_at = opened_at + days * DAY
        self.clock = Clock(grown_up_at, speed, monotonic)
        self._tell_until(grown_up_at)

    @property
    def now(self) -> int:
        """Unix seconds on the account's clock; at first the end of day `days`."""
        return self.clock.now

    @now.setter
    def now(self, to: int) -> None:
        """Raises ValueError: a clock never goes back."""
        self.clock.now = to

    @property
    def speed(self) -> float:
        """Simulated seconds per real second."""
        return self.clock.speed

    @speed.setter
    def speed(self, to: float) -> None:
        self.clock.speed = to

    def truth(self, at: int, syncs: Sequence[int] = ()) -> Truth:
        """What had really happened by `at`, and what a reader could know who read everything at each of `syncs`."""
        self._tell_until(at)
        intents = [intent for intent in list(self.intents.values()) if intent.created <= at]
        return tell_truth(intents, at, syncs or (at,))

    def find(self, resource: Resource, object_id: str, at: int) -> Entry | None:
        """An object by its id, if it exists at `at`; aged-out events are found, see `is_aged_out`."""
        self._tell_until(at)
        entry = self._by_id[resource].get(object_id)
        return entry if entry is not None and entry.created <= at else None

    def listed(
        self,
        resource: Resource,
        at: int,
        *,
        created: tuple[int, int],
        among: Iterable[str] | None = None,
        after: Entry | None = None,
        before: Entry | None = None,
    ) -> Iterator[Entry]:
        """Entries as a list request walks them: newest first from behind `after`, or oldest first up from `before`.

        `created` are the first and last second wanted; `among` limits the list to what hangs on these intents.
        """
        self._tell_until(at)
        entries = self._entries[resource]
        if among is not None:
            entries = sorted(entry for intent in set(among) for entry in self._of_intent[resource].get(intent, ()))
        low = bisect_left(entries, (created[0],))
        visible = at - self.events_late if resource == "events" else at
        high = bisect_left(entries, (min(created[1], visible) + 1,))
        if before is not None:
            yield from (entries[n] for n in range(max(low, bisect_right(entries, before)), high))
            return
        if after is not None:
            high = min(high, bisect_left(entries, after))
        yield from (entries[n] for n in range(high - 1, low - 1, -1))

    def happened(self, after: int, until: int) -> list[Entry]:
        """Events of the seconds behind `after` up to `until`, oldest first, those that are not listed yet included."""
        self._tell_until(until)
        events = self._entries["events"]
        return events[bisect_left(events, (after + 1,)) : bisect_left(events, (until + 1,))]

    def intents_of_customer(self, customer: str) -> list[str]:
        """Ids of the PaymentIntents of a customer or a customer account, also of those not created yet."""
        return [intent.id for intent in self._of_customer[customer]]

    def is_aged_out(self, event: Entry, at: int) -> bool:
        """Whether an event is too old to be read."""
        return event.created < at - EVENT_RETENTION

    def _tell_until(self, at: int) -> None:
        """Generate up to `at`, and some days more, so that a clock that creeps does not generate at every step.

        Any thread may ask, as deliveries do beside a test: one generates, and lists that others walk stay as they are.
        """
        day = (at - self.opened_at) // DAY
        if day < self._days_told:
            return
        with self._telling:
            self._tell_days(range(self._days_told, day + _SLACK_DAYS))

    def _tell_days(self, days: range) -> None:
        for number in days:
            for intent in self._tell_day(self.seed, number, self.opened_at, self._per_day):
                if self._tick > 1:
                    _let_tick(intent, self._tick)
                self._add(intent)
        self._entries = {resource: sorted(self._entries[resource] + self._fresh[resource]) for resource in RESOURCES}
        self._fresh = {resource: [] for resource in RESOURCES}
        self._days_told = max(self._days_told, days.stop)

    def _add(self, intent: Intent) -> None:
        ordinal = len(self.intents) << 16
        self.intents[intent.id] = intent
        if intent.customer is not None:
            make_id = customer_account_id if intent.is_customer_account else customer_id
            self._of_customer[make_id(self.seed, intent.customer)].append(intent)
        self._enter("payment_intents", intent, intent.created, intent.id, ordinal, 0)
        for index, attempt in enumerate(intent.attempts):
            if attempt.charge is not None:
                self._enter("charges", intent, attempt.at, attempt.charge, ordinal + index, index)
        for index, refund in enumerate(intent.refunds):
            self._enter("refunds", intent, refund.at, refund.id, ordinal + index, index)
        for index, dispute in enumerate(intent.disputes):
            self._enter("disputes", intent, dispute.at, dispute.id, ordinal + index, index)
        for index, step in enumerate(intent.steps):
            for part, event_type in enumerate(emitted(intent, step)):
                prefix = "evt_1" if event_type.startswith("charge.dispute") else "evt_3"
                event_id = prefix + token(intent.id, index, part)[:23]
                if crc32(event_id.encode()) < self._events_lost * 2**32:
                    continue
                self._enter("events", intent, step.at, event_id, ordinal + index * 8 + part, index, event_type)
                if _is_doubled(intent, step):
                    again_id = prefix + token(intent.id, index, part, "again")[:23]
                    self._enter("events", intent, step.at, again_id, ordinal + index * 8 + part + 4, index, event_type)

    def _enter(
        self,
        resource: Resource,
        intent: Intent,
        created: int,
        object_id: str,
        sequence: int,
        index: int,
        about: str = "",
    ) -> None:
        tie = {"forward": sequence, "reverse": -sequence}.get(self._tie_order)
        entry = Entry(created, crc32(object_id.encode()) if tie is None else tie, object_id, intent, index, about)
        self._fresh[resource].append(entry)
        self._by_id[resource][object_id] = entry
        self._of_intent[resource][intent.id].append(entry)


def _let_tick(intent: Intent, tick: int) -> None:
    """Move everything that happens to the intent down to a multiple of `tick` seconds."""

    def down(at: int) -> int:
        return at - at % tick

    intent.created = down(intent.created)
    intent.attempts = [each._replace(at=down(each.at)) for each in intent.attempts]
    intent.refunds = [each._replace(at=down(each.at)) for each in intent.refunds]
    intent.disputes = [each._replace(at=down(each.at)) for each in intent.disputes]
    intent.steps = [each._replace(at=down(each.at)) for each in intent.steps]


def _is_doubled(intent: Intent, step: Step) -> bool:
    """Whether Stripe makes each event of the step twice."""
    return step.act in (Act.FAILED, Act.AUTHENTICATION_FAILED) and step.nth in intent.doubled_failures


def customer_account_id(seed: int, number: int) -> str:
    """The id of the account (Accounts v2) of a customer of that number."""
    return f"acct_1{token(seed, 'customer account', number)[:15]}"


def customer_id(seed: int, number: int) -> str:
    """The id of a payer of that number."""
    return f"cus_{token(seed, 'customer', number)[:14]}"
