"""What is allowed of a guest's shape: CPU, memory, firmware, screens, devices of the host, raw XML. Pure.

Whether a host can do it is the driver's to say; what no host could do is refused here, naming the field.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from moln.compute.v1 import template_pb2
from services.common.domain.errors import invalid
from services.common.domain.raw_xml import parse_raw
from services.common.domain.reasons import Reason

MAX_VCPUS = 512
MAX_MEMORY_MIB = 16 * 1024 * 1024
MAX_NUMA_NODES = 32
MAX_PCI_DEVICES = 16
MAX_FEATURES = 64
MAX_KERNEL_ARGUMENTS = 2000
HUGEPAGES_KIB = (2048, 1048576)

_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_FEATURE = re.compile(r"[+-]?[a-z0-9][a-z0-9._-]{0,31}")
_HEX = re.compile(r"[0-9a-fA-F]{4}")
_BOOT_DEVICE = re.compile(r"disk(\d{1,2})|nic(\d{1,2})|cdrom")
_PRINTABLE = re.compile(r"[\x20-\x7e]*")

_VIDEOS = ("vga", "cirrus", "virtio", "qxl", "bochs", "vmvga", "xen")
_SCREENS = ("none", "vnc", "spice")
_INPUTS = ("tablet", "mouse", "keyboard")


def check_shape(template: template_pb2.VmTemplate, path: str) -> None:
    """Raises INVALID for what no hypervisor could make. 0 and empty stand for defaults, and memory may be missing."""
    if template.HasField("cpu"):
        _check_cpu(template, f"{path}.cpu")
    if template.HasField("memory"):
        _check_memory(template, f"{path}.memory")
    if template.HasField("boot"):
        _check_boot(template, f"{path}.boot")
    if template.HasField("graphics"):
        _check_graphics(template.graphics, f"{path}.graphics")
    _check_pci(template.pci_devices, f"{path}.pci_devices")
    if template.HasField("raw"):
        _check_raw(template.raw.libvirt_xml, f"{path}.raw.libvirt_xml")


def check_choice(value: str, allowed: Iterable[str], field: str) -> None:
    """Raises INVALID for a word that is not one of those allowed; empty is the default."""
    if value and value not in allowed:
        raise invalid(field, f"'{value}' is not one of {', '.join(allowed)}")


def _check_cpu(template: template_pb2.VmTemplate, path: str) -> None:
    cpu, vcpus = template.cpu, template.vcpus or 1
    if cpu.model and not _WORD.fullmatch(cpu.model):
        raise invalid(f"{path}.model", f"'{cpu.model}' is no name of a CPU model")
    if len(cpu.features) > MAX_FEATURES:
        raise invalid(f"{path}.features", f"has {len(cpu.features)} names; at most {MAX_FEATURES} are allowed")
    for number, feature in enumerate(cpu.features):
        if not _FEATURE.fullmatch(feature):
            raise invalid(f"{path}.features[{number}]", f"'{feature}' is no feature such as +vmx or -svm")
    if cpu.max_vcpus and not vcpus <= cpu.max_vcpus <= MAX_VCPUS:
        raise invalid(f"{path}.max_vcpus", f"must be at least the {vcpus} vCPUs to start with, and at most {MAX_VCPUS}")
    check_choice(cpu.pinning, ("shared",), f"{path}.pinning")
    _check_topology(cpu, cpu.max_vcpus or vcpus, path)


def _check_topology(cpu: template_pb2.CpuShape, most: int, path: str) -> None:
    per_socket = (cpu.cores or 1) * (cpu.threads or 1)
    if cpu.sockets and cpu.sockets * per_socket != most:
        found = f"{cpu.sockets} × {cpu.cores or 1} × {cpu.threads or 1} is {cpu.sockets * per_socket}"
        problem = f"sockets × cores × threads must come to {most}, the most vCPUs there can be; {found}"
        raise invalid(f"{path}.sockets", problem)
    if most % per_socket:
        field = "cores" if cpu.cores else "threads"
        raise invalid(f"{path}.{field}", f"{most} vCPUs cannot be divided into sockets of {per_socket}")


def _check_memory(template: template_pb2.VmTemplate, path: str) -> None:
    memory, mib = template.memory, template.memory_mib
    if memory.max_memory_mib and not mib <= memory.max_memory_mib <= MAX_MEMORY_MIB:
        problem = f"must be at least the {mib} MiB to start with, and at most {MAX_MEMORY_MIB} (16 TiB)"
        raise invalid(f"{path}.max_memory_mib", problem)
    if memory.hugepage_kib and memory.hugepage_kib not in HUGEPAGES_KIB:
        raise invalid(f"{path}.hugepage_kib", "takes 2048 (2 MiB) or 1048576 (1 GiB)")
    if memory.hugepage_kib and mib * 1024 % memory.hugepage_kib:
        raise invalid(f"{path}.hugepage_kib", f"memory_mib is {mib}, which is not a whole number of such pages")
    vcpus = template.vcpus or 1
    if memory.numa_nodes > min(MAX_NUMA_NODES, vcpus):
        problem = f"must be at most {MAX_NUMA_NODES}, and at most the number of vCPUs, which is {vcpus}"
        raise invalid(f"{path}.numa_nodes", problem)


def _check_boot(template: template_pb2.VmTemplate, path: str) -> None:
    boot = template.boot
    check_choice(boot.firmware, ("bios", "uefi"), f"{path}.firmware")
    for name in ("machine", "architecture"):
        if (word := getattr(boot, name)) and not _WORD.fullmatch(word):
            raise invalid(f"{path}.{name}", f"'{word}' has characters that no such name has")
    if boot.is_secure_boot and boot.firmware != "uefi":
        raise invalid(f"{path}.is_secure_boot", "needs firmware: uefi")
    if boot.is_secure_boot and boot.machine and "q35" not in boot.machine:
        raise invalid(f"{path}.machine", f"is '{boot.machine}', and secure boot needs q35: leave it out")
    _check_kernel(boot, path)
    _check_order(template, f"{path}.order")


def _check_kernel(boot: template_pb2.BootShape, path: str) -> None:
    for name in ("initrd_image", "kernel_arguments"):
        if getattr(boot, name) and not boot.kernel_image:
            raise invalid(f"{path}.{name}", "is given and kernel_image is not")
    if len(boot.kernel_arguments) > MAX_KERNEL_ARGUMENTS or not _PRINTABLE.fullmatch(boot.kernel_arguments):
        raise invalid(f"{path}.kernel_arguments", f"takes at most {MAX_KERNEL_ARGUMENTS} printable ASCII characters")


def _check_order(template: template_pb2.VmTemplate, path: str) -> None:
    for number, name in enumerate(template.boot.order):
        found = _BOOT_DEVICE.fullmatch(name)
        if found is None:
            raise invalid(f"{path}[{number}]", f"'{name}' is none of disk0, disk1, …, nic0, nic1, …, cdrom")
        if name in template.boot.order[:number]:
            raise invalid(f"{path}[{number}]", f"'{name}' stands there twice")
        disk, nic = found.groups()
        if (disk and int(disk) >= len(template.disks)) or (nic and int(nic) >= len(template.nics)):
            raise invalid(f"{path}[{number}]", f"'{name}' is not there: they are counted from 0")


def _check_graphics(graphics: template_pb2.Graphics, path: str) -> None:
    check_choice(graphics.type, _SCREENS, f"{path}.type")
    check_choice(graphics.video, _VIDEOS, f"{path}.video")
    for number, kind in enumerate(graphics.inputs):
        check_choice(kind or "''", _INPUTS, f"{path}.inputs[{number}]")
    if graphics.keymap and not _WORD.fullmatch(graphics.keymap):
        raise invalid(f"{path}.keymap", f"'{graphics.keymap}' is no keyboard layout such as sv or en-us")
    if graphics.type in ("", "none") and (graphics.video or graphics.keymap or graphics.inputs):
        raise invalid(f"{path}.type", "is required where video, keymap or inputs are given: vnc or spice")


def _check_pci(requests: Iterable[template_pb2.PciRequest], path: str) -> None:
    for number, request in enumerate(requests):
        where = f"{path}[{number}]"
        if number >= MAX_PCI_DEVICES:
            raise invalid(path, f"has more than {MAX_PCI_DEVICES} devices")
        words = {"vendor": request.vendor, "device": request.device, "class": getattr(request, "class")}
        if not any(words.values()):
            raise invalid(where, "needs a vendor, a device or a class", reason=Reason.FIELD_REQUIRED)
        for name, word in words.items():
            if word and not _HEX.fullmatch(word):
                raise invalid(f"{where}.{name}", f"'{word}' is not four hexadecimal digits such as 10de")


def _check_raw(text: str, path: str) -> None:
    try:
        parse_raw(text)
    except ValueError as err:
        raise invalid(path, str(err)) from err
