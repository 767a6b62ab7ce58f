"""`recoup webhooks status` and `requeue`: what waits in the queue, and what is in quarantine."""

from collections.abc import Mapping
from contextlib import closing
from datetime import UTC, datetime
from typing import Final

from rich.console import Console
from rich.table import Table

from orchestration.config.settings import Settings
from orchestration.webhooks.queue import Queue, days_ago

console = Console(highlight=False)

_SHOWN: Final = 10


def print_status(settings: Settings) -> None:
    """Print what waits in the queue, what was loaded, and what is in quarantine or was rejected."""
    with closing(Queue(settings.queue_url)) as queue:
        stats, aside = queue.stats(), queue.quarantine(_SHOWN)
        done, repeated = queue.history_counts()
        refused, passed_over = queue.refusals(since=days_ago(1)), queue.passed_over(since=days_ago(1))
    table = Table(box=None, show_header=False)
    table.add_row("waiting", f"{stats.queued:,}, the oldest for {stats.age(datetime.now(UTC)):.0f} s")
    table.add_row("loaded", f"{done:,} (forgotten after {settings.recoup_queue_days:g} days)")
    table.add_row("received more than once", f"{repeated:,}")
    table.add_row("put aside", f"{stats.quarantined:,}")
    table.add_row("turned away in 24 hours", _counts(refused))
    table.add_row("passed over in 24 hours", _counts(passed_over))
    console.print(table)
    for event_id, received_at, reason in aside:
        console.print(f"  {event_id}  {received_at:%Y-%m-%d %H:%M:%S} UTC  {reason}", markup=False)
    if aside:
        console.print("They stay where they are until someone decides: recoup webhooks requeue tries them again.")


def _counts(by_reason: Mapping[str, int]) -> str:
    return ", ".join(f"{reason} {count:,}" for reason, count in sorted(by_reason.items())) or "none"


def requeue_quarantined(settings: Settings) -> None:
    """Put the events in quarantine back into the queue."""
    with closing(Queue(settings.queue_url)) as queue:
        count = queue.requeue_quarantined()
    console.print(f"{count:,} events wait for the next run." if count else "Nothing was put aside.")
