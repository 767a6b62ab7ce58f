"""Which objects are read once more, and how that is cheapest: a page of a list, or single retrieves.

Read again is what is in doubt (the events of one second disagree, an event is of another API version), a charge of
which only the events of its refunds and disputes told, and the open set: what is not final may change in ways of which
no event tells. Its rhythm slows down with age: an object is looked at when it is twice as old as it was when Stripe
last vouched for it.
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
from orchestration.sync.streams import EVENT_RETENTION
from orchestration.sync.windows import Window
from orchestration.warehouse.rows import ObjectTable

FIRST_LOOK: Final = 86_400
"""Age in seconds at which something that is not final is read again for the first time; then at 2, 4, 8, … days."""

_NEVER_TOLD: Final = "SELECT NULL::VARCHAR AS id, NULL::TIMESTAMP_S AS told_at"
_TOLD_BY_OTHERS: Final = """
SELECT payload ->> '$.data.object.charge' AS id, max(created) AS told_at FROM raw_stripe.events
WHERE account_id = $account_id AND livemode = $livemode AND created > $events_since AND (
    type LIKE 'charge.dispute.%'
    OR (type LIKE '%refund.%' AND (payload ->> '$.data.object.status') IN ('failed', 'canceled'))
)
GROUP BY ALL
"""
"""Charges that changed without an event of their own: a dispute sets `disputed`, a refund that fails lowers
`amount_refunded`, and Stripe sends `charge.updated` for neither (SDK: `_event.py`)."""

_DUE: Final = """
WITH told_by_others AS ({told_by_others}),
due AS (
    SELECT rows.id, rows.created FROM raw_stripe.{table} AS rows LEFT JOIN told_by_others USING (id)
    WHERE account_id = $account_id AND livemode = $livemode AND (
        _needs_read
        OR told_at > _as_of
        OR (told_at = _as_of AND _precedence NOT LIKE '_2%')
        OR (_precedence LIKE '0%' AND epoch($now - created) >= 2 * greatest(epoch(_as_of - created), $first_look / 2))
    )
),
seconds AS (
    SELECT created, count(*) AS objects FROM raw_stripe.{table}
    WHERE account_id = $account_id AND livemode = $livemode
        AND created BETWEEN (SELECT min(created) FROM due) AND (SELECT max(created) FROM due)
    GROUP BY created
),
placed AS (
    SELECT *, sum(objects) OVER (ORDER BY created DESC) AS down_to FROM seconds
)
SELECT due.id, epoch(created)::BIGINT, (down_to - objects)::BIGINT, down_to::BIGINT
FROM due INNER JOIN placed USING (created) ORDER BY created DESC, id
"""


@dataclass(frozen=True)
class Due:
    """An object to be read again, and its place in the list: how many objects stand before its second and up to its
    end, counted from the newest."""

    id: str
    created: int
    before: int
    down_to: int


@dataclass(frozen=True)
class Plan:
    """Windows of the list to be read, and ids to be retrieved."""

    windows: tuple[Window, ...]
    ids: tuple[str, ...]


def find_due(connection: duckdb.DuckDBPyConnection, account: AccountKey, table: ObjectTable, *, now: int) -> list[Due]:
    """What has to be read again as of `now` (unix seconds, Stripe's clock), newest first."""
    values = {
        "account_id": account.account_id,
        "livemode": account.livemode,
        "now": to_timestamp(now),
        "first_look": FIRST_LOOK,
    }
    told_by_others = _NEVER_TOLD
    if table == "charges":
        told_by_others, values["events_since"] = _TOLD_BY_OTHERS, to_timestamp(now - EVENT_RETENTION)
    query = _DUE.format(table=table, told_by_others=told_by_others)
    return [Due(*row) for row in connection.execute(query, values).fetchall()]


def plan_again(due: Iterable[Due]) -> Plan:
    """Pages of the list where at least two due objects share one, else retrieves."""
    windows: list[Window] = []
    ids: list[str] = []
    for group in _pages([list(of_second) for _, of_second in groupby(due, key=lambda each: each.created)]):
        newest, oldest = group[0], group[-1]
        if ceil((oldest.down_to - newest.before) / PAGE_SIZE) < len(group):
            windows.append(Window(oldest.created, newest.created + 1))
        else:
            ids.extend(each.id for each in group)
    return Plan(tuple(windows), tuple(ids))


def _pages(seconds: list[list[Due]]) -> Iterable[list[Due]]:
    """Due objects, newest first, in groups that one page of the list can hold. A second is never divided."""
    group: list[Due] = []
    for of_second in seconds:
        if group and of_second[0].down_to - group[0].before > PAGE_SIZE:
            yield group
            group = []
        group = group + of_second
    if group:
        yield group
