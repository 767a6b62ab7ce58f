"""Run the phases of a sync: backfill, change feed, and re-read.

A sync runs these phases in this order (`_Sync.run_phases`):

1. Reset the streams whose events aged out of the change feed before they were read.
2. Read the backfill (all lists that are not complete) and the change feed side by side.
3. Finish the change feed: read the events that arrived during the backfill.
4. Extend the listings by new objects that have no event.
5. Re-read objects whose state is in doubt, and open objects that are due.
6. Retry quarantined objects that earlier syncs could not read.

The engine decides what to read and keeps the checkpoints. `readers` reads from Stripe with threads, and `warehouse`
stores the rows. The engine does not depend on Dagster.
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
from orchestration.sync.quarantine import LocatedUnreadable, event_rows, object_rows
from orchestration.sync.readers import ListSource, Page, Reading, RetrieveSource, Rows, Source
from orchestration.sync.reread import DueObject, find_due, plan_reread
from orchestration.sync.streams import (
    EVENT_FEEDS,
    EVENT_RETENTION_SECONDS,
    EVENTS_PATH,
    OBJECT_STREAMS,
    EventFeed,
    ObjectStream,
)
from orchestration.sync.windows import Window, Windows
from orchestration.warehouse.checkpoints import Checkpoint, OpenWindow
from orchestration.warehouse.connection import Warehouse, transaction
from orchestration.warehouse.load import LoadCounts
from orchestration.warehouse.quarantine import QuarantinedObject, read_quarantine
from orchestration.warehouse.read_counts import count_payments_since, count_reads_since, has_event_since
from orchestration.warehouse.rows import EventRow, ObjectRow, ObjectTable

RETENTION_MARGIN_SECONDS: Final = 3_600
"""A feed counts as broken this many seconds before its events age out, because they could do so while it is read."""

OVERLAP_SECONDS: Final = 300
"""Seconds by which a pass over a change feed overlaps the one before. Stripe lists events with a delay: users report
seconds, and Estuary allows a minute. Five minutes cost an idle sync no additional request."""

SHORT_BACKFILL_SECONDS: Final = 1
"""After a backfill this short, phase 3 is skipped: the next sync reads those events."""

RELIST_AFTER_SECONDS: Final = 86_400
IDLE_RELIST_AFTER_SECONDS: Final = 7 * 86_400
"""Seconds after which a listing is extended from where it ended, to find objects without an event. The longer time
applies if the change feed shows nothing new either. A listing takes one request for a hundred objects."""

MAX_QUARANTINE_RETRIES: Final = 50
"""Largest number of quarantined objects that one sync reads again, each with one request. The one that was tried
longest ago comes first."""

IDLE_REQUESTS: Final = 1 + len(EVENT_FEEDS)
"""Requests of a sync if nothing has changed: the account, which also sets the clock, and one page of each feed."""


@dataclass(frozen=True)
class SyncRequest:
    """The objects that a sync reads in addition to what has changed.

    `full_refresh` lists everything again. `created` lists again what was created in [from, until), in unix seconds.
    """

    full_refresh: bool = False
    created: tuple[int | None, int | None] | None = None

    @classmethod
    def of(cls, *, full_refresh: bool = False, created_from: str | None, created_until: str | None) -> "SyncRequest":
        """Return the request for a range of days (2026-01-31) or instants (2026-01-31T12:00:00Z), or a full refresh.

        Times without a time zone are in UTC.

        Raises:
            ValueError: a text is not a time, the range ends before it begins, or both a range and a full refresh are
                given. The message is shown to the user.
        """
        if full_refresh and (created_from or created_until):
            raise ValueError("A full refresh lists everything again. Ask for it or for a range, not for both.")
        since, until = _instant("created_from", created_from), _instant("created_until", created_until)
        if since is not None and until is not None and since >= until:
            raise ValueError(f"created_until ({created_until}) must be later than created_from ({created_from}).")
        has_range = created_from or created_until
        return cls(full_refresh, (since, until) if has_range else None)


@dataclass(frozen=True)
class StreamState:
    """The state of a stream after a sync. Instants are unix seconds on Stripe's clock.

    The stream is complete from `known_since` through `complete_through`.
    """

    missing_permission: str | None
    complete_through: int | None
    known_since: int | None


@dataclass
class SyncReport:
    """The result of a sync, for the terminal and for Dagster's metadata.

    Attributes:
        account: the account that was read.
        requests: the requests of this sync.
        counts: rows read and written, by raw table.
        streams: the state of each stream.
        relisted_feeds: change feeds whose events had aged out, so that their streams were listed again.
        reread_count: objects that were due for a re-read.
        vanished_count: those of them that Stripe no longer returns.
        backfill_requests: requests that a sync of a known account does not repeat.
        feed_lag_seconds: age of the change feeds' watermark when the sync began. None at the first sync.
        budget: the reads of the last 30 days and Stripe's allowance.
        read_by_day: objects and events read, by the day of their creation (days since 1970, UTC).
        quarantined: objects in quarantine by stream, whichever sync put them there.
    """

    account: AccountKey
    requests: RequestCounts
    counts: dict[str, LoadCounts] = field(default_factory=dict)
    streams: dict[str, StreamState] = field(default_factory=dict)
    relisted_feeds: list[str] = field(default_factory=list)
    reread_count: int = 0
    vanished_count: int = 0
    backfill_requests: int = 0
    feed_lag_seconds: int | None = None
    budget: ReadBudget | None = None
    read_by_day: Mapping[int, int] = field(default_factory=dict)
    quarantined: Mapping[str, int] = field(default_factory=dict)

    @property
    def missing(self) -> dict[str, str]:
        """Return the missing permission of each stream that the key may not read."""
        return {name: state.missing_permission for name, state in self.streams.items() if state.missing_permission}

    @property
    def data_through(self) -> int | None:
        """Return the watermark: the instant (unix seconds) through which every readable stream is known.

        None if the key may not read payment intents, charges or any events, or if a change feed is not complete.
        """
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
    """Update the raw tables of the client's account to the current state at Stripe, and return a report.

    Crash-safe: an interrupted call leaves whole pages, and the next call continues from there. The sync yields the
    warehouse to waiters between two batches and while it waits for Stripe. It calls `observe` after each batch.

    Raises:
        AuthenticationFailed, AccessRefused, InvalidRequest, StripeUnavailable: as `StripeClient.get`. A missing
            permission for one stream is not raised; the report and `sync.streams` name it.
        AccountMismatch: the key belongs to another account than `stated_id`.
        WarehouseBusy: another process holds the warehouse, or syncs this account, for too long.
    """
    client.counts = RequestCounts()
    account = identify(client, stated_id=stated_id)
    with warehouse.exclusive(f"sync of {account.account_id} in {'live' if account.livemode else 'test'} mode"):
        return _Sync(Run(client, warehouse, account, observe), request or SyncRequest()).run()


@dataclass(eq=False)
class _ReadTask:
    """A source to read, the table of its objects (None for events), and the checkpoint that its pages advance, if any.

    `is_beside_backfill`: the task runs during the backfill, so it leaves its change feed incomplete. Phase 3 completes
    it. `setback` is how far (seconds) Stripe's clock had been put back when the task was made.
    """

    stream: str
    source: ListSource | RetrieveSource
    table: ObjectTable | None
    checkpoint: Checkpoint | None = None
    is_beside_backfill: bool = False
    setback: float = 0.0


class _Sync:
    """One sync of one account."""

    def __init__(self, run: Run, request: SyncRequest) -> None:
        self._run, self._request = run, request
        self._report = SyncReport(run.account, run.client.counts, run.counts, read_by_day=run.read_by_day)

    def run(self) -> SyncReport:
        """Run all phases and return the report. The requests made are stored even if a phase fails."""
        try:
            self.run_phases()
        finally:
            with transaction(self._run.connection):
                self._run.store_reads()
        self._report.budget = self._budget()
        self._report.quarantined = self._run.quarantined_by_stream()
        return self._report

    def run_phases(self) -> None:
        """Run the phases in order."""
        self._report.feed_lag_seconds = self._feed_lag_seconds()
        self._reset_streams_with_gaps()
        is_first_sync = self._feed_lag_seconds() is None
        start, start_events = self._request_counts()
        has_backfill = self._read_backfill_and_change_feed()
        _, polled_events = self._request_counts()
        if has_backfill:
            self._finish_change_feed()
        # The next sync polls the change feed again. All other requests up to here belong to the backfill.
        polling = 0 if is_first_sync else polled_events - start_events
        self._report.backfill_requests = self._request_counts()[0] - start - polling
        self._extend_listings()
        self._reread_due_objects()
        self._retry_quarantined()

    def _request_counts(self) -> tuple[int, int]:
        """Return the number of requests made so far, and of those for events."""
        counts = self._run.client.counts
        return counts.requests, counts.by_endpoint.get(EVENTS_PATH, 0)

    @property
    def _readable(self) -> list[ObjectStream]:
        """Return the streams that have not been refused to the key so far."""
        return [stream for stream in OBJECT_STREAMS if stream.name not in self._report.missing]

    def _feed_lag_seconds(self) -> int | None:
        """Return the seconds since the change feeds were last complete, or None before the first time."""
        through = [self._run.checkpoint(feed.name).complete_through for feed in EVENT_FEEDS]
        known = [instant for instant in through if instant is not None]
        return max(self._run.client.now - min(known), 0) if known else None

    def _budget(self) -> ReadBudget:
        """Return the reads and the allowance of the last 30 days, this sync included."""
        since = self._run.client.now - ALLOWANCE_PERIOD_SECONDS
        return ReadBudget(
            used=count_reads_since(self._run.connection, self._run.account, since),
            transactions=count_payments_since(self._run.connection, self._run.account, since),
            poll_requests=max(IDLE_REQUESTS, self._run.client.counts.requests - self._report.backfill_requests),
        )

    # Phase 1: gaps.

    def _reset_streams_with_gaps(self) -> None:
        """Reset the streams of change feeds whose events aged out unread, so that the backfill lists them again.

        A full refresh resets all streams. Objects that are dated in the future are marked for a re-read.
        """
        with transaction(self._run.connection):
            loader = self._run.loader()
            for stream in OBJECT_STREAMS:
                loader.reset_future_rows(stream.name, latest=self._run.client.latest + OVERLAP_SECONDS)
        for feed in EVENT_FEEDS:
            states = [self._run.checkpoint(name) for name in (feed.name, *(stream.name for stream in feed.streams))]
            gap = has_gap(*states, now=self._run.client.now, latest=self._run.client.latest)
            if gap or self._request.full_refresh:
                with transaction(self._run.connection):
                    for state in states:
                        self._run.save(Checkpoint(state.stream))
            if gap:
                self._report.relisted_feeds.append(feed.name)

    # Phase 2: backfill and change feed.

    def _read_backfill_and_change_feed(self) -> bool:
        """Read the backfill and the change feeds side by side, and return whether there was a backfill.

        The change feeds start once each list has answered, because only then is it known which streams the key may
        read.
        """
        backfill = [task for stream in OBJECT_STREAMS for task in self._backfill_tasks(stream)]
        if backfill:
            self._read(backfill, then_beside=lambda: self._change_feed_tasks(is_beside_backfill=True))
        else:
            self._read(self._change_feed_tasks())
        return bool(backfill)

    def _backfill_tasks(self, stream: ObjectStream) -> Iterable[_ReadTask]:
        """Yield the task for the stream's whole list if it is not complete, else for the requested range, if any."""
        state = self._run.checkpoint(stream.name)
        if state.complete_through is None:
            yield self._list_task(stream, self._backfill_checkpoint(state), state.open_windows)
        else:
            self._record_state(replace(state, missing_permission=None))
            if self._request.created is not None:
                since, until = self._request.created
                window = OpenWindow(since, self._run.client.latest + 1 if until is None else until)
                yield self._list_task(stream, None, (window,))

    def _backfill_checkpoint(self, state: Checkpoint) -> Checkpoint:
        """Return the checkpoint from which the backfill continues, or a new one."""
        if state.is_walking:
            return replace(state, missing_permission=None)
        return Checkpoint(state.stream, walk_ceiling=self._run.client.now)

    def _list_task(
        self,
        stream: ObjectStream,
        state: Checkpoint | None,
        windows: Sequence[OpenWindow],
        *,
        is_reread: bool = False,
    ) -> _ReadTask:
        """Return the task that lists these windows of the stream, or the whole stream if there are none."""
        source = ListSource(
            stream.path,
            {},
            _windows(windows or [OpenWindow(None, self._run.client.latest + 1)]),
            partial(_listed_rows, table=stream.name, is_reread=is_reread),
        )
        return _ReadTask(stream.name, source, stream.name, state, setback=self._run.client.setback)

    def _change_feed_tasks(self, *, is_beside_backfill: bool = False) -> list[_ReadTask]:
        """Return a task for each change feed. The lists must have shown before which streams the key may read."""
        return [task for feed in EVENT_FEEDS for task in self._feed_tasks(feed, is_beside_backfill=is_beside_backfill)]

    def _feed_tasks(self, feed: EventFeed, *, is_beside_backfill: bool = False) -> Iterable[_ReadTask]:
        """Yield the task for the feed's next pass, over events of the streams that the key may read; else nothing."""
        state = self._run.checkpoint(feed.name)
        types = feed.event_types([stream.name for stream in self._readable])
        if not types:
            self._record_state(replace(state, missing_permission=self._report.missing[feed.streams[0].name]))
            return
        state = self._next_pass(state, self._run.client.now)
        source = ListSource(EVENTS_PATH, {"types": types}, _windows(state.open_windows), event_rows)
        yield _ReadTask(feed.name, source, None, state, is_beside_backfill, self._run.client.setback)

    def _next_pass(self, state: Checkpoint, now: int) -> Checkpoint:
        """Return the checkpoint of a pass over everything since the last one, and what an interrupted one left."""
        if state.is_walking:
            assert state.walk_ceiling is not None
            floor = state.walk_floor
            windows: tuple[OpenWindow, ...] = (
                OpenWindow(state.walk_ceiling - OVERLAP_SECONDS, self._run.client.latest + 1),
                *state.open_windows,
            )
        else:
            known_through = state.complete_through
            floor = now - EVENT_RETENTION_SECONDS if known_through is None else known_through - OVERLAP_SECONDS
            windows = (OpenWindow(floor, self._run.client.latest + 1),)
        return replace(state, missing_permission=None, walk_floor=floor, walk_ceiling=now, open_windows=windows)

    # Phase 3: the end of the change feed.

    def _finish_change_feed(self) -> None:
        """Read the events that arrived during the backfill, and complete the change feeds.

        A feed that has already reached the present is completed without a request. A refused feed is requested again
        only if one of its streams cannot be read: Stripe refuses the whole feed if one of its types is not allowed.
        """
        tasks: list[_ReadTask] = []
        for feed in EVENT_FEEDS:
            state = self._run.checkpoint(feed.name)
            missing = self._report.missing
            if feed.name in missing and missing.keys().isdisjoint(stream.name for stream in feed.streams):
                continue
            if _has_reached(state, self._run.client.now - SHORT_BACKFILL_SECONDS):
                with transaction(self._run.connection):
                    self._save(_completed(state, self._run.client.latest))
                continue
            tasks.extend(self._feed_tasks(feed))
        self._read(tasks)

    # Phase 4: listings.

    def _extend_listings(self) -> None:
        """List objects that are newer than the end of a listing, to find those without an event."""
        self._read([task for feed in EVENT_FEEDS for task in self._extension_tasks(feed)])

    def _extension_tasks(self, feed: EventFeed) -> Iterable[_ReadTask]:
        """Yield the tasks for listings that are due: at each sync if the key may not read the feed, else rarely."""
        now = self._run.client.now
        for stream in feed.streams:
            state = self._run.checkpoint(stream.name)
            if stream.name in self._report.missing or state.complete_through is None:
                continue
            wait = 1 if feed.name in self._report.missing else self._relist_after_seconds(state.complete_through)
            if state.is_walking or now - state.complete_through >= wait:
                state = self._next_pass(state, now)
                yield self._list_task(stream, state, state.open_windows)

    def _relist_after_seconds(self, listed_through: int) -> int:
        """Return the age at which a listing is extended: lower if an event is known since it ended."""
        has_news = has_event_since(self._run.connection, self._run.account, listed_through)
        return RELIST_AFTER_SECONDS if has_news else IDLE_RELIST_AFTER_SECONDS

    # Phase 5: re-read.

    def _reread_due_objects(self) -> None:
        """Re-read objects in doubt, and open ones that are due. This comes late, so that the answers are final.

        Objects that are still due afterwards no longer exist at Stripe; the stored version is kept.
        """
        now, streams = self._run.client.now, self._readable
        due = {stream: find_due(self._run.connection, self._run.account, stream.name, now=now) for stream in streams}
        self._report.reread_count += sum(map(len, due.values()))
        self._read([task for stream in streams for task in self._reread_tasks(stream, due[stream])])
        for stream in streams:
            if not due[stream] or stream.name in self._report.missing:
                continue
            still_due = find_due(self._run.connection, self._run.account, stream.name, now=now)
            vanished = [each for each in still_due if (stream.name, each.id) not in self._run.unreadable]
            with transaction(self._run.connection):
                self._run.loader().clear_needs_read(
                    stream.name, [each.id for each in vanished], at=self._run.client.now
                )
            self._report.vanished_count += len(vanished)

    def _reread_tasks(self, stream: ObjectStream, due: Sequence[DueObject]) -> Iterable[_ReadTask]:
        """Yield the tasks that re-read these objects with the fewest requests."""
        plan = plan_reread(due)
        if plan.windows:
            windows = [OpenWindow(window.floor, window.ceiling) for window in plan.windows]
            yield self._list_task(stream, None, windows, is_reread=True)
        if plan.ids:
            yield self._retrieve_task(stream, plan.ids)

    def _retrieve_task(self, stream: ObjectStream, ids: Sequence[str]) -> _ReadTask:
        """Return the task that retrieves these objects one by one."""
        source = RetrieveSource(stream.path, ids, partial(_retrieved_rows, table=stream.name))
        return _ReadTask(stream.name, source, stream.name)

    # Phase 6: quarantine.

    def _retry_quarantined(self) -> None:
        """Read again some objects that earlier syncs could not read.

        Those that can be read now, or no longer exist, leave the quarantine.
        """
        oldest = self._run.client.now - EVENT_RETENTION_SECONDS
        feeds = [feed.name for feed in EVENT_FEEDS]
        retried = [
            each
            for each in read_quarantine(self._run.connection, self._run.account)
            if (each.stream, each.key) not in self._run.unreadable
            and each.stream not in self._report.missing
            and (each.stream not in feeds or each.ceiling > oldest)
        ][:MAX_QUARANTINE_RETRIES]
        names = dict.fromkeys(each.stream for each in retried)
        self._read([task for name in names for task in self._quarantine_tasks(name, retried)])
        with transaction(self._run.connection):
            for each in retried:
                if (each.stream, each.key) not in self._run.unreadable and each.stream not in self._report.missing:
                    self._run.release(each.stream, [each.key])

    def _quarantine_tasks(self, name: str, retried: Sequence[QuarantinedObject]) -> Iterable[_ReadTask]:
        """Yield the tasks that read these objects of a stream or a feed again.

        An object with an id is retrieved. Events, and objects without an id, are listed by the time of their creation.
        """
        in_stream = [each for each in retried if each.stream == name]
        for feed in EVENT_FEEDS:
            if feed.name == name:
                types = feed.event_types([stream.name for stream in self._readable])
                windows = [OpenWindow(each.floor, each.ceiling) for each in in_stream]
                yield _ReadTask(name, ListSource(EVENTS_PATH, {"types": types}, _windows(windows), event_rows), None)
        for stream in OBJECT_STREAMS:
            if stream.name == name:
                ids = [each.key for each in in_stream if each.object_id is not None]
                windows = [OpenWindow(each.floor, each.ceiling) for each in in_stream if each.object_id is None]
                if ids:
                    yield self._retrieve_task(stream, ids)
                if windows:
                    yield self._list_task(stream, None, windows, is_reread=True)

    # All phases: reading and storing.

    def _read(self, tasks: Sequence[_ReadTask], then_beside: Callable[[], Sequence[_ReadTask]] = tuple) -> None:
        """Read the tasks and store what they return.

        Once one page of each task is stored, the tasks of `then_beside` are read at the same time.
        """
        if not tasks:
            return
        by_source: dict[Source, _ReadTask] = {task.source: task for task in tasks}
        unanswered = set(by_source)
        with Reading(self._run.client, list(by_source)) as reading:
            for batch in reading.batches(self._run.warehouse.pause):
                pages: dict[_ReadTask, list[Page]] = {}
                for page in batch:
                    pages.setdefault(by_source[page.source], []).append(page)
                self._store(pages)
                if unanswered:
                    unanswered.difference_update(page.source for page in batch)
                    if not unanswered:
                        more: dict[Source, _ReadTask] = {task.source: task for task in then_beside()}
                        by_source |= more
                        reading.add(list(more))
                self._report_progress(batch[-1], by_source)
                self._run.warehouse.pause()

    def _store(self, pages: Mapping[_ReadTask, Sequence[Page]]) -> None:
        """Store the rows, the checkpoints that cover them, and the number of requests in one transaction."""
        objects: dict[ObjectTable, list[ObjectRow]] = {}
        events: list[EventRow] = []
        for task, task_pages in pages.items():
            _raise_unless_missing_permission(task_pages[-1].error)
            rows = [row for page in task_pages for row in page.rows]
            if task.table is None:
                events += cast(list[EventRow], rows)
            else:
                objects.setdefault(task.table, []).extend(cast(list[ObjectRow], rows))
        with transaction(self._run.connection):
            counts = self._run.loader().load(objects, events)
            for task, task_pages in pages.items():
                self._run.release(task.stream, (row.id for page in task_pages for row in page.rows))
                self._run.quarantine([_quarantined(task, each) for page in task_pages for each in page.unreadable])
                self._advance_checkpoint(task, task_pages[-1])
            self._run.store_reads()
        listed = chain.from_iterable(objects.values())
        self._run.count(counts, chain((row.created for row in listed), (event.created for event in events)))

    def _advance_checkpoint(self, task: _ReadTask, last: Page) -> None:
        """Save the task's checkpoint after its latest page."""
        if isinstance(last.error, AccessRefused):
            state = self._refused_checkpoint(task, last.error)
        elif task.checkpoint is None:
            return
        else:
            state = replace(task.checkpoint, walk_ceiling=self._pass_ceiling(task), open_windows=last.open_windows)
            if last.is_last and not task.is_beside_backfill:
                state = _completed(state, self._run.client.latest)
        if state.missing_permission is None:
            self._rescan_events_for(task.stream)
        self._save(state)

    def _pass_ceiling(self, task: _ReadTask) -> int | None:
        """Return the ceiling of the pass (unix seconds), lowered by what the clock has been put back since it began."""
        assert task.checkpoint is not None
        ceiling = task.checkpoint.walk_ceiling
        return None if ceiling is None else ceiling - ceil(self._run.client.setback - task.setback)

    def _save(self, state: Checkpoint) -> None:
        """Save the checkpoint in the current transaction, and record it in the report."""
        self._run.save(state)
        self._record_state(state)

    def _refused_checkpoint(self, task: _ReadTask, refusal: AccessRefused) -> Checkpoint:
        """Return the checkpoint after a refusal.

        A change feed keeps its progress. A list starts from the beginning once the key may read it, because its
        change feed skips the stream's events until then, and does not note which.
        """
        before = self._run.checkpoint(task.stream) if task.table is None else Checkpoint(task.stream)
        return replace(before, missing_permission=refusal.permission)

    def _rescan_events_for(self, stream: str) -> None:
        """Reset the change feed of a stream that has become readable, because earlier passes left out its events."""
        before = self._run.checkpoint(stream)
        if before.is_walking or before.complete_through is not None:
            return
        now = self._run.client.now
        floor = now - EVENT_RETENTION_SECONDS
        for feed in EVENT_FEEDS:
            feed_state = self._run.checkpoint(feed.name)
            was_read = feed_state.is_walking or feed_state.complete_through is not None
            if was_read and stream in [each.name for each in feed.streams]:
                self._run.save(
                    replace(
                        feed_state,
                        known_since=None,
                        walk_floor=floor,
                        walk_ceiling=now,
                        open_windows=(OpenWindow(floor, self._run.client.latest + 1),),
                    )
                )

    def _record_state(self, state: Checkpoint) -> None:
        """Record the stream's state in the report."""
        self._report.streams[state.stream] = StreamState(
            state.missing_permission, state.complete_through, state.known_since
        )

    def _report_progress(self, page: Page, tasks: Mapping[Source, _ReadTask]) -> None:
        """Pass the progress after this page to the observer."""
        pages_left = sum(task.source.pages_expected for task in tasks.values())
        stream = tasks[page.source].stream
        self._run.observe(Progress(stream, page.reached_at, self._run.counts, self._run.client.counts, pages_left))


