"""The order of a sync. First, notice gaps in the event feeds. Then read incomplete lists and the feeds side by side,
and the events that came meanwhile. Then list objects without events. Last, read doubtful and open objects again.

The engine decides what to read and keeps the checkpoints; `readers` reads side by side, `warehouse` stores the rows.
Nothing here knows Dagster.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from itertools import chain
from math import ceil
from typing import Final, cast

from orchestration.base.account import AccountKey
from orchestration.stripe_api import (
    ALLOWANCE_PERIOD_SECONDS,
    AccessRefused,
    Answer,
    ReadBudget,
    RequestCounts,
    StripeClient,
)
from orchestration.stripe_api.identity import identify
from orchestration.sync.context import Progress, Run
from orchestration.sync.quarantine import Located, event_rows, object_rows
from orchestration.sync.readers import ListSource, Page, Reading, RetrieveSource, Rows, Source
from orchestration.sync.reread import Due, find_due, plan_again
from orchestration.sync.streams import (
    EVENT_FEEDS,
    EVENT_RETENTION,
    EVENTS_PATH,
    OBJECT_STREAMS,
    EventFeed,
    ObjectStream,
)
from orchestration.sync.windows import Window, Windows
from orchestration.warehouse.checkpoints import Checkpoint, OpenWindow
from orchestration.warehouse.connection import Warehouse, transaction
from orchestration.warehouse.load import LoadCounts
from orchestration.warehouse.quarantine import Quarantined, quarantined
from orchestration.warehouse.read_counts import has_event_since, payments_since, reads_since
from orchestration.warehouse.rows import EventRow, ObjectRow, ObjectTable

RETENTION_MARGIN: Final = 3_600
"""Seconds before the end of the retention at which a feed counts as broken: events could age out while it is read."""

HEAD_OVERLAP: Final = 300
"""Seconds before the last pass that a feed reads again. Stripe lists events with a delay: others report seconds, and
Estuary allows for a minute. Five times that costs an idle pass no request."""

MOMENT_SECONDS: Final = 1
"""Longest backfill in seconds that needs no last pass over the feeds: the next sync reads the events of that time."""

LISTED_ON_AFTER: Final = 86_400
QUIET_LISTED_ON_AFTER: Final = 7 * 86_400
"""Seconds after which a list is extended from where it ended, for objects without an event. The longer time holds if
the feed shows nothing new either. Each list takes a request for a hundred objects."""

QUARANTINED_AT_ONCE: Final = 50
"""Unreadable objects that a sync tries again, beginning with what was tried longest ago. Each takes a request."""

IDLE_REQUESTS: Final = 1 + len(EVENT_FEEDS)
"""Requests of a sync when nothing has changed: the account, which also sets the clock, and a page of each feed."""


@dataclass(frozen=True)
class SyncRequest:
    """Say what a sync reads beyond what has changed.

    `full_refresh` lists everything again; `created` lists again what was created in [from, until), in unix seconds.
    """

    full_refresh: bool = False
    created: tuple[int | None, int | None] | None = None

    @classmethod
    def of(cls, *, full_refresh: bool = False, created_from: str | None, created_until: str | None) -> "SyncRequest":
        """Return the request for days (2026-01-31) or instants (2026-01-31T12:00:00Z), in UTC unless they name a zone.

        Raises:
            ValueError: not a time, a range that ends before it begins, or both a range and everything. The text is
                for the reader.
        """
        if full_refresh and (created_from or created_until):
            raise ValueError("Everything is listed anew by a full refresh: ask for it, or for a range, not for both.")
        since, until = _instant("created_from", created_from), _instant("created_until", created_until)
        if since is not None and until is not None and since >= until:
            raise ValueError(f"The range of created ends ({created_until}) before it begins ({created_from}).")
        asked = created_from or created_until
        return cls(full_refresh, (since, until) if asked else None)


@dataclass(frozen=True)
class StreamState:
    """Say how far a stream is known after a sync. Instants are unix seconds on Stripe's clock."""

    missing_permission: str | None
    complete_through: int | None
    known_since: int | None


