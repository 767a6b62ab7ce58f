"""What a sync would cost, estimated from a few pages: Stripe tells no counts.

A page of a hundred shows how densely time is filled where it lies. Pages are taken at distances that grow threefold
from the newest object down to the oldest, and the density between two of them is taken to be their geometric mean.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from math import ceil, sqrt
from typing import Any, Final

import duckdb

from orchestration.base.account import AccountKey
from orchestration.stripe_api import PAGE_SIZE, AccessRefused, StripeClient
from orchestration.stripe_api.identity import identify
from orchestration.sync.engine import LISTED_ON_AFTER, SyncRequest, has_gap
from orchestration.sync.reread import find_due, plan_again
from orchestration.sync.streams import EVENT_FEEDS, EVENT_RETENTION, EVENTS_PATH, OBJECT_STREAMS, ObjectStream
from orchestration.warehouse.checkpoints import Checkpoint, read_checkpoint

FURTHER: Final = 3
"""Each sample lies so many times as far below the newest object as the one before."""

MOST_SAMPLES: Final = 14
"""Pages to look at for one stream: enough for fourteen years from a page that spans a day."""


@dataclass(frozen=True)
class StreamPlan:
    """What reading one stream would take. `objects` is None where nothing has to be listed."""

    stream: str
    objects: int | None
    requests: int
    missing_permission: str | None = None


@dataclass(frozen=True)
class SyncPlan:
    """The cost of a sync, and the requests that were made to estimate it."""

    account: AccountKey
    streams: tuple[StreamPlan, ...]
    asked: int

    @property
    def requests(self) -> int:
        """Requests in all, the one that asks for the account included."""
        return 1 + sum(stream.requests for stream in self.streams)


def plan_sync(
    client: StripeClient,
    connection: duckdb.DuckDBPyConnection,
    *,
    stated_id: str | None = None,
    request: SyncRequest | None = None,
) -> SyncPlan:
    """Estimate what a sync would read; some thirty requests for a new account, three or so for a known one.

    Raises:
        As `sync_account`.
    """
    account = identify(client, stated_id=stated_id)
    planner = _Planner(client, connection, account, request or SyncRequest())
    streams = tuple(planner.streams())
    return SyncPlan(account, streams, client.counts.requests)


@dataclass
class _Planner:
    client: StripeClient
    connection: duckdb.DuckDBPyConnection
    account: AccountKey
    request: SyncRequest

    def streams(self) -> Iterator[StreamPlan]:
        for stream in OBJECT_STREAMS:
            state = self._state(stream.name)
            if state.complete_through is None:
                yield self._listed(stream.name, stream.path, {}, None, None)
            elif self.request.created is not None:
                yield self._listed(stream.name, stream.path, {}, *self.request.created)
            else:
                yield self._kept_current(stream, state.complete_through)
        for feed in EVENT_FEEDS:
            through = self._state(feed.name).complete_through
            floor = self.client.now - EVENT_RETENTION if through is None else through
            types = {"types": feed.event_types([stream.name for stream in OBJECT_STREAMS])}
            yield self._listed(feed.name, EVENTS_PATH, types, floor, None)

    def _kept_current(self, stream: ObjectStream, through: int) -> StreamPlan:
        """What a stream takes that was listed before, beside its events."""
        plan = plan_again(find_due(self.connection, self.account, stream.name, now=self.client.now))
        again = len(plan.windows) + len(plan.ids)
        if self.client.now - through < LISTED_ON_AFTER:
            return StreamPlan(stream.name, None, again)
        listed = self._listed(stream.name, stream.path, {}, through, None)
        return replace(listed, requests=listed.requests + again)

    def _state(self, stream: str) -> Checkpoint:
        is_anew = self.request.full_refresh or stream in self._relisted
        return Checkpoint(stream) if is_anew else read_checkpoint(self.connection, self.account, stream)

    @cached_property
    def _relisted(self) -> set[str]:
        """Feeds whose events aged out unread, and their streams."""
        found: set[str] = set()
        for feed in EVENT_FEEDS:
            names = [feed.name, *(stream.name for stream in feed.streams)]
            states = [read_checkpoint(self.connection, self.account, name) for name in names]
            if has_gap(*states, now=self.client.now, latest=self.client.latest):
                found.update(names)
        return found

    def _listed(
        self, stream: str, path: str, params: Mapping[str, Any], since: int | None, until: int | None
    ) -> StreamPlan:
        try:
            objects = self._count(path, params, since, self.client.latest + 1 if until is None else until)
        except AccessRefused as refusal:
            if refusal.permission is None:
                raise
            return StreamPlan(stream, None, 1, refusal.permission)
        return StreamPlan(stream, objects, max(1, ceil(objects / PAGE_SIZE)))

    def _count(self, path: str, params: Mapping[str, Any], since: int | None, until: int) -> int:
        """Objects created in [since, until), exact where one page holds them."""
        newest = self._sample(path, params, since, until)
        if not newest.has_more:
            return newest.count
        counted, sample, bottom = float(newest.count), newest, since
        for _ in range(MOST_SAMPLES):
            below = newest.newest_at - FURTHER * (newest.newest_at - sample.oldest_at + 1)
            if bottom is not None and below <= bottom:
                below = (sample.oldest_at + bottom) // 2
            if sample.oldest_at - below <= sample.pace:
                break
            found = self._sample(path, params, since, below)
            if not found.count:
                bottom = below
                continue
            pace = sqrt(sample.pace * found.pace) if found.has_more else sample.pace
            counted += (sample.oldest_at - found.newest_at) / pace + found.count
            if not found.has_more:
                return round(counted)
            sample = found
        return round(counted + max(sample.oldest_at - (bottom or sample.oldest_at), 0) / sample.pace)

    def _sample(self, path: str, params: Mapping[str, Any], since: int | None, below: int) -> "_Sample":
        window = {"gte": since, "lt": below}
        body = self.client.list(path, {**params, "created": window, "limit": PAGE_SIZE}).body
        stated = [each.get("created") for each in body["data"] if isinstance(each, dict)]
        created = [each for each in stated if type(each) is int and (since or 0) <= each < below]
        return _Sample(
            len(body["data"]), max(created, default=below), min(created, default=below), bool(body["has_more"])
        )


@dataclass(frozen=True)
class _Sample:
    """A page: how many objects, between which instants, and whether there are older ones."""

    count: int
    newest_at: int
    oldest_at: int
    has_more: bool

    @property
    def pace(self) -> float:
        """Seconds from one object to the next."""
        return max(self.newest_at - self.oldest_at, 1) / max(self.count, 1)
