"""What was pushed: one row for each event that came by webhook, with when it came and when it was loaded."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final, NamedTuple

import pyarrow as pa

from orchestration.warehouse.load import Loader

_COLUMNS: Final = {
    "event_id": pa.string(),
    "event_type": pa.string(),
    "integration": pa.string(),
    "received_at": pa.timestamp("ms"),
}


class DeliveryRow(NamedTuple):
    """An event as it was pushed. `received_at` in UTC, without a time zone."""

    event_id: str
    event_type: str
    integration: str
    received_at: datetime


def log_deliveries(loader: Loader, rows: Sequence[DeliveryRow]) -> None:
    """Keep one row for each event; in the caller's transaction. One that is loaded again keeps its first row."""
    loader.append_new("webhook_events", "event_id", rows, _COLUMNS)
