"""`recoup webhooks status` and `requeue`: show the webhook queue, and retry the events in quarantine."""

from collections.abc import Mapping
from contextlib import closing
from datetime import UTC, datetime
from typing import Final

from rich.console import Console
from rich.table import Table

from orchestration.webhooks.queue import Queue, days_ago

console = Console(highlight=False)

_MAX_SHOWN: Final = 10


def print_status(queue_url: str, *, keep_days: float) -> None:
    """Print how many events are waiting, loaded, quarantined, rejected or ignored, and why events are in quarantine."""
    with closing(Queue(queue_url)) as queue:
        stats, quarantined = queue.stats(), queue.quarantine(_MAX_SHOWN)
        loaded, duplicates = queue.history_counts()
        rejected, ignored = queue.rejected(since=days_ago(1)), queue.ignored(since=days_ago(1))
    table = Table(box=None, show_header=False)
    table.add_row("waiting", f"{stats.queued:,}, the oldest for {stats.age(datetime.now(UTC)):.0f} s")
    table.add_row("loaded", f"{loaded:,} (deleted from the queue after {keep_days:g} days)")
    table.add_row("received more than once", f"{duplicates:,}")
    table.add_row("quarantined", f"{stats.quarantined:,}")
    table.add_row("rejected in 24 hours", _counts(rejected))
    table.add_row("ignored in 24 hours", _counts(ignored))
    console.print(table)
    for event_id, received_at, reason in quarantined:
        console.print(f"  {event_id}  {received_at:%Y-%m-%d %H:%M:%S} UTC  {reason}", markup=False)
    if quarantined:
        console.print("These events could not be loaded, and stay in quarantine. Try again: recoup webhooks requeue")


def _counts(by_reason: Mapping[str, int]) -> str:
    return ", ".join(f"{reason} {count:,}" for reason, count in sorted(by_reason.items())) or "none"


def requeue_quarantined(queue_url: str) -> None:
    """Put the events in quarantine back into the queue, and print how many."""
    with closing(Queue(queue_url)) as queue:
        count = queue.requeue_quarantined()
    console.print(f"{count:,} events are queued again." if count else "The quarantine is empty.")
