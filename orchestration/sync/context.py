"""What every step of one sync of one account works with: who is asked, where it is stored, what has been counted."""

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
    """Told after each stored batch: the stream, how far down it has come, and the run's figures so far.

    `pages_left` are those still to come of all streams read now, as far as can be told; infinite while that is unknown.
    """

    stream: str
    reached: int | None
    counts: Mapping[str, LoadCounts]
    requests: RequestCounts
    pages_left: float


@dataclass
class Run:
    """One sync of one account."""

    client: StripeClient
    warehouse: Warehouse
    account: AccountKey
    observe: Callable[[Progress], None] = lambda progress: None
    counts: dict[str, LoadCounts] = field(default_factory=dict)
    read_by_day: Counter[int] = field(default_factory=Counter)
    put: set[tuple[str, str]] = field(default_factory=set)
    """Stream and key of what this sync found unreadable."""
    _quarantine: dict[str, set[str]] | None = None
    _reads_stored: dict[str, int] = field(default_factory=dict)

    @property
    def connection(self) -> duckdb.DuckDBPyConnection:
        """The warehouse, opened if need be."""
        return self.warehouse.connection

    def loader(self) -> Loader:
        """A loader for one transaction."""
        return Loader(self.connection, self.account, API_VERSION)

    def checkpoint(self, stream: str) -> Checkpoint:
        """The stream's state as it is stored."""
        return read_checkpoint(self.connection, self.account, stream)

    def save(self, checkpoint: Checkpoint) -> None:
        """Write the checkpoint, in the transaction under way."""
        write_checkpoint(self.connection, self.account, checkpoint, now=self.client.now)

    def store_reads(self) -> None:
        """Write down the requests made since the last time, in the transaction under way."""
        made = dict(self.client.counts.by_endpoint)
        new = {endpoint: count - self._reads_stored.get(endpoint, 0) for endpoint, count in made.items()}
        add_reads(
            self.connection,
            self.account,
            {endpoint: count for endpoint, count in new.items() if count},
            now=self.client.now,
        )
        self._reads_stored = made

    def quarantine(self, objects: Sequence[QuarantinedObject]) -> None:
        """Note what could not be read, in the transaction under way."""
        quarantine_objects(self.connection, self.account, objects)
        for each in objects:
            self.put.add((each.stream, each.key))
            self._kept().setdefault(each.stream, set()).add(each.key)

    def release(self, stream: str, keys: Iterable[str]) -> None:
        """Delete these keys from the quarantine, if they are in it, in the transaction under way."""
        kept = self._kept().get(stream)
        if kept and (gone := kept.intersection(keys)):
            delete_quarantined(self.connection, self.account, stream, gone)
            kept -= gone

    def _kept(self) -> dict[str, set[str]]:
        """Return the keys in quarantine by stream. They are read once: few syncs have any."""
        if self._quarantine is None:
            self._quarantine = {}
            for each in read_quarantine(self.connection, self.account):
                self._quarantine.setdefault(each.stream, set()).add(each.key)
        return self._quarantine

    def quarantined_by_stream(self) -> dict[str, int]:
        """Return how many objects of each stream are in quarantine."""
        return {stream: len(keys) for stream, keys in self._kept().items() if keys}

    def count(self, counts: Mapping[str, LoadCounts], created: Iterable[int]) -> None:
        """Add the figures of a committed batch, and when what it held was created."""
        self.read_by_day.update(instant // DAY for instant in created)
        for table, of_table in counts.items():
            self.counts[table] = self.counts.get(table, LoadCounts()) + of_table
