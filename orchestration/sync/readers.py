"""Read several sources at the same time: threads fetch pages and put them into a queue, and one loader takes them.

The threads use HTTP and make rows, and never use the warehouse. The loader uses the warehouse and no HTTP. The queue
is bounded, so that memory does not grow with the account: while the loader is behind, no thread requests another page.
Many threads wait for Stripe at the same time, but only one prepares rows. The interpreter runs one thread at a time
anyway. The loader needs it some ten times for each batch, and would have to wait for all the other threads.
"""

import gc
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from queue import Empty, Full, Queue
from types import TracebackType
from typing import Any, Final, Protocol

from orchestration.stripe_api import PAGE_SIZE, Answer, InvalidRequest, Stopped, StripeClient, StripeUnavailable
from orchestration.sync.quarantine import LocatedUnreadable, Unreadable, redact_id, split_page
from orchestration.sync.windows import Window, Windows
from orchestration.warehouse.checkpoints import OpenWindow
from orchestration.warehouse.rows import EventRow, ObjectRow

Rows = Sequence[ObjectRow | EventRow | Unreadable]

MAX_READERS: Final = 16
"""Threads for each source: enough for 25 requests a second, Stripe's limit for an endpoint, at a latency of 0.6 s."""

MAX_QUEUED_PAGES: Final = 48
"""Pages that may wait for the loader: about 15 MB, with 100 objects of some 3 KB in each."""

BATCH_PAGES: Final = 80
BATCH_SECONDS: Final = 1.0
"""Most pages, and most seconds of reading, that are loaded in one transaction. A transaction costs some 50 ms of CPU
whatever its size, most of it in merges: twice the pages take a quarter less CPU for each object. A killed sync repeats
at most one second of reading."""

_POLL_SECONDS: Final = 0.2
"""Longest wait in seconds before a thread checks again whether the reading has stopped."""

_SWITCH_SECONDS: Final = 0.0005
"""Seconds that a thread keeps the interpreter while other threads wait for it. With Python's default of 5 ms, the
loader waits that long at each of its calls."""

_GC_THRESHOLD: Final = 100_000
"""New objects after which Python looks for reference cycles; its default is 700. Parsed JSON has no cycles, and looking
for them takes a sixth of the CPU."""


@dataclass(frozen=True)
class Page:
    """The result of one request.

    `reached_at` is the oldest `created` in the page (unix seconds). `open_windows` are the parts of the source that are
    still unread once this page is stored. `error` is set if the source failed; the page is then its last one.
    """

    source: "Source"
    rows: Sequence[ObjectRow | EventRow]
    reached_at: int | None
    is_last: bool
    open_windows: tuple[OpenWindow, ...] = ()
    error: Exception | None = None
    unreadable: tuple[LocatedUnreadable, ...] = ()


class Source(Protocol):
    """Something that takes many requests to read.

    `take` and `finish` are called while holding one lock, `fetch` and `prepare` without it.
    """

    def take(self) -> Any:
        """Return the next request, or None if there is none until another one is finished."""

    def fetch(self, client: StripeClient, request: Any, on_sent: Callable[[], object]) -> Any:
        """Send the request and return its answer, or None if Stripe does not know the object that it names.

        `on_sent` is called when the rate limits allow the request to be sent.
        """

    def prepare(self, answer: Any) -> Rows:
        """Return the rows of an answer."""

    def finish(self, request: Any, answer: Any, rows: Rows) -> Page | None:
        """Record an answer and return its page, or None if the request must be made again in another way."""

    @property
    def is_done(self) -> bool:
        """Return whether every request has been answered."""


