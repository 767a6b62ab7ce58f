"""Splitting a list into windows: every object is read, whatever its time and whatever the order of answers."""

from bisect import bisect_left
from collections import Counter
from math import ceil
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestration.stripe_api import PAGE_SIZE
from orchestration.sync.windows import Window, Windows

DAY = 86_400


class List:
    """A list as Stripe returns it: ordered by `created`, newest first, a hundred objects to a page."""

    def __init__(self, created: list[int]) -> None:
        self.created = sorted(created)

    def page(self, window: Window) -> tuple[list[tuple[str, int]], bool]:
        low = 0 if window.floor is None else bisect_left(self.created, window.floor)
        high = bisect_left(self.created, window.ceiling) if window.cursor is None else int(window.cursor)
        found = range(high - 1, max(low, high - PAGE_SIZE) - 1, -1)
        return [(str(index), self.created[index]) for index in found], high - PAGE_SIZE > low


def read(created: list[int], *, readers: int, seed: int = 0, floor: int | None = None) -> tuple[Counter[str], int]:
    """Return how often each object was read, and the number of requests. Answers arrive in random order."""
    rng, source, seen, requests = Random(seed), List(created), Counter[str](), 0
    windows = Windows([Window(floor, max(created, default=0) + 1)])
    under_way: list[tuple[Window, list[tuple[str, int]], bool]] = []
    while not windows.is_done:
        while len(under_way) < readers and (window := windows.take()) is not None:
            under_way.append((window, *source.page(window)))
            requests += 1
        window, page, has_more = under_way.pop(rng.randrange(len(under_way)))
        seen.update(name for name, _ in page)
        windows.record_page(window, page, has_more)
    assert not under_way
    return seen, requests


def bursts(rng: Random, count: int) -> list[int]:
    """Return times of which half are midnights, with hundreds in one second."""
    return [rng.randrange(180) * DAY + (0 if rng.random() < 0.5 else rng.randrange(DAY)) for _ in range(count)]


def growth(rng: Random, count: int) -> list[int]:
    return [int(1_000 * DAY * rng.random() ** 0.25) for _ in range(count)]


def even(rng: Random, count: int) -> list[int]:
    return [rng.randrange(180 * DAY) for _ in range(count)]


def one_second(rng: Random, count: int) -> list[int]:
    return [1_000] * count


def long_ago(rng: Random, count: int) -> list[int]:
    """Return times of which nearly all are in one day and fifty are ten years later."""
    return [rng.randrange(DAY) + (3_650 * DAY if index < 50 else 0) for index in range(count)]


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 10**9), st.integers(1, 400)), max_size=40),
    st.integers(1, 12),
    st.integers(0, 2**32),
)
def test_every_object_is_read_at_any_density(seconds: list[tuple[int, int]], readers: int, seed: int) -> None:
    created = [second for second, count in seconds for _ in range(count)]
    seen, _ = read(created, readers=readers, seed=seed)
    assert seen.keys() == {str(index) for index in range(len(created))}


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 10**6), max_size=2_000), st.integers(0, 10**6), st.integers(0, 2**32))
def test_exactly_the_objects_from_the_floor_on_are_read(created: list[int], floor: int, seed: int) -> None:
    seen, _ = read(created, readers=8, seed=seed, floor=floor)
    assert {sorted(created)[int(name)] for name in seen} == {second for second in created if second >= floor}


@pytest.mark.parametrize("newer", [0, 1, 50, 99, 100, 101])
def test_objects_of_the_floors_second_are_read_across_page_boundaries(newer: int) -> None:
    created = [999] * 5 + [1_000] * 250 + [1_001] * newer
    seen, _ = read(created, readers=1, floor=1_000)
    assert seen == Counter(str(index) for index in range(5, len(created)))


@pytest.mark.parametrize("newer", [0, 1, 50, 99, 100, 101])
def test_objects_below_the_floor_of_a_page_end_the_window(newer: int) -> None:
    """A split may raise the floor of a window while its page is being requested; the page then reaches below it."""
    window = Window(None, 2_000)
    windows = Windows([window])
    assert windows.take() is window
    window.floor = 1_000
    page = [(f"above_{number}", 1_000) for number in range(newer)] + [("below", 999)]
    windows.record_page(window, page, has_more=True)
    assert windows.is_done


def test_splitting_a_window_leaves_no_second_out() -> None:
    source = List([second for second in range(1_000) for _ in range(7)])
    windows = Windows([Window(None, 1_000)])
    while len(windows.open) < 2:
        taken = []
        while (window := windows.take()) is not None:
            taken.append(window)
        for window in taken:
            windows.record_page(window, *source.page(window))
    newer, older = windows.open
    assert newer.floor == older.ceiling
    assert older.floor is None


@pytest.mark.parametrize("fill", [even, growth, bursts, one_second, long_ago])
@pytest.mark.parametrize("count", [5_000, 20_000, 60_000])
def test_requests_stay_within_fifteen_percent_of_full_pages(fill: object, count: int) -> None:
    for seed in range(5):
        created = fill(Random(seed), count)  # type: ignore[operator]
        seen, requests = read(created, readers=12, seed=seed)
        assert len(seen) == count
        assert requests <= 1.15 * ceil(count / PAGE_SIZE)


@pytest.mark.parametrize("fill", [even, growth, bursts, long_ago])
def test_a_small_account_takes_at_most_four_requests_more_than_its_pages(fill: object) -> None:
    for count in (0, 1, 100, 101, 450, 1_000, 2_000):
        created = fill(Random(count), count)  # type: ignore[operator]
        _, requests = read(created, readers=12, seed=count)
        assert requests <= max(1, ceil(count / PAGE_SIZE)) + 4


def test_a_large_list_has_a_window_for_every_reader_after_few_pages() -> None:
    """Fewer than 50 of 500 pages are read before 12 windows are open."""
    source = List(even(Random(1), 50_000))
    windows = Windows([Window(None, 180 * DAY)])
    pages = 0
    while len(windows.open) < 12:
        taken = []
        while (window := windows.take()) is not None:
            taken.append(window)
        for window in taken:
            windows.record_page(window, *source.page(window))
            pages += 1
    assert pages < 50


def test_the_example_of_the_module_takes_18_rounds_and_106_requests() -> None:
    source, windows = List(list(range(0, 1_000_000, 100))), Windows([Window(None, 1_000_000)])
    rounds = requests = 0
    while not windows.is_done:
        taken = [window for _ in range(8) if (window := windows.take()) is not None]
        rounds, requests = rounds + 1, requests + len(taken)
        for window, page, has_more in [(window, *source.page(window)) for window in taken]:
            windows.record_page(window, page, has_more)
    assert (rounds, requests) == (18, 106)


def test_a_lost_cursor_repeats_only_objects_of_its_second() -> None:
    source = List([second for second in range(100) for _ in range(7)])
    windows = Windows([Window(None, 100)])
    window = windows.take()
    assert window is not None
    windows.record_page(window, *source.page(window))
    reached = window.cursor_at
    again = windows.take()
    assert again is window
    windows.drop_cursor(window)
    page, _ = source.page(window)
    assert page[0][1] == reached
