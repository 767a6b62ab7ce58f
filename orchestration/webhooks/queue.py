"""The durable queue between the receiver and ingest: a table in SQLite beside the warehouse, or in PostgreSQL.

Each event id of an integration has one row. Rows are taken in order of arrival and finished after the warehouse has
committed. A row that was taken but not finished is taken again: loading an event twice changes nothing.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from importlib import import_module
from itertools import chain
from pathlib import Path
from typing import Any, Final, Literal

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import ConnectionPoolEntry

from orchestration.webhooks.errors import QueueUnavailable

State = Literal["queued", "done", "quarantined"]

LOCK_TIMEOUT_SECONDS: Final = 5
"""Seconds that a writer waits for another writer. Commits take milliseconds."""

_POSTGRESQL: Final = {
    "connect_timeout": LOCK_TIMEOUT_SECONDS,
    "tcp_user_timeout": 1_000 * LOCK_TIMEOUT_SECONDS,
    "options": f"-c lock_timeout={LOCK_TIMEOUT_SECONDS}s -c statement_timeout=60s",
}
"""Options that make an unreachable or busy server fail fast: the receiver answers 503, and Stripe sends again."""

_PUT: Final = """
INSERT INTO webhook_queue (integration, account_id, event_id, payload, received_at, deliveries) VALUES {rows}
ON CONFLICT (integration, event_id) DO UPDATE SET deliveries = webhook_queue.deliveries + excluded.deliveries
"""
"""Inserts many rows in one statement, because the sqlite3 module releases the GIL at each step of a statement.

With one INSERT per row, the writer thread and the event loop made 6 futex calls per event to get the GIL back. With one
statement for many rows they make 2.
"""

_ROWS_PER_INSERT: Final = 500
"""Rows per statement. With six values per row, this is far below the limits of both databases."""

_metadata: Final = sa.MetaData()

WEBHOOK_QUEUE: Final = sa.Table(
    "webhook_queue",
    _metadata,
    sa.Column("seq", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
    sa.Column("integration", sa.Text, nullable=False, server_default="default"),
    sa.Column("account_id", sa.Text),
    sa.Column("event_id", sa.Text, nullable=False),
    sa.Column("payload", sa.Text, nullable=False),
    sa.Column("received_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
    sa.Column("deliveries", sa.Integer, nullable=False, server_default="1"),
    sa.Column("state", sa.Text, nullable=False, server_default="queued"),
    sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
    sa.Column("reason", sa.Text),
    sa.Column("finished_at", sa.DateTime(timezone=True)),
    sa.CheckConstraint("state IN ('queued', 'done', 'quarantined')", name="webhook_queue_states"),
    sa.UniqueConstraint("integration", "event_id"),
    sa.Index("webhook_queue_by_state", "state", "seq"),
    sa.Index("webhook_queue_by_end", "finished_at"),
    sqlite_autoincrement=True,
)
"""The queue.

