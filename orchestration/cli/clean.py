"""`recoup clean`: the same as Dagster's job `clean_history`, for installations without a running Dagster."""

from datetime import UTC, datetime
from pathlib import Path

from orchestration.maintenance.history import clean_history


def run_clean(home: Path, warehouse_path: Path, *, keep_days: float) -> None:
    """Delete old history, and print how much was deleted."""
    report = clean_history(home, warehouse_path, now=datetime.now(UTC), keep_days=keep_days)
    print(f"Deleted history older than {keep_days:g} days in {home.parent}:")
    print(f"  runs      {report.run_count:>12,}")
    print(f"  events    {report.event_count:>12,}")
    print(f"  ticks     {report.tick_count:>12,}")
    print(f"  loads     {report.load_count:>12,}")
    print(f"  files     {report.file_count:>12,}")
    print(f"  freed     {report.bytes_freed / 1_000_000:>12,.1f} MB")
