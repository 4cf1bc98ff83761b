"""Metrics of a process: one registry per process, names with the service's prefix, the process's own figures.

Names are `moln_<service>_<noun>_<unit>[_total]`; labels are bounded sets. A service declares its metrics in its
`metrics.py` through a `Metrics` and hands them out by constructor: nothing here is global.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.registry import Collector

SECONDS_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Upper bounds in seconds that suit calls and loops alike."""


class MetricsText(Protocol):
    """Metrics that a service writes itself, because there are too many for the library."""

    def render(self, *, is_openmetrics: bool) -> str:
        """Whole families in Prometheus's text format or in OpenMetrics', without the latter's last line."""
        ...


class Metrics:
    """Makes the metrics of one service and keeps them in a registry of its own."""

    def __init__(self, service: str) -> None:
        self.service = service
        self.registry = CollectorRegistry()
        self.texts: list[MetricsText] = []
        """What is added to the registry's metrics at every scrape."""
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)

    def counter(self, name: str, doc: str, labels: Sequence[str] = ()) -> Counter:
        """A count that only grows; `_total` is added to its name."""
        return Counter(self._full(name), doc, labels, registry=self.registry)

    def gauge(self, name: str, doc: str, labels: Sequence[str] = ()) -> Gauge:
        """A value that goes up and down."""
        return Gauge(self._full(name), doc, labels, registry=self.registry)

    def histogram(
        self, name: str, doc: str, labels: Sequence[str] = (), *, buckets: Sequence[float] = SECONDS_BUCKETS
    ) -> Histogram:
        """A distribution; `name` ends with its unit."""
        return Histogram(self._full(name), doc, labels, buckets=buckets, registry=self.registry)

    def collector(self, collector: Collector) -> None:
        """Adds values that are computed when they are asked for (the size of a cache, for example)."""
        self.registry.register(collector)

    def _full(self, name: str) -> str:
        return f"moln_{self.service}_{name}"
