"""Disks, CD-ROMs, and file systems of a container."""

from __future__ import annotations

from xml.etree.ElementTree import Element, SubElement

from services.hostagent.drivers.libvirt.spec import DiskSpec, IoLimits
from services.hostagent.drivers.libvirt.xml.parts import boot, present, render, text


def disk_xml(disk: DiskSpec) -> str:
    """One disk on its own, as libvirt's attachDevice takes it."""
    return render(disk_element(disk))


def disk_element(disk: DiskSpec) -> Element:
    """A disk as it stands among a domain's devices."""
    if disk.mount:
        return _filesystem(disk)
    element = Element("disk", {"type": "file", "device": "cdrom" if disk.is_cdrom else "disk"})
    if disk.driver:
        choices = present(cache=disk.cache, io=disk.io, discard=disk.discard)
        SubElement(element, "driver", {**present(name=disk.driver, type=disk.format), **choices})
    SubElement(element, "source", {"file": str(disk.path)})
    SubElement(element, "target", {"dev": disk.target, "bus": disk.bus})
    _limits(element, disk.limits)
    if disk.is_read_only or disk.is_cdrom:
        SubElement(element, "readonly")
    if disk.serial:
        text(element, "serial", disk.serial)
    boot(element, disk.boot_order)
    return element


def _filesystem(disk: DiskSpec) -> Element:
    element = Element("filesystem", {"type": "file", "accessmode": "passthrough"})
    SubElement(element, "driver", {"type": "loop" if disk.format == "raw" else "nbd", "format": disk.format})
    SubElement(element, "source", {"file": str(disk.path)})
    SubElement(element, "target", {"dir": disk.mount})
    if disk.is_read_only or disk.is_cdrom:
        SubElement(element, "readonly")
    return element


def _limits(disk: Element, limits: IoLimits) -> None:
    names = {
        "total_bytes_sec": limits.total_bytes_per_s,
        "read_bytes_sec": limits.read_bytes_per_s,
        "write_bytes_sec": limits.write_bytes_per_s,
        "total_iops_sec": limits.total_iops,
        "read_iops_sec": limits.read_iops,
        "write_iops_sec": limits.write_iops,
    }
    stated = {name: value for name, value in names.items() if value}
    if stated:
        tune = SubElement(disk, "iotune")
        for name, value in stated.items():
            text(tune, name, str(value))
