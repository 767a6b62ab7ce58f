"""When requests may be sent, on a clock that only moves when the test waits."""

import threading
from collections import deque
from contextlib import ExitStack, suppress

import pytest

from orchestration.stripe_api.rate_limits import (
    BACKOFF_FACTOR,
    ENDPOINT_RATE,
    HEADROOM,
    LIVE_RATE,
    MAX_CONCURRENT_REQUESTS,
    RECOVERY_SECONDS,
    TEST_RATE,
    Governor,
)

INTENTS, CHARGES = "/v1/payment_intents", "/v1/charges"


class Clock:
    """A clock in seconds that waiting moves forward."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


def rate(governor: Governor, clock: Clock, endpoints: list[str], count: int) -> float:
    """Return the requests per second of sequential requests that are answered at once."""
    started = clock.now
    for number in range(count):
        with governor.turn(endpoints[number % len(endpoints)]):
            pass
    return (count - 1) / (clock.now - started)


def test_one_endpoint_gets_its_documented_rate(clock: Clock) -> None:
    governor = Governor(livemode=True, clock=clock, wait=clock.wait)
    assert rate(governor, clock, [INTENTS], 200) == pytest.approx(ENDPOINT_RATE * HEADROOM)


def test_all_endpoints_together_keep_to_the_rate_of_the_account(clock: Clock) -> None:
    many = [f"/v1/{number}" for number in range(10)]
    for livemode, documented in ((True, LIVE_RATE), (False, TEST_RATE)):
        governor = Governor(livemode=livemode, clock=clock, wait=clock.wait)
        assert rate(governor, clock, many, 400) == pytest.approx(documented * HEADROOM, rel=0.01)


def test_a_waiting_endpoint_does_not_delay_another(clock: Clock) -> None:
    governor = Governor(livemode=True, clock=clock, wait=lambda seconds: waits.append(seconds))
    waits: list[float] = []
    for _ in range(30):
        with governor.turn(INTENTS):
            pass
    waits.clear()
    with governor.turn(CHARGES):
        pass
    assert sum(waits) < 1


@pytest.mark.parametrize(
    ("reason", "slowed", "untouched"),
    [("endpoint-rate", [INTENTS], [CHARGES]), ("resource-specific", [INTENTS], [CHARGES])],
)
def test_a_refusal_slows_the_endpoint_it_names_until_the_recovery_time_has_passed(
    reason: str, slowed: list[str], untouched: list[str], clock: Clock
) -> None:
    governor = Governor(livemode=True, clock=clock, wait=clock.wait)
    governor.record_refusal(INTENTS, reason)
    assert rate(governor, clock, slowed, 20) == pytest.approx(ENDPOINT_RATE * HEADROOM * BACKOFF_FACTOR, rel=0.01)
    assert rate(governor, clock, untouched, 50) == pytest.approx(ENDPOINT_RATE * HEADROOM)
    clock.now += RECOVERY_SECONDS
    assert rate(governor, clock, slowed, 50) == pytest.approx(ENDPOINT_RATE * HEADROOM)


def test_repeated_refusals_lower_the_rate_once_a_second_and_never_to_zero(clock: Clock) -> None:
    governor = Governor(livemode=True, clock=clock, wait=clock.wait)
    for _ in range(20):
        governor.record_refusal(INTENTS, "endpoint-rate")
    assert rate(governor, clock, [INTENTS], 10) == pytest.approx(ENDPOINT_RATE * HEADROOM * BACKOFF_FACTOR, rel=0.01)
    for _ in range(100):
        clock.now += 2
        governor.record_refusal(INTENTS, "endpoint-rate")
    assert rate(governor, clock, [INTENTS], 5) >= 0.5


@pytest.mark.parametrize("allowed", [3, 10, 20])
def test_a_limit_below_the_documented_one_is_found_and_rarely_exceeded_again(allowed: int, clock: Clock) -> None:
    """The merchant's own requests use the rest of the limit, so few requests of Recoup may be refused."""
    governor = Governor(livemode=True, clock=clock, wait=clock.wait)
    accepted: deque[float] = deque()
    tried, refused, settled_at = 0, 0, 30.0
    while clock.now < 300:
        with governor.turn(INTENTS):
            while accepted and accepted[0] <= clock.now - 1:
                accepted.popleft()
            is_refused = len(accepted) >= allowed
            if is_refused:
                governor.record_refusal(INTENTS, "endpoint-rate")
            else:
                accepted.append(clock.now)
            if clock.now > settled_at:
                tried, refused = tried + 1, refused + is_refused
    assert refused <= 0.06 * tried
    assert tried - refused >= 0.75 * allowed * (300 - settled_at)


