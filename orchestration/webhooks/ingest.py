"""Load queued webhook events into the warehouse, in batches. A batch is acknowledged after its commit.

An event that cannot be read or loaded goes to quarantine, with the reason. If a run dies while it loads a batch, the
next runs take smaller and smaller batches, until the event that causes it is alone and goes to quarantine.

Faults that no event causes (a full disk, an unknown account) put no event into quarantine. The events of other
integrations are still loaded.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import duckdb
import pyarrow as pa

from orchestration.base.account import AccountKey
from orchestration.warehouse.connection import transaction
from orchestration.warehouse.deliveries import DeliveryRow, log_deliveries
from orchestration.warehouse.load import LoadCounts, Loader
from orchestration.warehouse.redact import redact_text
from orchestration.warehouse.rows import EventRow, InvalidPayload, event_row
from orchestration.warehouse.validation import SAMPLE_PREFIX
from orchestration.webhooks.errors import AccountUnknown
from orchestration.webhooks.payloads import NotAnEvent, event_of, parse

if TYPE_CHECKING:  # the module imports sqlalchemy, which only callers with a queue need
    from orchestration.webhooks.queue import Queue, QueuedEvent

logger = logging.getLogger(__name__)

BATCH_SIZE: Final = 5_000
"""Number of events in a batch."""

MAX_ATTEMPTS: Final = 6
"""Number of runs that may die over an event before it goes to quarantine. Each takes an eighth of the last batch."""

_BATCH_DIVISOR: Final = 8
BAD_EVENT_ERRORS: Final = (duckdb.DataError, pa.ArrowInvalid, pa.ArrowTypeError, OverflowError, ValueError)


@dataclass
class IngestReport:
    """The result of an ingest: taken = ingested + duplicates + quarantined + ignored.

    `received` counts deliveries, including repeated ones. `ingested` events were new to the warehouse. `duplicates` had
    been loaded before, from a poll or an earlier attempt. `ignored` events belong to accounts that their endpoint
    may not write. `slowest_seconds` is the longest time from receipt to commit. `accounts` are the accounts that got
    rows.
    """

    received: int = 0
    taken: int = 0
    ingested: int = 0
    duplicates: int = 0
    quarantined: int = 0
    ignored: int = 0
    objects_written: int = 0
    slowest_seconds: float = 0.0
    accounts: set[AccountKey] = field(default_factory=set)


_Entry: TypeAlias = "tuple[QueuedEvent, EventRow]"

MayWrite: TypeAlias = Callable[[str, AccountKey, bool], bool]
"""Called with an integration, an account, and whether the account is the integration's own.

