"""Estimate the cost of a sync from a few pages, because Stripe's API returns no counts.

A page of a hundred objects shows how far apart objects are in its range of `created`. Sample pages are read from the
newest object down to the oldest, at ages that grow threefold. Between two samples, the distance between objects is
taken to be the geometric mean of both.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from math import ceil, sqrt
from typing import Any, Final

import duckdb

from orchestration.base.account import AccountKey
from orchestration.stripe_api import PAGE_SIZE, AccessRefused, StripeClient
from orchestration.stripe_api.identity import identify
from orchestration.sync.engine import RELIST_AFTER_SECONDS, SyncRequest, has_gap
from orchestration.sync.reread import find_due, plan_reread
from orchestration.sync.streams import EVENT_FEEDS, EVENT_RETENTION_SECONDS, EVENTS_PATH, OBJECT_STREAMS, ObjectStream
from orchestration.warehouse.checkpoints import Checkpoint, read_checkpoint

SAMPLE_SPACING: Final = 3
"""Factor by which the age of each sample grows."""

MAX_SAMPLES: Final = 14
"""Pages to sample for one stream: enough for fourteen years if a page spans a day."""


@dataclass(frozen=True)
class StreamPlan:
    """The estimated cost of reading one stream. `objects` is None if nothing has to be listed."""

    stream: str
    objects: int | None
    requests: int
    missing_permission: str | None = None


@dataclass(frozen=True)
class SyncPlan:
    """The estimated cost of a sync. `requests_made` counts the requests that the estimate itself took."""

    account: AccountKey
    streams: tuple[StreamPlan, ...]
    requests_made: int

    @property
    def requests(self) -> int:
        """Return the total number of requests, including the one for the account."""
        return 1 + sum(stream.requests for stream in self.streams)


def plan_sync(
    client: StripeClient,
    connection: duckdb.DuckDBPyConnection,
    *,
    stated_id: str | None = None,
    request: SyncRequest | None = None,
) -> SyncPlan:
    """Estimate what a sync would read. The estimate takes some thirty requests for a new account, else about three.

    Raises:
        As `sync_account`.
    """
    account = identify(client, stated_id=stated_id)
    planner = _Planner(client, connection, account, request or SyncRequest())
    streams = tuple(planner.streams())
    return SyncPlan(account, streams, client.counts.requests)


@dataclass
class _Planner:
    """The estimate for one account."""

    client: StripeClient
    connection: duckdb.DuckDBPyConnection
    account: AccountKey
    request: SyncRequest

    def streams(self) -> Iterator[StreamPlan]:
        """Yield the cost of each stream and each change feed."""
        for stream in OBJECT_STREAMS:
            state = self._state(stream.name)
            if state.complete_through is None:
                yield self._plan_listing(stream.name, stream.path, {}, None, None)
            elif self.request.created is not None:
                yield self._plan_listing(stream.name, stream.path, {}, *self.request.created)
            else:
                yield self._plan_known_stream(stream, state.complete_through)
        for feed in EVENT_FEEDS:
            through = self._state(feed.name).complete_through
            floor = self.client.now - EVENT_RETENTION_SECONDS if through is None else through
            types = {"types": feed.event_types([stream.name for stream in OBJECT_STREAMS])}
            yield self._plan_listing(feed.name, EVENTS_PATH, types, floor, None)

    def _plan_known_stream(self, stream: ObjectStream, through: int) -> StreamPlan:
        """Return the cost of a stream whose backfill is complete, without its events."""
        plan = plan_reread(find_due(self.connection, self.account, stream.name, now=self.client.now))
        reread_requests = len(plan.windows) + len(plan.ids)
        if self.client.now - through < RELIST_AFTER_SECONDS:
            return StreamPlan(stream.name, None, reread_requests)
        listing = self._plan_listing(stream.name, stream.path, {}, through, None)
        return replace(listing, requests=listing.requests + reread_requests)

    def _state(self, stream: str) -> Checkpoint:
        """Return the checkpoint from which a sync would read the stream."""
        is_reset = self.request.full_refresh or stream in self._names_with_gaps
        return Checkpoint(stream) if is_reset else read_checkpoint(self.connection, self.account, stream)

    @cached_property
    def _names_with_gaps(self) -> set[str]:
        """Return the change feeds whose events aged out unread, and their streams."""
        found: set[str] = set()
        for feed in EVENT_FEEDS:
            names = [feed.name, *(stream.name for stream in feed.streams)]
            states = [read_checkpoint(self.connection, self.account, name) for name in names]
            if has_gap(*states, now=self.client.now, latest=self.client.latest):
                found.update(names)
        return found

    def _plan_listing(
        self, stream: str, path: str, params: Mapping[str, Any], since: int | None, until: int | None
    ) -> StreamPlan:
        """Return the cost of listing what was created in [since, until), or the missing permission."""

        def sample(below: int) -> Sample:
            return self._sample(path, params, since, below)

        try:
            objects = estimate_count(sample, since, self.client.latest + 1 if until is None else until)
        except AccessRefused as refusal:
            if refusal.permission is None:
                raise
            return StreamPlan(stream, None, 1, refusal.permission)
        return StreamPlan(stream, objects, max(1, ceil(objects / PAGE_SIZE)))

    def _sample(self, path: str, params: Mapping[str, Any], since: int | None, below: int) -> "Sample":
        """Read the page of the newest objects created in [since, below)."""
        window = {"gte": since, "lt": below}
        body = self.client.list(path, {**params, "created": window, "limit": PAGE_SIZE}).body
        instants = [each.get("created") for each in body["data"] if isinstance(each, dict)]
        created = [each for each in instants if type(each) is int and (since or 0) <= each < below]
        return Sample(
            len(body["data"]), max(created, default=below), min(created, default=below), bool(body["has_more"])
        )


@dataclass(frozen=True)
class Sample:
    """The number of objects in a page, the range of their `created` (unix seconds), and whether older ones exist."""

    count: int
    newest_at: int
    oldest_at: int
    has_more: bool

    @property
    def seconds_per_object(self) -> float:
        """Return the average seconds from one object to the next."""
        return max(self.newest_at - self.oldest_at, 1) / max(self.count, 1)


def estimate_count(sample: Callable[[int], Sample], since: int | None, until: int) -> int:
    """Estimate the number of objects created in [since, until); exact if one page holds them all.

    `sample` returns the page of the newest objects that were created before a second (and from `since`).

    >>> def ten_seconds_apart(below: int) -> Sample:
    ...     newest = (below - 1) // 10 * 10
    ...     count = max(0, min(newest // 10 + 1, 100))
    ...     return Sample(count, newest, newest - 10 * (count - 1), has_more=newest >= 1_000)
    >>> estimate_count(ten_seconds_apart, None, 1_000), estimate_count(ten_seconds_apart, None, 100_000)
    (100, 10101)
    """
    newest = sample(until)
    if not newest.has_more:
        return newest.count
    count, last, bottom = float(newest.count), newest, since
    for _ in range(MAX_SAMPLES):
        below = newest.newest_at - SAMPLE_SPACING * (newest.newest_at - last.oldest_at + 1)
        if bottom is not None and below <= bottom:
            below = (last.oldest_at + bottom) // 2
        if last.oldest_at - below <= last.seconds_per_object:
            break
        older = sample(below)
        if not older.count:
            bottom = below
            continue
        between = (
            sqrt(last.seconds_per_object * older.seconds_per_object) if older.has_more else last.seconds_per_object
        )
        count += (last.oldest_at - older.newest_at) / between + older.count
        if not older.has_more:
            return round(count)
        last = older
    return round(count + max(last.oldest_at - (bottom or last.oldest_at), 0) / last.seconds_per_object)
