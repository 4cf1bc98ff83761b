"""Metrics of the scheduler, `moln_scheduler_*`. Labels are bounded: reasons, parts, kinds of write."""

from __future__ import annotations

import time
from collections.abc import Mapping

from services.common.obs.loops import LoopCounts
from services.common.obs.metrics import Metrics

PLAN_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_PARTS = frozenset({"intent", "placement", "status", "spec", "liveness"})


class SchedulerMetrics:
    """What the scheduler counts."""

    def __init__(self, metrics: Metrics) -> None:
        self.loops = LoopCounts(metrics)
        self._pending = metrics.gauge("pending_vms", "VMs that wait for a host, by reason.", ["reason"])
        self._pending_time = metrics.counter(
            "pending_vm_seconds", "Time that VMs have waited for a host, all together, by reason.", ["reason"]
        )
        self._shown: tuple[float, Mapping[str, int]] = (time.monotonic(), {})
        self._plan = metrics.histogram("plan_seconds", "Time to make one plan.", buckets=PLAN_BUCKETS)
        self._planned = metrics.counter("planned_vms", "VMs that plans found a host for.")
        self._written = metrics.counter("writes", "Placements written: bind, note, release.", ["what"])
        self._conflicts = metrics.counter("conflicts", "Writes that somebody forestalled, by part.", ["part"])
        self._leads = metrics.gauge("is_leader", "1 while this process places VMs.")

    def planned(self, seconds: float, vms: int) -> None:
        """A plan was made."""
        self._plan.observe(seconds)
        self._planned.inc(vms)

    def written(self, what: str, vms: int) -> None:
        """Placements of some VMs are in the store."""
        self._written.labels(what).inc(vms)

    def conflict(self, key: str) -> None:
        """A write was refused because of this key."""
        parts = [part for part in key.split("/") if part in _PARTS]
        self._conflicts.labels(parts[-1] if parts else "other").inc()

    def show_pending(self, vms: Mapping[str, int]) -> None:
        """How many VMs wait now, by reason."""
        now = time.monotonic()
        since, before = self._shown
        for reason, count in before.items():
            self._pending_time.labels(reason).inc(count * (now - since))
        self._shown = now, dict(vms)
        self._pending.clear()
        for reason, count in vms.items():
            self._pending.labels(reason).set(count)

    def leads(self, does_lead: bool) -> None:
        """Whether this process leads."""
        self._leads.set(does_lead)
