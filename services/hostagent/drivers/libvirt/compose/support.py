"""What each hypervisor cannot do of what a template may ask for. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from moln.compute.v1.template_pb2 import BootShape, VmTemplate
from services.common.domain.errors import MolnError
from services.common.domain.reasons import Reason
from services.hostagent.drivers.libvirt.compose.endpoint import XEN_FULL, XEN_PARAVIRTUAL

_FIRMWARE = frozenset({"boot.firmware", "boot.is_secure_boot", "boot.has_tpm"})
_NUMA = frozenset({"memory.hugepage_kib", "memory.numa_nodes"})
_CPU = frozenset({"cpu.model", "cpu.features"})
_TOPOLOGY = frozenset({"cpu.sockets", "cpu.max_vcpus"})
_DISKS = frozenset({"disks.io", "disks.discard", "disks.io_limits", "disks.cache"})
CANNOT: Mapping[str, frozenset[str]] = {
    "qemu": frozenset(),
    "kvm": frozenset(),
    "test": _FIRMWARE | _NUMA | {"pci_devices", "boot.kernel_image", "boot.machine", "cpu.pinning", "cpu.is_capped"},
    "xen": _NUMA | _CPU
    | {"boot.is_secure_boot", "boot.has_tpm", "cpu.is_capped", "disks.io_limits", "disks.io"},
    "lxc": _FIRMWARE | _NUMA | _CPU | _TOPOLOGY | _DISKS
    | {"boot.kernel_image", "boot.machine", "boot.order", "pci_devices", "graphics.type", "cpu.pinning", "disks[1]"},
    "vmware": _FIRMWARE | _NUMA | _CPU | _DISKS
    | {"boot.kernel_image", "boot.machine", "boot.order", "pci_devices", "cpu.max_vcpus", "cpu.pinning",
       "cpu.is_capped", "memory.max_memory_mib"},
}  # fmt: skip
"""Fields of a template by domain type. What is not here is rendered."""


def check_supported(template: VmTemplate, domain_type: str) -> None:
    """Refuses what would otherwise be left out without a word. Raises MolnError CAPABILITY."""
    asked = [name for name, is_asked in _asked(template).items() if is_asked and name in CANNOT[domain_type]]
    if domain_type == "xen":
        asked += _not_of_xen(template.boot)
    if asked:
        message = f"guests of type {domain_type} cannot have {', '.join(asked)}: leave it out, or require another host"
        raise MolnError(Reason.CAPABILITY, message)


def _not_of_xen(boot: BootShape) -> list[str]:
    """Xen has two machines, and a paravirtual guest has no firmware."""
    if boot.machine not in ("", XEN_FULL, XEN_PARAVIRTUAL):
        return ["boot.machine"]
    return ["boot.firmware"] if boot.machine == XEN_PARAVIRTUAL and boot.firmware == "uefi" else []


def _asked(template: VmTemplate) -> dict[str, bool]:
    cpu, memory, boot, disks = template.cpu, template.memory, template.boot, template.disks
    return {
        "pci_devices": bool(template.pci_devices),
        "boot.firmware": boot.firmware == "uefi",
        "boot.is_secure_boot": boot.is_secure_boot,
        "boot.has_tpm": boot.has_tpm,
        "boot.kernel_image": bool(boot.kernel_image),
        "boot.machine": bool(boot.machine),
        "boot.order": bool(boot.order),
        "cpu.model": bool(cpu.model),
        "cpu.features": bool(cpu.features),
        "cpu.sockets": bool(cpu.sockets or cpu.cores or cpu.threads),
        "cpu.max_vcpus": cpu.max_vcpus > template.vcpus,
        "cpu.pinning": bool(cpu.pinning),
        "cpu.is_capped": cpu.is_capped,
        "memory.max_memory_mib": memory.max_memory_mib > template.memory_mib,
        "memory.hugepage_kib": bool(memory.hugepage_kib),
        "memory.numa_nodes": memory.numa_nodes > 1,
        "graphics.type": template.graphics.type not in ("", "none"),
        "disks.cache": any(disk.cache for disk in disks),
        "disks.io": any(disk.io for disk in disks),
        "disks.discard": any(disk.discard for disk in disks),
        "disks.io_limits": any(disk.io_limits.ByteSize() for disk in disks),
        "disks[1]": len(disks) > 1,
    }
