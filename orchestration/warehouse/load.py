"""Load objects and events into the raw tables. Lists, retrieves, events and webhooks all use this module.

A raw table keeps the newest payload of each object: the one with the greatest (`_as_of`, `_precedence`), in whatever
order the payloads arrive. `_precedence` ranks payloads of the same second:

1. a final status before any other status,
2. a list or retrieve response before an event,
3. any other event before `*.created`,
4. the greater event id.

Stripe promises no order within a second. If payloads of the newest second differ, the row is marked `_needs_read`.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import duckdb
import pyarrow as pa

from orchestration.base.account import AccountKey
from orchestration.base.instants import to_timestamp
from orchestration.warehouse.rows import OBJECT_TABLES, EventRow, ObjectRow, ObjectTable

NamedRow = tuple[Any, ...]
"""A NamedTuple whose first fields are the columns of a table."""


@dataclass(frozen=True)
class LoadCounts:
    """Numbers of rows: read = written + unchanged + outdated."""

    read: int = 0
    written: int = 0
    unchanged: int = 0
    outdated: int = 0

    def __add__(self, other: "LoadCounts") -> "LoadCounts":
        return LoadCounts(
            self.read + other.read,
            self.written + other.written,
            self.unchanged + other.unchanged,
            self.outdated + other.outdated,
        )


_STRING, _SECOND = pa.string(), pa.timestamp("s")
_OBJECT_COLUMNS: Final = {
    "id": _STRING,
    "created": _SECOND,
    "payload": _STRING,
    "_as_of": _SECOND,
    "_source": _STRING,
    "_event_id": _STRING,
    "_api_version": _STRING,
    "_precedence": _STRING,
}
_EVENT_COLUMNS: Final = {
    "id": _STRING,
    "created": _SECOND,
    "type": _STRING,
    "object_id": _STRING,
    "payload": _STRING,
    "_source": _STRING,
    "_api_version": _STRING,
}
_ERROR_COLUMNS: Final = {"id": _STRING, "payment_intent_id": _STRING, "first_seen_at": _SECOND, "payload": _STRING}

# The first three characters of `_precedence` are finality, source and "is no `*.created` event" (`rows.Precedence`).
_IS_FINAL: Final = "(winners._precedence LIKE '2%' OR (winners._precedence LIKE '_2%' AND winners.is_incoming))"
"""True if the winning payload needs no further read: its status is final, or the object was just read again."""

_IS_CREATED_EVENT: Final = "candidates._precedence LIKE '_00%'"
"""True for the payload of a `*.created` event. All other payloads of its second are newer."""

# The table is roughly ordered by `created`. The bounds let DuckDB skip parts of the table without any of these objects.
# If payloads disagree on `created`, the row keeps the earliest value: models search for related rows from then on.
_MERGE: Final = f"""
WITH existing AS (
    SELECT * EXCLUDE (account_id, livemode) FROM raw_stripe.{{table}}
    WHERE account_id = $account_id AND livemode = $livemode AND created BETWEEN $oldest AND $newest
        AND id IN (SELECT id FROM incoming_rows)
),
candidates AS (
    SELECT *, FALSE AS is_incoming FROM existing
    UNION ALL BY NAME
    SELECT *, TRUE AS is_incoming FROM incoming_rows
    WHERE {{is_considered}}
),
winners AS (
    SELECT * REPLACE (min(created) OVER (PARTITION BY id) AS created) FROM candidates
    QUALIFY row_number() OVER (PARTITION BY id ORDER BY _as_of DESC, _precedence DESC, is_incoming DESC) = 1
),
ties AS (
    SELECT DISTINCT winners.id FROM winners
    INNER JOIN candidates USING (id, _as_of)
    WHERE candidates.payload <> winners.payload AND NOT {_IS_CREATED_EVENT} AND NOT {_IS_FINAL}
),
decided AS (
    SELECT
        winners.* EXCLUDE (is_incoming, _needs_read, _loaded_at, _load_id),
        winners._api_version IS DISTINCT FROM $pinned_version
            OR winners.id IN (FROM ties)
            OR coalesce(existing._needs_read AND existing._as_of = winners._as_of AND NOT {_IS_FINAL}, FALSE)
            AS _needs_read,
        existing.id IS NULL OR existing.payload <> winners.payload OR existing.created <> winners.created AS is_written,
        existing._loaded_at,
        existing._load_id,
        NOT winners.is_incoming AS is_kept,
        existing._needs_read AS needed_read
    FROM winners LEFT JOIN existing USING (id)
)
SELECT *, NOT is_kept OR is_written OR _needs_read <> needed_read AS is_rewritten FROM decided
"""


def _keeps_references(*references: str) -> str:
    """Return the condition that an incoming row keeps the references of the stored row."""
    named = "json_extract_string({row}.payload, ['$.{name}.id', '$.{name}'])"
    differences = " OR ".join(
        f"coalesce({stored}[1], {stored}[2]) IS DISTINCT FROM coalesce({incoming}[1], {incoming}[2])"
        f" AND {stored}[2] IS NOT NULL"
        for stored, incoming in (
            (named.format(row="existing", name=name), named.format(row="incoming_rows", name=name))
            for name in references
        )
    )
    return f"NOT EXISTS (FROM existing WHERE existing.id = incoming_rows.id AND ({differences}))"


_KEEPS_PAYMENT: Final = {
    "charges": _keeps_references("payment_intent"),
    "refunds": _keeps_references("payment_intent", "charge"),
    "disputes": _keeps_references("payment_intent", "charge"),
}
"""Condition, by table, for an incoming row to be considered.

