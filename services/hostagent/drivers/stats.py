"""What a driver tells of the load of a host and of its guests: values, and the port that gives them. Does nothing.

Counters are cumulative since the guest, or the host, was started. What a hypervisor does not tell is None, never 0.
Nobody changes these values; those of which there are thousands are not frozen, which would double the time to make
them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(slots=True)
class DiskStats:
    """One disk of a guest."""

    device: str
    """As the guest's hypervisor calls it: `vda`."""
    read_bytes: int = 0
    read_requests: int = 0
    write_bytes: int = 0
    write_requests: int = 0
    capacity_bytes: int | None = None
    """Size that the guest sees."""
    allocation_bytes: int | None = None
    """Room that it takes on the host."""


@dataclass(slots=True)
class NicStats:
    """One interface of a guest, seen from the guest."""

    device: str
    """Its end on the host: `vnet3`."""
    receive_bytes: int = 0
    receive_packets: int = 0
    receive_errors: int = 0
    receive_drops: int = 0
    transmit_bytes: int = 0
    transmit_packets: int = 0
    transmit_errors: int = 0
    transmit_drops: int = 0


@dataclass(slots=True)
class GuestStats:
    """One guest that moln marked. Memory in bytes."""

    vm_id: int
    uid: str
    domain: str
    """What the hypervisor calls it."""
    state: int
    """libvirt's number of the state: 1 running, 3 paused, 5 off, 6 crashed …"""
    is_active: bool
    """Its vCPUs exist."""
    cpu_ns: int | None = None
    vcpus: int | None = None
    memory_max: int | None = None
    """What it could get."""
    memory_current: int | None = None
    """What its balloon leaves it."""
    memory_rss: int | None = None
    """What the host spends on it."""
    memory_available: int | None = None
    """What the guest's system sees in all."""
    memory_unused: int | None = None
    """What it has not touched."""
    memory_usable: int | None = None
    """What it could give back without swapping."""
    disks: Sequence[DiskStats] = ()
    nics: Sequence[NicStats] = ()


@dataclass(frozen=True, slots=True)
class HostStats:
    """The machine itself. Bytes and seconds."""

    cpus: int
    cpu_busy_s: float | None
    """All processors together, since boot."""
    memory_total: int
    memory_used: int
    disk_total: int | None = None
    """The file system of the VMs' folder."""
    disk_used: int | None = None
    load1: float | None = None
    """Mean number of tasks that want to run; None for a host that is driven from elsewhere."""


@dataclass(frozen=True, slots=True)
class Sweep:
    """A host and all its guests, looked at once at `time` (Unix seconds), which took `seconds`."""

    time: float
    seconds: float
    host: HostStats
    guests: Sequence[GuestStats]


class StatsDriver(Protocol):
    """Tells load. Bounded: one guest that hangs neither fails the sweep nor holds up what is told of the others."""

    async def sweep(self, host_id: int) -> Sweep:
        """Raises MolnError HYPERVISOR_FAILED where the hypervisor does not answer in time."""
        ...
