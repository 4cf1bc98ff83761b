"""The disks of a domain: files, formats, buses and device names."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from moln.compute.v1 import template_pb2
from moln.compute.v1.template_pb2 import DiskTemplate
from moln.compute.v1.vm_pb2 import Volume
from moln.node.v1.node_service_pb2 import ImageTicket, VmOrder
from services.hostagent.drivers.libvirt.compose.endpoint import XEN_PARAVIRTUAL, Kind
from services.hostagent.drivers.libvirt.spec import DiskSpec, IoLimits
from services.hostagent.storage.disks import DiskPlan
from services.hostagent.storage.folders import VmFolder

CONTEXT_MOUNT = "/mnt/context"
"""Where a container finds what others read from a CD-ROM."""
_PREFIX = {"virtio": "vd", "scsi": "sd", "sata": "sd", "usb": "sd", "ide": "hd", "xen": "xvd"}


def disk_plans(order: VmOrder, folder: VmFolder) -> list[DiskPlan]:
    """The files of a VM's disks, in the order of the template."""
    volumes = {volume.disk_id: volume for volume in order.volumes.disks}
    tickets = _tickets(order)
    plans = []
    for disk in order.spec.template.disks:
        volume = volumes.get(disk.disk_id, Volume(disk_id=disk.disk_id))
        format = _format(disk, volume)
        path = folder.disk(disk.disk_id, format)
        plans.append(DiskPlan(disk, volume, path, format, tickets.get(volume.image_id)))
    return plans


def kernel_plans(order: VmOrder, folder: VmFolder) -> list[DiskPlan]:
    """The files of a kernel that is booted directly, and of its initial RAM disk: copies of the VM's own."""
    plans = []
    wanted = (("kernel", order.volumes.kernel, folder.kernel), ("initrd", order.volumes.initrd, folder.initrd))
    for name, volume, path in wanted:
        if order.volumes.HasField(name):
            read_only = DiskTemplate(is_read_only=True)
            plans.append(DiskPlan(read_only, volume, path, "raw", _tickets(order).get(volume.image_id)))
    return plans


def disks_of(order: VmOrder, folder: VmFolder, machine: str, kind: Kind) -> list[DiskSpec]:
    """All disks, the context disk last."""
    template = order.spec.template
    names = Targets([disk.target for disk in template.disks if disk.target])
    plans = disk_plans(order, folder)
    boot = _boot_names(plans)
    disks = []
    for index, plan in enumerate(plans):
        place = _boot_order(list(template.boot.order), boot[index], index + 1)
        disks.append(disk_of(plan, names, machine, kind, boot_order=place))
    if not template.context.is_disabled:
        disks.append(_context(folder.context_iso, names, machine, kind))
    return disks


def disk_of(plan: DiskPlan, names: Targets, machine: str, kind: Kind, *, boot_order: int = 0) -> DiskSpec:
    """One disk; `names` gives out the device names that are free. Also for a disk that is plugged in."""
    disk = plan.template
    is_cdrom = disk.device == template_pb2.DISK_DEVICE_CDROM
    bus = disk.bus or (_cdrom_bus(machine, kind) if is_cdrom else kind.bus)
    return DiskSpec(
        path=plan.path, format=plan.format, target=disk.target or names.next(bus), bus=bus,
        is_cdrom=is_cdrom, is_read_only=disk.is_read_only, cache=disk.cache, io=disk.io, discard=disk.discard,
        serial=f"moln-disk-{disk.disk_id}" if kind.bus == "virtio" else "",
        boot_order=boot_order if kind.bus in ("virtio", "xen") else 0,
        limits=_limits(disk), driver=kind.disk_driver, mount="" if kind.bus else "/",
    )  # fmt: skip


class Targets:
    """Gives out device names: vda, vdb, … for each bus, past those that are taken."""

    def __init__(self, taken: list[str]) -> None:
        self._taken = set(taken)
        self._next: Counter[str] = Counter()

    def next(self, bus: str) -> str:
        """The next free name on a bus."""
        prefix = _PREFIX.get(bus, "vd")
        while True:
            name = prefix + _letters(self._next[prefix])
            self._next[prefix] += 1
            if name not in self._taken:
                self._taken.add(name)
                return name


def _context(iso: Path, names: Targets, machine: str, kind: Kind) -> DiskSpec:
    bus = _cdrom_bus(machine, kind)
    mount = "" if kind.bus else CONTEXT_MOUNT
    return DiskSpec(iso, "raw", names.next(bus), bus, is_cdrom=True, driver=kind.disk_driver, mount=mount)


def _boot_names(plans: list[DiskPlan]) -> list[str]:
    """What each disk is called in a boot order: `disk0`, `disk1`, …, and `cdrom` for the first CD-ROM."""
    names = [f"disk{index}" for index in range(len(plans))]
    for index, plan in enumerate(plans):
        if plan.template.device == template_pb2.DISK_DEVICE_CDROM:
            names[index] = "cdrom"
            break
    return names


def _boot_order(stated: list[str], name: str, default: int) -> int:
    if not stated:
        return default
    return stated.index(name) + 1 if name in stated else 0


def _tickets(order: VmOrder) -> dict[int, ImageTicket]:
    return {ticket.image_id: ticket for ticket in order.tickets}


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


def _cdrom_bus(machine: str, kind: Kind) -> str:
    if kind.bus == "":
        return ""
    if kind.bus == "xen":
        return "xen" if machine == XEN_PARAVIRTUAL else "ide"
    if kind.bus == "scsi" or machine in ("", "pc") or machine.startswith("pc-i440fx"):
        return "ide"
    return "scsi"


def _letters(number: int) -> str:
    """0 → a, 25 → z, 26 → aa."""
    text = ""
    number += 1
    while number:
        number, rest = divmod(number - 1, 26)
        text = chr(ord("a") + rest) + text
    return text