A charge, refund or dispute never moves to another payment. A row that names another payment, or no longer names one, is
ignored: an incremental build would not find the payment that it had left.
"""


@dataclass
class Loader:
    """One load into an account's raw tables, with one `_load_id`, in the caller's transaction.

    `pinned_version` is the API version that rows should have. A payload of another version is stored and marked
    `_needs_read`. `loaded_at` is UTC on this machine's clock.
    """

    connection: duckdb.DuckDBPyConnection
    account: AccountKey
    pinned_version: str
    load_id: int = field(init=False)
    loaded_at: datetime = field(init=False)
    _written: set[str] = field(init=False, default_factory=set)

    def __post_init__(self) -> None:
        self.load_id = self._one_row("SELECT nextval('sync.load_ids')")[0]
        self.loaded_at = datetime.now(UTC).replace(tzinfo=None, microsecond=0)

    def load_objects(self, table: ObjectTable, rows: Sequence[ObjectRow]) -> LoadCounts:
        """Load objects of one kind: the newest payload of each, and every `last_payment_error` without a charge."""
        if not rows:
            return LoadCounts()
        counts = self._load_rows(table, rows)
        errors = [row.error for row in rows if row.error]
        self.append_new("last_payment_errors", "id", errors, _ERROR_COLUMNS)
        return counts

    def load_events(self, rows: Sequence[EventRow]) -> dict[str, LoadCounts]:
        """Store each event once, by its id, and load the objects of the new events. Return counts by table."""
        return self.load({}, rows)

    def load(
        self, objects: Mapping[ObjectTable, Sequence[ObjectRow]], events: Sequence[EventRow]
    ) -> dict[str, LoadCounts]:
        """Load objects, together with the objects of new events, in one merge per table. Return counts by table.

        Each event is stored once, by its id.
        """
        unique = {row.id: row for row in events}
        known = self._known_ids("events", list(unique))
        new = [row for event_id, row in unique.items() if event_id not in known]
        self._append("events", new, _EVENT_COLUMNS)
        counts = {"events": LoadCounts(len(unique), len(new), len(unique) - len(new))}
        for table in OBJECT_TABLES:
            carried = [row.carried for row in new if row.table == table and row.carried is not None]
            counts[table] = self.load_objects(table, [*objects.get(table, ()), *carried])
        return counts

    def append_new(self, table: str, key: str, rows: Sequence[NamedRow], columns: Mapping[str, pa.DataType]) -> None:
        """Insert the rows whose key is not in the table yet. `key` names the column of the rows' first field."""
        unique = {row[0]: row for row in reversed(rows)}
        known = self._known_ids(table, list(unique), key=key)
        self._append(table, [row for name, row in unique.items() if name not in known], columns)

    def clear_needs_read(self, table: ObjectTable, ids: Sequence[str], *, at: int) -> None:
        """Clear `_needs_read` of objects that Stripe no longer returns at `at` (Unix seconds); keep their payloads."""
        if ids:
            self.connection.execute(
                f"""UPDATE raw_stripe.{table} SET _needs_read = FALSE, _as_of = $at
                    WHERE account_id = $account_id AND livemode = $livemode AND id IN (SELECT unnest($ids))""",
                {**self._account_values(), "ids": list(ids), "at": to_timestamp(at)},
            )

    def reset_future_rows(self, table: ObjectTable, *, latest: int) -> None:
        """Mark rows with an `_as_of` after `latest` (Unix seconds) as `_needs_read`, and make them replaceable.

        A wrong clock or a wrong event caused such a row. It would take precedence over all payloads until that instant.
        """
        self.connection.execute(
            f"""UPDATE raw_stripe.{table} SET _needs_read = TRUE, _as_of = least(created, $latest)
                WHERE account_id = $account_id AND livemode = $livemode AND _as_of > $latest""",
            {**self._account_values(), "latest": to_timestamp(latest)},
        )

    def _load_rows(self, table: ObjectTable, rows: Sequence[ObjectRow]) -> LoadCounts:
        """Load rows in the cheapest way: insert new objects, merge known ones, and leave out outdated rows.

        A row is outdated if the stored row, or another row of the batch, is newer. In a first sync most objects of
        events are outdated. Leaving them out halves the CPU time of merges.
        """
        newest: dict[str, int] = {}
        for row in rows:
            newest[row.id] = max(row.as_of, newest.get(row.id, row.as_of))
        stored = self._stored(table, list(newest))
        known = {object_id: as_of for object_id, as_of, _ in stored}
        candidates = [row for row in rows if row.as_of >= max(newest[row.id], known.get(row.id, row.as_of))]
        occurrences = Counter(row.id for row in candidates)
        ranked = [row for row in candidates if row.id in known or occurrences[row.id] > 1]
        new = [row for row in candidates if row.id not in known and occurrences[row.id] == 1]
        counts = LoadCounts(len(rows) - len(candidates), outdated=len(rows) - len(candidates))
        if new:
            with self._registered(_arrow(new, _OBJECT_COLUMNS)):
                counts += self._insert_new(table, len(new))
        if ranked:
            created = [*(row.created for row in ranked), *(at for _, _, at in stored)]
            bounds = {"oldest": to_timestamp(min(created)), "newest": to_timestamp(max(created))}
            with self._registered(_arrow(ranked, _OBJECT_COLUMNS)):
                counts += self._merge(table, len(ranked), bounds)
        return counts

    def _stored(self, table: ObjectTable, ids: Sequence[str]) -> list[tuple[str, int, int]]:
        """Return id, `_as_of` and `created` (Unix seconds) of the objects that are in the table.

        The search uses the id only, since an event may contain a `created` that differs from the stored one.
        """
        return self.connection.execute(
            f"""SELECT id, epoch(_as_of)::BIGINT, epoch(created)::BIGINT FROM raw_stripe.{table}
                WHERE account_id = $account_id AND livemode = $livemode AND id IN (SELECT unnest($ids))""",
            {**self._account_values(), "ids": list(ids)},
        ).fetchall()

    def _insert_new(self, table: ObjectTable, count: int) -> LoadCounts:
        """Insert rows of objects that are not in the table. Each id occurs once, so that no row must be ranked."""
        self.connection.execute(
            f"""INSERT INTO raw_stripe.{table} BY NAME
                SELECT
                    $account_id AS account_id, $livemode AS livemode, *,
                    _api_version IS DISTINCT FROM $pinned_version AS _needs_read,
                    $loaded_at AS _loaded_at, $load_id AS _load_id
                FROM incoming_rows""",
            {**self._account_values(), **self._load_values(), "pinned_version": self.pinned_version},
        )
        self._note_written(table)
        return LoadCounts(count, count)

    def _merge(self, table: ObjectTable, count: int, bounds: Mapping[str, datetime]) -> LoadCounts:
        """Rank incoming and stored rows of each object, and replace the stored rows that are outdated or change."""
        run = self.connection.execute
        merge = _MERGE.format(table=table, is_considered=_KEEPS_PAYMENT.get(table, "TRUE"))
        run(
            f"CREATE OR REPLACE TEMP TABLE merged AS {merge}",
            {**self._account_values(), **bounds, "pinned_version": self.pinned_version},
        )
        objects, written, kept, replaced = self._one_row(
            """SELECT count(*), count(*) FILTER (is_written), count(*) FILTER (is_kept),
                   count(*) FILTER (is_rewritten AND needed_read IS NOT NULL) FROM merged"""
        )
        if replaced:
            run(
                f"""DELETE FROM raw_stripe.{table} WHERE account_id = $account_id AND livemode = $livemode
                    AND created BETWEEN $oldest AND $newest AND id IN (SELECT id FROM merged WHERE is_rewritten)""",
                {**self._account_values(), **bounds},
            )
        run(
            f"""INSERT INTO raw_stripe.{table} BY NAME
                SELECT
                    $account_id AS account_id, $livemode AS livemode,
                    * EXCLUDE (_loaded_at, _load_id, is_written, is_kept, needed_read, is_rewritten),
                    if(is_written, $loaded_at, _loaded_at) AS _loaded_at, if(is_written, $load_id, _load_id) AS _load_id
                FROM merged WHERE is_rewritten""",
            {**self._account_values(), **self._load_values()},
        )
        if written:
            self._note_written(table)
        return LoadCounts(count, written, objects - written - kept, count - objects + kept)

    def _one_row(self, query: str, values: Mapping[str, Any] | None = None) -> tuple[Any, ...]:
        """Return the only row of a result. Fetch the whole result: DuckDB 2 refuses `register` while one is open."""
        (row,) = self.connection.execute(query, dict(values or {})).fetchall()
        return tuple(row)

    def _known_ids(self, table: str, ids: Sequence[str], *, key: str = "id") -> set[str]:
        """Return those of the ids that are in the table."""
        if not ids:
            return set()
        found = self.connection.execute(
            f"""SELECT {key} FROM raw_stripe.{table} WHERE account_id = $account_id AND livemode = $livemode
                AND {key} IN (SELECT unnest($ids))""",
            {**self._account_values(), "ids": list(ids)},
        ).fetchall()
        return {row[0] for row in found}

    def _append(self, table: str, rows: Sequence[NamedRow], columns: Mapping[str, pa.DataType]) -> None:
        if not rows:
            return
        with self._registered(_arrow(rows, columns)):
            self.connection.execute(
                f"""INSERT INTO raw_stripe.{table} BY NAME
                    SELECT
                        $account_id AS account_id, $livemode AS livemode, *,
                        $loaded_at AS _loaded_at, $load_id AS _load_id
                    FROM incoming_rows""",
                {**self._account_values(), **self._load_values()},
            )
        self._note_written(table)

    def _note_written(self, table: str) -> None:
        """Record the load in `sync.loads`, once per table, in the transaction of its rows."""
        if table not in self._written:
            self._written.add(table)
            self.connection.execute(
                "INSERT INTO sync.loads (load_id, table_name, loaded_at) VALUES (?, ?, ?)",
                [self.load_id, table, self.loaded_at],
            )

    @contextmanager
    def _registered(self, incoming: pa.Table) -> Iterator[None]:
        self.connection.register("incoming_rows", incoming)
        try:
            yield
        finally:
            self.connection.unregister("incoming_rows")

    def _load_values(self) -> dict[str, Any]:
        return {"loaded_at": self.loaded_at, "load_id": self.load_id}

    def _account_values(self) -> dict[str, Any]:
        return {"account_id": self.account.account_id, "livemode": self.account.livemode}


def _arrow(rows: Sequence[Any], columns: Mapping[str, pa.DataType]) -> pa.Table:
    """Build an Arrow table from the first `len(columns)` fields of each row."""
    values = list(zip(*rows, strict=True))
    arrays = [pa.array(values[index], kind) for index, kind in enumerate(columns.values())]
    return pa.Table.from_arrays(arrays, names=list(columns))
