"""Guests on the hypervisor that this cloud did not create, as they are. Reads only: nothing here changes a guest."""

from __future__ import annotations

from functools import partial
from xml.etree.ElementTree import Element

from moln.compute.v1.host_pb2 import ForeignDisk, ForeignGuest, ForeignNic
from moln.node.v1.node_service_pb2 import ForeignGuests
from services.hostagent.drivers.libvirt.connection import Flags, LibvirtConnection, Raw, or_none
from services.hostagent.drivers.libvirt.guests import read_mark
from services.hostagent.drivers.libvirt.xml import parse

MOST = 1000
LIST_SECONDS = 60.0
_KIB_PER_MIB = 1024
_DISK_SOURCES = ("file", "dev", "dir", "name", "volume")
_NIC_SOURCES = ("bridge", "network", "dev", "path")


class LibvirtForeign:
    """The guests of one hypervisor that do not carry the mark of this cloud."""

    def __init__(self, connection: LibvirtConnection, cloud_uid: str) -> None:
        self._connection, self._cloud_uid = connection, cloud_uid

    async def list_guests(self, host_id: int) -> ForeignGuests:
        """By name. One that vanishes while it is looked at is left out."""
        return await self._connection.call(self._list, what="listing the guests of others", seconds=LIST_SECONDS)

    def _list(self, raw: Raw) -> ForeignGuests:
        found = []
        for domain in sorted(raw.listAllDomains(), key=lambda domain: domain.name()):
            mark = read_mark(domain)
            if mark is None or mark.cloud_uid != self._cloud_uid:
                found.append((domain, mark.cloud_uid if mark is not None else ""))
        guests = [or_none(partial(_guest, domain, cloud)) for domain, cloud in found[:MOST]]
        return ForeignGuests(guests=[each for each in guests if each is not None], is_truncated=len(found) > MOST)


def _guest(domain: Raw, cloud_uid: str) -> ForeignGuest:
    state, memory_kib, _, vcpus, _ = domain.info()
    description = _description(domain)
    return ForeignGuest(
        name=domain.name(),
        uuid=domain.UUIDString(),
        state=Flags.STATE_NAMES.get(state, "unknown"),
        vcpus=vcpus,
        memory_mib=memory_kib // _KIB_PER_MIB,
        disks=[_disk(element) for element in description.iterfind("devices/disk")],
        nics=[_nic(element) for element in description.iterfind("devices/interface")],
        is_autostarted=bool(or_none(domain.autostart)),
        is_persistent=bool(domain.isPersistent()),
        cloud_uid=cloud_uid,
    )


def _description(domain: Raw) -> Element:
    """What libvirt says of it, without secrets; nothing, where that cannot be read: one odd guest hides no other."""
    try:
        return parse(domain.XMLDesc())
    except ValueError:
        return Element("domain")


def _disk(element: Element) -> ForeignDisk:
    return ForeignDisk(
        target=_attribute(element, "target", "dev"),
        bus=_attribute(element, "target", "bus"),
        source=_source(element, _DISK_SOURCES),
        device=element.get("device", "disk"),
    )


def _nic(element: Element) -> ForeignNic:
    return ForeignNic(
        mac=_attribute(element, "mac", "address"),
        model=_attribute(element, "model", "type"),
        source=_source(element, _NIC_SOURCES) or element.get("type", ""),
    )


def _source(element: Element, names: tuple[str, ...]) -> str:
    return next(filter(None, (_attribute(element, "source", name) for name in names)), "")


def _attribute(element: Element, child: str, name: str) -> str:
    found = element.find(child)
    return found.get(name, "") if found is not None else ""
