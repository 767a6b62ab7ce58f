"""The newer-wins load: the one way into the raw tables, for listings, retrieves, events and webhooks alike.

Which payload of an object wins never depends on the order of arrival. It is the one with the greatest
(`_as_of`, `_precedence`), where precedence decides within one second: a final state, then a listing or retrieve over
an event, then any event over `*.created`, then the greater event id. Where payloads of the deciding second disagree,
Stripe promises no order, and the row is marked `_needs_read`.
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
"""A NamedTuple whose leading fields are columns."""


@dataclass(frozen=True)
class LoadCounts:
    """Count what became of the rows given: read = written + unchanged + outdated."""

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

_SETTLED: Final = "(winners._precedence LIKE '2%' OR (winners._precedence LIKE '_2%' AND winners.is_incoming))"
_CREATED_EVENT: Final = "candidates._precedence LIKE '_00%'"

# The table is roughly ordered by `created`. The bounds let DuckDB skip parts of the table that hold none of these
# objects. If payloads disagree on `created`, the row keeps the earliest: models look for what belongs to an object from
# then on.
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
    WHERE {{belongs}}
),
winners AS (
    SELECT * REPLACE (min(created) OVER (PARTITION BY id) AS created) FROM candidates
    QUALIFY row_number() OVER (PARTITION BY id ORDER BY _as_of DESC, _precedence DESC, is_incoming DESC) = 1
),
rivals AS (
    SELECT DISTINCT winners.id FROM winners
    INNER JOIN candidates USING (id, _as_of)
    WHERE candidates.payload <> winners.payload AND NOT {_CREATED_EVENT} AND NOT {_SETTLED}
),
judged AS (
    SELECT
        winners.* EXCLUDE (is_incoming, _needs_read, _loaded_at, _load_id),
        winners._api_version IS DISTINCT FROM $pinned_version
            OR winners.id IN (FROM rivals)
            OR coalesce(existing._needs_read AND existing._as_of = winners._as_of AND NOT {_SETTLED}, FALSE)
            AS _needs_read,
        existing.id IS NULL OR existing.payload <> winners.payload OR existing.created <> winners.created AS is_written,
        existing._loaded_at,
        existing._load_id,
        NOT winners.is_incoming AS is_kept,
        existing._needs_read AS was_in_doubt
    FROM winners LEFT JOIN existing USING (id)
)
SELECT *, NOT is_kept OR is_written OR _needs_read <> was_in_doubt AS is_rewritten FROM judged
"""


def _keeps(*references: str) -> str:
    """Return the condition that an incoming row names what the stored row names, wherever that names anything."""
    named = "json_extract_string({row}.payload, ['$.{name}.id', '$.{name}'])"
    moved = " OR ".join(
        f"coalesce({stored}[1], {stored}[2]) IS DISTINCT FROM coalesce({incoming}[1], {incoming}[2])"
        f" AND {stored}[2] IS NOT NULL"
        for stored, incoming in (
            (named.format(row="existing", name=name), named.format(row="incoming_rows", name=name))
            for name in references
        )
    )
    return f"NOT EXISTS (FROM existing WHERE existing.id = incoming_rows.id AND ({moved}))"


_BELONGS: Final = {
    "charges": _keeps("payment_intent"),
    "refunds": _keeps("payment_intent", "charge"),
    "disputes": _keeps("payment_intent", "charge"),
}
"""Which incoming rows may count. A charge, refund or dispute keeps the payment that it belongs to: a row that names
another one, or none any more, is left out. A build would not find the payment that lost it."""


