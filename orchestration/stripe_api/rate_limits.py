"""When a request may be sent: one budget for all threads that read one account.

Keeps to Stripe's documented limits and to what its 429s say beyond them: by the stated reason the rate of the account,
the rate of the endpoint or the number of requests at once is lowered, and rises again with time: hardly at first, where
the limit was just met, then ever faster, since it was perhaps but a moment's (the curve of TCP's CUBIC).
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

LIVE_RATE: Final = 100.0
TEST_RATE: Final = 25.0
ENDPOINT_RATE: Final = 25.0
"""Requests a second: an account in live mode, in test mode, and one endpoint (docs: rate limits, April 2026)."""

HEADROOM: Final = 0.95
"""Share of a documented rate that is used: requests sent at even distances arrive at uneven ones."""

MAX_CONCURRENT_REQUESTS: Final = 40
"""Requests under way at once. Stripe limits them too, and does not say at how many."""

_PATIENCE: Final = 0.2
"""Seconds after which a request that waits for others to end looks whether time alone has made room."""

BACKOFF_FACTOR: Final = 0.9
REPEATED_BACKOFF_FACTOR: Final = 0.75
"""What a rate or the number of requests at once is multiplied by on a 429 that names it: one alone may come of requests
that arrived unevenly; another one soon after says that there is less than was thought."""

REPEAT_WITHIN_SECONDS: Final = 10.0
"""Seconds after a 429 in which another one is taken to be of the same cause."""

BACKOFF_INTERVAL_SECONDS: Final = 1.0
"""Seconds in which one limit is lowered once: requests sent before the first 429 came back say nothing new."""

RECOVERY_SECONDS: Final = 20.0
"""Seconds from the last 429 until a limit is back at what is documented, however low it was. After a quarter of them
it has regained a sixtieth: where Stripe, or the merchant's own requests, leave less for good, that is found out again
some ten times a minute, at the cost of a 429 or two."""


@dataclass
class _Limit:
    """Something that a 429 lowers by a factor and time raises again, between a floor and what is documented."""

    most: float
    least: float
    slowed_to: float = field(init=False)
    slowed_at: float = field(init=False, default=float("-inf"))
    free_at: float = field(init=False, default=float("-inf"))

    def __post_init__(self) -> None:
        self.slowed_to = self.most

    def at(self, now: float) -> float:
        """What is allowed at this instant."""
        if now - self.slowed_at >= RECOVERY_SECONDS:
            return self.most
        return min(self.most, self.slowed_to + self.most * ((now - self.slowed_at) / RECOVERY_SECONDS) ** 3)

    def slow(self, now: float) -> None:
        since = now - self.slowed_at
        if since >= BACKOFF_INTERVAL_SECONDS:
            factor = REPEATED_BACKOFF_FACTOR if since < REPEAT_WITHIN_SECONDS else BACKOFF_FACTOR
            self.slowed_to, self.slowed_at = max(self.least, self.at(now) * factor), now

    def reserve(self, now: float) -> float:
        """Take the next free instant."""
        free = max(now, self.free_at)
        self.free_at = free + 1 / self.at(now)
        return free


class Governor:
    """Lets requests go at the pace that the account and each endpoint allow.

    `clock` and `wait` stand in for real time in tests: seconds, and a pause of so many seconds.
    """

    def __init__(
        self,
        *,
        livemode: bool,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], object] = time.sleep,
    ) -> None:
        self._clock, self._wait = clock, wait
        self._account = _Limit((LIVE_RATE if livemode else TEST_RATE) * HEADROOM, 1.0)
        self._endpoints: dict[str, _Limit] = {}
        self._at_once = _Limit(MAX_CONCURRENT_REQUESTS, 1.0)
        self._under_way = 0
        self._slot_free = threading.Condition()

    @contextmanager
    def turn(self, endpoint: str) -> Iterator[None]:
        """Wait until a request to the endpoint may be sent; it is under way until the block is left."""
        with self._slot_free:
            while self._under_way >= int(self._at_once.at(self._clock())):
                self._slot_free.wait(_PATIENCE)
            self._under_way += 1
            pause = self._reserve(endpoint)
        try:
            if pause > 0:
                self._wait(pause)
            yield
        finally:
            with self._slot_free:
                self._under_way -= 1
                self._slot_free.notify()

    def record_refusal(self, endpoint: str, reason: str) -> None:
        """A 429 came with this `Stripe-Rate-Limited-Reason`. Other reasons than Stripe's rate limits change nothing."""
        limits = {
            "global-rate": self._account,
            "endpoint-rate": self._endpoint(endpoint),
            "resource-specific": self._endpoint(endpoint),
            "global-concurrency": self._at_once,
            "endpoint-concurrency": self._at_once,
        }
        with self._slot_free:
            if reason in limits:
                limits[reason].slow(self._clock())

    def _endpoint(self, endpoint: str) -> _Limit:
        return self._endpoints.setdefault(endpoint, _Limit(ENDPOINT_RATE * HEADROOM, 0.5))

    def _reserve(self, endpoint: str) -> float:
        """Take the next free instant of the account and the endpoint; seconds until then. Each keeps its own distances:
        one endpoint's queue does not hold up the others."""
        now = self._clock()
        return max(limit.reserve(now) for limit in (self._account, self._endpoint(endpoint))) - now
