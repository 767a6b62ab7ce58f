"""When requests may go, on a clock that stands still unless somebody waits."""

import threading

import pytest

from orchestration.stripe_api.governor import ENDPOINT_RATE, HEADROOM, LIVE_RATE, SLOWED, TEST_RATE, Governor

INTENTS, CHARGES = "/v1/payment_intents", "/v1/charges"


class Clock:
    """Seconds; waiting moves it."""

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
    """Requests a second, one after the other, answered at once."""
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


def test_one_endpoint_that_waits_does_not_hold_up_another(clock: Clock) -> None:
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
def test_a_refusal_slows_what_it_names_and_answers_bring_it_back(
    reason: str, slowed: list[str], untouched: list[str], clock: Clock
) -> None:
    governor = Governor(livemode=True, clock=clock, wait=clock.wait)
    governor.refused(INTENTS, reason)
    assert rate(governor, clock, slowed, 50) == pytest.approx(ENDPOINT_RATE * HEADROOM * SLOWED)
    assert rate(governor, clock, untouched, 50) == pytest.approx(ENDPOINT_RATE * HEADROOM)
    for _ in range(100):
        governor.answered(INTENTS)
    clock.now += 10
    assert rate(governor, clock, slowed, 50) == pytest.approx(ENDPOINT_RATE * HEADROOM)


def test_a_storm_of_refusals_slows_once_in_a_second_and_never_stops(clock: Clock) -> None:
    governor = Governor(livemode=True, clock=clock, wait=clock.wait)
    for _ in range(20):
        governor.refused(INTENTS, "endpoint-rate")
    assert rate(governor, clock, [INTENTS], 20) == pytest.approx(ENDPOINT_RATE * HEADROOM * SLOWED)
    for _ in range(100):
        clock.now += 2
        governor.refused(INTENTS, "endpoint-rate")
    assert rate(governor, clock, [INTENTS], 5) >= 0.5


def test_a_lock_timeout_is_nobodys_rate(clock: Clock) -> None:
    governor = Governor(livemode=True, clock=clock, wait=clock.wait)
    governor.refused(INTENTS, "")
    assert rate(governor, clock, [INTENTS], 50) == pytest.approx(ENDPOINT_RATE * HEADROOM)


def test_a_refusal_for_concurrency_lets_fewer_go_at_once() -> None:
    governor = Governor(livemode=True, clock=lambda: 0.0, wait=lambda seconds: None)
    for _ in range(30):
        governor._at_once.slowed_at = float("-inf")
        governor.refused(INTENTS, "global-concurrency")
    entered, leave = threading.Semaphore(0), threading.Event()

    def stay() -> None:
        with governor.turn(INTENTS):
            entered.release()
            leave.wait()

    threads = [threading.Thread(target=stay, daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    assert entered.acquire(timeout=5)
    assert not entered.acquire(timeout=0.2), "the second waits until the first has left"
    leave.set()
    assert entered.acquire(timeout=5)
    for thread in threads:
        thread.join(5)
