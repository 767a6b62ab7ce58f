"""The newer-wins load: the one way into the raw tables, for listings, retrieves, events and webhooks alike.

Which payload of an object wins never depends on the order of arrival. It is the one with the greatest
(`_as_of`, `_precedence`), where precedence decides within one second: a final state, then a listing or retrieve over
an event, then any event over `*.created`, then the greater event id. Where payloads of the deciding second disagree,
Stripe promises no order, and the row is marked `_needs_read`.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Literal, get_args

import duckdb
import orjson
import pyarrow as pa

from orchestration.warehouse.scrub import to_stored_json

ObjectTable = Literal["payment_intents", "charges", "refunds", "disputes"]
OBJECT_TABLES: Final[tuple[ObjectTable, ...]] = get_args(ObjectTable)
Source = Literal["list", "retrieve", "event", "webhook"]

_TABLE_OF_OBJECT: Final[dict[str, ObjectTable]] = {
    "payment_intent": "payment_intents",
    "charge": "charges",
    "refund": "refunds",
    "dispute": "disputes",
}

_FINALITY: Final[dict[str, dict[str, int]]] = {
    "payment_intent": {"succeeded": 2, "canceled": 2},
    "charge": {"succeeded": 1, "failed": 1},
    "refund": {"succeeded": 1, "failed": 2, "canceled": 2},
    "dispute": {"won": 1, "lost": 1, "warning_closed": 1, "prevented": 1},
}
"""Which state wins within one second. Only 2 can never be left again, so only 2 needs no second look at a tie. A refund
may fail after it succeeded; a charge goes on to be captured, refunded, disputed (docs: object lifecycles)."""


@dataclass(frozen=True)
class AccountKey:
    """What every key begins with: two accounts, or test and live mode of one, never touch each other's rows."""

    account_id: str
    livemode: bool


@dataclass(frozen=True)
class LoadCounts:
    """What became of the rows given: read = written + unchanged + outdated."""

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


@dataclass(frozen=True)
class Vouched:
    """One object as Stripe rendered it, before scrubbing.

    `as_of` is the instant (unix seconds, Stripe's clock) at which Stripe vouched for it; by `seen_by` it had certainly
    been read.
    """

    payload: Mapping[str, Any]
    as_of: int
    seen_by: int
    source: Source
    api_version: str | None
    event_id: str | None = None
    event_type: str | None = None

    @property
    def is_created_event(self) -> bool:
        return self.event_type is not None and self.event_type.endswith(".created")

    @property
    def finality(self) -> int:
        return _FINALITY[self.payload["object"]].get(self.payload.get("status") or "", 0)

    @property
    def precedence(self) -> str:
        """Greater wins within one second: finality, then source, then `*.created` or not, then the event's id."""
        source = {"retrieve": 2, "list": 1}.get(self.source, 0)
        return f"{self.finality}{source}{not self.is_created_event:d}{self.event_id or ''}"


def _vouched_by(event: Mapping[str, Any], source: Source) -> Vouched:
    """The object an event carries, as it stood when the event was made."""
    return Vouched(
        payload=event["data"]["object"],
        as_of=event["created"],
        seen_by=event["created"],
        source=source,
        api_version=event.get("api_version"),
        event_id=event["id"],
        event_type=event["type"],
    )


def _error_id(intent_id: str, error: Mapping[str, Any]) -> str:
    """Two sightings of one failure have the same id. Stripe gives an error none of its own."""
    method = error.get("payment_method")
    method_id = method.get("id") if isinstance(method, Mapping) else method
    parts = [error.get("code"), error.get("decline_code"), error.get("type"), method_id]
    digest = hashlib.sha256(orjson.dumps(parts)).hexdigest()[:16]
    return f"{intent_id}:lpe:{digest}"


def table_of(payload: Mapping[str, Any]) -> ObjectTable | None:
    """The raw table of a Stripe object, by its `object` field; None where we keep none."""
    return _TABLE_OF_OBJECT.get(payload.get("object") or "")


_INCOMING: Final = pa.schema(
    [
        ("id", pa.string()),
        ("created", pa.timestamp("s")),
        ("payload", pa.string()),
        ("_as_of", pa.timestamp("s")),
        ("_source", pa.string()),
        ("_event_id", pa.string()),
        ("_api_version", pa.string()),
        ("_precedence", pa.string()),
    ]
)

