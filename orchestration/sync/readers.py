"""Reading side by side: threads that fetch and prepare pages, and one queue from which a single loader takes them.

Threads know HTTP and rows, never the warehouse; the loader knows the warehouse, never HTTP. The queue is bounded, so
that memory does not grow with the account: while the loader is behind, nobody asks Stripe for more. Any number of
threads wait for Stripe, but one at a time prepares rows: the interpreter runs one anyway, and the loader, which needs
it some ten times for each batch, would have to wait for its turn behind all of them.
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
from orchestration.sync.quarantine import Located, Unreadable, divide, redacted
from orchestration.sync.windows import Window, Windows
from orchestration.warehouse.checkpoints import OpenWindow
from orchestration.warehouse.rows import EventRow, ObjectRow

Rows = Sequence[ObjectRow | EventRow | Unreadable]

READERS: Final = 16
"""Threads for each list: enough for 25 requests a second, Stripe's limit for one endpoint, at a latency of 0.6 s."""

QUEUED_PAGES: Final = 48
"""Pages that may wait for the loader. With 100 objects of some 3 KB each: about 15 MB."""

BATCH_PAGES: Final = 80
BATCH_SECONDS: Final = 1.0
"""Pages, or seconds of reading, that are loaded in one transaction. A transaction costs some 50 ms of CPU
whatever its size, most of it in merges: twice the pages take a quarter less CPU for each object. A killed run repeats
what came in a second."""

_PATIENCE: Final = 0.2

_SWITCH_SECONDS: Final = 0.0005
"""How long a thread keeps the interpreter while others want it. With Python's own 5 ms the loader loses as much at each
of its calls."""

_COLLECTED_AFTER: Final = 100_000
"""Objects made before Python looks for cycles among them, 700 by itself. Parsed JSON has none: a sixth of the CPU."""


@dataclass(frozen=True)
class Page:
    """What came of one request. `open_windows` is what the source still has to read once this page is stored."""

    source: "Source"
    rows: Sequence[ObjectRow | EventRow]
    reached: int | None
    is_last: bool
    open_windows: tuple[OpenWindow, ...] = ()
    error: Exception | None = None
    unreadable: tuple[Located, ...] = ()


class Source(Protocol):
    """Something to read by many requests. `take` and `finish` are called under one lock, `ask` under none."""

    def take(self) -> Any:
        """The next request; None while there is none, until another one is finished."""

    def ask(self, client: StripeClient, request: Any, sent: Callable[[], object]) -> Any:
        """Send it; `sent` is called when its turn has come. None where Stripe does not know what was asked for."""

    def prepare(self, answer: Any) -> Rows:
        """The rows of an answer."""

    def finish(self, request: Any, answer: Any, rows: Rows) -> Page | None:
        """Note what came; None where the request has to be made again in another way."""

    @property
    def is_done(self) -> bool:
        """Every request has been answered."""


class ListSource:
    """A list, or windows of one."""

    def __init__(
        self, path: str, params: Mapping[str, Any], windows: Windows, prepare: Callable[[Answer], Rows]
    ) -> None:
        self._path, self._params, self._windows, self.prepare = path, params, windows, prepare

    @property
    def is_done(self) -> bool:
        return self._windows.is_done

    @property
    def pages_expected(self) -> float:
        """Pages still to come, as far as can be told."""
        return self._windows.pages_expected

    def take(self) -> tuple[Window, Window] | None:
        """A window, and a copy of it as it stands: it may be cut while it is read."""
        window = self._windows.take()
        return None if window is None else (window, replace(window))

    def ask(self, client: StripeClient, request: tuple[Window, Window], sent: Callable[[], object]) -> Answer | None:
        """A page of a window; None where the list no longer knows the window's cursor."""
        _, asked = request
        wanted = {
            **self._params,
            "created": {"gte": asked.floor, "lt": asked.ceiling},
            "limit": PAGE_SIZE,
            "starting_after": asked.cursor,
        }
        try:
            return client.list(self._path, wanted, sent=sent)
        except InvalidRequest:
            if asked.cursor is None or asked.cursor_at == asked.lost_at:
                raise
            return None

    def finish(self, request: tuple[Window, Window], answer: Answer | None, rows: Rows) -> Page | None:
        window, asked = request
        if answer is None:
            self._windows.cursor_lost(window)
            return None
        has_more = answer.body["has_more"]
        parts = divide(rows, asked, has_more)
        if parts.cursors or not has_more:
            self._windows.page_read(window, parts.cursors, has_more)
        elif parts.oldest is not None:
            self._windows.go_on_below(window, parts.oldest)
        else:
            raise StripeUnavailable(
                f"No object in a page of GET {self._path} can be read. Try again later, or ask Stripe's support.",
                fault="not_stripe",
            )
        still_open = tuple(window.to_stored() for window in self._windows.open)
        reached = parts.cursors[-1][1] if parts.cursors else None
        return Page(self, parts.rows, reached, not still_open, still_open, unreadable=parts.unreadable)


