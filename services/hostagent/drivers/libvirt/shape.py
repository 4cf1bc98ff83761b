"""Reads and changes the XML of domains that are there: finds devices, fits them in, moves them. Pure.

What a domain is made of is the composer's; here stands what must be done to XML that libvirt itself has given.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from services.hostagent.drivers.libvirt.spec import Mark
from services.hostagent.drivers.libvirt.xml import MARK_NAMESPACE, parse

_DISK_FILE = re.compile(r"disk-(\d+)\.\w+")
_OF_THIS_RUN = ("backingStore", "mirror", "alias", "address")
_KIB_OF = {"b": 1 / 1024, "bytes": 1 / 1024, "KiB": 1, "k": 1, "MiB": 1024, "M": 1024, "GiB": 1024**2, "G": 1024**2}


@dataclass(frozen=True, slots=True)
class Shape:
    """What must be the same for a guest's memory to fit: vCPUs, memory in KiB, devices by what they are."""

    vcpus: int
    memory_kib: int
    disks: frozenset[str]
    nics: frozenset[str]

    def difference(self, now: Shape) -> str:
        """In words, how a guest differs now from what it was; empty where it does not."""
        if self.vcpus != now.vcpus:
            return f"it had {self.vcpus} vCPUs then and has {now.vcpus} now"
        if self.memory_kib != now.memory_kib:
            return f"it had {self.memory_kib // 1024} MiB of memory then and has {now.memory_kib // 1024} MiB now"
        changed = sorted((self.disks ^ now.disks) | (self.nics ^ now.nics))
        return f"it has not the same devices: {', '.join(changed)}" if changed else ""


def shape_of(domain: Element) -> Shape:
    """The shape that a `<domain>` describes."""
    vcpu = domain.find("vcpu")
    count = int(vcpu.get("current") or vcpu.text or "1") if vcpu is not None else 1
    disks = {path.name for path in map(_source, domain.iterfind("devices/disk")) if path is not None}
    macs = {mac.get("address", "") for mac in domain.iterfind("devices/interface/mac")}
    return Shape(count, memory_kib(domain, "memory"), frozenset(disks), frozenset(macs))


def has_plugged_vcpus(domain: Element) -> bool:
    """Whether vCPUs were plugged in since the guest was started: its memory can then not be loaded into a fresh one."""
    return any(vcpu.get("enabled") == "yes" and vcpu.get("hotpluggable") == "yes" for vcpu in domain.iter("vcpu"))


def memory_kib(domain: Element, name: str) -> int:
    """`memory` (the most) or `currentMemory` of a domain, in KiB; 0 where it is not stated."""
    found = domain.find(name)
    if found is None or not found.text:
        return 0
    return int(int(found.text) * _KIB_OF.get(found.get("unit", "KiB"), 1))


def max_vcpus(domain: Element) -> int:
    """How many vCPUs the domain can have without a restart."""
    return int(domain.findtext("vcpu", "1"))


def find_disk(domain: Element, disk_id: int) -> Element | None:
    """The disk of that number, known by its file's name."""
    for disk in domain.iterfind("devices/disk"):
        path = _source(disk)
        found = _DISK_FILE.fullmatch(path.name) if path is not None else None
        if found is not None and int(found[1]) == disk_id:
            return disk
    return None


def find_cdrom(domain: Element, path: Path) -> Element | None:
    """The CD-ROM in which that file lies, or the drive that was emptied for it."""
    drives = [disk for disk in domain.iterfind("devices/disk") if disk.get("device") == "cdrom"]
    for drive in drives:
        if _source(drive) == path:
            return drive
    return next((drive for drive in drives if _source(drive) is None), None)


def find_nic(domain: Element, *, device: str, mac: str) -> Element | None:
    """An interface by its name on the node, else by its MAC address."""
    for nic in domain.iterfind("devices/interface"):
        target, address = nic.find("target"), nic.find("mac")
        if target is not None and device and target.get("dev") == device:
            return nic
        if address is not None and mac and address.get("address", "").lower() == mac.lower():
            return nic
    return None