class ListSource:
    """A list at Stripe, or windows of it."""

    def __init__(
        self, path: str, params: Mapping[str, Any], windows: Windows, prepare: Callable[[Answer], Rows]
    ) -> None:
        self._path, self._params, self._windows, self.prepare = path, params, windows, prepare

    @property
    def is_done(self) -> bool:
        """Return whether all windows have been read."""
        return self._windows.is_done

    @property
    def pages_expected(self) -> float:
        """Return the expected number of pages left; infinite while it is unknown."""
        return self._windows.pages_expected

    def take(self) -> tuple[Window, Window] | None:
        """Return a window and a copy of its present state, because it may be cut while it is read."""
        window = self._windows.take()
        return None if window is None else (window, replace(window))

    def fetch(
        self, client: StripeClient, request: tuple[Window, Window], on_sent: Callable[[], object]
    ) -> Answer | None:
        """Return a page of the window, or None if Stripe no longer knows the window's cursor."""
        _, requested = request
        params = {
            **self._params,
            "created": {"gte": requested.floor, "lt": requested.ceiling},
            "limit": PAGE_SIZE,
            "starting_after": requested.cursor,
        }
        try:
            return client.list(self._path, params, on_sent=on_sent)
        except InvalidRequest:
            if requested.cursor is None or requested.cursor_at == requested.lost_at:
                raise
            return None

    def finish(self, request: tuple[Window, Window], answer: Answer | None, rows: Rows) -> Page | None:
        """Record a page of the window.

        Raises:
            StripeUnavailable: the page has a successor, and no object in it can be read, so that there is no cursor.
        """
        window, requested = request
        if answer is None:
            self._windows.drop_cursor(window)
            return None
        has_more = answer.body["has_more"]
        parts = split_page(rows, requested, has_more)
        if parts.cursors or not has_more:
            self._windows.record_page(window, parts.cursors, has_more)
        elif parts.oldest is not None:
            self._windows.continue_below(window, parts.oldest)
        else:
            raise StripeUnavailable(
                f"No object in a page of GET {self._path} can be read. Try again later, or contact Stripe support.",
                fault="not_stripe",
            )
        still_open = tuple(window.to_stored() for window in self._windows.open)
        reached_at = parts.cursors[-1][1] if parts.cursors else None
        return Page(self, parts.rows, reached_at, not still_open, still_open, unreadable=parts.unreadable)


class RetrieveSource:
    """Single objects, retrieved by id with one request each."""

    def __init__(self, path: str, ids: Sequence[str], prepare: Callable[[Answer], Rows]) -> None:
        self._path, self.prepare = path, prepare
        self._ids, self._unanswered_count = iter(ids), len(ids)

    @property
    def is_done(self) -> bool:
        """Return whether every object has been requested and answered."""
        return not self._unanswered_count

    @property
    def pages_expected(self) -> float:
        """Return the number of requests left."""
        return self._unanswered_count

    def take(self) -> str | None:
        """Return the next id, or None if all have been requested."""
        return next(self._ids, None)

    def fetch(self, client: StripeClient, request: str, on_sent: Callable[[], object]) -> Answer | None:
        """Return the object, or None if it no longer exists at Stripe."""
        try:
            return client.get(f"{self._path}/{request}", on_sent=on_sent)
        except InvalidRequest as error:
            if error.code != "resource_missing":
                raise
            return None

    def finish(self, request: str, answer: Answer | None, rows: Rows) -> Page:
        """Record an answer and return its page, which is empty if the object no longer exists."""
        self._unanswered_count -= 1
        readable = [row for row in rows if not isinstance(row, Unreadable)]
        unreadable = tuple(
            LocatedUnreadable(request, redact_id(request), row.reason, row.created or 0, (row.created or 0) + 1)
            for row in rows
            if type(row) is Unreadable
        )
        return Page(self, readable, None, self.is_done, unreadable=unreadable)


