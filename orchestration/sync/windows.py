"""Cut a list into windows of `created` that several threads read side by side, at the cost of a few extra requests.

Pure: no requests, no storage, no clock. A single list can only be read page by page, because each page supplies the
cursor of the next one. Windows of `created` can be read side by side. The distribution of objects over time is unknown
at first, so windows are cut using the pages read so far. Each cut costs at most one request: the short page at the end
of a window. The number of cuts is therefore limited by the number of pages that certainly exist.

Example: 10,000 objects, one every 100 seconds, the newest at second 1,000,000; eight threads. A page spans 10,000 s.

1. One window is open, without a floor. One thread reads its first page, down to second 990,000.
2. How far back the list reaches is unknown, so a cut is tried 16 pages (PROBE_PAGES) further down, at about 830,000.
   The newer window is [830,000, 1,000,000); the older one has no floor. Two threads read.
3. Both windows show 10,000 s a page. The oldest window is cut again, further down the more pages have been read. Five
   windows are open in the third round and eight in the fourth. Some of them lie before the first object: each costs
   one request for an empty page, after which no further cut is allowed for a while.
4. Once the beginning is known, the window with the most pages left is cut in the middle each time a thread is idle,
   while the budget of cuts (CUTS_PER_PAGE) and of short pages (WASTE_PER_PAGE) lasts.

All is read in 18 rounds and 106 requests. A single thread needs 100 rounds and 100 requests.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Final

from orchestration.stripe_api import PAGE_SIZE
from orchestration.warehouse.checkpoints import OpenWindow

CUTS_PER_PAGE: Final = 0.09
"""Cuts allowed for each page that is certainly needed, counted at the lowest density seen."""

WASTE_PER_PAGE: Final = 0.05
"""Share of requests that may be spent on short pages. Above it, no window is cut, whatever its density."""

MIN_PAGES_TO_CUT: Final = 4.0
"""Pages that a window must be expected to hold before it is cut: two round trips for each part."""

PROBE_PAGES: Final = 16
"""A cut is at most this many pages, times the pages read so far, below what has been read."""

RECENT_PAGES: Final = 4
"""Latest pages of a window that its current density is measured on. One page may be a burst of objects; all pages
together may span a gap of years."""


@dataclass(eq=False)
class Window:
    """A range of `created`, [floor, ceiling) in unix seconds, read newest first down to `cursor`.

    `floor` is None if the window reaches back to the beginning. `lost_at` is the second of a cursor that Stripe no
    longer knows. `first_at` is the second of the newest object read; `recent` holds the seconds between the
    latest pages.
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
        """Return the unread part of the window, as a checkpoint stores it."""
        return OpenWindow(self.floor, self.ceiling, self.cursor, self.cursor_at)

    @property
    def top(self) -> int:
        """Return the newest second that may still hold unread objects. All later ones have been read."""
        return self.ceiling if self.cursor_at is None else self.cursor_at

    @property
    def seconds_left(self) -> float:
        """Return the length of the unread part in seconds, or infinity if the window has no floor."""
        return inf if self.floor is None else max(self.top - self.floor, 0)

    @property
    def max_seconds_per_page(self) -> float | None:
        """Return the seconds of `created` that a page spans in the latest pages or in the whole window: the larger.

        None before the first page. A burst of objects, or a gap of years, sets the two figures far apart.
        """
        return max(self._measured_seconds_per_page(), default=None)

    @property
    def min_seconds_per_page(self) -> float | None:
        """Return the smaller of the two figures of `max_seconds_per_page`, or None before the first page."""
        return min(self._measured_seconds_per_page(), default=None)

    @property
    def pages_left(self) -> float:
        """Return the smaller estimate of the pages left: by the latest pages or the whole window. At first it is 0."""
        seconds_per_page = self.max_seconds_per_page
        return self.seconds_left / seconds_per_page if seconds_per_page else 0.0

    @property
    def is_worth_cutting(self) -> bool:
        """Return whether the window can be cut and, by the larger estimate, holds enough pages for two windows."""
        seconds_per_page = self.min_seconds_per_page
        # A single second cannot be cut.
        return seconds_per_page is not None and self.seconds_left >= max(2, MIN_PAGES_TO_CUT * seconds_per_page)

    def _measured_seconds_per_page(self) -> list[float]:
        """Return the seconds that a page spans in the latest pages and in the whole window; empty before the first."""
        if self.first_at is None or not self.recent:
            return []
        recent = max(self.recent[0] - self.recent[-1], 1) / (len(self.recent) - 1)
        return [recent, max(self.first_at - self.recent[-1], 1) / self.pages]


