"""The order of a sync: notice a gap, backfill what is not complete, follow the events, read doubtful objects again.

The engine decides what has to be read; `walk` reads it, `warehouse.load` stores it. Nothing here knows Dagster.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final

import duckdb

from orchestration.stripe_api import (
    API_VERSION,
    AccessRefused,
    Answer,
    InvalidRequest,
    RequestCounts,
    StripeClient,
)
from orchestration.sync.identity import identify
from orchestration.sync.streams import EVENT_FEEDS, EVENT_RETENTION, OBJECT_STREAMS, EventFeed, ObjectStream
from orchestration.sync.walk import Progress, Run, walk
from orchestration.warehouse.checkpoints import Checkpoint, read_checkpoint
from orchestration.warehouse.connection import transaction
from orchestration.warehouse.load import AccountKey, LoadCounts, Loader, Source, Vouched

RETENTION_MARGIN: Final = 3_600
"""A feed this close to the retention's edge counts as broken: its oldest events could age out while it is read."""

HEAD_OVERLAP: Final = 300
"""Seconds before the last pass that a feed reads again. Stripe lists events with a delay, of seconds by the report of
others and a minute by Estuary's caution; five times that costs an idle pass no request."""

REREAD_BATCH: Final = 50
"""Objects retrieved in one transaction."""


@dataclass(frozen=True)
class StreamState:
    """How far a stream is known after a sync. Instants are unix seconds on Stripe's clock."""

    missing_permission: str | None
    complete_through: int | None
    known_since: int | None


@dataclass
class SyncReport:
    """What a sync did, for the terminal and for Dagster's metadata.

    `data_through` is the instant up to which every readable stream is known; None where events may not be read.
    `relisted` names feeds whose events had aged out, so that everything was listed anew.
    """

    account: AccountKey
    requests: RequestCounts
    counts: dict[str, LoadCounts] = field(default_factory=dict)
    streams: dict[str, StreamState] = field(default_factory=dict)
    relisted: list[str] = field(default_factory=list)
    reread: int = 0
    vanished: int = 0

    @property
    def missing(self) -> dict[str, str]:
        """Streams that the key may not read, with the permission it lacks."""
        return {name: state.missing_permission for name, state in self.streams.items() if state.missing_permission}

    @property
    def data_through(self) -> int | None:
        through = [self.streams[feed.name].complete_through for feed in EVENT_FEEDS if feed.name not in self.missing]
        known = [instant for instant in through if instant is not None]
        return min(known, default=None) if len(known) == len(through) else None

    @property
    def written(self) -> int:
        """Rows inserted or changed in all raw tables."""
        return sum(counts.written for counts in self.counts.values())


def sync_account(
    client: StripeClient,
    connection: duckdb.DuckDBPyConnection,
    *,
    stated_id: str | None = None,
    observe: Callable[[Progress], None] = lambda progress: None,
) -> SyncReport:
    """Bring the raw tables of the client's account up to Stripe's now.

    Killed at any instruction it leaves whole pages; the next call goes on from there.

    Raises:
        AuthenticationFailed, AccessRefused, InvalidRequest, StripeUnavailable: as `StripeClient.get`. A missing
            permission for one stream is not raised but reported, in the result and in `sync.streams`.
        AccountMismatch: `stated_id` is not the key's account.
    """
    account = identify(client, stated_id=stated_id)
    return _Sync(Run(client, connection, account, observe)).run()