MANY = [f"/v1/{number}" for number in range(10)]


@pytest.mark.parametrize(
    ("reason", "of_endpoint", "of_others"),
    [
        ("global-rate", ENDPOINT_RATE, LIVE_RATE * BACKOFF_FACTOR),
        ("endpoint-rate", ENDPOINT_RATE * BACKOFF_FACTOR, LIVE_RATE),
        ("resource-specific", ENDPOINT_RATE * BACKOFF_FACTOR, LIVE_RATE),
        ("global-concurrency", ENDPOINT_RATE, LIVE_RATE),
        ("endpoint-concurrency", ENDPOINT_RATE, LIVE_RATE),
        ("a-reason-that-is-not-known-yet", ENDPOINT_RATE, LIVE_RATE),
    ],
)
def test_each_reason_lowers_only_the_rate_it_names(
    reason: str, of_endpoint: float, of_others: float, clock: Clock
) -> None:
    """`of_others` is the rate of many other endpoints together, which only the account's rate limits."""
    for endpoints, expected in (([INTENTS], of_endpoint), (MANY, of_others)):
        governor = Governor(livemode=True, clock=clock, wait=clock.wait)
        governor.record_refusal(INTENTS, reason)
        assert rate(governor, clock, endpoints, 20) == pytest.approx(expected * HEADROOM, rel=0.01)


@pytest.mark.parametrize(
    ("reason", "allowed"),
    [
        ("global-rate", MAX_CONCURRENT_REQUESTS),
        ("endpoint-rate", MAX_CONCURRENT_REQUESTS),
        ("resource-specific", MAX_CONCURRENT_REQUESTS),
        ("global-concurrency", int(MAX_CONCURRENT_REQUESTS * BACKOFF_FACTOR)),
        ("endpoint-concurrency", int(MAX_CONCURRENT_REQUESTS * BACKOFF_FACTOR)),
        ("a-reason-that-is-not-known-yet", MAX_CONCURRENT_REQUESTS),
    ],
)
def test_only_a_concurrency_reason_lowers_the_number_of_concurrent_requests(
    reason: str, allowed: int, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    class IsFull(Exception):
        """The governor waits for a request to end."""

    def wait(self: threading.Condition, timeout: float | None = None) -> bool:
        raise IsFull

    governor = Governor(livemode=True, clock=clock, wait=lambda seconds: None)
    governor.record_refusal(INTENTS, reason)
    monkeypatch.setattr(threading.Condition, "wait", wait)
    under_way = 0
    with ExitStack() as stack, suppress(IsFull):
        while under_way <= MAX_CONCURRENT_REQUESTS:
            stack.enter_context(governor.turn(CHARGES))
            under_way += 1
    assert under_way == allowed


@pytest.mark.parametrize("reason", ["global-concurrency", "endpoint-concurrency"])
def test_repeated_concurrency_refusals_leave_one_request_at_a_time(reason: str, clock: Clock) -> None:
    governor = Governor(livemode=True, clock=clock, wait=lambda seconds: None)
    for _ in range(30):
        clock.now += 2
        governor.record_refusal(INTENTS, reason)
    entered, leave = threading.Semaphore(0), threading.Event()

    def stay() -> None:
        with governor.turn(INTENTS):
            entered.release()
            leave.wait()

    threads = [threading.Thread(target=stay, daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    assert entered.acquire(timeout=5)
    assert not entered.acquire(timeout=0.2), "the second request waits until the first has ended"
    leave.set()
    assert entered.acquire(timeout=5)
    for thread in threads:
        thread.join(5)