def _raise_unless_missing_permission(error: Exception | None) -> None:
    """Raise the error unless it is a missing permission, which affects one stream and is reported."""
    if error is not None and not (isinstance(error, AccessRefused) and error.permission):
        raise error


def _quarantined(task: _ReadTask, each: LocatedUnreadable) -> QuarantinedObject:
    """Return the quarantine entry of an unreadable object."""
    return QuarantinedObject(task.stream, each.key, each.id, each.reason, each.floor, each.ceiling)


def _windows(windows: Iterable[OpenWindow]) -> Windows:
    """Return the windows that a checkpoint has stored, ready to be read."""
    return Windows(map(Window.from_stored, windows))


def _instant(name: str, text: str | None) -> int | None:
    """Return the unix seconds of a day or instant in ISO 8601, in UTC if it names no time zone."""
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(
            f"{name} is {text!r}: give a day such as 2026-01-31, or an instant such as 2026-01-31T12:00:00Z."
        ) from None
    return int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp())


def has_gap(feed_state: Checkpoint, *stream_states: Checkpoint, now: int, latest: int | None = None) -> bool:
    """Return whether unread events of a change feed have aged out, or will while they are read.

    Before the feed's first pass, its events count from the listing of its streams. A checkpoint later than `latest`
    counts as a gap: a clock that ran ahead made it, and what it lacks is unknown. Instants are unix seconds.
    """
    if latest is not None and any(_is_ahead(state, latest) for state in (feed_state, *stream_states)):
        return True
    reached = [feed_state.complete_through]
    if feed_state.complete_through is None:
        reached = [state.known_since or state.walk_ceiling for state in stream_states]
    oldest = min((instant for instant in reached if instant is not None), default=None)
    return oldest is not None and oldest - OVERLAP_SECONDS <= now - EVENT_RETENTION_SECONDS + RETENTION_MARGIN_SECONDS


