"""The host's PCI devices that guests may be given: as libvirt lists them, of those that the administrator named."""

from __future__ import annotations

import re
from collections.abc import Iterable
from xml.etree.ElementTree import Element

from moln.compute.v1.host_pb2 import PciDevice
from services.hostagent.drivers.libvirt.connection import Flags, Raw, or_none
from services.hostagent.drivers.libvirt.xml import parse

_ADDRESS = re.compile(r"[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")
_KIND = re.compile(r"(?P<vendor>[0-9a-f]{4})(:(?P<device>[0-9a-f]{4})?)?")
_BRIDGES = "06"
"""Class of what devices hang on: never a guest's."""


def check_patterns(patterns: Iterable[str]) -> None:
    """Raises ValueError for what is neither an address nor `vendor:device`."""
    for pattern in patterns:
        if not (_ADDRESS.fullmatch(pattern.lower()) or _KIND.fullmatch(pattern.lower())):
            problem = (
                f"'{pattern}' is neither an address (0000:01:00.0) nor vendor:device (10de:1b38) nor vendor (10de)"
            )
            raise ValueError(problem)


def read_devices(raw: Raw, patterns: Iterable[str]) -> list[PciDevice]:
    """Asks a connection; runs in its thread. Without patterns nothing is given away, so nothing is looked for."""
    if not (wanted := tuple(patterns)):
        return []
    texts = [or_none(device.XMLDesc) for device in raw.listAllDevices(Flags.PCI_DEVICES)]
    return chosen([text for text in texts if text], wanted)


def chosen(texts: Iterable[str], patterns: Iterable[str]) -> list[PciDevice]:
    """Of devices as libvirt describes them those that the patterns name."""
    wanted = [pattern.lower() for pattern in patterns]
    found = [_device(text) for text in texts]
    return [device for device in found if device is not None and _is_wanted(device, wanted)]


def _device(text: str) -> PciDevice | None:
    """None for what cannot be given to a guest, or is not understood."""
    device = parse(text)
    capability = device.find("capability[@type='pci']")
    if capability is None:
        return None
    kind = capability.findtext("class", "0x000000").removeprefix("0x").zfill(6)
    numa = capability.find("numa")
    if kind.startswith(_BRIDGES):
        return None
    made = PciDevice(
        address=_address(capability),
        vendor=_number(capability.find("vendor")),
        device=_number(capability.find("product")),
        numa_node=int(numa.get("node", "0")) if numa is not None else 0,
        description=" ".join(filter(None, (capability.findtext("vendor"), capability.findtext("product")))),
    )
    setattr(made, "class", kind[:4])
    return made


def _address(capability: Element) -> str:
    domain, bus, slot, function = (
        int(capability.findtext(name, "0")) for name in ("domain", "bus", "slot", "function")
    )
    return f"{domain:04x}:{bus:02x}:{slot:02x}.{function:x}"


def _number(element: Element | None) -> str:
    return "" if element is None else element.get("id", "").removeprefix("0x")


def _is_wanted(device: PciDevice, patterns: Iterable[str]) -> bool:
    names = {device.address, device.vendor, f"{device.vendor}:", f"{device.vendor}:{device.device}"}
    return not names.isdisjoint(patterns)
