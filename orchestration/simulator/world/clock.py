"""The clock that an account shares with its connected accounts."""

import time
from collections.abc import Callable


class Clock:
    """A simulated clock.

    Args:
        at: start time in Unix seconds.
        speed: simulated seconds per real second; 0 stops the clock until it is moved.
        monotonic: function that returns the seconds of the real clock.
    """

    def __init__(self, at: int, speed: float = 0.0, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._speed = speed
        self._set_at = monotonic()
        self._at = at

    @property
    def now(self) -> int:
        """Simulated time in Unix seconds."""
        return self._at + int((self._monotonic() - self._set_at) * self._speed)

    @now.setter
    def now(self, to: int) -> None:
        """Move the clock forward.

        Raises:
            ValueError: `to` is in the past.
        """
        if to < self.now:
            raise ValueError(f"the clock is at {self.now} and cannot go back to {to}")
        self._at, self._set_at = to, self._monotonic()

    @property
    def speed(self) -> float:
        """Simulated seconds per real second."""
        return self._speed

    @speed.setter
    def speed(self, to: float) -> None:
        self._at, self._set_at, self._speed = self.now, self._monotonic(), to
