"""How a list is cut into windows of time that are read side by side, at the cost of few more requests than one walk.

Pure: no requests, no storage, no clock. A walk over a list is sequential, since each page names the next one's cursor;
side by side go only windows of `created`. How time is filled is not known beforehand, so windows are cut from what the
pages show. Each cut costs one request at most, the short page at a window's end, so the number of cuts is bounded by
what is known for certain of the number of pages.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Final

from orchestration.stripe_api import PAGE_SIZE
from orchestration.warehouse.checkpoints import OpenWindow

CUTS_PER_PAGE: Final = 0.09
"""Cuts allowed for each page that seems to be needed, at the least of the densities that were seen."""

WASTE_PER_PAGE: Final = 0.05
"""Share of requests that may have been wasted on short pages before cutting pauses, whatever densities promise."""

WORTH_CUTTING: Final = 4.0
"""Pages that a window must still seem to hold to be cut: two round trips for each part."""

PROBE_PAGES: Final = 16
"""How far below the oldest page the next cut is tried where nothing older is known, for each page read so far."""


RECENT_PAGES: Final = 4
"""Pages of a window from which its density is taken: one alone may be a burst, all may span a gap of years."""


@dataclass(eq=False)
class Window:
    """A stretch of `created`, [floor, ceiling), read newest first down to `cursor`; instants are unix seconds.

    `floor` is None for the part that reaches back to the beginning; `lost_at` is the second of a cursor that was lost.
    """

    floor: int | None
    ceiling: int
    cursor: str | None = None
    cursor_at: int | None = None
    lost_at: int | None = None
    is_busy: bool = field(default=False, repr=False)
    pages: int = field(default=0, repr=False)
    first_at: int | None = field(default=None, repr=False)
    recent: deque[int] = field(default_factory=lambda: deque(maxlen=RECENT_PAGES + 1), repr=False)

    @classmethod
    def from_stored(cls, stored: OpenWindow) -> "Window":
        """Return the window that a checkpoint has stored."""
        return cls(stored.floor, stored.ceiling, stored.cursor, stored.cursor_at)

    def to_stored(self) -> OpenWindow:
        """Return what a checkpoint stores of the window: the part that is still to be read."""
        return OpenWindow(self.floor, self.ceiling, self.cursor, self.cursor_at)

    @property
    def top(self) -> int:
        """Everything in the window that was created after this second has been read."""
        return self.ceiling if self.cursor_at is None else self.cursor_at

    @property
    def seconds_left(self) -> float:
        return inf if self.floor is None else max(self.top - self.floor, 0)

    @property
    def sparse(self) -> float | None:
        """Seconds of `created` to a page, at the sparser of the last pages' and the whole window's density."""
        return max(self._paces(), default=None)

    @property
    def dense(self) -> float | None:
        """The same at the denser of the two. A burst, or a gap of years, sets them far apart."""
        return min(self._paces(), default=None)

    @property
    def pages_left(self) -> float:
        """Pages still to come by the sparser density; 0 before the first page."""
        return self.seconds_left / self.sparse if self.sparse else 0.0

    @property
    def is_worth_cutting(self) -> bool:
        """By the denser density it holds enough for two, and more than the one second that cannot be cut."""
        return self.dense is not None and self.seconds_left >= max(2, WORTH_CUTTING * self.dense)

    def _paces(self) -> list[float]:
        if self.first_at is None or not self.recent:
            return []
        recent = max(self.recent[0] - self.recent[-1], 1) / (len(self.recent) - 1)
        return [recent, max(self.first_at - self.recent[-1], 1) / self.pages]


class Windows:
    """The open windows of one walk, newest first. Windows are cut when a reader asks for work and none is idle."""

    def __init__(self, windows: Iterable[Window]) -> None:
        self.open = sorted(windows, key=lambda window: -window.ceiling)
        self.pages_read = 0
        self._wasted = 0.0

    @property
    def is_done(self) -> bool:
        """Nothing is left to read."""
        return not self.open

    @property
    def pages_expected(self) -> float:
        """Pages still to come, as far as can be told; infinite while nothing is known of the beginning."""
        return sum(window.pages_left if window.sparse else 1.0 for window in self.open)

    def take(self) -> Window | None:
        """A window to read the next page of; None where there is none until a page comes in."""
        window = next((window for window in self.open if not window.is_busy), None) or self._cut()
        if window is not None:
            window.is_busy = True
        return window

    def page_read(self, window: Window, page: Sequence[tuple[str, int]], has_more: bool) -> None:
        """A page of the window has come: the id and second of each object, newest first."""
        self.pages_read += 1
        window.is_busy = False
        if page:
            window.pages += 1
            window.first_at = page[0][1] if window.first_at is None else window.first_at
            window.cursor, window.cursor_at = page[-1]
            window.recent.extend([window.cursor_at] if window.recent else [page[0][1], window.cursor_at])
        new = [at for _, at in page if window.floor is None or at >= window.floor]
        if not has_more or len(new) < len(page):
            self.open.remove(window)
            self._wasted += 1 - len(new) / PAGE_SIZE

    def cursor_lost(self, window: Window) -> None:
        """The list no longer knows the cursor's object: go on by time, repeating at most the rows of one second."""
        window.is_busy = False
        if window.cursor_at is not None:
            window.ceiling = window.cursor_at + 1
        window.cursor, window.lost_at = None, window.cursor_at

    def go_on_below(self, window: Window, second: int) -> None:
        """Go on with what was created before this second: the page that came shows no cursor."""
        self.pages_read += 1
        window.is_busy = False
        window.ceiling, window.cursor, window.cursor_at, window.lost_at = second, None, None, None
        if window.floor is not None and second <= window.floor:
            self.open.remove(window)

    def _cut(self) -> Window | None:
        """Cut the window that seems to hold most, and return its older part."""
        if not self._may_cut():
            return None
        worth = [window for window in self.open if window.is_worth_cutting]
        if not worth:
            return None
        window = max(worth, key=lambda each: each.pages_left)
        at = int(window.top - self._reach(window))
        older = Window(window.floor, at)
        window.floor = at
        self.open.insert(self.open.index(window) + 1, older)
        return older

    def _may_cut(self) -> bool:
        if self._wasted > 0.5 + WASTE_PER_PAGE * self.pages_read:
            return False
        return self._wasted + len(self.open) / 2 <= 0.5 + CUTS_PER_PAGE * self._pages_certain()

    def _reach(self, window: Window) -> float:
        """How many seconds below its top a window is cut: in the middle, unless that is far beyond what is known."""
        assert window.sparse is not None
        known = PROBE_PAGES * self.pages_read * window.sparse
        return max(1, min(window.seconds_left / 2, known))

    def _pages_certain(self) -> float:
        """Pages read, and those of windows between two densities that were seen, at the lesser of them."""
        certain = float(self.pages_read)
        for window, older in zip(self.open, self.open[1:], strict=False):
            if window.sparse and older.sparse:
                certain += window.seconds_left / max(window.sparse, older.sparse)
        return certain
