"""Select the objects to re-read, and plan how with the fewest requests: by pages of a list, or one by one.

Three kinds of object are read again:

- objects in doubt: events of the same second disagree, or an event has another API version;
- charges that changed without an event of their own, as the events of their refunds and disputes show;
- open objects: as long as its state is not final, an object can change without an event.

Open objects are read less often as they age: an object is due when it is twice as old as it was when its stored version
was known to be current.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from math import ceil
from typing import Final

import duckdb

from orchestration.base.account import AccountKey
from orchestration.base.instants import to_timestamp
from orchestration.stripe_api import PAGE_SIZE
from orchestration.sync.streams import EVENT_RETENTION_SECONDS
from orchestration.sync.windows import Window
from orchestration.warehouse.rows import ObjectTable

FIRST_REREAD_SECONDS: Final = 86_400
"""Age in seconds at which an open object is read again for the first time; then at 2, 4, 8, … days."""

_NO_CHARGES: Final = "SELECT NULL::VARCHAR AS id, NULL::TIMESTAMP_S AS changed_at"
_CHANGED_WITHOUT_OWN_EVENT: Final = """
SELECT payload ->> '$.data.object.charge' AS id, max(created) AS changed_at FROM raw_stripe.events
WHERE account_id = $account_id AND livemode = $livemode AND created > $events_since AND (
    type LIKE 'charge.dispute.%'
    OR (type LIKE '%refund.%' AND (payload ->> '$.data.object.status') IN ('failed', 'canceled'))
)
GROUP BY ALL
"""
"""Charges that changed without an event of their own. A dispute sets `disputed`, and a failed refund lowers
`amount_refunded`. Stripe sends `charge.updated` for neither (SDK: `_event.py`)."""

# In `_precedence`, a second character 2 means that the object was read again, a first character 0 that it is not final.
_DUE: Final = """
WITH changed_by_others AS ({changed_by_others}),
due AS (
    SELECT rows.id, rows.created FROM raw_stripe.{table} AS rows LEFT JOIN changed_by_others USING (id)
    WHERE account_id = $account_id AND livemode = $livemode AND (
        _needs_read
        OR changed_at > _as_of
        OR (changed_at = _as_of AND _precedence NOT LIKE '_2%')
        OR (_precedence LIKE '0%' AND epoch($now - created) >= 2 * greatest(epoch(_as_of - created), $first_reread / 2))
    )
),
seconds AS (
    SELECT created, count(*) AS objects FROM raw_stripe.{table}
    WHERE account_id = $account_id AND livemode = $livemode
        AND created BETWEEN (SELECT min(created) FROM due) AND (SELECT max(created) FROM due)
    GROUP BY created
),
positions AS (
    SELECT *, sum(objects) OVER (ORDER BY created DESC) AS down_to FROM seconds
)
SELECT due.id, epoch(created)::BIGINT, (down_to - objects)::BIGINT, down_to::BIGINT
FROM due INNER JOIN positions USING (created) ORDER BY created DESC, id
"""


@dataclass(frozen=True)
class DueObject:
    """An object to re-read, and its position in the list.

    `created` is in unix seconds. `newer_count` is how many objects are newer than its second; `down_to_count` also
    includes those of its second.
    """

    id: str
    created: int
    newer_count: int
    down_to_count: int


@dataclass(frozen=True)
class RereadPlan:
    """The windows of the list to read, and the ids to retrieve."""

    windows: tuple[Window, ...]
    ids: tuple[str, ...]


def find_due(
    connection: duckdb.DuckDBPyConnection, account: AccountKey, table: ObjectTable, *, now: int
) -> list[DueObject]:
    """Return the objects that are due for a re-read at `now` (unix seconds, Stripe's clock), newest first."""
    values = {
        "account_id": account.account_id,
        "livemode": account.livemode,
        "now": to_timestamp(now),
        "first_reread": FIRST_REREAD_SECONDS,
    }
    changed_by_others = _NO_CHARGES
    if table == "charges":
        changed_by_others, values["events_since"] = (
            _CHANGED_WITHOUT_OWN_EVENT,
            to_timestamp(now - EVENT_RETENTION_SECONDS),
        )
    query = _DUE.format(table=table, changed_by_others=changed_by_others)
    return [DueObject(*row) for row in connection.execute(query, values).fetchall()]


def plan_reread(due: Iterable[DueObject]) -> RereadPlan:
    """Return the plan with the fewest requests: list a page if it holds several due objects, else retrieve each."""
    windows: list[Window] = []
    ids: list[str] = []
    for group in _pages([list(second) for _, second in groupby(due, key=lambda each: each.created)]):
        newest, oldest = group[0], group[-1]
        if ceil((oldest.down_to_count - newest.newer_count) / PAGE_SIZE) < len(group):
            windows.append(Window(oldest.created, newest.created + 1))
        else:
            ids.extend(each.id for each in group)
    return RereadPlan(tuple(windows), tuple(ids))


def _pages(seconds: list[list[DueObject]]) -> Iterable[list[DueObject]]:
    """Yield due objects, newest first, in groups that one page of the list can hold. A second is never divided."""
    group: list[DueObject] = []
    for second in seconds:
        if group and second[0].down_to_count - group[0].newer_count > PAGE_SIZE:
            yield group
            group = []
        group = group + second
    if group:
        yield group
