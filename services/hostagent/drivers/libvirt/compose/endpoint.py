"""What the driver knows of its hypervisor, and how each kind of hypervisor wants its guests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from services.hostagent.drivers.libvirt.spec import CpuSpec

XEN_FULL, XEN_PARAVIRTUAL = "xenfv", "xenpv"
"""The machine types of Xen; by the second a template asks for a paravirtual guest."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What the driver knows of its hypervisor when it makes a domain."""

    cloud_uid: str
    domain_type: str
    architecture: str
    has_bridges: bool = True
    has_cpu_shares: bool = True
    """An unprivileged hypervisor cannot weigh its guests against each other."""
    numa_cpus: Mapping[int, str] = field(default_factory=dict)
    """The host's CPUs (`0-3,8`) by NUMA node."""


@dataclass(frozen=True, slots=True)
class Kind:
    """How the hypervisor of a domain type differs from QEMU. `prefix`: of device names on `bus`."""

    bus: str = "virtio"
    nic_model: str = "virtio"
    disk_driver: str = "qemu"
    features: tuple[str, ...] = ("acpi", "apic")
    console: str = "serial"
    has_extras: bool = False
    """Agent channel, balloon, random numbers: QEMU's virtio devices, and controllers that can be left out."""
    has_memory_slots: bool = False
    has_cells: bool = False
    """The guest can have NUMA nodes."""
    screen_address: str = "127.0.0.1"
    """Where screens listen; empty where viewers are handed in without listening."""


_QEMU = Kind(has_extras=True, has_memory_slots=True, has_cells=True, screen_address="")
KINDS: Mapping[str, Kind] = {
    "qemu": _QEMU,
    "kvm": _QEMU,
    "test": Kind(features=()),
    "xen": Kind(bus="xen", nic_model="", features=("acpi", "apic", "pae")),
    "lxc": Kind(bus="", nic_model="", disk_driver="", features=(), console="console"),
    "vmware": Kind(bus="scsi", nic_model="e1000", disk_driver="", features=(), console=""),
}
"""By domain type."""


def default_cpu(domain_type: str) -> CpuSpec:
    """With KVM the guest sees the host's own CPU; an emulated one is QEMU's default."""
    return CpuSpec(model="host-model") if domain_type == "kvm" else CpuSpec()


def default_machine(domain_type: str, architecture: str, *, is_secure: bool) -> str:
    """The plain PC: its IDE CD-ROM is known to every guest, which cannot be said of q35's. Secure boot needs q35."""
    if domain_type in ("lxc", "vmware", "test"):
        return ""
    if domain_type == "xen":
        return XEN_FULL
    if architecture not in ("x86_64", "i686"):
        return "virt"
    return "q35" if is_secure else "pc"
