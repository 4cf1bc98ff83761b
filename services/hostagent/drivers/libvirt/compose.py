"""Makes a domain out of an order: names, buses and defaults of the libvirt driver. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from moln.compute.v1 import template_pb2
from moln.compute.v1.template_pb2 import DiskTemplate, VmTemplate
from moln.compute.v1.vm_pb2 import NicAddress, Volume
from moln.node.v1.node_service_pb2 import VmOrder
from services.common.domain.errors import MolnError
from services.common.domain.reasons import Reason
from services.hostagent.drivers.libvirt.spec import (
    CpuSpec,
    DiskSpec,
    DomainSpec,
    GraphicsSpec,
    IoLimits,
    Mark,
    NicSpec,
)
from services.hostagent.network.spec import tap_name
from services.hostagent.storage.disks import DiskPlan
from services.hostagent.storage.folders import VmFolder

DEFAULT_BUS = "virtio"
_PREFIX = {"virtio": "vd", "scsi": "sd", "sata": "sd", "usb": "sd", "ide": "hd"}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What the driver knows of its hypervisor when it makes a domain."""

    cloud_uid: str
    domain_type: str
    architecture: str
    has_bridges: bool = True
    has_cpu_shares: bool = True
    """An unprivileged hypervisor cannot weigh its guests against each other."""


def default_cpu(domain_type: str) -> CpuSpec:
    """With KVM the guest sees the host's own CPU; an emulated one is QEMU's default."""
    return CpuSpec(model="host-model") if domain_type == "kvm" else CpuSpec()


def disk_plans(order: VmOrder, folder: VmFolder) -> list[DiskPlan]:
    """The files of a VM's disks, in the order of the template."""
    volumes = {volume.disk_id: volume for volume in order.volumes.disks}
    tickets = {ticket.image_id: ticket for ticket in order.tickets}
    plans = []
    for disk in order.spec.template.disks:
        volume = volumes.get(disk.disk_id, Volume(disk_id=disk.disk_id))
        format = _format(disk, volume)
        path = folder.disk(disk.disk_id, format)
        plans.append(DiskPlan(disk, volume, path, format, tickets.get(volume.image_id)))
    return plans


def compose(order: VmOrder, folder: VmFolder, endpoint: Endpoint) -> DomainSpec:
    """The domain. Raises MolnError CAPABILITY for what this driver cannot make."""
    template = order.spec.template
    check_supported(template)
    machine = template.boot.machine or _default_machine(endpoint.architecture)
    is_test = endpoint.domain_type == "test"
    disks = tuple(_disks(order, folder, machine))
    return DomainSpec(
        mark=Mark(order.vm_id, order.uid, order.epoch, endpoint.cloud_uid),
        name=domain_name(order.vm_id, order.uid),
        type=endpoint.domain_type,
        memory_mib=order.placement.granted.memory_mib or template.memory_mib,
        vcpus=order.placement.granted.vcpus or template.vcpus or 1,
        cpu_percent=_cpu_percent(order) if endpoint.has_cpu_shares else 0,
        architecture="" if is_test else template.boot.architecture or endpoint.architecture,
        machine="" if is_test else machine,
        firmware=template.boot.firmware,
        cpu=_cpu(template, endpoint.domain_type),
        disks=disks,
        nics=tuple(_nics(order, template, endpoint)),
        console_log=None if is_test else folder.console_log,
        graphics=_graphics(template),
        has_agent_channel=True,
        scsi_controller="virtio-scsi" if any(disk.bus == "scsi" for disk in disks) else "",
        has_balloon=not template.memory.no_balloon,
        has_usb="tablet" in template.graphics.inputs or any(disk.bus == "usb" for disk in template.disks),
    )


def domain_name(vm_id: int, uid: str) -> str:
    """Unique among all clouds that use one hypervisor."""
    return f"moln-{vm_id}-{uid[:8]}"


def check_supported(template: VmTemplate) -> None:
    """Refuses what would otherwise be left out without a word."""
    unsupported = {
        "pci_devices": bool(template.pci_devices),
        "raw.libvirt_xml": bool(template.raw.libvirt_xml),
        "boot.kernel_image": bool(template.boot.kernel_image),
        "boot.has_tpm": template.boot.has_tpm,
        "boot.is_secure_boot": template.boot.is_secure_boot,
        "cpu.pinning": bool(template.cpu.pinning),
        "memory.hugepage_kib": bool(template.memory.hugepage_kib),
        "memory.numa_nodes": template.memory.numa_nodes > 1,
    }
    asked = [name for name, is_asked in unsupported.items() if is_asked]
    if asked:
        raise MolnError(Reason.CAPABILITY, f"this release's libvirt driver cannot do {', '.join(asked)}: leave it out")