def target_of(disk: Element) -> str:
    """The disk's device name, for example `vdb`."""
    target = disk.find("target")
    return target.get("dev", "") if target is not None else ""


def alias_of(disk: Element) -> str:
    """What the hypervisor calls the device of a disk of a domain that runs."""
    alias = disk.find("alias")
    return alias.get("name", "") if alias is not None else ""


def source_of(disk: Element) -> Path | None:
    """The disk's file; None for a drive without one."""
    return _source(disk)


def plugged(disk: Element, domain: Element) -> str:
    """A disk of a composed domain, as it is plugged into one that runs: under a name that is free there."""
    taken = {target_of(other) for other in domain.iterfind("devices/disk")}
    target = disk.find("target")
    if target is not None and target.get("dev", "") in taken:
        target.set("dev", _free_name(target.get("dev", ""), taken))
    return without_boot(disk)


def without_boot(device: Element) -> str:
    """A device for one that runs: its place in the boot order may be taken there."""
    for boot in device.findall("boot"):
        device.remove(boot)
    return _text(device)


def with_media(drive: Element, path: Path | None) -> str:
    """A CD-ROM drive with that file in it, or empty."""
    for name in ("source", *_OF_THIS_RUN):
        for found in drive.findall(name):
            drive.remove(found)
    if path is not None:
        drive.insert(0, Element("source", {"file": str(path)}))
    return _text(drive)


def adapted(xml: str, mark: Mark, *, here: Path, there: Path, bridges: Iterable[tuple[str, str]] = ()) -> str:
    """The XML of a guest that goes on elsewhere: files below `here` are below `there`, interfaces on the bridges.

    `bridges` are pairs of MAC address and bridge. Nothing else is changed: a guest's memory fits only the same devices.
    """
    domain = parse(xml)
    for element in domain.iter():
        _move(element, f"{here}/", f"{there}/")
    for disk in domain.iterfind("devices/disk"):
        for name in ("backingStore", "mirror"):
            for found in disk.findall(name):
                disk.remove(found)
    _connect(domain, dict(bridges))
    _mark(domain, mark)
    return _text(domain)


def _move(element: Element, here: str, there: str) -> None:
    for name, value in element.attrib.items():
        if value.startswith(here):
            element.set(name, there + value[len(here) :])
    if element.text is not None and element.text.startswith(here):
        element.text = there + element.text[len(here) :]


def _connect(domain: Element, bridges: dict[str, str]) -> None:
    for nic in domain.iterfind("devices/interface"):
        mac, source = nic.find("mac"), nic.find("source")
        bridge = bridges.get(mac.get("address", "").lower(), "") if mac is not None else ""
        if source is not None and source.get("bridge") and bridge:
            source.set("bridge", bridge)


def _mark(domain: Element, mark: Mark) -> None:
    values = {"id": str(mark.vm_id), "uid": mark.uid, "epoch": str(mark.epoch), "cloud": mark.cloud_uid}
    metadata = domain.find("metadata")
    if metadata is None:
        metadata = SubElement(domain, "metadata")
    for found in metadata.findall(f"{{{MARK_NAMESPACE}}}vm"):
        metadata.remove(found)
    SubElement(metadata, f"{{{MARK_NAMESPACE}}}vm", values)


def _source(disk: Element) -> Path | None:
    source = disk.find("source")
    file = source.get("file") if source is not None else None
    return Path(file) if file else None


def _free_name(name: str, taken: set[str]) -> str:
    prefix = name[:-1]
    letters = (chr(code) for code in range(ord("a"), ord("z") + 1))
    return next((prefix + letter for letter in letters if prefix + letter not in taken), name)


def _text(element: Element) -> str:
    return ElementTree.tostring(element, encoding="unicode")
