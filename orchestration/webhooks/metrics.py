"""What the receiver counts, in Prometheus's terms."""

from collections.abc import Iterator
from datetime import UTC, datetime

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from orchestration.webhooks.errors import QueueUnavailable
from orchestration.webhooks.queue import Queue


class Metrics:
    """Counters of one receiver, and the state of its queue at the time of asking."""

    def __init__(self, queue: Queue) -> None:
        self._registry = CollectorRegistry()
        self._events = Counter(
            "recoup_webhook_events",
            "Events received and genuine, by type (only stored types by name).",
            ["type", "stored"],
            registry=self._registry,
        )
        self._refused = Counter(
            "recoup_webhook_refused", "Requests that were turned away, by reason.", ["reason"], registry=self._registry
        )
        self._seconds = Histogram(
            "recoup_webhook_acknowledged_seconds",
            "From the request to its 2xx, the commit to disk included.",
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
            registry=self._registry,
        )
        self._registry.register(_QueueGauges(queue))

    def received(self, event_type: str, *, is_stored: bool) -> None:
        """Count a genuine event."""
        self._events.labels(event_type, "yes" if is_stored else "no").inc()

    def refused(self, reason: str) -> None:
        """Count a request that was turned away."""
        self._refused.labels(reason).inc()

    def acknowledged(self, seconds: float) -> None:
        """How long an acknowledged request took."""
        self._seconds.observe(seconds)

    def exposition(self) -> bytes:
        """All of it in the text format."""
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
        is_up = "1 where the queue can be read, else 0."
        yield GaugeMetricFamily("recoup_webhook_queue_up", is_up, value=float(stats is not None))
        if stats is None:
            return
        rows = GaugeMetricFamily("recoup_webhook_queue_rows", "Events that wait, or were put aside.", labels=["state"])
        for state in ("queued", "quarantined"):
            rows.add_metric([state], getattr(stats, state))
        yield rows
        age = stats.age(datetime.now(UTC))
        yield GaugeMetricFamily(
            "recoup_webhook_queue_oldest_seconds", "How long the oldest queued event waits.", value=age
        )