Returns whether the integration's endpoint may write the account.
"""


@dataclass
class _Batch:
    by_account: dict[AccountKey, list[_Entry]] = field(default_factory=dict)
    unreadable: dict[int, str] = field(default_factory=dict)
    ignored: Counter[tuple[str, AccountKey]] = field(default_factory=Counter)
    waiting: list[int] = field(default_factory=list)


def ingest_queue(
    connection: duckdb.DuckDBPyConnection,
    queue: Queue,
    *,
    account_of: Callable[[str], str],
    may_write: MayWrite = lambda integration, account, is_own: is_own,
    pinned_version: str,
    limit: int | None = None,
    latest: int | None = None,
) -> IngestReport:
    """Load all queued events, or the oldest `limit` events.

    Crash-safe: an interrupted call neither loses an event nor loads one twice.

    Args:
        connection: The warehouse.
        queue: The queue of webhook events.
        account_of: Returns the account id of an integration, or raises AccountUnknown.
        may_write: Decides whether an endpoint may write the account and mode of an event. Otherwise the event is passed
            over.
        pinned_version: The API version that payloads should have.
        limit: Largest number of events to load; None for all.
        latest: Unix seconds. A later event goes to quarantine, since it would take precedence over all later updates.

    Raises:
        AccountUnknown: as `account_of`, after all other events were loaded. The integration's events stay queued.
        QueueUnavailable: the queue cannot be read.
        duckdb.Error: a batch could not be loaded, and no event caused it. Its events stay queued.
    """
    report = IngestReport()
    unknown: dict[str, AccountUnknown] = {}
    read = partial(_read, account_of, may_write, unknown, latest)
    while limit is None or report.taken < limit:
        taken = queue.take(BATCH_SIZE if limit is None else min(BATCH_SIZE, limit - report.taken), excluding=unknown)
        if not taken:
            break
        tried = max(each.attempts for each in taken)
        if tried > 1 and len(taken) > (allowed := max(BATCH_SIZE // _BATCH_DIVISOR ** (tried - 1), 1)):
            queue.release([each.seq for each in taken[allowed:]])
            taken = taken[:allowed]
        _ingest_batch(connection, queue, taken, read, pinned_version, report)
    if unknown:
        raise next(iter(unknown.values()))
    return report


def _ingest_batch(
    connection: duckdb.DuckDBPyConnection,
    queue: Queue,
    taken: Sequence[QueuedEvent],
    read: Callable[[Sequence[QueuedEvent]], _Batch],
    pinned_version: str,
    report: IngestReport,
) -> None:
    try:
        if len(taken) == 1 and taken[0].attempts > MAX_ATTEMPTS:
            batch = _Batch(unreadable={taken[0].seq: f"{MAX_ATTEMPTS} runs died while they loaded it."})
        else:
            batch = read(taken)
        queue.release(batch.waiting)
        taken = [each for each in taken if each.seq not in set(batch.waiting)]
        counts = _load_in_parts(connection, batch, pinned_version)
    except Exception:
        queue.release([each.seq for each in taken])
        raise
    redacted = {each.seq: redact_text(each.payload) or "" for each in taken if each.seq in batch.unreadable}
    queue.finish([each.seq for each in taken if each.seq not in batch.unreadable], batch.unreadable, redacted)
    _note_ignored(queue, batch)
    now = datetime.now(UTC)
    report.received += sum(each.deliveries for each in taken)
    report.taken += len(taken)
    report.quarantined += len(batch.unreadable)
    report.ignored += batch.ignored.total()
    report.ingested += counts["events"].written
    report.duplicates += counts["events"].read - counts["events"].written
    report.objects_written += sum(each.written for table, each in counts.items() if table != "events")
    report.slowest_seconds = max(
        report.slowest_seconds, 0.0, *((now - each.received_at).total_seconds() for each in taken)
    )
    report.accounts |= batch.by_account.keys()


def _note_ignored(queue: Queue, batch: _Batch) -> None:
    """Count ignored events, which `recoup webhooks status` shows; log each endpoint and account once."""
    by_integration: Counter[str] = Counter()
    for (integration, account), count in batch.ignored.items():
        by_integration[integration] += count
        if (integration, account) not in _logged:
            _logged.add((integration, account))
            logger.warning(
                "Events of %s (%s mode) at the endpoint of integration %r are ignored: it may not write them. "
                "Choose the account with `recoup connect`, or remove the event destination at Stripe.",
                account.account_id,
                "live" if account.livemode else "test",
                integration,
            )
    for integration, count in by_integration.items():
        queue.count_not_stored(integration, {"other_account": count}, now=datetime.now(UTC))


_logged: Final[set[tuple[str, AccountKey]]] = set()


def _read(
    account_of: Callable[[str], str],
    may_write: MayWrite,
    unknown: dict[str, AccountUnknown],
    latest: int | None,
    taken: Sequence[QueuedEvent],
) -> _Batch:
    """Parse events and group them by account; add integrations whose account is not known to `unknown`."""
    batch = _Batch()
    for queued in taken:
        try:
            event = event_of(parse(queued.payload))
            if event["id"] != queued.event_id:
                raise NotAnEvent("The event's id differs from the id in the queue.")
            row = event_row(event, "webhook")
            if latest is not None and _newest_instant(row) > latest:
                raise NotAnEvent("The event is dated in the future.")
        except (NotAnEvent, InvalidPayload) as error:
            batch.unreadable[queued.seq] = str(error)
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            batch.unreadable[queued.seq] = f"The event's object is not as Stripe documents it ({type(error).__name__})."
        else:
            account = _account_of_event(event, queued, may_write, partial(_account_or_none, account_of, unknown))
            if account is None:
                batch.waiting.append(queued.seq)
                continue
            key, is_allowed = account
            if not is_allowed:
                batch.ignored[queued.integration, key] += 1
                continue
            batch.by_account.setdefault(key, []).append((queued, row))
    return batch


def _newest_instant(row: EventRow) -> int:
    return row.created if row.carried is None else max(row.created, row.carried.created)


def _account_of_event(
    event: Mapping[str, Any], queued: QueuedEvent, may_write: MayWrite, find_account: Callable[[str], str | None]
) -> tuple[AccountKey, bool] | None:
    """Return an event's account and whether its endpoint may write it; None if the endpoint's account is not known."""
    named_id, livemode = event.get("account"), event["livemode"]
    if named_id is not None and may_write(queued.integration, AccountKey(named_id, livemode), False):
        return AccountKey(named_id, livemode), True
    own_id = queued.account_id or find_account(queued.integration)
    if own_id is None:
        return None
    key = AccountKey(named_id or own_id, livemode)
    return key, key.account_id == own_id and may_write(queued.integration, key, True)


def _account_or_none(
    account_of: Callable[[str], str], unknown: dict[str, AccountUnknown], integration: str
) -> str | None:
    """Return the account id of an integration, or None if it is not known. The error is stored in `unknown`."""
    if integration in unknown:
        return None
    try:
        return account_of(integration)
    except AccountUnknown as error:
        unknown[integration] = error
        return None


def _load_in_parts(connection: duckdb.DuckDBPyConnection, batch: _Batch, pinned_version: str) -> dict[str, LoadCounts]:
    """Load each account's events. Halve a part that cannot be loaded until the event that causes it is alone."""
    totals: dict[str, LoadCounts] = {"events": LoadCounts()}
    parts = list(batch.by_account.items())
    while parts:
        account, entries = parts.pop()
        try:
            counts = _load(connection, account, entries, pinned_version)
        except BAD_EVENT_ERRORS as error:
            half = len(entries) // 2
            if half:
                parts += [(account, entries[:half]), (account, entries[half:])]
            else:
                batch.unreadable[entries[0][0].seq] = f"It could not be loaded ({type(error).__name__})."
        else:
            for table, counted in counts.items():
                totals[table] = totals.get(table, LoadCounts()) + counted
    return totals


def _load(
    connection: duckdb.DuckDBPyConnection, account: AccountKey, entries: Sequence[_Entry], pinned_version: str
) -> Mapping[str, LoadCounts]:
    with transaction(connection):
        loader = Loader(connection, account, pinned_version)
        counts = loader.load_events([row for _, row in entries if not row.id.startswith(SAMPLE_PREFIX)])
        log_deliveries(loader, [_delivery_row(queued, row) for queued, row in entries])
    return counts


def _delivery_row(queued: QueuedEvent, row: EventRow) -> DeliveryRow:
    return DeliveryRow(row.id, row.type, queued.integration, queued.received_at.replace(tzinfo=None))
