"""When a live migration counts as one that will not end: the guest writes faster than the rest can be sent. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

MIB = 1024 * 1024
SLOWEST_BYTES_PER_S = 1 * MIB
PASSES_ALLOWED = 2
"""So often the whole memory may be sent once more, beside the patience that is allowed in any case."""


@dataclass(slots=True)
class Convergence:
    """One migration. `bandwidth_mib_per_s` 0: as fast as it goes."""

    patience_s: float
    bandwidth_mib_per_s: int = 0
    again_since: float = -1.0
    """When the first page was sent a second time; -1: not yet."""

    def is_stalled(self, job: Mapping[str, int], now: float) -> bool:
        """Takes in libvirt's statistics; whether the time is up that memory and bandwidth allow for."""
        if int(job.get("memory_iteration", 0)) < 2:  # the first pass takes as long as it takes, and disks as well
            return False
        if self.again_since < 0:
            self.again_since = now
        return now - self.again_since > self.allowed_s(job)

    def allowed_s(self, job: Mapping[str, int]) -> float:
        """Seconds from the second pass on."""
        measured = int(job.get("memory_bps", 0))
        limit = self.bandwidth_mib_per_s * MIB
        speed = max(SLOWEST_BYTES_PER_S, limit or measured)
        return self.patience_s + PASSES_ALLOWED * int(job.get("memory_total", 0)) / speed


def percent_of(job: Mapping[str, int]) -> int:
    """How much of memory and disks is sent; never all, while the job is under way."""
    total, rest = int(job.get("data_total", 0)), int(job.get("data_remaining", 0))
    return max(0, min(99, (total - rest) * 100 // total)) if total else 0
