"""Metrics of control loops, one set per service."""

from __future__ import annotations

from services.common.obs.metrics import Metrics


class LoopCounts:
    """Implements services.common.runtime.loop.LoopMetrics with Prometheus metrics."""

    def __init__(self, metrics: Metrics) -> None:
        self._seconds = metrics.histogram("loop_step_seconds", "Time that steps of loops took.", ["loop"])
        self._failures = metrics.counter("loop_failures", "Steps of loops that failed.", ["loop"])

    def ran(self, loop: str, seconds: float) -> None:
        """A step ended well after `seconds`. Its failures are counted from 0 on, so that the first one is a rise."""
        self._seconds.labels(loop).observe(seconds)
        self._failures.labels(loop)

    def failed(self, loop: str) -> None:
        """A step raised."""
        self._failures.labels(loop).inc()