def _is_ahead(state: Checkpoint, latest: int) -> bool:
    """Return whether the checkpoint is dated in the future."""
    instants = (state.complete_through, state.walk_ceiling)
    return any(instant is not None and instant > latest + OVERLAP_SECONDS for instant in instants)


def _has_reached(state: Checkpoint, instant: int) -> bool:
    """Return whether a pass beside the backfill has read all events up to the instant (unix seconds)."""
    return state.walk_ceiling is not None and not state.open_windows and state.walk_ceiling >= instant


def _completed(state: Checkpoint, now: int) -> Checkpoint:
    """Return the checkpoint of a completed pass. Its watermark never moves back, even if the clock has been put back.

    `known_since` of a list is the time of its full listing. Of a change feed it is the start of its first pass, or the
    start of the retention at the end of that pass if that is later.
    """
    since = state.known_since
    if since is None:
        since = state.walk_ceiling if state.walk_floor is None else max(state.walk_floor, now - EVENT_RETENTION_SECONDS)
    through = [instant for instant in (state.complete_through, state.walk_ceiling) if instant is not None]
    return Checkpoint(state.stream, complete_through=max(through, default=None), known_since=since)


def _listed_rows(answer: Answer, *, table: ObjectTable, is_reread: bool) -> Rows:
    """Return the rows of a page of a list."""
    return object_rows(answer.body["data"], answer, table, "list", is_reread=is_reread)


def _retrieved_rows(answer: Answer, *, table: ObjectTable) -> Rows:
    """Return the row of a retrieved object."""
    return object_rows([answer.body], answer, table, "retrieve", is_reread=True)
