"""The simulated account: reproducible by seed, complete in its cases, and limited to what exists at its clock."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import orjson
import pytest

from orchestration.simulator import SimulatedAccount
from orchestration.simulator.stripe.objects import Renderer
from orchestration.simulator.world.account import RESOURCES, TieOrder
from orchestration.simulator.world.calibration import DAY
from orchestration.simulator.world.steps import Act

SMALL = {"payments": 600, "days": 30}


def listing(account: SimulatedAccount, at: int) -> bytes:
    """Return everything that the account shows at a given time, as bytes."""
    renderer = Renderer(account)
    return orjson.dumps(
        [
            renderer.render(resource, entry, at)
            for resource in RESOURCES
            for entry in account.list_entries(resource, at, created=(0, at))
        ]
    )


def test_the_same_seed_gives_the_same_bytes_and_another_one_does_not() -> None:
    one, same, other = (SimulatedAccount(seed, **SMALL) for seed in (5, 5, 6))
    assert listing(one, one.now) == listing(same, same.now)
    assert listing(one, one.now) != listing(other, other.now)


def test_moving_the_clock_does_not_change_the_past() -> None:
    short, long = SimulatedAccount(5, **SMALL), SimulatedAccount(5, **SMALL)
    then = short.now
    long.now += 200 * DAY
    assert list(long.list_entries("payment_intents", long.now, created=(then + 190 * DAY, long.now)))
    assert listing(long, then) == listing(short, then)
    assert long.truth(then) == short.truth(then)


def test_the_clock_never_goes_back(account: SimulatedAccount) -> None:
    with pytest.raises(ValueError, match="cannot go back"):
        account.now -= 1


def test_a_clock_with_a_speed_runs() -> None:
    ticks = iter([0.0, 1.5, 1.5, 2.0])
    account = SimulatedAccount(5, 30, 3, speed=60.0, monotonic=lambda: next(ticks))
    start = account.opened_at + 3 * DAY
    assert account.now == start + 90


def test_number_of_payments_is_about_the_requested_one() -> None:
    account = SimulatedAccount(5, payments=5_000, days=70)
    created = sum(intent.created < account.now for intent in account.intents.values())
    assert created == pytest.approx(5_000, rel=0.03)


def test_every_act_and_every_currency_occurs(account: SimulatedAccount) -> None:
    acts = {step.act for intent in account.intents.values() for step in intent.steps}
    assert acts == set(Act) - {Act.INSTRUCTED, Act.EXPIRED, Act.REPRICED}, "those of some kinds of shop only"
    assert {intent.currency for intent in account.intents.values()} == {"usd", "eur", "gbp", "jpy", "kwd"}
    assert all(intent.amount % 10 == 0 for intent in account.intents.values() if intent.currency == "kwd")


def test_steps_of_one_payment_may_share_a_second() -> None:
    account = SimulatedAccount(1)
    together: Counter[tuple[Act, ...]] = Counter()
    for intent in account.intents.values():
        for at in {step.at for step in intent.steps}:
            together[tuple(step.act for step in intent.steps if step.at == at)] += 1
    assert together[Act.CREATED, Act.SUCCEEDED] > 1_000
    assert together[Act.FAILED, Act.FAILED] > 5
    assert together[Act.CREATED, Act.FAILED, Act.SUCCEEDED] > 0


def test_hundreds_of_renewals_are_created_in_one_second_at_midnight() -> None:
    account = SimulatedAccount(1, payments=20_000 // 6, days=30)
    at, number = Counter(intent.created for intent in account.intents.values()).most_common(1)[0]
    assert number >= 200
    assert at % DAY == 0


def test_steps_are_ordered_by_time_and_attempts_by_steps(account: SimulatedAccount) -> None:
    for intent in account.intents.values():
        assert [step.at for step in intent.steps] == sorted(step.at for step in intent.steps)
        assert [attempt.at for attempt in intent.attempts] == sorted(attempt.at for attempt in intent.attempts)
        assert intent.steps[0].act is Act.CREATED
        assert intent.steps[0].at == intent.created


def test_nothing_is_listed_before_it_exists(account: SimulatedAccount) -> None:
    at = account.now - 40 * DAY
    for resource in RESOURCES:
        entries = list(account.list_entries(resource, at, created=(0, account.now)))
        assert entries
        assert all(entry.created <= at for entry in entries)


@pytest.mark.parametrize("tie_order", ["forward", "reverse", "shuffled"])
def test_ids_say_nothing_about_time(tie_order: TieOrder) -> None:
    account = SimulatedAccount(5, **SMALL, tie_order=tie_order)
    ids = [entry.id for entry in account.list_entries("events", account.now, created=(0, account.now))]
    ascents = sum(earlier < later for earlier, later in pairwise(ids))
    assert 0.4 < ascents / len(ids) < 0.6


def test_tie_orders_list_the_same_objects_in_different_orders() -> None:
    listed = [
        [entry.id for entry in account.list_entries("events", account.now, created=(0, account.now))]
        for account in (SimulatedAccount(5, **SMALL, tie_order=order) for order in ("forward", "reverse", "shuffled"))
    ]
    assert len({tuple(ids) for ids in listed}) == 3
    assert len({frozenset(ids) for ids in listed}) == 1


def test_concurrent_threads_generate_the_same_future() -> None:
    account, alone = SimulatedAccount(5, **SMALL), SimulatedAccount(5, **SMALL)
    start, end = account.now, account.now + 40 * DAY
    with ThreadPoolExecutor(8) as threads:
        told = list(threads.map(lambda _: account.events_between(start, end), range(8)))
    expected = [event.id for event in alone.events_between(start, end)]
    assert [[event.id for event in events] for events in told] == [expected] * 8


def test_late_events_are_listed_after_they_happen() -> None:
    account = SimulatedAccount(5, **SMALL, events_late=DAY)
    happened = account.events_between(account.now - 2 * DAY, account.now)
    assert [event.created for event in happened] == sorted(event.created for event in happened)
    shown = list(account.list_entries("events", account.now, created=(account.now - 2 * DAY + 1, account.now)))
    assert shown[::-1] == [event for event in happened if event.created <= account.now - DAY]
    assert len(shown) < len(happened)
    assert account.events_between(account.now - 2 * DAY, account.now - DAY) == shown[::-1]