class RetrieveSource:
    """Single objects by their ids, each with one request."""

    def __init__(self, path: str, ids: Sequence[str], prepare: Callable[[Answer], Rows]) -> None:
        self._path, self.prepare = path, prepare
        self._ids, self._left = iter(ids), len(ids)

    @property
    def is_done(self) -> bool:
        return not self._left

    @property
    def pages_expected(self) -> float:
        """Requests still to come."""
        return self._left

    def take(self) -> str | None:
        return next(self._ids, None)

    def ask(self, client: StripeClient, request: str, sent: Callable[[], object]) -> Answer | None:
        """The object; None where Stripe no longer knows it."""
        try:
            return client.get(f"{self._path}/{request}", sent=sent)
        except InvalidRequest as error:
            if error.code != "resource_missing":
                raise
            return None

    def finish(self, request: str, answer: Answer | None, rows: Rows) -> Page:
        self._left -= 1
        readable = [row for row in rows if not isinstance(row, Unreadable)]
        unreadable = tuple(
            Located(request, redacted(request), row.reason, row.created or 0, (row.created or 0) + 1)
            for row in rows
            if type(row) is Unreadable
        )
        return Page(self, readable, None, self.is_done, unreadable=unreadable)


class Reading:
    """Threads that read some sources while the context lasts; `batches` hands over what they read.

    `add` lets them read more sources, also between two batches. Pages of one source come in the order in which the
    source noted them, so that the last page of a batch tells where the source stands once the batch is stored.
    """

    def __init__(self, client: StripeClient, sources: Sequence[Source]) -> None:
        self._client, self._sources = client, sources
        self._left: set[int] = set()
        self._silent: set[int] = set()
        self._preparing = threading.Lock()
        self._pages: Queue[Page] = Queue(QUEUED_PAGES)
        self._stopped = threading.Event()
        self._settings = ExitStack()

    def __enter__(self) -> "Reading":
        self._settings.enter_context(_interpreter_for_reading())
        self.add(self._sources)
        return self

    def add(self, sources: Sequence[Source]) -> None:
        """Read these sources, too."""
        for source in sources:
            self._left.add(id(source))
            self._silent.add(id(source))
            _Readers(self._client, source, self._put, self._stopped, self._preparing).start_one_more()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """A thread that is in mid-request ends after it, without a trace."""
        self._stopped.set()
        self._settings.close()

    def batches(self, idle: Callable[[], object] = lambda: None) -> Iterator[list[Page]]:
        """Yield pages as they come, some at a time, until every source has had its last or has failed. `idle` is called
        again and again while none comes.

        A batch ends early once every source has brought its first page, because the caller may then add sources.
        """
        while self._left:
            batch: list[Page] = []
            deadline = time.monotonic() + _PATIENCE
            while self._left and len(batch) < BATCH_PAGES and (page := self._page(deadline)) is not None:
                deadline = deadline if batch else time.monotonic() + BATCH_SECONDS
                batch.append(page)
                if page.is_last:
                    self._left.discard(id(page.source))
                if id(page.source) in self._silent:
                    self._silent.discard(id(page.source))
                    if not self._silent:
                        break
            if batch:
                yield batch
            else:
                idle()

    def _page(self, deadline: float) -> Page | None:
        """The next page; None where none has come by the deadline."""
        try:
            return self._pages.get(timeout=max(0.0, deadline - time.monotonic()))
        except Empty:
            return None

    def _put(self, page: Page) -> None:
        while not self._stopped.is_set():
            try:
                return self._pages.put(page, timeout=_PATIENCE)
            except Full:
                continue
        raise Stopped


@contextmanager
def _interpreter_for_reading() -> Iterator[None]:
    """The interpreter's settings for threads that handle parsed JSON, until the context is left."""
    switch_seconds, thresholds = sys.getswitchinterval(), gc.get_threshold()
    sys.setswitchinterval(_SWITCH_SECONDS)
    gc.set_threshold(_COLLECTED_AFTER, *thresholds[1:])
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        sys.setswitchinterval(switch_seconds)


class _Place:
    """A thread's place in the line, held by one at a time, until it leaves the line or the context."""

    def __init__(self, line: threading.Lock) -> None:
        self._line, self._has_left = line, False

    def __enter__(self) -> "_Place":
        self._line.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.leave()

    def leave(self) -> None:
        """Let the next one in; a second time, do nothing."""
        if not self._has_left:
            self._has_left = True
            self._line.release()


class _Readers:
    """The threads of one source: one more than there have been requests, up to READERS, since most lists are short.

    One at a time decides what to ask next and waits until it may be sent. Whoever decided while others wait would know
    less of how the list is filled, and cut it into more windows than Stripe's limits leave any use for.
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
        self._line = threading.Lock()
        self._has_failed = False
        self._started = 0

    def start_one_more(self) -> None:
        """Start a thread, unless there are enough. The caller holds the place in the line, or is the first."""
        if self._started < READERS:
            self._started += 1
            threading.Thread(target=self.work, name="recoup-reader", daemon=True).start()

    def work(self) -> None:
        """Read until the source is done, or something fails; that is then the source's last page."""
        try:
            while True:
                with _Place(self._line) as place:
                    request = self._next()
                    if request is None:
                        return
                    self.start_one_more()
                    answer = self._source.ask(self._client, request, place.leave)
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

    def _next(self) -> Any:
        with self._changed:
            while not (self._stopped.is_set() or self._has_failed or self._source.is_done):
                if (request := self._source.take()) is not None:
                    return request
                self._changed.wait(_PATIENCE)
        return None

    def _fail(self, error: Exception) -> None:
        with self._changed:
            if not self._has_failed and not self._stopped.is_set():
                self._has_failed = True
                with suppress(Stopped):
                    self._put(Page(self._source, [], None, is_last=True, error=error))
            self._changed.notify_all()