class Reading:
    """A context in which threads read sources; `batches` yields what they read.

    `add` adds more sources, also between two batches. The pages of one source arrive in the order in which the source
    recorded them. The last page of a batch therefore says how far its source has been read once the batch is stored.
    """

    def __init__(self, client: StripeClient, sources: Sequence[Source]) -> None:
        self._client, self._sources = client, sources
        self._unfinished: set[int] = set()
        self._unanswered: set[int] = set()
        self._preparing = threading.Lock()
        self._pages: Queue[Page] = Queue(MAX_QUEUED_PAGES)
        self._stopped = threading.Event()
        self._cleanup = ExitStack()

    def __enter__(self) -> "Reading":
        self._cleanup.enter_context(_interpreter_for_reading())
        self.add(self._sources)
        return self

    def add(self, sources: Sequence[Source]) -> None:
        """Start to read these sources as well."""
        for source in sources:
            self._unfinished.add(id(source))
            self._unanswered.add(id(source))
            _Readers(self._client, source, self._put, self._stopped, self._preparing).start_thread()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop the threads. Those that wait for an answer finish their request and discard the result."""
        self._stopped.set()
        self._cleanup.close()

    def batches(self, idle: Callable[[], object] = lambda: None) -> Iterator[list[Page]]:
        """Yield batches of pages until every source is done or has failed.

        While no page arrives, `idle` is called several times a second. A batch ends early once every source has
        returned its first page, because the caller may then add sources.
        """
        while self._unfinished:
            batch: list[Page] = []
            deadline = time.monotonic() + _POLL_SECONDS
            while self._unfinished and len(batch) < BATCH_PAGES and (page := self._next_page(deadline)) is not None:
                deadline = deadline if batch else time.monotonic() + BATCH_SECONDS
                batch.append(page)
                if page.is_last:
                    self._unfinished.discard(id(page.source))
                if id(page.source) in self._unanswered:
                    self._unanswered.discard(id(page.source))
                    if not self._unanswered:
                        break
            if batch:
                yield batch
            else:
                idle()

    def _next_page(self, deadline: float) -> Page | None:
        """Return the next page, or None if none arrives by the deadline (`time.monotonic`)."""
        try:
            return self._pages.get(timeout=max(0.0, deadline - time.monotonic()))
        except Empty:
            return None

    def _put(self, page: Page) -> None:
        """Put a page into the queue as soon as there is room.

        Raises:
            Stopped: the reading has stopped.
        """
        while not self._stopped.is_set():
            try:
                return self._pages.put(page, timeout=_POLL_SECONDS)
            except Full:
                continue
        raise Stopped


@contextmanager
def _interpreter_for_reading() -> Iterator[None]:
    """Tune the interpreter for threads that handle parsed JSON, and restore its settings at the end of the context."""
    switch_seconds, thresholds = sys.getswitchinterval(), gc.get_threshold()
    sys.setswitchinterval(_SWITCH_SECONDS)
    gc.set_threshold(_GC_THRESHOLD, *thresholds[1:])
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        sys.setswitchinterval(switch_seconds)


class _Turn:
    """A context that holds a lock, which may be released before the context ends."""

    def __init__(self, lock: threading.Lock) -> None:
        self._lock, self._is_released = lock, False

    def __enter__(self) -> "_Turn":
        self._lock.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()

    def release(self) -> None:
        """Release the lock if this has not been done yet."""
        if not self._is_released:
            self._is_released = True
            self._lock.release()


class _Readers:
    """The threads of one source. Each request starts one more, up to MAX_READERS, because most lists are short.

    One thread at a time decides what to request next, and waits until the request may be sent. Deciding late is better:
    more pages have been read by then, so fewer needless windows are cut.
    """

    def __init__(
        self,
        client: StripeClient,
        source: Source,
        put: Callable[[Page], None],
        stopped: threading.Event,
        preparing: threading.Lock,
    ) -> None:
        self._client, self._source, self._put, self._stopped = client, source, put, stopped
        self._preparing = preparing
        self._changed = threading.Condition()
        self._turn_lock = threading.Lock()
        self._has_failed = False
        self._started = 0

    def start_thread(self) -> None:
        """Start one more thread unless there are enough. The caller must hold the turn, unless it is the first."""
        if self._started < MAX_READERS:
            self._started += 1
            threading.Thread(target=self.run, name="recoup-reader", daemon=True).start()

    def run(self) -> None:
        """Read until the source is done or a request fails. A failure becomes the source's last page."""
        try:
            while True:
                with _Turn(self._turn_lock) as turn:
                    request = self._next_request()
                    if request is None:
                        return
                    self.start_thread()
                    answer = self._source.fetch(self._client, request, turn.release)
                with self._preparing:
                    rows = [] if answer is None else self._source.prepare(answer)
                with self._changed:
                    page = self._source.finish(request, answer, rows)
                    if page is not None and not self._has_failed:
                        self._put(page)
                    self._changed.notify_all()
        except Stopped:
            pass
        except Exception as error:
            self._fail(error)

    def _next_request(self) -> Any:
        """Return the next request, or None if there are no more or the reading has stopped."""
        with self._changed:
            while not (self._stopped.is_set() or self._has_failed or self._source.is_done):
                if (request := self._source.take()) is not None:
                    return request
                self._changed.wait(_POLL_SECONDS)
        return None

    def _fail(self, error: Exception) -> None:
        """Put the error into the queue as the source's last page; only the first error counts."""
        with self._changed:
            if not self._has_failed and not self._stopped.is_set():
                self._has_failed = True
                with suppress(Stopped):
                    self._put(Page(self._source, [], None, is_last=True, error=error))
            self._changed.notify_all()