_SETTLED: Final = "(winners._precedence LIKE '2%' OR (winners._precedence LIKE '_2%' AND winners.is_incoming))"
_CREATED_EVENT: Final = "candidates._precedence LIKE '_00%'"

_MERGE: Final = f"""
WITH existing AS (
    SELECT * EXCLUDE (account_id, livemode) FROM raw_stripe.{{table}}
    WHERE account_id = $account_id AND livemode = $livemode AND id IN (SELECT id FROM incoming_rows)
),
candidates AS (
    SELECT *, FALSE AS is_incoming FROM existing
    UNION ALL BY NAME
    SELECT *, TRUE AS is_incoming FROM incoming_rows
),
winners AS (
    FROM candidates
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
        existing.id IS NULL OR existing.payload <> winners.payload AS is_written,
        existing._loaded_at,
        existing._load_id,
        NOT winners.is_incoming AS is_kept,
        existing._needs_read AS was_in_doubt
    FROM winners LEFT JOIN existing USING (id)
)
SELECT *, NOT is_kept OR _needs_read <> was_in_doubt AS is_rewritten FROM judged
"""


@dataclass
class Loader:
    """Loads into one account's raw tables within the caller's transaction. One `_load_id` for each loader.

    `pinned_version` is the API version that rows should be in: a payload rendered in another is stored, and read again.
    """

    connection: duckdb.DuckDBPyConnection
    account: AccountKey
    pinned_version: str
    load_id: int = field(init=False)
    loaded_at: datetime = field(init=False)

    def __post_init__(self) -> None:
        self.load_id = self._one_row("SELECT nextval('sync.load_ids')")[0]
        self.loaded_at = datetime.now(UTC).replace(tzinfo=None, microsecond=0)

    def load_objects(self, table: ObjectTable, objects: Sequence[Vouched]) -> LoadCounts:
        """Load payloads of one kind of object; newer wins. Keeps the `last_payment_error`s that no charge tells of."""
        if not objects:
            return LoadCounts()
        incoming = pa.Table.from_pylist([self._row(vouched) for vouched in objects], schema=_INCOMING)
        counts = self._merge(table, incoming)
        if table == "payment_intents":
            self._keep_last_payment_errors(objects)
        return counts

    def load_events(
        self, events: Iterable[Mapping[str, Any]], source: Literal["event", "webhook"]
    ) -> dict[str, LoadCounts]:
        """Keep each event once, by its id, and load the objects that the new ones carry. Counts by table."""
        unique = {event["id"]: event for event in events}
        known = self._known_events(list(unique))
        fresh = [event for event_id, event in unique.items() if event_id not in known]
        self._insert_events(fresh, source)
        counts = {"events": LoadCounts(len(unique), len(fresh), len(unique) - len(fresh))}
        for table in OBJECT_TABLES:
            carried = [_vouched_by(event, source) for event in fresh if table_of(event["data"]["object"]) == table]
            counts[table] = self.load_objects(table, carried)
        return counts

    def settle(self, table: ObjectTable, ids: Sequence[str]) -> None:
        """Stop doubting rows whose objects Stripe no longer knows: what was stored last stays."""
        self.connection.execute(
            f"""UPDATE raw_stripe.{table} SET _needs_read = FALSE
                WHERE account_id = $account_id AND livemode = $livemode AND id IN (SELECT unnest($ids))""",
            {**self._owner(), "ids": list(ids)},
        )

    def _row(self, vouched: Vouched) -> dict[str, Any]:
        payload = vouched.payload
        return {
            "id": payload["id"],
            "created": payload["created"],
            "payload": to_stored_json(payload),
            "_as_of": vouched.as_of,
            "_source": vouched.source,
            "_event_id": vouched.event_id,
            "_api_version": vouched.api_version,
            "_precedence": vouched.precedence,
        }

    def _merge(self, table: ObjectTable, incoming: pa.Table) -> LoadCounts:
        """Rank what came against what is there, id by id, and replace the rows that lose or change."""
        run = self.connection.execute
        self.connection.register("incoming_rows", incoming)
        run(
            f"CREATE OR REPLACE TEMP TABLE merged AS {_MERGE.format(table=table)}",
            {**self._owner(), "pinned_version": self.pinned_version},
        )
        self.connection.unregister("incoming_rows")
        run(
            f"""DELETE FROM raw_stripe.{table} WHERE account_id = $account_id AND livemode = $livemode
                AND id IN (SELECT id FROM merged WHERE is_rewritten)""",
            self._owner(),
        )
        run(
            f"""INSERT INTO raw_stripe.{table} BY NAME
                SELECT
                    $account_id AS account_id, $livemode AS livemode,
                    * EXCLUDE (_loaded_at, _load_id, is_written, is_kept, was_in_doubt, is_rewritten),
                    if(is_written, $loaded_at, _loaded_at) AS _loaded_at, if(is_written, $load_id, _load_id) AS _load_id
                FROM merged WHERE is_rewritten""",
            {**self._owner(), "loaded_at": self.loaded_at, "load_id": self.load_id},
        )
        written, kept = self._one_row("SELECT count(*) FILTER (is_written), count(*) FILTER (is_kept) FROM merged")
        objects = self._one_row("SELECT count(*) FROM merged")[0]
        return LoadCounts(incoming.num_rows, written, objects - written - kept, incoming.num_rows - objects + kept)

    def _one_row(self, query: str) -> tuple[Any, ...]:
        row = self.connection.execute(query).fetchone()
        assert row is not None
        return row

    def _keep_last_payment_errors(self, intents: Sequence[Vouched]) -> None:
        rows = [
            {
                **self._owner(),
                "id": _error_id(vouched.payload["id"], error),
                "payment_intent_id": vouched.payload["id"],
                "first_seen_at": vouched.seen_by,
                "payload": to_stored_json(error),
            }
            for vouched in intents
            if vouched.source in ("list", "retrieve")
            and (error := vouched.payload.get("last_payment_error"))
            and not error.get("charge")
        ]
        if rows:
            self._append_new("last_payment_errors", pa.Table.from_pylist(rows, schema=_ERRORS))

    def _known_events(self, ids: list[str]) -> set[str]:
        found = self.connection.execute(
            """SELECT id FROM raw_stripe.events WHERE account_id = $account_id AND livemode = $livemode
               AND id IN (SELECT unnest($ids))""",
            {**self._owner(), "ids": ids},
        ).fetchall()
        return {row[0] for row in found}

    def _insert_events(self, events: Sequence[Mapping[str, Any]], source: Source) -> None:
        rows = [
            {
                **self._owner(),
                "id": event["id"],
                "created": event["created"],
                "type": event["type"],
                "object_id": event["data"]["object"]["id"],
                "payload": to_stored_json(event),
                "_source": source,
                "_api_version": event.get("api_version"),
            }
            for event in events
        ]
        if rows:
            self._append_new("events", pa.Table.from_pylist(rows, schema=_EVENTS))

    def _append_new(self, table: str, incoming: pa.Table) -> None:
        self.connection.register("incoming_rows", incoming)
        self.connection.execute(
            f"""INSERT INTO raw_stripe.{table} BY NAME
                SELECT DISTINCT ON (account_id, livemode, id) *, $loaded_at AS _loaded_at, $load_id AS _load_id
                FROM incoming_rows AS new
                WHERE NOT EXISTS (FROM raw_stripe.{table} AS old WHERE old.account_id = new.account_id
                                  AND old.livemode = new.livemode AND old.id = new.id)""",
            {"loaded_at": self.loaded_at, "load_id": self.load_id},
        )
        self.connection.unregister("incoming_rows")

    def _owner(self) -> dict[str, Any]:
        return {"account_id": self.account.account_id, "livemode": self.account.livemode}


_OWNER_FIELDS: Final = [("account_id", pa.string()), ("livemode", pa.bool_())]
_ERRORS: Final = pa.schema(
    [
        *_OWNER_FIELDS,
        ("id", pa.string()),
        ("payment_intent_id", pa.string()),
        ("first_seen_at", pa.timestamp("s")),
        ("payload", pa.string()),
    ]
)
_EVENTS: Final = pa.schema(
    [
        *_OWNER_FIELDS,
        ("id", pa.string()),
        ("created", pa.timestamp("s")),
        ("type", pa.string()),
        ("object_id", pa.string()),
        ("payload", pa.string()),
        ("_source", pa.string()),
        ("_api_version", pa.string()),
    ]
)
