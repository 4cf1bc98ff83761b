"""Network interfaces."""

from __future__ import annotations

from xml.etree.ElementTree import Element, SubElement

from services.hostagent.drivers.libvirt.spec import NicSpec
from services.hostagent.drivers.libvirt.xml.parts import boot, render


def nic_xml(nic: NicSpec) -> str:
    """One interface on its own, as libvirt's attachDevice takes it."""
    return render(nic_element(nic))


def nic_element(nic: NicSpec) -> Element:
    """An interface as it stands among a domain's devices."""
    element = Element("interface", {"type": "bridge" if nic.bridge else "user"})
    SubElement(element, "mac", {"address": nic.mac})
    if nic.bridge:
        SubElement(element, "source", {"bridge": nic.bridge})
        if nic.device:
            SubElement(element, "target", {"dev": nic.device})
    if nic.model:
        SubElement(element, "model", {"type": nic.model})
    if nic.mtu:
        SubElement(element, "mtu", {"size": str(nic.mtu)})
    boot(element, nic.boot_order)
    return element