def _cpu_percent(order: VmOrder) -> int:
    return order.placement.granted.cpu_percent or order.spec.template.cpu_percent


def _cpu(template: VmTemplate, domain_type: str) -> CpuSpec:
    stated = template.cpu
    if domain_type == "test":
        return CpuSpec()
    return CpuSpec(
        model=stated.model or default_cpu(domain_type).model,
        sockets=stated.sockets,
        cores=stated.cores,
        threads=stated.threads,
        features=tuple(stated.features),
    )


def _disks(order: VmOrder, folder: VmFolder, machine: str) -> list[DiskSpec]:
    names = _Targets([disk.target for disk in order.spec.template.disks if disk.target])
    boot = list(order.spec.template.boot.order)
    disks = []
    for index, plan in enumerate(disk_plans(order, folder)):
        is_cdrom = plan.template.device == template_pb2.DISK_DEVICE_CDROM
        bus = plan.template.bus or (_cdrom_bus(machine) if is_cdrom else DEFAULT_BUS)
        disks.append(
            DiskSpec(
                path=plan.path,
                format=plan.format,
                target=plan.template.target or names.next(bus),
                bus=bus,
                is_cdrom=is_cdrom,
                is_read_only=plan.template.is_read_only,
                cache=plan.template.cache,
                serial=f"moln-disk-{plan.template.disk_id}",
                boot_order=_boot_order(boot, f"disk{index}", index + 1),
                limits=_limits(plan.template),
            )
        )
    if not order.spec.template.context.is_disabled:
        bus = _cdrom_bus(machine)
        disks.append(DiskSpec(folder.context_iso, "raw", names.next(bus), bus, is_cdrom=True))
    return disks


def _nics(order: VmOrder, template: VmTemplate, endpoint: Endpoint) -> list[NicSpec]:
    addresses = {address.nic_id: address for address in order.addresses.nics}
    boot = list(template.boot.order)
    nics = []
    for index, nic in enumerate(template.nics):
        address = addresses.get(nic.nic_id, NicAddress(nic_id=nic.nic_id))
        nics.append(
            NicSpec(
                mac=address.mac,
                bridge=address.bridge if endpoint.has_bridges else "",
                device=tap_name(order.uid, nic.nic_id),
                model=nic.model or "virtio",
                mtu=address.mtu,
                boot_order=_boot_order(boot, f"nic{index}", 0),
            )
        )
    return nics


def _boot_order(stated: list[str], name: str, default: int) -> int:
    if not stated:
        return default
    return stated.index(name) + 1 if name in stated else 0


def _graphics(template: VmTemplate) -> GraphicsSpec | None:
    stated = template.graphics
    if stated.type in ("", "none"):
        return None
    return GraphicsSpec(stated.type, stated.keymap, stated.video, tuple(stated.inputs))


def _limits(disk: DiskTemplate) -> IoLimits:
    stated = disk.io_limits
    return IoLimits(
        stated.total_bytes_per_s, stated.read_bytes_per_s, stated.write_bytes_per_s,
        stated.total_iops, stated.read_iops, stated.write_iops,
    )  # fmt: skip


def _format(disk: DiskTemplate, volume: Volume) -> str:
    if disk.device == template_pb2.DISK_DEVICE_CDROM:
        return "raw"
    return volume.format or disk.format or "qcow2"


def _default_machine(architecture: str) -> str:
    """The plain PC: its IDE CD-ROM is known to every guest, which cannot be said of q35's SATA."""
    return "pc" if architecture in ("x86_64", "i686") else "virt"


def _cdrom_bus(machine: str) -> str:
    return "ide" if machine == "pc" or machine.startswith("pc-i440fx") else "scsi"


class _Targets:
    """Gives out device names: vda, vdb, … for each bus, past those that were stated."""

    def __init__(self, stated: list[str]) -> None:
        self._taken = set(stated)
        self._next: Counter[str] = Counter()

    def next(self, bus: str) -> str:
        prefix = _PREFIX.get(bus, "vd")
        while True:
            name = prefix + _letters(self._next[prefix])
            self._next[prefix] += 1
            if name not in self._taken:
                self._taken.add(name)
                return name


def _letters(number: int) -> str:
    """0 → a, 25 → z, 26 → aa."""
    text = ""
    number += 1
    while number:
        number, rest = divmod(number - 1, 26)
        text = chr(ord("a") + rest) + text
    return text
