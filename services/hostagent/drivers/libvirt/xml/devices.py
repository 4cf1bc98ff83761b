"""Everything among the devices that is neither disk nor interface."""

from __future__ import annotations

import re
from xml.etree.ElementTree import Element, SubElement

from services.hostagent.drivers.libvirt.spec import Devices, DomainSpec, GraphicsSpec
from services.hostagent.drivers.libvirt.xml.parts import present, text

_PCI = re.compile(r"([0-9a-f]{4}):([0-9a-f]{2}):([0-9a-f]{2})\.([0-7])")


def add_devices(devices: Element, spec: DomainSpec) -> None:
    """The console, controllers, screen, and what the guest and the host talk over."""
    own = spec.devices
    _console(devices, own.console, str(spec.console_log) if spec.console_log else "")
    if own.has_agent_channel:
        channel = SubElement(devices, "channel", {"type": "unix"})
        SubElement(channel, "target", {"type": "virtio", "name": "org.qemu.guest_agent.0"})
    _screen(devices, spec.graphics, own)
    if own.scsi_controller:
        SubElement(devices, "controller", {"type": "scsi", "index": "0", "model": own.scsi_controller})
    if not own.has_usb:
        SubElement(devices, "controller", {"type": "usb", "model": "none"})
    if own.balloon:
        SubElement(devices, "memballoon", {"model": own.balloon})
    if own.has_rng:
        text(SubElement(devices, "rng", {"model": "virtio"}), "backend", "/dev/urandom", model="random")
    if own.has_tpm:
        tpm = SubElement(devices, "tpm", {"model": "tpm-crb"})
        SubElement(tpm, "backend", {"type": "emulator", "version": "2.0"})
    for address in own.pci_addresses:
        devices.append(pci_element(address))


def pci_element(address: str) -> Element:
    """A device of the host that is passed through. Raises ValueError where `address` is none (`0000:01:00.0`)."""
    found = _PCI.fullmatch(address.lower())
    if found is None:
        raise ValueError(f"'{address}' is no address of a PCI device such as 0000:01:00.0")
    element = Element("hostdev", {"mode": "subsystem", "type": "pci", "managed": "yes"})
    names = ("domain", "bus", "slot", "function")
    values = {name: f"0x{part}" for name, part in zip(names, found.groups(), strict=True)}
    SubElement(SubElement(element, "source"), "address", values)
    return element


def _console(devices: Element, kind: str, log: str) -> None:
    """One port: a terminal for people, and everything that it ever says in a file."""
    if not kind:
        return
    port = SubElement(devices, kind, {"type": "pty"})
    if log:
        SubElement(port, "log", {"file": log, "append": "on"})
    SubElement(port, "target", {"port": "0"})


def _screen(devices: Element, graphics: GraphicsSpec | None, own: Devices) -> None:
    if graphics is None:
        if own.has_no_video:
            SubElement(SubElement(devices, "video"), "model", {"type": "none"})
        return
    _graphics(devices, graphics)
    if graphics.video:
        SubElement(SubElement(devices, "video"), "model", {"type": graphics.video})
    for kind in graphics.inputs:
        SubElement(devices, "input", {"type": kind, "bus": "usb" if kind == "tablet" else "ps2"})


def _graphics(devices: Element, graphics: GraphicsSpec) -> None:
    if graphics.address:
        values = present(type=graphics.type, autoport="yes", listen=graphics.address, keymap=graphics.keymap)
        SubElement(devices, "graphics", values)
        return
    element = SubElement(devices, "graphics", present(type=graphics.type, keymap=graphics.keymap))
    SubElement(element, "listen", {"type": "none"})
