"""Made-up load of simulated hosts and guests: cheap, different for each guest, and consistent from sweep to sweep.

A guest's counters are linear in the time that it has been running, so that every rate of it is constant and known.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from services.hostagent.drivers.sim.journal import SimGuest
from services.hostagent.drivers.stats import DiskStats, GuestStats, HostStats, NicStats, Sweep

MIB = 1 << 20
GUEST_MEMORY = 128 * MIB
RUNNING, SHUT_OFF = 1, 5
"""libvirt's numbers of these states."""
_MEAN_PERCENT = 5.0


def cpu_percent(vm_id: int) -> float:
    """CPU that a running guest takes, in percent of a core: 2.0 to 8.0, by its id."""
    return _MEAN_PERCENT - 3.0 + (vm_id * 37 % 61) / 10


def guest_stats(guest: SimGuest, now: float) -> GuestStats:
    """One guest, `now` in Unix seconds."""
    domain = f"sim-{guest.vm_id}"
    if not guest.is_running:
        return GuestStats(guest.vm_id, guest.uid, domain, SHUT_OFF, is_active=False, memory_max=GUEST_MEMORY)
    seconds = max(0.0, now - guest.start_s)
    share = cpu_percent(guest.vm_id) / 100
    kib = int(seconds * share * 1000)
    disk = DiskStats("vda", kib << 10, kib >> 2, kib << 11, kib >> 1, 1 << 30, 1 << 28)
    nic = NicStats(f"sim{guest.vm_id}", kib << 9, kib >> 1, 0, 0, kib << 8, kib >> 2, 0, 0)
    return GuestStats(
        guest.vm_id, guest.uid, domain, RUNNING, is_active=True, cpu_ns=int(seconds * share * 1e9), vcpus=1,
        memory_max=GUEST_MEMORY, memory_current=GUEST_MEMORY, memory_rss=GUEST_MEMORY * 3 // 4,
        memory_available=GUEST_MEMORY, memory_unused=GUEST_MEMORY // 4, memory_usable=GUEST_MEMORY // 2,
        disks=(disk,), nics=(nic,),
    )  # fmt: skip


class SimLoad:
    """Hosts' CPU time: the sum of what their guests took, which must not fall when a guest goes."""

    def __init__(self, size: tuple[int, int, int]) -> None:
        self._cpus, self._memory, self._disk = size[0], size[1] * MIB, size[2] * MIB
        self._busy: dict[int, tuple[float, float]] = {}

    def sweep(self, host_id: int, guests: Iterable[SimGuest], now: float) -> Sweep:
        """The host and all its guests."""
        began = time.perf_counter()
        found = [guest_stats(guest, now) for guest in guests]
        running = [guest for guest in found if guest.is_active]
        host = HostStats(
            cpus=self._cpus, cpu_busy_s=self._spend(host_id, running, now), memory_total=self._memory,
            memory_used=GUEST_MEMORY * len(running), disk_total=self._disk, disk_used=(1 << 28) * len(found),
            load1=sum(cpu_percent(guest.vm_id) for guest in running) / 100,
        )  # fmt: skip
        return Sweep(now, time.perf_counter() - began, host, found)

    def _spend(self, host_id: int, running: Iterable[GuestStats], now: float) -> float:
        at, busy = self._busy.get(host_id, (now, 0.0))
        busy += max(0.0, now - at) * sum(cpu_percent(guest.vm_id) for guest in running) / 100
        self._busy[host_id] = now, busy
        return busy