@dataclass
class SyncReport:
    """Hold the result of a sync, for the terminal and for Dagster's metadata.

    `data_through` is the instant up to which every readable stream is known; None where payment intents, charges or all
    events may not be read.
    `relisted` names feeds whose events had aged out, so that everything was listed anew. `feed_lag` is how many seconds
    the feeds were behind when the sync began; `read_by_day` counts what was read by the day of its creation (days since
    1970, UTC). `quarantined` counts by stream what could not be read, now or earlier.
    """

    account: AccountKey
    requests: RequestCounts
    counts: dict[str, LoadCounts] = field(default_factory=dict)
    streams: dict[str, StreamState] = field(default_factory=dict)
    relisted: list[str] = field(default_factory=list)
    reread: int = 0
    vanished: int = 0
    backfill_requests: int = 0
    feed_lag: int | None = None
    budget: ReadBudget | None = None
    read_by_day: Mapping[int, int] = field(default_factory=dict)
    quarantined: Mapping[str, int] = field(default_factory=dict)

    @property
    def missing(self) -> dict[str, str]:
        """Return the streams that the key may not read, with the missing permission."""
        return {name: state.missing_permission for name, state in self.streams.items() if state.missing_permission}

    @property
    def data_through(self) -> int | None:
        if {"payment_intents", "charges"} & self.missing.keys():
            return None
        through = [self.streams[feed.name].complete_through for feed in EVENT_FEEDS if feed.name not in self.missing]
        known = [instant for instant in through if instant is not None]
        return min(known, default=None) if len(known) == len(through) else None

    @property
    def written(self) -> int:
        """Return the number of rows inserted or changed in all raw tables."""
        return sum(counts.written for counts in self.counts.values())


def sync_account(
    client: StripeClient,
    warehouse: Warehouse,
    *,
    stated_id: str | None = None,
    request: SyncRequest | None = None,
    observe: Callable[[Progress], None] = lambda progress: None,
) -> SyncReport:
    """Bring the raw tables of the client's account up to Stripe's now.

    Crash-safe: an interrupted call leaves whole pages, and the next call continues from there. Between two batches, and
    while it waits for Stripe, the sync yields the warehouse to waiters.

    Raises:
        AuthenticationFailed, AccessRefused, InvalidRequest, StripeUnavailable: as `StripeClient.get`. A missing
            permission for one stream is not raised but reported, in the result and in `sync.streams`.
        AccountMismatch: `stated_id` is not the key's account.
        WarehouseBusy: another process holds the warehouse, or syncs this account, for too long.
    """
    client.counts = RequestCounts()
    account = identify(client, stated_id=stated_id)
    with warehouse.only(f"sync of {account.account_id} in {'live' if account.livemode else 'test'} mode"):
        return _Sync(Run(client, warehouse, account, observe), request or SyncRequest()).run()


@dataclass(eq=False)
class _Walk:
    """Hold a source, the table of its objects (None for events), and the checkpoint that its pages advance, if any.

    `is_beside_lists`: the pass does not complete its feed. A later pass does, once the lists have ended. `setback` is
    how far Stripe's clock had been put back (seconds) when the checkpoint was made by it.
    """

    stream: str
    source: ListSource | RetrieveSource
    table: ObjectTable | None
    checkpoint: Checkpoint | None = None
    is_beside_lists: bool = False
    setback: float = 0.0


