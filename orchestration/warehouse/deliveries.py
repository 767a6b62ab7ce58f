"""Record each webhook event: when it was received and when it was loaded."""

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
    """A received webhook event. `received_at` is UTC, without a time zone."""

    event_id: str
    event_type: str
    integration: str
    received_at: datetime


def log_deliveries(loader: Loader, rows: Sequence[DeliveryRow]) -> None:
    """Insert one row per event, in the caller's transaction. An event that is loaded again keeps its first row."""
    loader.append_new("webhook_events", "event_id", rows, _COLUMNS)
