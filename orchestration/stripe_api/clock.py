"""What time it is at Stripe, by the `Date` of its answers and by this machine's clock, of which none is trusted alone.

A clock that runs ahead would let a sync believe that it knows what has not happened yet, and never ask for it. So there
are two instants: one that has certainly been reached, for what a sync vouches for, and one that is certainly not
passed, for what it asks for.
"""

import time
from collections.abc import Callable
from datetime import UTC
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Final
from urllib.parse import urlsplit

MAX_CLOCK_DIFFERENCE_SECONDS: Final = 2 * 86_400
"""Seconds that a `Date` may be away from this machine's clock. A machine is often wrong by the hours of a time zone,
also by a day; beyond this, an answer is not used."""

_EARLIEST: Final = 1_262_304_000
_LATEST: Final = 2**33
"""Unix seconds, in 2010 and 2242: what is outside is no time of Stripe's."""


def is_stripe_address(api_base: str) -> bool:
    """Return whether the address is Stripe's own. Any other server, such as the simulator, may live in its own time."""
    return f".{urlsplit(api_base).hostname}".endswith(".stripe.com")


def latest_instant(api_base: str) -> int | None:
    """Return the latest instant (unix seconds) that something of Stripe's can be dated; None if time is simulated."""
    return int(time.time()) + MAX_CLOCK_DIFFERENCE_SECONDS if is_stripe_address(api_base) else None


class StripeClock:
    """Stripe's clock, as far as the clocks seen agree. Instants are unix seconds. Not safe for threads by itself.

    `own` is this machine's clock. It is None for a simulated Stripe, whose time is its own: then only `Date` counts.
    """

    def __init__(self, own: Callable[[], float] | None) -> None:
        self._own = own
        self._newest: int | None = None
        self._slowest = 0.0
        self.setback = 0.0
        """Seconds by which later answers have put the clock back since the first one."""

    @property
    def is_known(self) -> bool:
        """Return whether an answer has come."""
        return self._newest is not None

    @property
    def now(self) -> int:
        """Return an instant that has been reached by all clocks seen.

        Raises:
            RuntimeError: no answer has come yet.
        """
        if self._newest is None:
            raise RuntimeError("Stripe's clock is known only after a first answer")
        return self._newest if self._own is None else int(self._own() + self._slowest)

    @property
    def latest(self) -> int:
        """Return an instant that no clock seen has passed."""
        return self.now if self._own is None or self._newest is None else max(self._newest, int(self._own()) + 1)

    def own(self) -> float:
        """Return this machine's clock; 0 if it does not count."""
        return 0.0 if self._own is None else self._own()

    def days_apart(self, date: int) -> float:
        """Return how many days a `Date` is ahead of this machine's clock, if that is too much to be used; else 0."""
        if self._own is None:
            return 0.0
        apart = date - self._own()
        return apart / 86_400 if abs(apart) > MAX_CLOCK_DIFFERENCE_SECONDS else 0.0

    def note(self, date: int, sent: float) -> None:
        """Note the `Date` of an answer to a request that was sent at `sent` on this machine's clock.

        An honest `Date` is not before the second in which the request was sent, so no honest answer puts the clock
        back, however slow. One that is earlier shows that this machine's clock is ahead.
        """
        is_first = self._newest is None
        self._newest = max(date, self._newest or date)
        if date + 1 - sent >= self._slowest:
            return
        if not is_first:
            self.setback += self._slowest - (date - sent)
        self._slowest = date - sent

    def vouched_at(self, date: int, known_before: int | None, sent: float) -> int:
        """Return an instant at or before the one at which Stripe read its answer. To be asked after `note`."""
        if self._own is None:
            return date if known_before is None else known_before
        return int(sent + self._slowest)

    def read_by(self, date: int, known_before: int | None) -> int:
        """Return an instant by which Stripe had certainly read its answer."""
        return max(date, known_before or date) if self._own is None else self.now + 1


@lru_cache(maxsize=64)
def parse_date(header: str) -> int | None:
    """Return the instant of a `Date` header, or None if it is none that Stripe could send."""
    try:
        parsed = parsedate_to_datetime(header)
        instant = int((parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp())
    except (TypeError, ValueError, OverflowError, IndexError):
        return None
    return instant if _EARLIEST <= instant < _LATEST else None