@dataclass
class Loader:
    """Load into one account's raw tables within the caller's transaction. Each loader is one load with one `_load_id`.

    `pinned_version` is the API version that rows should have. A payload of another version is stored and read again.
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
        """Load payloads of one kind of object; newer wins. Keep each `last_payment_error` that no charge shows."""
        if not rows:
            return LoadCounts()
        counts = self._put(table, rows)
        errors = [row.error for row in rows if row.error]
        self.append_new("last_payment_errors", "id", errors, _ERROR_COLUMNS)
        return counts

    def load_events(self, rows: Sequence[EventRow]) -> dict[str, LoadCounts]:
        """Keep each event once, by its id, and load the objects of the new events. Return counts by table."""
        return self.load({}, rows)

    def load(
        self, objects: Mapping[ObjectTable, Sequence[ObjectRow]], events: Sequence[EventRow]
    ) -> dict[str, LoadCounts]:
        """Load objects together with those that new events carry, in one merge for each table. Return counts by table.

        Each event is kept once, by its id.
        """
        unique = {row.id: row for row in events}
        known = self._known("events", list(unique))
        fresh = [row for event_id, row in unique.items() if event_id not in known]
        self._append("events", fresh, _EVENT_COLUMNS)
        counts = {"events": LoadCounts(len(unique), len(fresh), len(unique) - len(fresh))}
        for table in OBJECT_TABLES:
            carried = [row.carried for row in fresh if row.table == table and row.carried is not None]
            counts[table] = self.load_objects(table, [*objects.get(table, ()), *carried])
        return counts

    def append_new(self, table: str, key: str, rows: Sequence[NamedRow], columns: Mapping[str, pa.DataType]) -> None:
        """Insert the rows whose key is not in the table yet. `key` names the column of the rows' first field."""
        unique = {row[0]: row for row in reversed(rows)}
        known = self._known(table, list(unique), key=key)
        self._append(table, [row for name, row in unique.items() if name not in known], columns)

    def clear_needs_read(self, table: ObjectTable, ids: Sequence[str], *, at: int) -> None:
        """Clear `_needs_read` for objects that Stripe no longer returns as of `at`; keep the stored payload."""
        if ids:
            self.connection.execute(
                f"""UPDATE raw_stripe.{table} SET _needs_read = FALSE, _as_of = $at
                    WHERE account_id = $account_id AND livemode = $livemode AND id IN (SELECT unnest($ids))""",
                {**self._owner(), "ids": list(ids), "at": to_timestamp(at)},
            )

    def reset_future_rows(self, table: ObjectTable, *, latest: int) -> None:
        """Let any answer replace rows that are vouched for at an instant after `latest`, and have them read again.

        A wrong clock or a wrong event put them there, and they would outrank everything until then.
        """
        self.connection.execute(
            f"""UPDATE raw_stripe.{table} SET _needs_read = TRUE, _as_of = least(created, $latest)
                WHERE account_id = $account_id AND livemode = $livemode AND _as_of > $latest""",
            {**self._owner(), "latest": to_timestamp(latest)},
        )

    def _put(self, table: ObjectTable, rows: Sequence[ObjectRow]) -> LoadCounts:
        """Load rows by the cheapest way that gives the newest of each object.

        A row that is older than the stored one, or than another row of the batch, changes nothing. In a first sync most
        objects carried by events are older. Leaving them out halves the CPU of merges.
        """
        newest: dict[str, int] = {}
        for row in rows:
            newest[row.id] = max(row.as_of, newest.get(row.id, row.as_of))
        stored = self._stored(table, list(newest))
        known = {object_id: as_of for object_id, as_of, _ in stored}
        contenders = [row for row in rows if row.as_of >= max(newest[row.id], known.get(row.id, row.as_of))]
        sightings = Counter(row.id for row in contenders)
        ranked = [row for row in contenders if row.id in known or sightings[row.id] > 1]
        new = [row for row in contenders if row.id not in known and sightings[row.id] == 1]
        counts = LoadCounts(len(rows) - len(contenders), outdated=len(rows) - len(contenders))
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
        """Return id, `_as_of` and `created` (unix seconds) of those objects that the table holds.

        The search is by the id alone: an event may tell another `created` of an object that is there.
        """
        return self.connection.execute(
            f"""SELECT id, epoch(_as_of)::BIGINT, epoch(created)::BIGINT FROM raw_stripe.{table}
                WHERE account_id = $account_id AND livemode = $livemode AND id IN (SELECT unnest($ids))""",
            {**self._owner(), "ids": list(ids)},
        ).fetchall()

    def _insert_new(self, table: ObjectTable, count: int) -> LoadCounts:
        """Insert rows whose ids are new and came once, so that none has to be ranked."""
        self.connection.execute(
            f"""INSERT INTO raw_stripe.{table} BY NAME
                SELECT
                    $account_id AS account_id, $livemode AS livemode, *,
                    _api_version IS DISTINCT FROM $pinned_version AS _needs_read,
                    $loaded_at AS _loaded_at, $load_id AS _load_id
                FROM incoming_rows""",
            {**self._owner(), **self._load(), "pinned_version": self.pinned_version},
        )
        self._note_written(table)
        return LoadCounts(count, count)

    def _merge(self, table: ObjectTable, count: int, bounds: Mapping[str, datetime]) -> LoadCounts:
        """Rank incoming rows against stored rows by id, and replace the stored rows that lose or change."""
        run = self.connection.execute
        run(
            f"CREATE OR REPLACE TEMP TABLE merged AS {_MERGE.format(table=table, belongs=_BELONGS.get(table, 'TRUE'))}",
            {**self._owner(), **bounds, "pinned_version": self.pinned_version},
        )
        objects, written, kept, replaced = self._one_row(
            """SELECT count(*), count(*) FILTER (is_written), count(*) FILTER (is_kept),
                   count(*) FILTER (is_rewritten AND was_in_doubt IS NOT NULL) FROM merged"""
        )
        if replaced:
            run(
                f"""DELETE FROM raw_stripe.{table} WHERE account_id = $account_id AND livemode = $livemode
                    AND created BETWEEN $oldest AND $newest AND id IN (SELECT id FROM merged WHERE is_rewritten)""",
                {**self._owner(), **bounds},
            )
        run(
            f"""INSERT INTO raw_stripe.{table} BY NAME
                SELECT
                    $account_id AS account_id, $livemode AS livemode,
                    * EXCLUDE (_loaded_at, _load_id, is_written, is_kept, was_in_doubt, is_rewritten),
                    if(is_written, $loaded_at, _loaded_at) AS _loaded_at, if(is_written, $load_id, _load_id) AS _load_id
                FROM merged WHERE is_rewritten""",
            {**self._owner(), **self._load()},
        )
        if written:
            self._note_written(table)
        return LoadCounts(count, written, objects - written - kept, count - objects + kept)

    def _one_row(self, query: str, values: Mapping[str, Any] | None = None) -> tuple[Any, ...]:
        """Return the only row. Fetch the whole result, since DuckDB 2 refuses `register` while a result is open."""
        (row,) = self.connection.execute(query, dict(values or {})).fetchall()
        return tuple(row)

    def _known(self, table: str, ids: Sequence[str], *, key: str = "id") -> set[str]:
        """Return the ids that are in the table."""
        if not ids:
            return set()
        found = self.connection.execute(
            f"""SELECT {key} FROM raw_stripe.{table} WHERE account_id = $account_id AND livemode = $livemode
                AND {key} IN (SELECT unnest($ids))""",
            {**self._owner(), "ids": list(ids)},
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
                {**self._owner(), **self._load()},
            )
        self._note_written(table)

    def _note_written(self, table: str) -> None:
        """Enter the load in the ledger, once for each table, in the transaction of its rows."""
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

    def _load(self) -> dict[str, Any]:
        return {"loaded_at": self.loaded_at, "load_id": self.load_id}

    def _owner(self) -> dict[str, Any]:
        return {"account_id": self.account.account_id, "livemode": self.account.livemode}


def _arrow(rows: Sequence[Any], columns: Mapping[str, pa.DataType]) -> pa.Table:
    """Build an Arrow table from the first `len(columns)` fields of each row."""
    values = list(zip(*rows, strict=True))
    arrays = [pa.array(values[index], kind) for index, kind in enumerate(columns.values())]
    return pa.Table.from_arrays(arrays, names=list(columns))
