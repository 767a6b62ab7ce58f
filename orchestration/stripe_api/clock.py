"""Stripe's clock, from the `Date` of its answers and from this machine's clock. Neither is trusted alone.

If a sync trusted a clock that runs ahead, it would count time that has not passed yet as read, and never read it. So
there are two instants. `now` has certainly been reached: a sync counts as complete up to it. `latest` has certainly not
been passed: a sync requests everything up to it.
"""

import time
from collections.abc import Callable
from datetime import UTC
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Final
from urllib.parse import urlsplit

MAX_CLOCK_DIFFERENCE_SECONDS: Final = 2 * 86_400
"""Largest difference, in seconds, between a `Date` and this machine's clock. A machine is often wrong by the hours of a
time zone, and sometimes by a day. An answer with a larger difference is not used."""

_EARLIEST: Final = 1_262_304_000
_LATEST: Final = 2**33
"""Unix seconds, in 2010 and 2242. Stripe sends no `Date` outside this range."""


def is_stripe_address(api_base: str) -> bool:
    """Return whether the address is Stripe's own. Any other server, such as the simulator, may simulate time."""
    return f".{urlsplit(api_base).hostname}".endswith(".stripe.com")


def latest_instant(api_base: str) -> int | None:
    """Return the latest possible time (unix seconds) of a Stripe object, or None if time is simulated."""
    return int(time.time()) + MAX_CLOCK_DIFFERENCE_SECONDS if is_stripe_address(api_base) else None


class StripeClock:
    """Stripe's clock, as known from its answers and from this machine's clock. Instants are unix seconds.

    `own` is this machine's clock; None for a simulated Stripe, for which only `Date` counts. `setback` is the number of
    seconds by which later answers have put the clock back since the first one. An instance is not thread-safe.
    """

    def __init__(self, own: Callable[[], float] | None) -> None:
        self._own = own
        self._newest: int | None = None
        self._slowest = 0.0
        self.setback = 0.0

    @property
    def is_known(self) -> bool:
        """Return whether an answer has arrived."""
        return self._newest is not None

    @property
    def now(self) -> int:
        """Return an instant that all clocks involved have reached.

        Raises:
            RuntimeError: no answer has arrived yet.
        """
        if self._newest is None:
            raise RuntimeError("Stripe's clock is known only after a first answer")
        return self._newest if self._own is None else int(self._own() + self._slowest)

    @property
    def latest(self) -> int:
        """Return an instant that no clock involved has passed: the current time is not later."""
        return self.now if self._own is None or self._newest is None else max(self._newest, int(self._own()) + 1)

    def own_now(self) -> float:
        """Return the time of this machine's clock, or 0 if only `Date` counts."""
        return 0.0 if self._own is None else self._own()

    def days_apart(self, date: int) -> float:
        """Return the days by which a `Date` is ahead of this machine's clock, or 0 if the difference is acceptable."""
        if self._own is None:
            return 0.0
        apart = date - self._own()
        return apart / 86_400 if abs(apart) > MAX_CLOCK_DIFFERENCE_SECONDS else 0.0

    def record(self, date: int, sent_at: float) -> None:
        """Record the `Date` of an answer to a request that was sent at `sent_at` on this machine's clock.

        A correct `Date` is not before the second in which the request was sent, so a correct answer never puts the
        clock back, however slow it is. An earlier `Date` shows that this machine's clock is ahead.
        """
        is_first = self._newest is None
        self._newest = max(date, self._newest or date)
        if date + 1 - sent_at >= self._slowest:
            return
        if not is_first:
            self.setback += self._slowest - (date - sent_at)
        self._slowest = date - sent_at

    def read_no_earlier_than(self, date: int, known_before: int | None, sent_at: float) -> int:
        """Return an instant no later than the one at which Stripe read its answer. Call `record` first.

        `known_before` is `now` as it was before the request; None if there was no answer yet.
        """
        if self._own is None:
            return date if known_before is None else known_before
        return int(sent_at + self._slowest)

    def read_no_later_than(self, date: int, known_before: int | None) -> int:
        """Return an instant no earlier than the one at which Stripe read its answer. Call `record` first."""
        return max(date, known_before or date) if self._own is None else self.now + 1


@lru_cache(maxsize=64)
def parse_date(header: str) -> int | None:
    """Return the unix seconds of a `Date` header, or None if Stripe cannot have sent it."""
    try:
        parsed = parsedate_to_datetime(header)
        instant = int((parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp())
    except (TypeError, ValueError, OverflowError, IndexError):
        return None
    return instant if _EARLIEST <= instant < _LATEST else None
