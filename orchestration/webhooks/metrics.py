"""Prometheus metrics of the webhook receiver."""

from collections.abc import Iterator
from datetime import UTC, datetime

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from orchestration.webhooks.errors import QueueUnavailable
from orchestration.webhooks.queue import Queue


class Metrics:
    """The counters of a receiver, and gauges of its queue that are read at each scrape."""

    def __init__(self, queue: Queue) -> None:
        self._registry = CollectorRegistry()
        self._events = Counter(
            "recoup_webhook_events",
            "Genuine events received, by type (types that are not stored count as other).",
            ["type", "stored"],
            registry=self._registry,
        )
        self._refused = Counter(
            "recoup_webhook_refused", "Rejected requests, by reason.", ["reason"], registry=self._registry
        )
        self._seconds = Histogram(
            "recoup_webhook_acknowledged_seconds",
            "Seconds from a request to its 2xx answer, including the commit to disk.",
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
            registry=self._registry,
        )
        self._registry.register(_QueueGauges(queue))

    def count_event(self, event_type: str, *, is_stored: bool) -> None:
        """Count a genuine event."""
        self._events.labels(event_type, "yes" if is_stored else "no").inc()

    def count_refusal(self, reason: str) -> None:
        """Count a rejected request."""
        self._refused.labels(reason).inc()

    def observe_acknowledgement(self, seconds: float) -> None:
        """Record how long an acknowledged request took."""
        self._seconds.observe(seconds)

    def render(self) -> bytes:
        """Return all metrics in Prometheus's text format."""
        return generate_latest(self._registry)


class _QueueGauges(Collector):
    def __init__(self, queue: Queue) -> None:
        self._queue = queue

    def describe(self) -> Iterator[Metric]:
        return iter(())

    def collect(self) -> Iterator[Metric]:
        try:
            stats = self._queue.stats()
        except QueueUnavailable:
            stats = None
        up_help = "1 if the queue can be read, else 0."
        yield GaugeMetricFamily("recoup_webhook_queue_up", up_help, value=float(stats is not None))
        if stats is None:
            return
        rows = GaugeMetricFamily(
            "recoup_webhook_queue_rows", "Events in the queue and in quarantine.", labels=["state"]
        )
        for state in ("queued", "quarantined"):
            rows.add_metric([state], getattr(stats, state))
        yield rows
        age = stats.age(datetime.now(UTC))
        yield GaugeMetricFamily(
            "recoup_webhook_queue_oldest_seconds", "Seconds that the oldest queued event has waited.", value=age
        )
