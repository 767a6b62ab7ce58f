"""`recoup clean`: the same as Dagster's job `clean_history`, for installations without a running Dagster."""

from datetime import UTC, datetime

from orchestration.config.settings import Settings
from orchestration.maintenance.history import clean_history


def run_clean(settings: Settings) -> None:
    """Delete old history, and print how much was deleted."""
    report = clean_history(settings, now=datetime.now(UTC))
    print(f"Deleted history older than {settings.recoup_history_days:g} days in {settings.recoup_data_dir}:")
    print(f"  runs      {report.run_count:>12,}")
    print(f"  events    {report.event_count:>12,}")
    print(f"  ticks     {report.tick_count:>12,}")
    print(f"  loads     {report.load_count:>12,}")
    print(f"  files     {report.file_count:>12,}")
    print(f"  freed     {report.bytes_freed / 1_000_000:>12,.1f} MB")