class _Sync:
    def __init__(self, run: Run, request: SyncRequest) -> None:
        self._run, self._request = run, request
        self._report = SyncReport(run.account, run.client.counts, run.counts, read_by_day=run.read_by_day)

    def run(self) -> SyncReport:
        try:
            self._sync()
        finally:
            with transaction(self._run.connection):
                self._run.store_reads()
        self._report.budget = self._budget()
        self._report.quarantined = self._run.quarantined_by_stream()
        return self._report

    def _sync(self) -> None:
        self._report.feed_lag = self._lag()
        self._forget_what_must_be_listed_anew()
        is_first = self._lag() is None
        before, events_before = self._requests()
        lists = [walk for stream in OBJECT_STREAMS for walk in self._backfill(stream)]
        if lists:
            self._read(lists, beside=lambda: self._follow(is_beside_lists=True))
        else:
            self._read(self._follow())
        made, events = self._requests()
        if lists:
            self._read(self._follow_to_the_end())
        last_pass = self._requests()[0] - made
        self._report.backfill_requests = made - before + last_pass - (0 if is_first else events - events_before)
        self._read([walk for feed in EVENT_FEEDS for walk in self._list_on(feed)])
        self._read_again()
        self._read_quarantined_again()

    def _requests(self) -> tuple[int, int]:
        """Return the requests made so far, and how many of them were for events."""
        counts = self._run.client.counts
        return counts.requests, counts.by_endpoint.get(EVENTS_PATH, 0)

    @property
    def _readable(self) -> list[ObjectStream]:
        """Return the streams that the key may read, as far as is known yet."""
        return [stream for stream in OBJECT_STREAMS if stream.name not in self._report.missing]

    def _lag(self) -> int | None:
        """Return the seconds since the feeds were last read, or None before the first time."""
        through = [self._run.checkpoint(feed.name).complete_through for feed in EVENT_FEEDS]
        known = [instant for instant in through if instant is not None]
        return max(self._run.client.now - min(known), 0) if known else None

    def _budget(self) -> ReadBudget:
        since = self._run.client.now - ALLOWANCE_PERIOD_SECONDS
        return ReadBudget(
            used=reads_since(self._run.connection, self._run.account, since),
            transactions=payments_since(self._run.connection, self._run.account, since),
            poll_requests=max(IDLE_REQUESTS, self._run.client.counts.requests - self._report.backfill_requests),
        )

    # What to read.

    def _forget_what_must_be_listed_anew(self) -> None:
        """Reset the streams of feeds whose events aged out unread, so that they are listed again."""
        with transaction(self._run.connection):
            loader = self._run.loader()
            for stream in OBJECT_STREAMS:
                loader.doubt_the_future(stream.name, latest=self._run.client.latest + HEAD_OVERLAP)
        for feed in EVENT_FEEDS:
            states = [self._run.checkpoint(name) for name in (feed.name, *(stream.name for stream in feed.streams))]
            gap = has_gap(*states, now=self._run.client.now, latest=self._run.client.latest)
            if gap or self._request.full_refresh:
                with transaction(self._run.connection):
                    for state in states:
                        self._run.save(Checkpoint(state.stream))
            if gap:
                self._report.relisted.append(feed.name)

    def _backfill(self, stream: ObjectStream) -> Iterable[_Walk]:
        """Yield the stream's whole list if it is not complete yet, else the requested range."""
        state = self._run.checkpoint(stream.name)
        if state.complete_through is None:
            yield self._walk_objects(stream, self._walked_state(state), state.open_windows)
        else:
            self._tell(replace(state, missing_permission=None))
            if self._request.created is not None:
                since, until = self._request.created
                window = OpenWindow(since, self._run.client.latest + 1 if until is None else until)
                yield self._walk_objects(stream, None, (window,))

    def _walked_state(self, state: Checkpoint) -> Checkpoint:
        if state.is_walking:
            return replace(state, missing_permission=None)
        return Checkpoint(state.stream, walk_ceiling=self._run.client.now)

    def _walk_objects(
        self, stream: ObjectStream, state: Checkpoint | None, windows: Sequence[OpenWindow], *, again: bool = False
    ) -> _Walk:
        source = ListSource(
            stream.path,
            {},
            _windows(windows or [OpenWindow(None, self._run.client.latest + 1)]),
            partial(_listed_rows, table=stream.name, is_read_again=again),
        )
        return _Walk(stream.name, source, stream.name, state, setback=self._run.client.setback)

    def _follow(self, *, is_beside_lists: bool = False) -> list[_Walk]:
        """Return a pass over each feed. Which streams the key may read must be known."""
        return [walk for feed in EVENT_FEEDS for walk in self._pass_over(feed, is_beside_lists=is_beside_lists)]

    def _follow_to_the_end(self) -> list[_Walk]:
        """Return the last pass over each feed that was read beside lists, for events that came meanwhile.

        A feed that has already reached the present is completed without a request. A refused feed is asked for again
        only if one of its streams cannot be read: a permission lost in mid-list refuses the feed's types, too.
        """
        walks: list[_Walk] = []
        for feed in EVENT_FEEDS:
            state = self._run.checkpoint(feed.name)
            missing = self._report.missing
            if feed.name in missing and missing.keys().isdisjoint(stream.name for stream in feed.streams):
                continue
            if _has_reached(state, self._run.client.now - MOMENT_SECONDS):
                with transaction(self._run.connection):
                    self._save(_finished(state, self._run.client.latest))
                continue
            walks.extend(self._pass_over(feed))
        return walks

    def _pass_over(self, feed: EventFeed, *, is_beside_lists: bool = False) -> Iterable[_Walk]:
        """Yield the feed's next pass, over events of those streams that the key may read."""
        state = self._run.checkpoint(feed.name)
        types = feed.event_types([stream.name for stream in self._readable])
        if not types:
            self._tell(replace(state, missing_permission=self._report.missing[feed.streams[0].name]))
            return
        state = self._pass_on(state, self._run.client.now)
        source = ListSource(EVENTS_PATH, {"types": types}, _windows(state.open_windows), event_rows)
        yield _Walk(feed.name, source, None, state, is_beside_lists, self._run.client.setback)

    def _list_on(self, feed: EventFeed) -> Iterable[_Walk]:
        """Yield lists of newer objects: at each sync if the key may not read events, else after a longer time."""
        now = self._run.client.now
        for stream in feed.streams:
            state = self._run.checkpoint(stream.name)
            if stream.name in self._report.missing or state.complete_through is None:
                continue
            wait = 1 if feed.name in self._report.missing else self._wait_after(state.complete_through)
            if state.is_walking or now - state.complete_through >= wait:
                state = self._pass_on(state, now)
                yield self._walk_objects(stream, state, state.open_windows)

    def _wait_after(self, listed_through: int) -> int:
        """Return the seconds until a list is extended: fewer if an event is known since it ended."""
        has_news = has_event_since(self._run.connection, self._run.account, listed_through)
        return LISTED_ON_AFTER if has_news else QUIET_LISTED_ON_AFTER

    def _pass_on(self, state: Checkpoint, now: int) -> Checkpoint:
        """Return the checkpoint of a pass over what an interrupted pass left, and what came since."""
        if state.is_walking:
            assert state.walk_ceiling is not None
            floor = state.walk_floor
            windows: tuple[OpenWindow, ...] = (
                OpenWindow(state.walk_ceiling - HEAD_OVERLAP, self._run.client.latest + 1),
                *state.open_windows,
            )
        else:
            floor = now - EVENT_RETENTION if state.complete_through is None else state.complete_through - HEAD_OVERLAP
            windows = (OpenWindow(floor, self._run.client.latest + 1),)
        return replace(state, missing_permission=None, walk_floor=floor, walk_ceiling=now, open_windows=windows)

    def _read_again(self) -> None:
        """Read doubtful objects and due open ones again, after everything else, so that the answers are final.

        Objects still due after this pass no longer exist at Stripe; the stored version is kept.
        """
        now, streams = self._run.client.now, self._readable
        due = {stream: find_due(self._run.connection, self._run.account, stream.name, now=now) for stream in streams}
        self._report.reread += sum(map(len, due.values()))
        self._read([walk for stream in streams for walk in self._plan_again(stream, due[stream])])
        for stream in streams:
            if not due[stream] or stream.name in self._report.missing:
                continue
            still_due = find_due(self._run.connection, self._run.account, stream.name, now=now)
            vanished = [each for each in still_due if (stream.name, each.id) not in self._run.put]
            with transaction(self._run.connection):
                self._run.loader().settle(stream.name, [each.id for each in vanished], at=self._run.client.now)
            self._report.vanished += len(vanished)

    def _plan_again(self, stream: ObjectStream, due: Sequence[Due]) -> Iterable[_Walk]:
        plan = plan_again(due)
        if plan.windows:
            windows = [OpenWindow(window.floor, window.ceiling) for window in plan.windows]
            yield self._walk_objects(stream, None, windows, again=True)
        if plan.ids:
            source = RetrieveSource(stream.path, plan.ids, partial(_retrieved_rows, table=stream.name))
            yield _Walk(stream.name, source, stream.name)

    def _read_quarantined_again(self) -> None:
        """Read again some of what earlier syncs could not read. What is readable, or no longer there, is released."""
        oldest = self._run.client.now - EVENT_RETENTION
        feeds = [feed.name for feed in EVENT_FEEDS]
        tried = [
            each
            for each in quarantined(self._run.connection, self._run.account)
            if (each.stream, each.key) not in self._run.put
            and each.stream not in self._report.missing
            and (each.stream not in feeds or each.ceiling > oldest)
        ][:QUARANTINED_AT_ONCE]
        self._read(
            [walk for stream in dict.fromkeys(each.stream for each in tried) for walk in self._try(stream, tried)]
        )
        with transaction(self._run.connection):
            for each in tried:
                if (each.stream, each.key) not in self._run.put and each.stream not in self._report.missing:
                    self._run.release(each.stream, [each.key])

    def _try(self, name: str, tried: Sequence[Quarantined]) -> Iterable[_Walk]:
        """Yield what reads these objects of a stream or a feed again: retrieves of ids, and lists of short times."""
        of_stream = [each for each in tried if each.stream == name]
        for feed in EVENT_FEEDS:
            if feed.name == name:
                types = feed.event_types([stream.name for stream in self._readable])
                windows = [OpenWindow(each.floor, each.ceiling) for each in of_stream]
                yield _Walk(name, ListSource(EVENTS_PATH, {"types": types}, _windows(windows), event_rows), None)
        for stream in OBJECT_STREAMS:
            if stream.name == name:
                ids = [each.key for each in of_stream if each.object_id is not None]
                windows = [OpenWindow(each.floor, each.ceiling) for each in of_stream if each.object_id is None]
                if ids:
                    rows = partial(_retrieved_rows, table=stream.name)
                    yield _Walk(name, RetrieveSource(stream.path, ids, rows), stream.name)
                if windows:
                    yield self._walk_objects(stream, None, windows, again=True)

    # Reading and storing.

    def _read(self, walks: Sequence[_Walk], beside: Callable[[], Sequence[_Walk]] = tuple) -> None:
        """Read and store the walks. Once a page of each is stored, read the walks of `beside` at the same time."""
        if not walks:
            return
        of_source: dict[Source, _Walk] = {walk.source: walk for walk in walks}
        unanswered = set(of_source)
        with Reading(self._run.client, list(of_source)) as reading:
            for batch in reading.batches(self._run.warehouse.pause):
                pages: dict[_Walk, list[Page]] = {}
                for page in batch:
                    pages.setdefault(of_source[page.source], []).append(page)
                self._store(pages)
                if unanswered:
                    unanswered.difference_update(page.source for page in batch)
                    if not unanswered:
                        more: dict[Source, _Walk] = {walk.source: walk for walk in beside()}
                        of_source |= more
                        reading.add(list(more))
                self._observe(batch[-1], of_source)
                self._run.warehouse.pause()

    def _store(self, pages: Mapping[_Walk, Sequence[Page]]) -> None:
        """Store rows, the checkpoints that cover them, and the count of requests in one transaction."""
        objects: dict[ObjectTable, list[ObjectRow]] = {}
        events: list[EventRow] = []
        for walk, of_walk in pages.items():
            _raise_unless_missing(of_walk[-1].error)
            rows = [row for page in of_walk for row in page.rows]
            if walk.table is None:
                events += cast(list[EventRow], rows)
            else:
                objects.setdefault(walk.table, []).extend(cast(list[ObjectRow], rows))
        with transaction(self._run.connection):
            counts = self._run.loader().load(objects, events)
            for walk, of_walk in pages.items():
                self._run.release(walk.stream, (row.id for page in of_walk for row in page.rows))
                self._run.quarantine([_quarantined(walk, each) for page in of_walk for each in page.unreadable])
                self._move_on(walk, of_walk[-1])
            self._run.store_reads()
        listed = chain.from_iterable(objects.values())
        self._run.count(counts, chain((row.created for row in listed), (event.created for event in events)))

    def _move_on(self, walk: _Walk, last: Page) -> None:
        """Write the walk's checkpoint after its newest page."""
        if isinstance(last.error, AccessRefused):
            state = self._refused(walk, last.error)
        elif walk.checkpoint is None:
            return
        else:
            state = replace(walk.checkpoint, walk_ceiling=self._ceiling(walk), open_windows=last.open_windows)
            if last.is_last and not walk.is_beside_lists:
                state = _finished(state, self._run.client.latest)
        if state.missing_permission is None:
            self._pass_again_for_a_new(walk.stream)
        self._save(state)

    def _ceiling(self, walk: _Walk) -> int | None:
        """Return the end of the walk, which is earlier than it was thought if the clock has been put back since."""
        assert walk.checkpoint is not None
        ceiling = walk.checkpoint.walk_ceiling
        return None if ceiling is None else ceiling - ceil(self._run.client.setback - walk.setback)

    def _save(self, state: Checkpoint) -> None:
        """Write the checkpoint in the current transaction, and report it."""
        self._run.save(state)
        self._tell(state)

    def _refused(self, walk: _Walk, refusal: AccessRefused) -> Checkpoint:
        """Return the checkpoint after a refusal. A feed keeps its progress. A list begins again once it may be read:
        its feed continues without it meanwhile, and nothing records what it missed.
        """
        before = self._run.checkpoint(walk.stream) if walk.table is None else Checkpoint(walk.stream)
        return replace(before, missing_permission=refusal.permission)

    def _pass_again_for_a_new(self, stream: str) -> None:
        """Read retained events again when a stream becomes readable: earlier passes left out its events."""
        before = self._run.checkpoint(stream)
        if before.is_walking or before.complete_through is not None:
            return
        now = self._run.client.now
        floor = now - EVENT_RETENTION
        for feed in EVENT_FEEDS:
            of_feed = self._run.checkpoint(feed.name)
            was_passed = of_feed.is_walking or of_feed.complete_through is not None
            if was_passed and stream in [each.name for each in feed.streams]:
                self._run.save(
                    replace(
                        of_feed,
                        known_since=None,
                        walk_floor=floor,
                        walk_ceiling=now,
                        open_windows=(OpenWindow(floor, self._run.client.latest + 1),),
                    )
                )

    def _tell(self, state: Checkpoint) -> None:
        self._report.streams[state.stream] = StreamState(
            state.missing_permission, state.complete_through, state.known_since
        )

    def _observe(self, page: Page, walks: Mapping[Source, _Walk]) -> None:
        left = sum(walk.source.pages_expected for walk in walks.values())
        stream = walks[page.source].stream
        self._run.observe(Progress(stream, page.reached, self._run.counts, self._run.client.counts, left))


