"""One pass over a list, newest first, from a ceiling down to a floor: loaded page by page, resumable after each.

Both the backfill of objects and the event feeds are walks; what differs is what a page is loaded into.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import duckdb

from orchestration.stripe_api import (
    API_VERSION,
    PAGE_SIZE,
    Answer,
    InvalidRequest,
    RequestCounts,
    StripeClient,
)
from orchestration.sync.streams import EVENT_RETENTION
from orchestration.warehouse.checkpoints import Checkpoint, write_checkpoint
from orchestration.warehouse.connection import transaction
from orchestration.warehouse.load import AccountKey, LoadCounts, Loader

LoadPage = Callable[[Loader, Answer], Mapping[str, LoadCounts]]


@dataclass(frozen=True)
class Progress:
    """Told after each stored page: the stream, how far down it has come, and the run's figures so far."""

    stream: str
    reached: int | None
    counts: Mapping[str, LoadCounts]
    requests: RequestCounts


@dataclass
class Run:
    """What every step of one sync of one account works with."""

    client: StripeClient
    connection: duckdb.DuckDBPyConnection
    account: AccountKey
    observe: Callable[[Progress], None] = lambda progress: None
    counts: dict[str, LoadCounts] = field(default_factory=dict)

    def loader(self) -> Loader:
        """A loader for one transaction."""
        return Loader(self.connection, self.account, API_VERSION)

    def save(self, checkpoint: Checkpoint) -> None:
        """Write the checkpoint, in the transaction under way."""
        write_checkpoint(self.connection, self.account, checkpoint, now=self.client.now)

    def count(self, stream: str, counts: Mapping[str, LoadCounts], reached: int | None) -> None:
        """Add the figures of a committed page and tell the observer."""
        for table, of_table in counts.items():
            self.counts[table] = self.counts.get(table, LoadCounts()) + of_table
        self.observe(Progress(stream, reached, self.counts, self.client.counts))


def walk(run: Run, checkpoint: Checkpoint, path: str, params: Mapping[str, Any], load: LoadPage) -> Checkpoint:
    """Finish the walk that `checkpoint` describes, from its cursor if it has one, and return the state afterwards.

    Each page is one transaction with the checkpoint that vouches for it, so a killed run repeats one page at most.
    """
    for answer in _pages(run.client, checkpoint, path, params):
        last = answer.body["data"][-1] if answer.body["data"] else None
        if last and answer.body["has_more"]:
            checkpoint = replace(checkpoint, walk_cursor=last["id"], walk_cursor_at=last["created"])
        else:
            checkpoint = _finished(checkpoint, run.client.now)
        with transaction(run.connection):
            counts = load(run.loader(), answer)
            run.save(checkpoint)
        run.count(checkpoint.stream, counts, last["created"] if last else None)
    return checkpoint


def _pages(client: StripeClient, checkpoint: Checkpoint, path: str, params: Mapping[str, Any]) -> Iterator[Answer]:
    ceiling, cursor, cursor_at = checkpoint.walk_ceiling, checkpoint.walk_cursor, checkpoint.walk_cursor_at
    while True:
        window = {"gte": checkpoint.walk_floor, "lte": ceiling}
        try:
            answer = client.get(path, {**params, "created": window, "limit": PAGE_SIZE, "starting_after": cursor})
        except InvalidRequest:
            if cursor is None:
                raise
            # Stripe no longer knows the cursor's object (deleted, or an event that aged out): go on by time, which
            # repeats at most the rows of one second.
            ceiling, cursor = cursor_at, None
            continue
        yield answer
        if not answer.body["has_more"] or not answer.body["data"]:
            return
        cursor, cursor_at = answer.body["data"][-1]["id"], answer.body["data"][-1]["created"]


def _finished(checkpoint: Checkpoint, now: int) -> Checkpoint:
    """A feed is known from its first walk's floor on, or from where events had aged out by the end of that walk."""
    since = checkpoint.known_since
    if since is None and checkpoint.walk_floor is not None:
        since = max(checkpoint.walk_floor, now - EVENT_RETENTION)
    return Checkpoint(checkpoint.stream, complete_through=checkpoint.walk_ceiling, known_since=since)