`account_id` is the integration's account when the event was received, if it was known then: since then, the name may
have been given to another account. `payload` is the event's redacted JSON; it is empty after loading. `deliveries`
counts how often the event was received.
"""

REFUSALS: Final = sa.Table(
    "webhook_refusals",
    _metadata,
    sa.Column("integration", sa.Text, primary_key=True),
    sa.Column("hour", sa.DateTime(timezone=True), primary_key=True),
    sa.Column("reason", sa.Text, primary_key=True),
    sa.Column("requests", sa.BigInteger, nullable=False),
)
"""Counts per hour of what was not stored: rejected requests, and genuine events that were ignored (`IGNORED`)."""

IGNORED: Final = {
    "no_event": "A signed request was not a Stripe event.",
    "thin_event": "A thin event arrived, which contains no object. Choose the payload style Snapshot at Stripe.",
    "test_event": "A test event of Stripe arrived, with an id such as evt_00000000000000.",
    "other_account": "An event of an account arrived that this endpoint may not write.",
}
"""Why a genuine event was ignored, by the reason that is counted. A person may expect these events in the tables."""


@dataclass(frozen=True)
class Delivery:
    """A received event, to be put into the queue. `received_at` is UTC."""

    integration: str
    event_id: str
    payload: str
    received_at: datetime
    account_id: str | None = None


@dataclass(frozen=True)
class QueuedEvent:
    """An event taken from the queue. `attempts` includes the current one. `received_at` is UTC."""

    seq: int
    integration: str
    account_id: str | None
    event_id: str
    payload: str
    received_at: datetime
    deliveries: int
    attempts: int


@dataclass(frozen=True)
class QueueStats:
    """Numbers of queued and quarantined events; receipt time (UTC) and `attempts` of the oldest queued event."""

    queued: int
    quarantined: int
    oldest_seq: int | None = None
    oldest_received_at: datetime | None = None
    attempts: int = 0

    def age(self, now: datetime) -> float:
        """Return the seconds that the oldest queued event has waited; 0 if the queue is empty."""
        return max((now - self.oldest_received_at).total_seconds(), 0.0) if self.oldest_received_at else 0.0


@dataclass
class Queue:
    """The webhook queue of a database. Missing tables are created.

    `url` is `sqlite:///` followed by a path, which may contain any characters, or a postgresql:// URL of SQLAlchemy.
    Every method raises QueueUnavailable if the database cannot be used.
    """

    url: str = field(repr=False)
    _engine: sa.Engine | None = field(init=False, default=None, repr=False)
    _file: tuple[int, int] | None = field(init=False, default=None, repr=False)

    def put(self, deliveries: Sequence[Delivery]) -> None:
        """Store events; they are on disk when this returns. For a known event, only `deliveries` is increased."""
        counts = Counter((each.integration, each.event_id) for each in deliveries)
        first = {(each.integration, each.event_id): each for each in reversed(deliveries)}
        # Sorted by key, so that two receivers cannot deadlock.
        rows = [(*self._values(first[key]), counts[key]) for key in sorted(first)]
        if not rows:
            return
        with self._transaction() as connection:
            for start in range(0, len(rows), _ROWS_PER_INSERT):
                some = rows[start : start + _ROWS_PER_INSERT]
                connection.exec_driver_sql(self._put_statement(len(some)), tuple(chain.from_iterable(some)))

    def take(self, limit: int, *, excluding: Collection[str] = ()) -> list[QueuedEvent]:
        """Take the oldest queued events, up to `limit`, except those of some integrations; increase their `attempts`.

        Rows that another process is taking at the same time are left out.
        """
        columns = [WEBHOOK_QUEUE.c[name] for name in QueuedEvent.__dataclass_fields__]
        oldest = (
            sa.select(WEBHOOK_QUEUE.c.seq)
            .where(WEBHOOK_QUEUE.c.state == "queued", WEBHOOK_QUEUE.c.integration.not_in(excluding))
            .order_by(WEBHOOK_QUEUE.c.seq)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        with self._transaction() as connection:
            taken = connection.execute(
                sa.update(WEBHOOK_QUEUE)
                .where(WEBHOOK_QUEUE.c.seq.in_(oldest))
                .values(attempts=WEBHOOK_QUEUE.c.attempts + 1)
                .returning(*columns)
            ).mappings()
            rows = [QueuedEvent(**{**row, "received_at": _utc(row["received_at"])}) for row in taken]
        return sorted(rows, key=lambda row: row.seq)

    def finish(
        self,
        seqs: Sequence[int],
        quarantined: Mapping[int, str] | None = None,
        payloads: Mapping[int, str] | None = None,
    ) -> None:
        """Mark events as loaded, and put others into quarantine.

        Args:
            seqs: Events that the warehouse has committed.
            quarantined: The reasons, by `seq`, of events that cannot be loaded.
            payloads: Texts, by `seq`, that replace the payloads of events in quarantine.
        """
        now = datetime.now(UTC)
        reasons = [{"row": seq, "why": reason} for seq, reason in (quarantined or {}).items()]
        with self._transaction() as connection:
            _change(connection, seqs, state="done", finished_at=now, reason=None, payload="")
            if reasons:
                connection.execute(
                    sa.update(WEBHOOK_QUEUE)
                    .where(WEBHOOK_QUEUE.c.seq == sa.bindparam("row"))
                    .values(state="quarantined", finished_at=now, reason=sa.bindparam("why")),
                    reasons,
                )
            for seq, payload in (payloads or {}).items():
                _change(connection, [seq], payload=payload)

    def release(self, seqs: Sequence[int]) -> None:
        """Return events to the queue without counting the attempt, which failed for another reason than the events."""
        with self._transaction() as connection:
            _change(connection, seqs, attempts=WEBHOOK_QUEUE.c.attempts - 1)

    def requeue_quarantined(self) -> int:
        """Move all events from quarantine back to the queue; return their number."""
        with self._transaction() as connection:
            result = connection.execute(
                sa.update(WEBHOOK_QUEUE)
                .where(WEBHOOK_QUEUE.c.state == "quarantined")
                .values(state="queued", attempts=0, finished_at=None)
            )
        return int(result.rowcount)

    def delete_finished(self, *, before: datetime) -> int:
        """Delete events finished before `before` (UTC), and older counts; return the number of deleted events.

        Events in quarantine are kept.
        """
        done = (WEBHOOK_QUEUE.c.finished_at < before) & (WEBHOOK_QUEUE.c.state != "quarantined")
        with self._transaction() as connection:
            deleted = connection.execute(sa.delete(WEBHOOK_QUEUE).where(done)).rowcount
            connection.execute(sa.delete(REFUSALS).where(REFUSALS.c.hour < before))
        return int(deleted)

    def stats(self) -> QueueStats:
        """Return the numbers of queued and quarantined events. It is fast, however many events were loaded."""
        column = WEBHOOK_QUEUE.c
        waiting = ("queued", "quarantined")
        by_state = sa.select(column.state, sa.func.count().label("rows")).where(column.state.in_(waiting))
        oldest = (
            sa.select(column.seq, column.received_at, column.attempts)
            .where(column.state == "queued")
            .order_by(column.seq)
            .limit(1)
        )
        with self._transaction() as connection:
            counts = {row.state: row.rows for row in connection.execute(by_state.group_by(column.state))}
            first = connection.execute(oldest).fetchone()
        return QueueStats(
            **{state: counts.get(state, 0) for state in waiting},
            oldest_seq=first.seq if first else None,
            oldest_received_at=_utc(first.received_at) if first else None,
            attempts=first.attempts if first else 0,
        )

    def history_counts(self) -> tuple[int, int]:
        """Return, for the rows that are still stored, the number of loaded events and of repeated deliveries."""
        column = WEBHOOK_QUEUE.c
        done = sa.func.sum(sa.case((column.state == "done", 1), else_=0)).label("done")
        repeated = sa.func.sum(column.deliveries - 1).label("repeated")
        with self._transaction() as connection:
            row = connection.execute(sa.select(done, repeated)).one()
        return int(row.done or 0), int(row.repeated or 0)

    def has_queued(self) -> bool:
        """Return whether any event is queued."""
        with self._transaction() as connection:
            waiting = sa.select(WEBHOOK_QUEUE.c.seq).where(WEBHOOK_QUEUE.c.state == "queued").limit(1)
            return connection.execute(waiting).fetchone() is not None

    def state_of(self, event_id: str) -> State | None:
        """Return the state of an event, or None if it was never received or its row has been deleted."""
        with self._transaction() as connection:
            found = sa.select(WEBHOOK_QUEUE.c.state).where(WEBHOOK_QUEUE.c.event_id == event_id)
            return connection.execute(found).scalar()

    def quarantine(self, limit: int) -> list[tuple[str, datetime, str]]:
        """Return the newest events in quarantine: id, time of receipt (UTC), and reason."""
        column = WEBHOOK_QUEUE.c
        rows = (
            sa.select(column.event_id, column.received_at, column.reason)
            .where(column.state == "quarantined")
            .order_by(column.seq.desc())
            .limit(limit)
        )
        with self._transaction() as connection:
            return [(row.event_id, _utc(row.received_at), row.reason) for row in connection.execute(rows)]

    def count_not_stored(self, integration: str, reasons: Mapping[str, int], *, now: datetime) -> None:
        """Add rejected requests and ignored events, by reason, to the counts of the hour of `now` (UTC)."""
        hour = now.replace(minute=0, second=0, microsecond=0)
        insert = self._insert(REFUSALS)
        statement = insert.on_conflict_do_update(
            index_elements=["integration", "hour", "reason"],
            set_={"requests": REFUSALS.c.requests + insert.excluded.requests},
        )
        rows = [
            {"integration": integration, "hour": hour, "reason": reason, "requests": count}
            for reason, count in sorted(reasons.items())
        ]
        if rows:
            with self._transaction() as connection:
                connection.execute(statement, rows)

    def rejected(self, *, since: datetime) -> dict[str, int]:
        """Return the numbers of rejected requests by reason, since the start of the hour of `since`."""
        return {reason: count for reason, count in self._counted(since).items() if reason not in IGNORED}

    def ignored(self, *, since: datetime) -> dict[str, int]:
        """Return the numbers of events that were ignored by reason, since the start of the hour of `since`."""
        return {reason: count for reason, count in self._counted(since).items() if reason in IGNORED}

    def _counted(self, since: datetime) -> dict[str, int]:
        hour = since.replace(minute=0, second=0, microsecond=0)
        counted = (
            sa.select(REFUSALS.c.reason, sa.func.sum(REFUSALS.c.requests).label("requests"))
            .where(REFUSALS.c.hour >= hour)
            .group_by(REFUSALS.c.reason)
        )
        with self._transaction() as connection:
            return {row.reason: int(row.requests) for row in connection.execute(counted)}

    def close(self) -> None:
        """Close all connections. The next call opens new ones."""
        if self._engine is not None:
            self._engine.dispose()
            self._engine = None

    def _values(self, delivery: Delivery) -> tuple[Any, ...]:
        """Return the values of a delivery for the driver. For SQLite, the time is a text in SQLAlchemy's format."""
        received_at: Any = delivery.received_at
        if self._is_sqlite():
            received_at = delivery.received_at.replace(tzinfo=None).isoformat(" ", "microseconds")
        return delivery.integration, delivery.account_id, delivery.event_id, delivery.payload, received_at

    def _put_statement(self, row_count: int) -> str:
        """Return the statement that inserts `row_count` rows."""
        mark = "?" if self._is_sqlite() else "%s"
        return _PUT.format(rows=", ".join([f"({', '.join([mark] * 6)})"] * row_count))

    def _insert(self, table: sa.Table) -> Any:
        """Return the database's own INSERT, since SQLAlchemy's common INSERT has no ON CONFLICT."""
        dialect = import_module(f"sqlalchemy.dialects.{'sqlite' if self._is_sqlite() else 'postgresql'}")
        return dialect.insert(table)

    def _is_sqlite(self) -> bool:
        return self.url.startswith("sqlite")

    @contextmanager
    def _transaction(self) -> Iterator[sa.Connection]:
        try:
            with self._connected().begin() as connection:
                yield connection
            is_same_file = self._file == self._current_file()
        except (SQLAlchemyError, OSError, ImportError) as error:
            message = _database_message(error)
            if self._is_sqlite() and self._path().is_dir():
                message = "a folder stands in its place. Move it away."
            raise QueueUnavailable(f"The webhook queue{self._location()} cannot be used: {message}") from None
        if not is_same_file:
            self.close()
            raise QueueUnavailable(f"The webhook queue{self._location()} was deleted or replaced while it was used.")

    def _connected(self) -> sa.Engine:
        if self._engine is not None and self._file != self._current_file():
            self.close()  # what is written to a deleted file is lost
        if self._engine is None:
            if self._is_sqlite():
                self._path().parent.mkdir(parents=True, exist_ok=True)
                engine = sa.create_engine(sa.URL.create("sqlite", database=str(self._path())))
                sa.event.listen(engine, "connect", _prepare_sqlite)
            else:
                engine = sa.create_engine(self.url, pool_pre_ping=True, connect_args=_POSTGRESQL)
            _metadata.create_all(engine)
            _add_columns(engine)
            self._engine, self._file = engine, self._current_file()
        return self._engine

    def _path(self) -> Path:
        return Path(self.url.removeprefix("sqlite:///"))

    def _current_file(self) -> tuple[int, int] | None:
        """Return device and inode of a SQLite queue's file, or None if it does not exist; for PostgreSQL, None."""
        if not self._is_sqlite():
            return None
        try:
            status = self._path().stat()
        except FileNotFoundError:
            return None
        return status.st_dev, status.st_ino

    def _location(self) -> str:
        return f" {self._path()}" if self._is_sqlite() else " of RECOUP_QUEUE_URL"


