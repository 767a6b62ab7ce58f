"""The durable queue between the receiver and the runs: one table, in SQLite beside the warehouse or in PostgreSQL.

A row is put once for each event id, taken in the order of arrival, and finished after the warehouse has committed. What
is taken and not finished is taken again: loading an event twice changes nothing.
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
"""How long a writer of SQLite waits for another one; commits take milliseconds."""

_POSTGRESQL: Final = {
    "connect_timeout": LOCK_TIMEOUT_SECONDS,
    "tcp_user_timeout": 1_000 * LOCK_TIMEOUT_SECONDS,
    "options": f"-c lock_timeout={LOCK_TIMEOUT_SECONDS}s -c statement_timeout=60s",
}
"""A server that is gone, or busy, is an error soon: the receiver then answers 503, and Stripe tries again."""

_PUT: Final = """
INSERT INTO webhook_queue (integration, account_id, event_id, payload, received_at, deliveries) VALUES {rows}
ON CONFLICT (integration, event_id) DO UPDATE SET deliveries = webhook_queue.deliveries + excluded.deliveries
"""
"""One statement inserts many rows. The sqlite3 module releases the GIL in each step of a statement: with one INSERT per
row, the writer thread and the event loop made 6 futex calls per event to get it back; now they make 2."""

_ROWS_PER_INSERT: Final = 500
"""Rows of one statement. Six values per row stay far below the limits of both databases."""

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
"""`account_id` is whose integration it was when it came, if that was known: the name may be another's by now. `payload`
is the event's JSON without secrets and personal fields, and empty once it was loaded; `deliveries` counts how often it
came."""

REFUSALS: Final = sa.Table(
    "webhook_refusals",
    _metadata,
    sa.Column("integration", sa.Text, primary_key=True),
    sa.Column("hour", sa.DateTime(timezone=True), primary_key=True),
    sa.Column("reason", sa.Text, primary_key=True),
    sa.Column("requests", sa.BigInteger, nullable=False),
)
"""By the hour: requests that were not shown to be Stripe's, and genuine events passed over (`PASSED_OVER`)."""

PASSED_OVER: Final = {
    "no_event": "A signed request came that is no event of Stripe's.",
    "thin_event": "A thin event came, which carries no object. Choose the payload style Snapshot at Stripe.",
    "test_event": "A test event of Stripe's came, with an id such as evt_00000000000000.",
    "other_account": "An event came of an account that this endpoint may not write.",
}
"""Why a genuine event is passed over though somebody may look for it in the tables, by the reason as it is counted."""


@dataclass(frozen=True)
class Delivery:
    """An event as it is put into the queue. `received_at` in UTC."""

    integration: str
    event_id: str
    payload: str
    received_at: datetime
    account_id: str | None = None


@dataclass(frozen=True)
class QueuedEvent:
    """An event as it is taken. `attempts` counts this one, too."""

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
    """What waits, since when the oldest does (UTC) and how often it was taken, and how many are put aside."""

    queued: int
    quarantined: int
    oldest_seq: int | None = None
    oldest_received_at: datetime | None = None
    attempts: int = 0

    def age(self, now: datetime) -> float:
        """Seconds that the oldest queued event has waited; 0 where none waits."""
        return max((now - self.oldest_received_at).total_seconds(), 0.0) if self.oldest_received_at else 0.0