class _Sync:
    def __init__(self, run: Run) -> None:
        self._run = run
        self._report = SyncReport(run.account, run.client.counts, run.counts)

    def run(self) -> SyncReport:
        for feed in EVENT_FEEDS:
            self._forget_across_a_gap(feed)
        readable = [stream for stream in OBJECT_STREAMS if self._is_read(stream.name, partial(self._backfill, stream))]
        for feed in EVENT_FEEDS:
            self._is_read(feed.name, partial(self._follow, feed, [s.name for s in feed.streams if s in readable]))
        for stream in readable:
            self._is_read(stream.name, partial(self._read_again, stream))
        return self._report

    def _checkpoint(self, stream: str) -> Checkpoint:
        return read_checkpoint(self._run.connection, self._run.account, stream)

    def _is_read(self, stream: str, read: Callable[[], Checkpoint]) -> bool:
        """Read a stream; where the key may not, say so in its checkpoint and go on with the others."""
        try:
            state = read()
        except AccessRefused as refusal:
            if refusal.permission is None:
                raise
            state = replace(self._checkpoint(stream), missing_permission=refusal.permission)
        if state != self._checkpoint(stream):
            with transaction(self._run.connection):
                self._run.save(state)
        self._report.streams[stream] = StreamState(state.missing_permission, state.complete_through, state.known_since)
        return state.missing_permission is None

    def _forget_across_a_gap(self, feed: EventFeed) -> None:
        """Events that aged out unread cannot be had again: then everything they could tell of is listed anew."""
        of_feed, *of_streams = [self._checkpoint(name) for name in (feed.name, *(s.name for s in feed.streams))]
        reached = [of_feed.complete_through]
        if of_feed.complete_through is None:
            reached = [state.complete_through or state.walk_ceiling for state in of_streams]
        oldest = min((instant for instant in reached if instant is not None), default=None)
        if oldest is None or oldest - HEAD_OVERLAP > self._run.client.now - EVENT_RETENTION + RETENTION_MARGIN:
            return
        with transaction(self._run.connection):
            for state in (of_feed, *of_streams):
                self._run.save(Checkpoint(state.stream))
        self._report.relisted.append(feed.name)

    def _backfill(self, stream: ObjectStream) -> Checkpoint:
        state = self._checkpoint(stream.name)
        if state.complete_through is not None:
            return replace(state, missing_permission=None)
        is_new = not state.is_walking
        if is_new:
            state = Checkpoint(stream.name, walk_ceiling=self._run.client.now)

        def load(loader: Loader, answer: Answer) -> Mapping[str, LoadCounts]:
            if is_new:
                self._forget_feed(stream)
            return {stream.name: loader.load_objects(stream.name, _listed(answer))}

        return walk(self._run, state, stream.path, {}, load)

    def _forget_feed(self, stream: ObjectStream) -> None:
        """A feed tells only of streams that the key could read as it passed: for one that is new to it, it passes over
        all events again that are still to be had."""
        feed = next(feed for feed in EVENT_FEEDS if stream in feed.streams)
        self._run.save(Checkpoint(feed.name))

    def _follow(self, feed: EventFeed, readable: Sequence[str]) -> Checkpoint:
        state = self._checkpoint(feed.name)
        types = feed.event_types(readable)
        if not types:
            return replace(state, missing_permission=self._report.missing[feed.streams[0].name])
        if state.is_walking:
            state = self._walk_events(state, types)
        now = self._run.client.now
        floor = now - EVENT_RETENTION if state.complete_through is None else state.complete_through - HEAD_OVERLAP
        return self._walk_events(replace(state, missing_permission=None, walk_floor=floor, walk_ceiling=now), types)

    def _walk_events(self, state: Checkpoint, types: Sequence[str]) -> Checkpoint:
        def load(loader: Loader, answer: Answer) -> Mapping[str, LoadCounts]:
            return loader.load_events(answer.body["data"], "event")

        return walk(self._run, state, "/v1/events", {"types": types}, load)

    def _read_again(self, stream: ObjectStream) -> Checkpoint:
        """Retrieve what the load marked as doubtful: asked for after everything else, the answer settles it."""
        doubtful = [
            object_id
            for (object_id,) in self._run.connection.execute(
                f"""SELECT id FROM raw_stripe.{stream.name} WHERE account_id = ? AND livemode = ? AND _needs_read
                    ORDER BY created DESC, id""",
                [self._run.account.account_id, self._run.account.livemode],
            ).fetchall()
        ]
        for start in range(0, len(doubtful), REREAD_BATCH):
            self._retrieve(stream, doubtful[start : start + REREAD_BATCH])
        return self._checkpoint(stream.name)

    def _retrieve(self, stream: ObjectStream, ids: Sequence[str]) -> None:
        found: list[Vouched] = []
        vanished: list[str] = []
        for object_id in ids:
            try:
                answer = self._run.client.get(f"{stream.path}/{object_id}")
            except InvalidRequest as error:
                if error.code != "resource_missing":
                    raise
                vanished.append(object_id)
            else:
                found.append(_vouched(answer.body, answer, "retrieve"))
        with transaction(self._run.connection):
            loader = self._run.loader()
            counts = loader.load_objects(stream.name, found)
            loader.settle(stream.name, vanished)
        self._report.reread += len(found)
        self._report.vanished += len(vanished)
        self._run.count(stream.name, {stream.name: counts}, None)


def _listed(answer: Answer) -> list[Vouched]:
    return [_vouched(payload, answer, "list") for payload in answer.body["data"]]


def _vouched(payload: Mapping[str, Any], answer: Answer, source: Source) -> Vouched:
    return Vouched(payload, as_of=answer.vouched_at, seen_by=answer.date, source=source, api_version=API_VERSION)
