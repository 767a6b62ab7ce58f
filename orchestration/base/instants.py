"""Instants: unix seconds, as Stripe tells them, and timestamps in UTC without a time zone, as DuckDB stores them."""

from datetime import UTC, datetime


def to_timestamp(seconds: int) -> datetime:
    """Return the timestamp in UTC, without a time zone, of unix seconds."""
    return datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None)


def to_seconds(timestamp: datetime) -> int:
    """Return the unix seconds of a timestamp in UTC that has no time zone."""
    return int(timestamp.replace(tzinfo=UTC).timestamp())