def _raise_unless_missing(error: Exception | None) -> None:
    """Raise the error, unless it is a missing permission: that affects one stream and is reported."""
    if error is not None and not (isinstance(error, AccessRefused) and error.permission):
        raise error


def _quarantined(walk: _Walk, each: Located) -> Quarantined:
    return Quarantined(walk.stream, each.key, each.id, each.reason, each.floor, each.ceiling)


def _windows(windows: Iterable[OpenWindow]) -> Windows:
    return Windows(map(Window.from_stored, windows))


def _instant(name: str, text: str | None) -> int | None:
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(
            f"{name} is {text!r}: give a day such as 2026-01-31, or an instant such as 2026-01-31T12:00:00Z."
        ) from None
    return int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp())


def has_gap(of_feed: Checkpoint, *of_streams: Checkpoint, now: int, latest: int | None = None) -> bool:
    """Return whether unread events of a feed aged out, or will while they are read.

    Before the feed's first pass, events since the listing of its streams count. A checkpoint that no clock has reached
    yet (`latest`) was made by a clock that ran ahead: how much it lacks cannot be told.
    """
    if latest is not None and any(_is_ahead(state, latest) for state in (of_feed, *of_streams)):
        return True
    reached = [of_feed.complete_through]
    if of_feed.complete_through is None:
        reached = [state.known_since or state.walk_ceiling for state in of_streams]
    oldest = min((instant for instant in reached if instant is not None), default=None)
    return oldest is not None and oldest - HEAD_OVERLAP <= now - EVENT_RETENTION + RETENTION_MARGIN