def _add_columns(engine: sa.Engine) -> None:
    """Add columns that the queue of an earlier release does not have."""
    existing = {column["name"] for column in sa.inspect(engine).get_columns(WEBHOOK_QUEUE.name)}
    if "account_id" not in existing:
        with engine.begin() as connection:
            connection.execute(sa.text(f"ALTER TABLE {WEBHOOK_QUEUE.name} ADD COLUMN account_id TEXT"))


def _prepare_sqlite(connection: Any, _: ConnectionPoolEntry) -> None:
    """Configure a SQLite connection: commits are on disk when they return (FULL), and readers never wait (WAL)."""
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {LOCK_TIMEOUT_SECONDS * 1000}")
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.close()


def _change(connection: sa.Connection, seqs: Sequence[int], **values: Any) -> None:
    """Update rows, a thousand per statement: a statement may contain a limited number of values."""
    for start in range(0, len(seqs), 1_000):
        some = WEBHOOK_QUEUE.c.seq.in_(seqs[start : start + 1_000])
        connection.execute(sa.update(WEBHOOK_QUEUE).where(some).values(**values))


def _utc(instant: datetime) -> datetime:
    """Return an instant in UTC. SQLite stores no time zone; its values are UTC."""
    return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)


def _database_message(error: Exception) -> str:
    """Return the first line of the database's message, without the statement and its values."""
    cause = getattr(error, "orig", None) or error
    message = (str(cause).strip() or type(cause).__name__).splitlines()[0].rstrip(".") + "."
    is_damaged = "malformed" in message or "not a database" in message
    return f"{message} If it is damaged, `recoup repair` starts a new one." if is_damaged else message


def days_ago(days: float) -> datetime:
    """Return the instant this number of days before now (UTC)."""
    return datetime.now(UTC) - timedelta(days=days)
