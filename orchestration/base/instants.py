"""Conversion between Stripe's unix seconds and DuckDB's timestamps, which are in UTC and have no time zone."""

from datetime import UTC, datetime


def to_timestamp(seconds: int) -> datetime:
    """Convert unix seconds to a timestamp in UTC without a time zone."""
    return datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None)


def to_seconds(timestamp: datetime) -> int:
    """Convert a timestamp in UTC without a time zone to unix seconds."""
    return int(timestamp.replace(tzinfo=UTC).timestamp())
