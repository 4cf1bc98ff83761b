"""Renders a domain's XML from typed inputs with ElementTree. No policy: what the inputs do not say is not there.

Also reads moln's mark back out of the metadata that it writes.
"""

from __future__ import annotations

from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from services.hostagent.drivers.libvirt.spec import CpuSpec, DiskSpec, DomainSpec, GraphicsSpec, IoLimits, Mark, NicSpec

MARK_NAMESPACE = "urn:moln:domain:1"
MARK_PREFIX = "moln"
# libvirt's cputune/shares of one whole core.
SHARES_PER_CORE = 1024
MAX_XML_CHARACTERS = 4 * 1024 * 1024

ElementTree.register_namespace(MARK_PREFIX, MARK_NAMESPACE)


def domain_xml(spec: DomainSpec) -> str:
    """The domain as libvirt wants it."""
    domain = Element("domain", {"type": spec.type})
    _text(domain, "name", spec.name)
    _text(domain, "uuid", spec.uid)
    _mark(SubElement(domain, "metadata"), spec.mark)
    _text(domain, "memory", str(spec.memory_mib), unit="MiB")
    _text(domain, "vcpu", str(spec.vcpus))
    if spec.cpu_percent:
        shares = max(2, spec.cpu_percent * SHARES_PER_CORE // 100)
        _text(SubElement(domain, "cputune"), "shares", str(shares))
    _os(domain, spec)
    _features(domain, spec)
    _cpu(domain, spec.cpu)
    _lifecycle(domain)
    _devices(SubElement(domain, "devices"), spec)
    return ElementTree.tostring(domain, encoding="unicode")


def parse(text: str) -> Element:
    """XML that libvirt gave. Raises ValueError on a document type or an absurd size: neither is libvirt's."""
    if len(text) > MAX_XML_CHARACTERS or "<!DOCTYPE" in text[:1024]:
        raise ValueError("XML from the hypervisor has a document type or is too long")
    try:
        return ElementTree.fromstring(text)  # noqa: S314 -- checked above; entities need a document type
    except ElementTree.ParseError as err:
        raise ValueError(f"XML from the hypervisor does not parse: {err}") from err


def parse_mark(text: str) -> Mark | None:
    """The mark in a domain's metadata element, or None where it is not one that this version can read."""
    try:
        found = parse(text)
        return Mark(int(found.attrib["id"]), found.attrib["uid"], int(found.attrib["epoch"]), found.attrib["cloud"])
    except (ValueError, KeyError):
        return None


def _mark(metadata: Element, mark: Mark) -> None:
    values = {"id": str(mark.vm_id), "uid": mark.uid, "epoch": str(mark.epoch), "cloud": mark.cloud_uid}
    SubElement(metadata, f"{{{MARK_NAMESPACE}}}vm", values)


def _os(domain: Element, spec: DomainSpec) -> None:
    os_element = SubElement(domain, "os", {"firmware": "efi"} if spec.firmware == "uefi" else {})
    _text(os_element, "type", "hvm", arch=spec.architecture, machine=spec.machine)


def _features(domain: Element, spec: DomainSpec) -> None:
    if spec.type == "test":
        return
    features = SubElement(domain, "features")
    for name in ("acpi", "apic"):
        SubElement(features, name)


def _cpu(domain: Element, cpu: CpuSpec) -> None:
    if cpu == CpuSpec():
        return
    mode = cpu.model if cpu.model in ("host-passthrough", "host-model") else ""
    attributes = {"mode": mode} if mode else {"mode": "custom", "match": "exact"} if cpu.model else {}
    element = SubElement(domain, "cpu", attributes)
    if cpu.model and not mode:
        _text(element, "model", cpu.model, fallback="forbid")
    if cpu.sockets or cpu.cores or cpu.threads:
        counts = {"sockets": cpu.sockets, "cores": cpu.cores, "threads": cpu.threads}
        SubElement(element, "topology", {name: str(count or 1) for name, count in counts.items()})
    for feature in cpu.features:
        policy = "disable" if feature.startswith("-") else "require"
        SubElement(element, "feature", {"policy": policy, "name": feature.lstrip("+-")})


def _lifecycle(domain: Element) -> None:
    """A guest that ends stays ended: whether it starts again is decided by the agent, never by libvirt."""
    SubElement(domain, "clock", {"offset": "utc"})
    _text(domain, "on_poweroff", "destroy")
    _text(domain, "on_reboot", "restart")
    _text(domain, "on_crash", "destroy")


def _devices(devices: Element, spec: DomainSpec) -> None:
    if spec.emulator:
        _text(devices, "emulator", spec.emulator)
    for disk in spec.disks:
        _disk(devices, disk)
    for nic in spec.nics:
        _nic(devices, nic)
    if spec.console_log is not None:
        _console(devices, str(spec.console_log))
    if spec.type == "test":
        return
    _fixed_devices(devices, spec)


def _fixed_devices(devices: Element, spec: DomainSpec) -> None:
    if spec.has_agent_channel:
        channel = SubElement(devices, "channel", {"type": "unix"})
        SubElement(channel, "target", {"type": "virtio", "name": "org.qemu.guest_agent.0"})
    if spec.graphics is not None:
        _graphics(devices, spec.graphics)
    else:
        SubElement(SubElement(devices, "video"), "model", {"type": "none"})
    if spec.scsi_controller:
        SubElement(devices, "controller", {"type": "scsi", "index": "0", "model": spec.scsi_controller})
    if not spec.has_usb:
        SubElement(devices, "controller", {"type": "usb", "model": "none"})
    SubElement(devices, "memballoon", {"model": "virtio" if spec.has_balloon else "none"})
    _text(SubElement(devices, "rng", {"model": "virtio"}), "backend", "/dev/urandom", model="random")


def _disk(devices: Element, disk: DiskSpec) -> None:
    element = SubElement(devices, "disk", {"type": "file", "device": "cdrom" if disk.is_cdrom else "disk"})
    SubElement(element, "driver", _present(name="qemu", type=disk.format, cache=disk.cache))
    SubElement(element, "source", {"file": str(disk.path)})
    SubElement(element, "target", {"dev": disk.target, "bus": disk.bus})
    _limits(element, disk.limits)
    if disk.is_read_only or disk.is_cdrom:
        SubElement(element, "readonly")
    if disk.serial:
        _text(element, "serial", disk.serial)
    _boot(element, disk.boot_order)


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
            _text(tune, name, str(value))


def _nic(devices: Element, nic: NicSpec) -> None:
    element = SubElement(devices, "interface", {"type": "bridge" if nic.bridge else "user"})
    SubElement(element, "mac", {"address": nic.mac})
    if nic.bridge:
        SubElement(element, "source", {"bridge": nic.bridge})
        if nic.device:
            SubElement(element, "target", {"dev": nic.device})
    SubElement(element, "model", {"type": nic.model})
    if nic.mtu:
        SubElement(element, "mtu", {"size": str(nic.mtu)})
    _boot(element, nic.boot_order)


def _console(devices: Element, log: str) -> None:
    """One serial port: a terminal for people, and everything that it ever says in a file."""
    serial = SubElement(devices, "serial", {"type": "pty"})
    SubElement(serial, "log", {"file": log, "append": "on"})
    SubElement(serial, "target", {"port": "0"})


def _graphics(devices: Element, graphics: GraphicsSpec) -> None:
    values = _present(type=graphics.type, autoport="yes", listen="127.0.0.1", keymap=graphics.keymap)
    SubElement(devices, "graphics", values)
    if graphics.video:
        SubElement(SubElement(devices, "video"), "model", {"type": graphics.video})
    for kind in graphics.inputs:
        SubElement(devices, "input", {"type": kind, "bus": "usb" if kind == "tablet" else "ps2"})


def _boot(device: Element, order: int) -> None:
    if order:
        SubElement(device, "boot", {"order": str(order)})


def _text(parent: Element, name: str, text: str, **attributes: str) -> None:
    SubElement(parent, name, _present(**attributes)).text = text


def _present(**attributes: str) -> dict[str, str]:
    return {name: value for name, value in attributes.items() if value}