def _is_ahead(state: Checkpoint, latest: int) -> bool:
    instants = (state.complete_through, state.walk_ceiling)
    return any(instant is not None and instant > latest + HEAD_OVERLAP for instant in instants)


def _has_reached(state: Checkpoint, instant: int) -> bool:
    """Return whether a pass beside lists has read all events up to the instant."""
    return state.walk_ceiling is not None and not state.open_windows and state.walk_ceiling >= instant


def _finished(state: Checkpoint, now: int) -> Checkpoint:
    """Return the checkpoint of a completed pass. What was known before it remains so, whatever the clock says now.

    `known_since` of a list is the time of its full listing; of a feed, the start of its first pass, or of the retention
    at the end of that pass if that is later.
    """
    since = state.known_since
    if since is None:
        since = state.walk_ceiling if state.walk_floor is None else max(state.walk_floor, now - EVENT_RETENTION)
    through = [instant for instant in (state.complete_through, state.walk_ceiling) if instant is not None]
    return Checkpoint(state.stream, complete_through=max(through, default=None), known_since=since)


def _listed_rows(answer: Answer, *, table: ObjectTable, is_read_again: bool) -> Rows:
    return object_rows(answer.body["data"], answer, table, "list", is_read_again=is_read_again)


def _retrieved_rows(answer: Answer, *, table: ObjectTable) -> Rows:
    return object_rows([answer.body], answer, table, "retrieve", is_read_again=True)
