"""Rate limits: decide when each request may be sent, for all threads that read one account.

The governor keeps to Stripe's documented limits, and to what its 429s show beyond them. The reason that a 429 states
says which limit to lower: the rate of the account, the rate of the endpoint, or the number of concurrent requests. A
lowered limit rises again with time: slowly at first, near the rate that was refused, then ever faster, because the
cause may have been temporary (the curve of TCP's CUBIC).
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
"""Requests a second for an account in live mode, in test mode, and for one endpoint (docs: rate limits, April 2026)."""

HEADROOM: Final = 0.95
"""Share of a documented rate that is used, because requests sent at equal intervals arrive at unequal ones."""

MAX_CONCURRENT_REQUESTS: Final = 40
"""Concurrent requests. Stripe limits these as well, and does not document the number."""

_RECHECK_SECONDS: Final = 0.2
"""Seconds after which a waiting request checks again whether the limit of concurrent requests has risen."""

BACKOFF_FACTOR: Final = 0.9
REPEATED_BACKOFF_FACTOR: Final = 0.75
"""Factors that lower a limit on a 429 that names it. A single 429 may be due to requests that arrived at unequal
intervals. A repeated 429 shows that the real limit is lower."""

REPEAT_WITHIN_SECONDS: Final = 10.0
"""Seconds after a 429 in which another one counts as repeated."""

BACKOFF_INTERVAL_SECONDS: Final = 1.0
"""Seconds in which a limit is lowered only once. Requests sent before the first 429 arrived show nothing new."""

RECOVERY_SECONDS: Final = 20.0
"""Seconds from the last 429 until a limit is back at its documented value, however low it was.

A limit rises slowly at first: in the first five seconds by about a sixtieth of the documented value. If the real limit
stays lower, because Stripe or the merchant's own requests leave less, one or two 429s about ten times a minute show it.
"""


@dataclass
class _Limit:
    """A limit that a 429 lowers and that rises again with time, between `minimum` and `maximum` (the documented one).

    The unit is requests a second, or concurrent requests. Times are seconds of the governor's clock.
    """

    maximum: float
    minimum: float
    lowered_to: float = field(init=False)
    lowered_at: float = field(init=False, default=float("-inf"))
    next_free_at: float = field(init=False, default=float("-inf"))

    def __post_init__(self) -> None:
        self.lowered_to = self.maximum

    def allowed_at(self, now: float) -> float:
        """Return the limit at this instant."""
        if now - self.lowered_at >= RECOVERY_SECONDS:
            return self.maximum
        return min(self.maximum, self.lowered_to + self.maximum * ((now - self.lowered_at) / RECOVERY_SECONDS) ** 3)

    def lower(self, now: float) -> None:
        """Lower the limit because of a 429, unless it has just been lowered."""
        since = now - self.lowered_at
        if since >= BACKOFF_INTERVAL_SECONDS:
            factor = REPEATED_BACKOFF_FACTOR if since < REPEAT_WITHIN_SECONDS else BACKOFF_FACTOR
            self.lowered_to, self.lowered_at = max(self.minimum, self.allowed_at(now) * factor), now

    def reserve(self, now: float) -> float:
        """Reserve the next free instant and return it."""
        free = max(now, self.next_free_at)
        self.next_free_at = free + 1 / self.allowed_at(now)
        return free


class Governor:
    """The rate limits of one account and its endpoints; it delays each request until they allow it.

    `clock` returns the time in seconds and `wait` pauses for a number of seconds; tests replace them.
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
        self._concurrency = _Limit(MAX_CONCURRENT_REQUESTS, 1.0)
        self._unanswered_count = 0
        self._slot_free = threading.Condition()

    @contextmanager
    def turn(self, endpoint: str) -> Iterator[None]:
        """Wait until a request to the endpoint may be sent. It counts as unanswered until the context ends."""
        with self._slot_free:
            while self._unanswered_count >= int(self._concurrency.allowed_at(self._clock())):
                self._slot_free.wait(_RECHECK_SECONDS)
            self._unanswered_count += 1
            pause = self._reserve(endpoint)
        try:
            if pause > 0:
                self._wait(pause)
            yield
        finally:
            with self._slot_free:
                self._unanswered_count -= 1
                self._slot_free.notify()

    def record_refusal(self, endpoint: str, reason: str) -> None:
        """Lower the limit that a 429 names in `Stripe-Rate-Limited-Reason`; an unknown reason changes nothing."""
        limits = {
            "global-rate": self._account,
            "endpoint-rate": self._endpoint(endpoint),
            "resource-specific": self._endpoint(endpoint),
            "global-concurrency": self._concurrency,
            "endpoint-concurrency": self._concurrency,
        }
        with self._slot_free:
            if reason in limits:
                limits[reason].lower(self._clock())

    def _endpoint(self, endpoint: str) -> _Limit:
        """Return the limit of the endpoint."""
        return self._endpoints.setdefault(endpoint, _Limit(ENDPOINT_RATE * HEADROOM, 0.5))

    def _reserve(self, endpoint: str) -> float:
        """Reserve the next free instant of the account and of the endpoint, and return the seconds until the later one.

        Each has its own queue, so that a busy endpoint does not delay the others.
        """
        now = self._clock()
        return max(limit.reserve(now) for limit in (self._account, self._endpoint(endpoint))) - now