@dataclass
class Queue:
    """The queue at `sqlite:///` and a path with any characters in it, or at a postgresql:// address of SQLAlchemy's.
    Tables are made where missing.

    Every method raises QueueUnavailable.
    """

    url: str = field(repr=False)
    _engine: sa.Engine | None = field(init=False, default=None, repr=False)
    _file: tuple[int, int] | None = field(init=False, default=None, repr=False)

    def put(self, deliveries: Sequence[Delivery]) -> None:
        """Keep the events, on disk before this returns. One that is there already is only counted."""
        counts = Counter((each.integration, each.event_id) for each in deliveries)
        first = {(each.integration, each.event_id): each for each in reversed(deliveries)}
        # By key, so that two receivers never wait for each other's rows crosswise.
        rows = [(*self._values(first[key]), counts[key]) for key in sorted(first)]
        if not rows:
            return
        with self._transaction() as connection:
            for start in range(0, len(rows), _ROWS_PER_INSERT):
                some = rows[start : start + _ROWS_PER_INSERT]
                connection.exec_driver_sql(self._put_statement(len(some)), tuple(chain.from_iterable(some)))

    def take(self, limit: int, *, excluding: Collection[str] = ()) -> list[QueuedEvent]:
        """The oldest queued events, up to `limit`, but for those of some integrations, each with its attempts one up.
        Rows that another reader is taking at this moment are passed over."""
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
            ).fetchall()
        rows = [QueuedEvent(**{**row._mapping, "received_at": _utc(row.received_at)}) for row in taken]
        return sorted(rows, key=lambda row: row.seq)

    def finish(
        self,
        seqs: Sequence[int],
        quarantined: Mapping[int, str] | None = None,
        payloads: Mapping[int, str] | None = None,
    ) -> None:
        """Acknowledge what the warehouse has committed, and put in quarantine, with the reason, what cannot be read.

        `payloads` replace those of events in quarantine.
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
        """Take back an attempt that failed for no fault of the events."""
        with self._transaction() as connection:
            _change(connection, seqs, attempts=WEBHOOK_QUEUE.c.attempts - 1)

    def requeue_quarantined(self) -> int:
        """Put everything that was put aside back into the line, and return how many."""
        with self._transaction() as connection:
            result = connection.execute(
                sa.update(WEBHOOK_QUEUE)
                .where(WEBHOOK_QUEUE.c.state == "quarantined")
                .values(state="queued", attempts=0, finished_at=None)
            )
        return int(result.rowcount)

    def delete_finished(self, *, before: datetime) -> int:
        """Forget what was done before then (UTC). QuarantinedObject rows stay until someone decides."""
        done = (WEBHOOK_QUEUE.c.finished_at < before) & (WEBHOOK_QUEUE.c.state != "quarantined")
        with self._transaction() as connection:
            deleted = connection.execute(sa.delete(WEBHOOK_QUEUE).where(done)).rowcount
            connection.execute(sa.delete(REFUSALS).where(REFUSALS.c.hour < before))
        return int(deleted)

    def stats(self) -> QueueStats:
        """What waits now and what is put aside: quick, however much was loaded."""
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
        """How many of the rows still here were loaded, and how many deliveries only repeated what was here already."""
        column = WEBHOOK_QUEUE.c
        done = sa.func.sum(sa.case((column.state == "done", 1), else_=0)).label("done")
        repeated = sa.func.sum(column.deliveries - 1).label("repeated")
        with self._transaction() as connection:
            row = connection.execute(sa.select(done, repeated)).one()
        return int(row.done or 0), int(row.repeated or 0)

    def has_queued(self) -> bool:
        """Whether anything waits."""
        with self._transaction() as connection:
            waiting = sa.select(WEBHOOK_QUEUE.c.seq).where(WEBHOOK_QUEUE.c.state == "queued").limit(1)
            return connection.execute(waiting).fetchone() is not None

    def state_of(self, event_id: str) -> State | None:
        """Where an event stands; None where it never came, or was done long ago."""
        with self._transaction() as connection:
            found = sa.select(WEBHOOK_QUEUE.c.state).where(WEBHOOK_QUEUE.c.event_id == event_id)
            return connection.execute(found).scalar()

    def quarantine(self, limit: int) -> list[tuple[str, datetime, str]]:
        """The newest events put aside: id, when they were received (UTC), why."""
        column = WEBHOOK_QUEUE.c
        rows = (
            sa.select(column.event_id, column.received_at, column.reason)
            .where(column.state == "quarantined")
            .order_by(column.seq.desc())
            .limit(limit)
        )
        with self._transaction() as connection:
            return [(row.event_id, _utc(row.received_at), row.reason) for row in connection.execute(rows)]

    def count_refusals(self, integration: str, reasons: Mapping[str, int], *, now: datetime) -> None:
        """Add to the counts of the hour of `now`."""
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

    def refusals(self, *, since: datetime) -> dict[str, int]:
        """Return the refused requests by reason, from the hour of `since` on."""
        return {reason: count for reason, count in self._counted(since).items() if reason not in PASSED_OVER}

    def passed_over(self, *, since: datetime) -> dict[str, int]:
        """Return the genuine events that were passed over by reason, from the hour of `since` on."""
        return {reason: count for reason, count in self._counted(since).items() if reason in PASSED_OVER}

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
        """Give connections back."""
        if self._engine is not None:
            self._engine.dispose()
            self._engine = None

    def _values(self, delivery: Delivery) -> tuple[Any, ...]:
        """Return the values of a delivery for the driver: SQLite keeps an instant as the text that SQLAlchemy reads."""
        received_at: Any = delivery.received_at
        if self._is_sqlite():
            received_at = delivery.received_at.replace(tzinfo=None).isoformat(" ", "microseconds")
        return delivery.integration, delivery.account_id, delivery.event_id, delivery.payload, received_at

    def _put_statement(self, row_count: int) -> str:
        """Return the statement that inserts this number of rows."""
        mark = "?" if self._is_sqlite() else "%s"
        return _PUT.format(rows=", ".join([f"({', '.join([mark] * 6)})"] * row_count))

    def _insert(self, table: sa.Table) -> Any:
        """An INSERT that knows ON CONFLICT, which SQLAlchemy has for each database by itself."""
        dialect = import_module(f"sqlalchemy.dialects.{'sqlite' if self._is_sqlite() else 'postgresql'}")
        return dialect.insert(table)

    def _is_sqlite(self) -> bool:
        return self.url.startswith("sqlite")

    @contextmanager
    def _transaction(self) -> Iterator[sa.Connection]:
        try:
            with self._connected().begin() as connection:
                yield connection
            is_kept = self._file == self._file_now()
        except (SQLAlchemyError, OSError, ImportError) as error:
            words = _database_message(error)
            if self._is_sqlite() and self._path().is_dir():
                words = "a folder stands in its place. Move it away."
            raise QueueUnavailable(f"The webhook queue{self._where()} cannot be used: {words}") from None
        if not is_kept:
            self.close()
            raise QueueUnavailable(f"The webhook queue{self._where()} was deleted or replaced while it was used.")

    def _connected(self) -> sa.Engine:
        if self._engine is not None and self._file != self._file_now():
            self.close()  # an open file that was deleted takes everything that is written to it with it
        if self._engine is None:
            if self._is_sqlite():
                self._path().parent.mkdir(parents=True, exist_ok=True)
                engine = sa.create_engine(sa.URL.create("sqlite", database=str(self._path())))
                sa.event.listen(engine, "connect", _prepare_sqlite)
            else:
                engine = sa.create_engine(self.url, pool_pre_ping=True, connect_args=_POSTGRESQL)
            _metadata.create_all(engine)
            _add_columns(engine)
            self._engine, self._file = engine, self._file_now()
        return self._engine

    def _path(self) -> Path:
        return Path(self.url.removeprefix("sqlite:///"))

    def _file_now(self) -> tuple[int, int] | None:
        """Which file stands at the path of a SQLite queue; None where there is none, and for PostgreSQL."""
        if not self._is_sqlite():
            return None
        try:
            status = self._path().stat()
        except FileNotFoundError:
            return None
        return status.st_dev, status.st_ino

    def _where(self) -> str:
        return f" {self._path()}" if self._is_sqlite() else " of RECOUP_QUEUE_URL"


def _add_columns(engine: sa.Engine) -> None:
    """To a queue that was made before it had them."""
    there = {column["name"] for column in sa.inspect(engine).get_columns(WEBHOOK_QUEUE.name)}
    if "account_id" not in there:
        with engine.begin() as connection:
            connection.execute(sa.text(f"ALTER TABLE {WEBHOOK_QUEUE.name} ADD COLUMN account_id TEXT"))


def _prepare_sqlite(connection: Any, _: ConnectionPoolEntry) -> None:
    """A commit is on disk when it returns (FULL); readers never wait for a writer (WAL)."""
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {LOCK_TIMEOUT_SECONDS * 1000}")
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.close()


def _change(connection: sa.Connection, seqs: Sequence[int], **values: Any) -> None:
    """Update the rows, as many at once as a statement may name."""
    for start in range(0, len(seqs), 1_000):
        some = WEBHOOK_QUEUE.c.seq.in_(seqs[start : start + 1_000])
        connection.execute(sa.update(WEBHOOK_QUEUE).where(some).values(**values))


def _utc(instant: datetime) -> datetime:
    """SQLite keeps no time zone; what is written there is UTC."""
    return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)


def _database_message(error: Exception) -> str:
    """The database's own first line, without the statement and its values."""
    cause = getattr(error, "orig", None) or error
    words = (str(cause).strip() or type(cause).__name__).splitlines()[0].rstrip(".") + "."
    is_damaged = "malformed" in words or "not a database" in words
    return f"{words} If it is damaged, `recoup repair` starts a new one." if is_damaged else words


def days_ago(days: float) -> datetime:
    """That many days before now (UTC)."""
    return datetime.now(UTC) - timedelta(days=days)
