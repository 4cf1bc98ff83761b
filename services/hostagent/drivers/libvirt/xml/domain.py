"""A whole domain."""

from __future__ import annotations

from xml.etree.ElementTree import Element, SubElement

from services.common.domain.raw_xml import merge_raw, parse_raw
from services.hostagent.drivers.libvirt.spec import BootSpec, DomainSpec
from services.hostagent.drivers.libvirt.xml.cpu import add_cpu, add_tune, add_vcpus
from services.hostagent.drivers.libvirt.xml.devices import add_devices
from services.hostagent.drivers.libvirt.xml.disks import disk_element
from services.hostagent.drivers.libvirt.xml.mark import mark_element
from services.hostagent.drivers.libvirt.xml.memory import add_memory
from services.hostagent.drivers.libvirt.xml.nics import nic_element
from services.hostagent.drivers.libvirt.xml.parts import present, render, text


def domain_xml(spec: DomainSpec) -> str:
    """The domain as libvirt wants it."""
    return render(domain_element(spec))


def domain_element(spec: DomainSpec) -> Element:
    """The domain as a tree. Raises ValueError where raw XML or an address cannot be read."""
    domain = Element("domain", {"type": spec.type})
    text(domain, "name", spec.name)
    text(domain, "uuid", spec.uid)
    SubElement(domain, "metadata").append(mark_element(spec.mark))
    add_memory(domain, spec.memory)
    add_vcpus(domain, spec)
    add_tune(domain, spec.tune)
    _os(domain, spec)
    _features(domain, spec.features)
    add_cpu(domain, spec.cpu, spec.memory.cells)
    _lifecycle(domain)
    _devices(SubElement(domain, "devices"), spec)
    if spec.raw:
        merge_raw(domain, parse_raw(spec.raw))
    return domain


def _os(domain: Element, spec: DomainSpec) -> None:
    boot = spec.boot
    element = SubElement(domain, "os", {"firmware": "efi"} if boot.firmware == "uefi" else {})
    text(element, "type", boot.type, arch=spec.architecture, machine=spec.machine)
    if boot.firmware == "uefi":
        _uefi(element, boot)
    if boot.kernel is not None:
        text(element, "kernel", str(boot.kernel))
        if boot.initrd is not None:
            text(element, "initrd", str(boot.initrd))
        if boot.arguments:
            text(element, "cmdline", boot.arguments)
    if boot.init:
        text(element, "init", boot.init)


def _uefi(element: Element, boot: BootSpec) -> None:
    """Firmware is chosen by libvirt from what is installed; its variables are kept in a file of the VM."""
    firmware = SubElement(element, "firmware")
    for name in ("secure-boot", "enrolled-keys"):
        SubElement(firmware, "feature", {"enabled": "yes" if boot.is_secure else "no", "name": name})
    if boot.is_secure:
        SubElement(element, "loader", {"secure": "yes"})
    if boot.nvram is not None:
        text(element, "nvram", str(boot.nvram))


def _features(domain: Element, names: tuple[str, ...]) -> None:
    if names:
        features = SubElement(domain, "features")
        for name in names:
            SubElement(features, name, present(state="on" if name == "smm" else ""))


def _lifecycle(domain: Element) -> None:
    """A guest that ends stays ended: whether it starts again is decided by the agent, never by libvirt."""
    SubElement(domain, "clock", {"offset": "utc"})
    text(domain, "on_poweroff", "destroy")
    text(domain, "on_reboot", "restart")
    text(domain, "on_crash", "destroy")


def _devices(devices: Element, spec: DomainSpec) -> None:
    if spec.emulator:
        text(devices, "emulator", spec.emulator)
    for disk in spec.disks:
        devices.append(disk_element(disk))
    for nic in spec.nics:
        devices.append(nic_element(nic))
    add_devices(devices, spec)
