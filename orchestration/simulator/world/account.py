"""The simulated account: its payments, its clock, and which objects exist at a given time, in list order.

Objects are referred to by an `Entry`. `objects` renders them as JSON, and `truth` computes what really happened.
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
from orchestration.simulator.world.events import emitted_event_types
from orchestration.simulator.world.shops import ShopParameters, day_generator
from orchestration.simulator.world.steps import Act, Intent, Step, token
from orchestration.simulator.world.truth import Truth, compute_truth

API_VERSION: Final = "2026-10-28.endive"
"""API version of responses, and of events unless the account sets another one."""

EVENT_RETENTION: Final = 30 * DAY
"""Seconds for which `/v1/events` returns an event."""

OPENED_AT: Final = 1_767_225_600
"""2026-01-01 00:00:00 UTC in Unix seconds."""

Resource = Literal["payment_intents", "charges", "refunds", "disputes", "events"]
RESOURCES: Final[tuple[Resource, ...]] = ("payment_intents", "charges", "refunds", "disputes", "events")
TieOrder = Literal["forward", "reverse", "shuffled"]

_SLACK_DAYS: Final = 14
_INTENTS_PER_DEBT: Final = 1.015


class Entry(NamedTuple):
    """A reference to an object of the account. Entries sort in list order, oldest first.

    `nth` is an index into the intent's attempts, refunds, disputes, or (for events) steps. Only events have an
    `event_type`.
    """

    created: int
    tie: int
    id: str
    intent: Intent
    nth: int
    event_type: str = ""


class SimulatedAccount:
    """A simulated Stripe account that is determined by its options.

    Args:
        seed: seed of all random draws.
        payments: approximate number of PaymentIntents created in the first `days` days. Later days have the same rate
            and are generated when the clock reaches them.
        days: age of the account at the start.
        opened_at: Unix seconds of a midnight in UTC.
        livemode: whether the account is in live mode.
        tie_order: list order of objects created in the same second: `forward` lists the last one first, `reverse` the
            first one first, `shuffled` an arbitrary order. Stripe guarantees none.
        event_api_version: value of `api_version` in events.
        events_late: seconds after which an event is first listed. Stripe's own list also lags behind its clock. It can
            be changed at any time.
        events_lost: share of events that are never created, 0 to 1. Stripe does not guarantee one for every change.
        tick: every time is rounded down to a multiple of these seconds. The order is kept, and many things happen in
            the same second.
        speed: simulated seconds per real second; 0 stops the clock until it is moved.
        monotonic: function that returns the seconds of the real clock.
        shop: kind of shop, one of `SHOPS`; None is the basic account.
        shop_parameters: parameters that replace the defaults of the kind of shop.
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
        self._generate_day = day_generator(shop, shop_parameters)
        self.opened_at = opened_at
        self.livemode = livemode
        self.event_api_version = event_api_version
        self.events_late = events_late
        self._events_lost = events_lost
        self._tick = tick
        self.intents: dict[str, Intent] = {}
        self._per_day = payments / days / _INTENTS_PER_DEBT
        self._tie_order = tie_order
        self._generated_days = 0
        self._generation_lock = threading.Lock()
        self._entries: dict[Resource, list[Entry]] = {resource: [] for resource in RESOURCES}
        self._new_entries: dict[Resource, list[Entry]] = {resource: [] for resource in RESOURCES}
        self._by_id: dict[Resource, dict[str, Entry]] = {resource: {} for resource in RESOURCES}
        self._entries_by_intent: dict[Resource, dict[str, list[Entry]]] = {
            resource: defaultdict(list) for resource in RESOURCES
        }
        self._intents_by_customer: dict[str, list[Intent]] = defaultdict(list)
        started_at = opened_at + days * DAY
        self.clock = Clock(started_at, speed, monotonic)
        self._generate_until(started_at)

    @property
    def now(self) -> int:
        """Unix seconds of the account's clock. It starts at the end of day `days`."""
        return self.clock.now

    @now.setter
    def now(self, to: int) -> None:
        """Move the clock forward.

        Raises:
            ValueError: `to` is in the past.
        """
        self.clock.now = to

    @property
    def speed(self) -> float:
        """Simulated seconds per real second."""
        return self.clock.speed

    @speed.setter
    def speed(self, to: float) -> None:
        self.clock.speed = to

    def truth(self, at: int, syncs: Sequence[int] = ()) -> Truth:
        """Return what had happened by `at`, and what a reader could know who synced at each of `syncs`.

        Args:
            at: Unix seconds, inclusive.
            syncs: Unix seconds of each full sync; by default one at `at`.
        """
        self._generate_until(at)
        intents = [intent for intent in list(self.intents.values()) if intent.created <= at]
        return compute_truth(intents, at, syncs or (at,))

    def find(self, resource: Resource, object_id: str, at: int) -> Entry | None:
        """Return the object with this id if it exists at `at`, else None.

        Events past their retention are returned too; see `is_aged_out`.
        """
        self._generate_until(at)
        entry = self._by_id[resource].get(object_id)
        return entry if entry is not None and entry.created <= at else None

    def list_entries(
        self,
        resource: Resource,
        at: int,
        *,
        created: tuple[int, int],
        intent_ids: Iterable[str] | None = None,
        after: Entry | None = None,
        before: Entry | None = None,
    ) -> Iterator[Entry]:
        """Yield the entries of a list request: newest first after `after`, or oldest first from `before` upwards.

        Args:
            resource: resource to list.
            at: time of the request in Unix seconds.
            created: first and last second to include.
            intent_ids: ids of the PaymentIntents whose objects are listed; None lists all.
            after: cursor of `starting_after`.
            before: cursor of `ending_before`.
        """
        self._generate_until(at)
        entries = self._entries[resource]
        if intent_ids is not None:
            entries = sorted(
                entry for intent in set(intent_ids) for entry in self._entries_by_intent[resource].get(intent, ())
            )
        low = bisect_left(entries, (created[0],))
        visible = at - self.events_late if resource == "events" else at
        high = bisect_left(entries, (min(created[1], visible) + 1,))
        if before is not None:
            yield from (entries[n] for n in range(max(low, bisect_right(entries, before)), high))
            return
        if after is not None:
            high = min(high, bisect_left(entries, after))
        yield from (entries[n] for n in range(high - 1, low - 1, -1))

    def events_between(self, after: int, until: int) -> list[Entry]:
        """Return the events later than `after` and not later than `until`, oldest first.

        It includes events that the list does not show yet (`events_late`).
        """
        self._generate_until(until)
        events = self._entries["events"]
        return events[bisect_left(events, (after + 1,)) : bisect_left(events, (until + 1,))]

    def customer_intent_ids(self, customer: str) -> list[str]:
        """Return the ids of all PaymentIntents of a customer or customer account, including future ones."""
        return [intent.id for intent in self._intents_by_customer[customer]]

    def is_aged_out(self, event: Entry, at: int) -> bool:
        """Return whether an event is past its retention at `at`."""
        return event.created < at - EVENT_RETENTION

    def _generate_until(self, at: int) -> None:
        """Generate the days up to `at` and some more, so that small clock steps do not generate each time.

        It is thread-safe, since deliveries run beside a test. One thread generates; lists that others iterate over are
        replaced, not changed.
        """
        day = (at - self.opened_at) // DAY
        if day < self._generated_days:
            return
        with self._generation_lock:
            self._generate_days(range(self._generated_days, day + _SLACK_DAYS))

    def _generate_days(self, days: range) -> None:
        for number in days:
            for intent in self._generate_day(self.seed, number, self.opened_at, self._per_day):
                if self._tick > 1:
                    _round_times(intent, self._tick)
                self._add(intent)
        self._entries = {
            resource: sorted(self._entries[resource] + self._new_entries[resource]) for resource in RESOURCES
        }
        self._new_entries = {resource: [] for resource in RESOURCES}
        self._generated_days = max(self._generated_days, days.stop)

    def _add(self, intent: Intent) -> None:
        ordinal = len(self.intents) << 16
        self.intents[intent.id] = intent
        if intent.customer is not None:
            make_id = customer_account_id if intent.is_customer_account else customer_id
            self._intents_by_customer[make_id(self.seed, intent.customer)].append(intent)
        self._add_entry("payment_intents", intent, intent.created, intent.id, ordinal, 0)
        for index, attempt in enumerate(intent.attempts):
            if attempt.charge is not None:
                self._add_entry("charges", intent, attempt.at, attempt.charge, ordinal + index, index)
        for index, refund in enumerate(intent.refunds):
            self._add_entry("refunds", intent, refund.at, refund.id, ordinal + index, index)
        for index, dispute in enumerate(intent.disputes):
            self._add_entry("disputes", intent, dispute.at, dispute.id, ordinal + index, index)
        for index, step in enumerate(intent.steps):
            for part, event_type in enumerate(emitted_event_types(intent, step)):
                prefix = "evt_1" if event_type.startswith("charge.dispute") else "evt_3"
                event_id = prefix + token(intent.id, index, part)[:23]
                if crc32(event_id.encode()) < self._events_lost * 2**32:
                    continue
                self._add_entry("events", intent, step.at, event_id, ordinal + index * 8 + part, index, event_type)
                if _is_doubled(intent, step):
                    again_id = prefix + token(intent.id, index, part, "again")[:23]
                    self._add_entry(
                        "events", intent, step.at, again_id, ordinal + index * 8 + part + 4, index, event_type
                    )

    def _add_entry(
        self,
        resource: Resource,
        intent: Intent,
        created: int,
        object_id: str,
        sequence: int,
        index: int,
        event_type: str = "",
    ) -> None:
        tie = {"forward": sequence, "reverse": -sequence}.get(self._tie_order)
        entry = Entry(created, crc32(object_id.encode()) if tie is None else tie, object_id, intent, index, event_type)
        self._new_entries[resource].append(entry)
        self._by_id[resource][object_id] = entry
        self._entries_by_intent[resource][intent.id].append(entry)


def _round_times(intent: Intent, tick: int) -> None:
    """Round all times of the intent down to a multiple of `tick` seconds."""

    def down(at: int) -> int:
        return at - at % tick

    intent.created = down(intent.created)
    intent.attempts = [each._replace(at=down(each.at)) for each in intent.attempts]
    intent.refunds = [each._replace(at=down(each.at)) for each in intent.refunds]
    intent.disputes = [each._replace(at=down(each.at)) for each in intent.disputes]
    intent.steps = [each._replace(at=down(each.at)) for each in intent.steps]


def _is_doubled(intent: Intent, step: Step) -> bool:
    """Return whether Stripe creates each event of the step twice."""
    return step.act in (Act.FAILED, Act.AUTHENTICATION_FAILED) and step.nth in intent.doubled_failures


def customer_account_id(seed: int, number: int) -> str:
    """Return the id of the customer account (Accounts v2) of the payer with this number."""
    return f"acct_1{token(seed, 'customer account', number)[:15]}"


def customer_id(seed: int, number: int) -> str:
    """Return the customer id of the payer with this number."""
    return f"cus_{token(seed, 'customer', number)[:14]}"
