"""The progress of a long sync in a terminal: rows, speed, requests, rate limits and remaining time."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from math import isfinite
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeRemainingColumn

from orchestration.sync import Progress as SyncProgress

STREAM_LABELS: Final = {
    "payment_intents": "payment intents",
    "charges": "charges",
    "refunds": "refunds",
    "disputes": "disputes",
    "payment_intent_events": "events of payment intents",
    "charge_events": "events of charges",
}


@contextmanager
def progress_bar(console: Console) -> Iterator[Callable[[SyncProgress], None]]:
    """Show a progress bar, and yield the callback that updates it. Without a terminal, only print the title."""
    if not console.is_terminal:
        console.print("Reading from Stripe")
        yield lambda progress: None
        return
    columns = (
        SpinnerColumn(),
        TextColumn("[bold]Reading from Stripe[/]"),
        BarColumn(bar_width=20),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("", total=None)
        yield _BarUpdate(bar, task)
        bar.update(task, total=1, completed=1)


class _BarUpdate:
    """Callback that updates a progress bar from the progress of a sync."""

    def __init__(self, bar: Progress, task: TaskID) -> None:
        self._bar, self._task, self._started_at = bar, task, time.monotonic()

    def __call__(self, progress: SyncProgress) -> None:
        request_count = progress.requests.requests
        total = request_count + progress.pages_left if isfinite(progress.pages_left) else None
        self._bar.update(self._task, completed=request_count, total=total, description=self._line(progress))

    def _line(self, progress: SyncProgress) -> str:
        rows = sum(counts.read for counts in progress.counts.values())
        rate = rows / max(time.monotonic() - self._started_at, 0.1)
        reached = f" {datetime.fromtimestamp(progress.reached_at, UTC):%Y-%m-%d}" if progress.reached_at else ""
        limited = f", {progress.requests.rate_limited} rate limited" if progress.requests.rate_limited else ""
        return (
            f"{rows:,} rows, {rate:,.0f}/s, {progress.requests.requests:,} requests{limited}; "
            f"{STREAM_LABELS[progress.stream]}{reached}"
        )