class Windows:
    """The open windows of one list, newest first. If all are busy when a thread asks for work, one is cut."""

    def __init__(self, windows: Iterable[Window]) -> None:
        self.open = sorted(windows, key=lambda window: -window.ceiling)
        self.pages_read = 0
        self._wasted = 0.0

    @property
    def is_done(self) -> bool:
        """Return whether nothing is left to read."""
        return not self.open

    @property
    def pages_expected(self) -> float:
        """Return the expected number of pages left; infinite until the beginning of the list is known."""
        return sum(window.pages_left if window.max_seconds_per_page else 1.0 for window in self.open)

    def take(self) -> Window | None:
        """Return a window to read the next page of, or None if there is none until a page arrives."""
        window = next((window for window in self.open if not window.is_busy), None) or self._cut()
        if window is not None:
            window.is_busy = True
        return window

    def record_page(self, window: Window, page: Sequence[tuple[str, int]], has_more: bool) -> None:
        """Record a page of the window, given the id and the second of `created` of each object, newest first."""
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

    def drop_cursor(self, window: Window) -> None:
        """Continue by time if Stripe no longer knows the cursor's object; at most the rows of one second repeat."""
        window.is_busy = False
        if window.cursor_at is not None:
            window.ceiling = window.cursor_at + 1
        window.cursor, window.lost_at = None, window.cursor_at

    def continue_below(self, window: Window, second: int) -> None:
        """Continue below this second because no object of the page can serve as a cursor."""
        self.pages_read += 1
        window.is_busy = False
        window.ceiling, window.cursor, window.cursor_at, window.lost_at = second, None, None, None
        if window.floor is not None and second <= window.floor:
            self.open.remove(window)

    def _cut(self) -> Window | None:
        """Cut the window with the most pages left and return its older part, or None if no cut is worthwhile."""
        if not self._can_afford_cut():
            return None
        candidates = [window for window in self.open if window.is_worth_cutting]
        if not candidates:
            return None
        window = max(candidates, key=lambda each: each.pages_left)
        at = int(window.top - self._cut_distance_seconds(window))
        older = Window(window.floor, at)
        window.floor = at
        self.open.insert(self.open.index(window) + 1, older)
        return older

    def _can_afford_cut(self) -> bool:
        """Return whether the short pages so far, and those that open windows will end with, leave room for a cut."""
        if self._wasted > 0.5 + WASTE_PER_PAGE * self.pages_read:
            return False
        return self._wasted + len(self.open) / 2 <= 0.5 + CUTS_PER_PAGE * self._certain_page_count()

    def _cut_distance_seconds(self, window: Window) -> float:
        """Return how far below its top a window is cut: in the middle, unless that is too far from known pages."""
        assert window.max_seconds_per_page is not None
        probe_seconds = PROBE_PAGES * self.pages_read * window.max_seconds_per_page
        return max(1, min(window.seconds_left / 2, probe_seconds))

    def _certain_page_count(self) -> float:
        """Return the pages read plus those left in windows with a known density on both sides, at the lower one."""
        certain = float(self.pages_read)
        for window, older in zip(self.open, self.open[1:], strict=False):
            if window.max_seconds_per_page and older.max_seconds_per_page:
                certain += window.seconds_left / max(window.max_seconds_per_page, older.max_seconds_per_page)
        return certain
