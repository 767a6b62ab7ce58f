"""The state that all phases of one sync share: the Stripe client, the warehouse, the account and the counts so far."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import duckdb

from orchestration.base.account import AccountKey
from orchestration.stripe_api import API_VERSION, RequestCounts, StripeClient
from orchestration.warehouse.checkpoints import Checkpoint, read_checkpoint, write_checkpoint
from orchestration.warehouse.connection import Warehouse
from orchestration.warehouse.load import LoadCounts, Loader
from orchestration.warehouse.quarantine import (
    QuarantinedObject,
    delete_quarantined,
    quarantine_objects,
    read_quarantine,
)
from orchestration.warehouse.read_counts import add_reads

DAY: Final = 86_400


@dataclass(frozen=True)
class Progress:
    """The progress of a sync after a stored batch.

    `reached_at` is the oldest `created` (unix seconds) that the stream's list has reached. `pages_left` is the expected
    number of pages left in all streams that are read at the moment; infinite while it is unknown.
    """

    stream: str
    reached_at: int | None
    counts: Mapping[str, LoadCounts]
    requests: RequestCounts
    pages_left: float


@dataclass
class Run:
    """The shared state of one sync of one account.

    `unreadable` holds the stream and the key of each object that this sync could not read.
    """

    client: StripeClient
    warehouse: Warehouse
    account: AccountKey
    observe: Callable[[Progress], None] = lambda progress: None
    counts: dict[str, LoadCounts] = field(default_factory=dict)
    read_by_day: Counter[int] = field(default_factory=Counter)
    unreadable: set[tuple[str, str]] = field(default_factory=set)
    _quarantine: dict[str, set[str]] | None = None
    _stored_requests: dict[str, int] = field(default_factory=dict)

    @property
    def connection(self) -> duckdb.DuckDBPyConnection:
        """Return the warehouse's connection, which is opened if needed."""
        return self.warehouse.connection

    def loader(self) -> Loader:
        """Return a new loader for the current transaction."""
        return Loader(self.connection, self.account, API_VERSION)

    def checkpoint(self, stream: str) -> Checkpoint:
        """Return the stored checkpoint of the stream."""
        return read_checkpoint(self.connection, self.account, stream)

    def save(self, checkpoint: Checkpoint) -> None:
        """Write the checkpoint in the current transaction."""
        write_checkpoint(self.connection, self.account, checkpoint, now=self.client.now)

    def store_reads(self) -> None:
        """Store the number of requests made since the last call, in the current transaction."""
        total = dict(self.client.counts.by_endpoint)
        new = {endpoint: count - self._stored_requests.get(endpoint, 0) for endpoint, count in total.items()}
        add_reads(
            self.connection,
            self.account,
            {endpoint: count for endpoint, count in new.items() if count},
            now=self.client.now,
        )
        self._stored_requests = total

    def quarantine(self, objects: Sequence[QuarantinedObject]) -> None:
        """Put unreadable objects into the quarantine, in the current transaction."""
        quarantine_objects(self.connection, self.account, objects)
        for each in objects:
            self.unreadable.add((each.stream, each.key))
            self._quarantined_keys().setdefault(each.stream, set()).add(each.key)

    def release(self, stream: str, keys: Iterable[str]) -> None:
        """Delete those of the keys that are in quarantine from it, in the current transaction."""
        stored = self._quarantined_keys().get(stream)
        if stored and (released := stored.intersection(keys)):
            delete_quarantined(self.connection, self.account, stream, released)
            stored -= released

    def _quarantined_keys(self) -> dict[str, set[str]]:
        """Return the keys in quarantine by stream. They are read from the warehouse once a sync."""
        if self._quarantine is None:
            self._quarantine = {}
            for each in read_quarantine(self.connection, self.account):
                self._quarantine.setdefault(each.stream, set()).add(each.key)
        return self._quarantine

    def quarantined_by_stream(self) -> dict[str, int]:
        """Return the number of objects in quarantine by stream."""
        return {stream: len(keys) for stream, keys in self._quarantined_keys().items() if keys}

    def count(self, counts: Mapping[str, LoadCounts], created: Iterable[int]) -> None:
        """Add the counts of a committed batch, and the `created` (unix seconds) of its objects and events."""
        self.read_by_day.update(instant // DAY for instant in created)
        for table, table_counts in counts.items():
            self.counts[table] = self.counts.get(table, LoadCounts()) + table_counts
