"""Templates of VMs: what is allowed, defaults, names resolved. Pure: the caller hands in how names are resolved."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass

from moln.common.v1 import common_pb2
from moln.compute.v1 import template_pb2
from services.common.domain.caller import Caller, Capability
from services.common.domain.errors import invalid
from services.common.domain.reasons import Reason
from services.common.expressions import Kind, parse

MAX_VCPUS = 512
MAX_MEMORY_MIB = 16 * 1024 * 1024
MAX_DISK_MIB = 64 * 1024 * 1024
MAX_CONTEXT_BYTES = 32 * 1024
MAX_LABELS = 64
MAX_LABEL_BYTES = 256
MAX_DISKS = MAX_NICS = 32

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_MAC = re.compile(r"([0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}")
_HOSTNAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")

_CHOICES = {
    "format": ("", "qcow2", "raw"),
    "bus": ("", "virtio", "scsi", "sata", "ide", "usb"),
    "cache": ("", "none", "writeback", "writethrough", "unsafe"),
    "filesystem": ("", "none"),
    "model": ("", "virtio", "e1000", "e1000e", "rtl8139"),
}


@dataclass(frozen=True)
class Resolver:
    """How names become ids. Each function takes (name or id, path of the field) and raises the error to show.

    `image_size` gives the virtual size in MiB of an image id, 0 while it is not known yet.
    """

    image: Callable[[str, str], int]
    network: Callable[[str, str], int]
    image_size: Callable[[int], int]
    default_network_id: int = 0


def complete_template(
    template: template_pb2.VmTemplate, caller: Caller, resolver: Resolver, *, path: str = "template"
) -> template_pb2.VmTemplate:
    """A copy with defaults filled in, names resolved, numbers given. Raises INVALID or NOT_FOUND, naming the field."""
    full = template_pb2.VmTemplate()
    full.CopyFrom(template)
    _check_size(full, path)
    _check_expressions(full, path)
    _check_privileges(full, caller, path)
    if full.scheduler:
        raise invalid(f"{path}.scheduler", "there is no scheduler but the built-in one in this release; leave it empty")
    _complete_disks(full, resolver, path)
    _complete_nics(full, resolver, path)
    _check_context(full.context, f"{path}.context")
    check_labels(full.labels, f"{path}.labels")
    if len(full.description) > 4096:
        raise invalid(f"{path}.description", "is longer than 4096 characters")
    return full


def check_template(template: template_pb2.VmTemplate, caller: Caller, *, path: str = "template") -> None:
    """Raises INVALID or DENIED for what is wrong whatever its names stand for. A template may lack a memory size."""
    full = template_pb2.VmTemplate()
    full.CopyFrom(template)
    full.memory_mib = full.memory_mib or 1
    _check_size(full, path)
    _check_expressions(full, path)
    _check_privileges(full, caller, path)
    _check_context(full.context, f"{path}.context")
    if full.context.secret_variables:
        raise invalid(f"{path}.context.secret_variables", "go with a VM, not with a template, which everyone may show")


def needed(template: template_pb2.VmTemplate) -> common_pb2.Amounts:
    """What a VM of this template takes of its owner's limits."""
    return common_pb2.Amounts(
        vms=1,
        vcpus=template.vcpus,
        memory_mib=template.memory_mib,
        disk_mib=sum(disk.size_mib for disk in template.disks),
    )


def merge_templates(base: template_pb2.VmTemplate, over: template_pb2.VmTemplate) -> template_pb2.VmTemplate:
    """`base` with every field that is set in `over` taken from there; lists are replaced whole, maps key by key."""
    merged = template_pb2.VmTemplate()
    merged.CopyFrom(base)
    for field, _ in over.ListFields():
        is_map = field.message_type is not None and field.message_type.GetOptions().map_entry
        if field.is_repeated and not is_map:
            merged.ClearField(field.name)
    merged.MergeFrom(over)
    return merged


def check_labels(labels: object, path: str) -> None:
    """Raises INVALID unless labels are at most 64 pairs of at most 256 bytes each."""
    pairs = dict(labels)  # type: ignore[call-overload]
    if len(pairs) > MAX_LABELS:
        raise invalid(path, f"has {len(pairs)} labels; at most {MAX_LABELS} are allowed")
    for key, value in pairs.items():
        if not key or len(key.encode()) + len(value.encode()) > MAX_LABEL_BYTES:
            raise invalid(f"{path}.{key}", f"key and value together take 1 to {MAX_LABEL_BYTES} bytes")


def _check_size(template: template_pb2.VmTemplate, path: str) -> None:
    template.vcpus = template.vcpus or 1
    if template.vcpus > MAX_VCPUS:
        raise invalid(f"{path}.vcpus", f"must be at most {MAX_VCPUS}")
    template.cpu_percent = template.cpu_percent or 100 * template.vcpus
    if template.cpu_percent > 100 * MAX_VCPUS:
        raise invalid(f"{path}.cpu_percent", f"must be at most {100 * MAX_VCPUS} (100 is one core)")
    if not template.memory_mib:
        raise invalid(f"{path}.memory_mib", "is required: memory in MiB", reason=Reason.FIELD_REQUIRED)
    if template.memory_mib > MAX_MEMORY_MIB:
        raise invalid(f"{path}.memory_mib", f"must be at most {MAX_MEMORY_MIB} (16 TiB)")


def _check_expressions(template: template_pb2.VmTemplate, path: str) -> None:
    if template.requirement:
        parse(template.requirement, Kind.REQUIREMENT, field=f"{path}.requirement")
    if template.rank:
        parse(template.rank, Kind.RANK, field=f"{path}.rank")


def _check_privileges(template: template_pb2.VmTemplate, caller: Caller, path: str) -> None:
    if template.HasField("raw") and template.raw.libvirt_xml:
        caller.require(Capability.VM_RAW, f"{path}.raw")
    if template.pci_devices:
        caller.require(Capability.PCI, f"{path}.pci_devices")


def _complete_disks(template: template_pb2.VmTemplate, resolver: Resolver, path: str) -> None:
    if len(template.disks) > MAX_DISKS:
        raise invalid(f"{path}.disks", f"has {len(template.disks)} disks; at most {MAX_DISKS} are allowed")
    for number, disk in enumerate(template.disks):
        where = f"{path}.disks[{number}]"
        for name in ("format", "bus", "cache", "filesystem"):
            _check_choice(getattr(disk, name), name, where)
        disk.disk_id = number
        disk.format = disk.format or "qcow2"
        if disk.image:
            disk.image_id = resolver.image(disk.image, f"{where}.image")
            _check_disk_size(disk, resolver.image_size(disk.image_id), where)
        elif not disk.size_mib:
            raise invalid(where, "needs an image or a size_mib", reason=Reason.FIELD_REQUIRED)
        if disk.size_mib > MAX_DISK_MIB:
            raise invalid(f"{where}.size_mib", f"must be at most {MAX_DISK_MIB} (64 TiB)")


def _check_disk_size(disk: template_pb2.DiskTemplate, image_mib: int, where: str) -> None:
    if disk.size_mib and disk.size_mib < image_mib:
        raise invalid(f"{where}.size_mib", f"is less than the {image_mib} MiB of image {disk.image}; disks only grow")
    disk.size_mib = disk.size_mib or image_mib


def _complete_nics(template: template_pb2.VmTemplate, resolver: Resolver, path: str) -> None:
    if not template.nics and not template.no_default_network and resolver.default_network_id:
        template.nics.add(network=str(resolver.default_network_id))
    if len(template.nics) > MAX_NICS:
        raise invalid(f"{path}.nics", f"has {len(template.nics)} interfaces; at most {MAX_NICS} are allowed")
    for number, nic in enumerate(template.nics):
        where = f"{path}.nics[{number}]"
        _check_choice(nic.model, "model", where)
        nic.nic_id = number
        if not nic.network:
            raise invalid(f"{where}.network", "is required", reason=Reason.FIELD_REQUIRED)
        nic.network_id = resolver.network(nic.network, f"{where}.network")
        _check_wishes(nic, where)


def _check_wishes(nic: template_pb2.NicTemplate, where: str) -> None:
    if nic.ipv4:
        try:
            nic.ipv4 = str(ipaddress.IPv4Address(nic.ipv4))
        except ValueError as err:
            raise invalid(f"{where}.ipv4", f"'{nic.ipv4}' is no IPv4 address") from err
    if nic.mac and not _MAC.fullmatch(nic.mac):
        raise invalid(f"{where}.mac", f"'{nic.mac}' is no MAC address such as 02:00:0a:2c:00:05")
    nic.mac = nic.mac.lower()


def _check_context(context: template_pb2.Context, path: str) -> None:
    if context.hostname and not _HOSTNAME.fullmatch(context.hostname):
        raise invalid(f"{path}.hostname", f"'{context.hostname}' is no host name")
    for name in (*context.variables, *context.secret_variables):
        if not _VARIABLE.fullmatch(name):
            raise invalid(f"{path}.variables", f"'{name}' is no name of a variable (letters, digits and _)")
    for name in context.files:
        if not _FILE.fullmatch(name) or name == "context.sh":
            raise invalid(f"{path}.files", f"'{name}' is no name for a file beside context.sh")
    size = sum(len(content) for content in context.files.values()) + len(context.user_data)
    if size > MAX_CONTEXT_BYTES:
        raise invalid(
            f"{path}.files", f"hold {size} bytes; at most {MAX_CONTEXT_BYTES} go with a VM, put more into an image"
        )


def _check_choice(value: str, name: str, where: str) -> None:
    allowed = _CHOICES[name]
    if value not in allowed:
        raise invalid(f"{where}.{name}", f"'{value}' is not one of {', '.join(filter(None, allowed))}")


def check_request_id(request_id: str) -> None:
    """Raises INVALID unless the id of a repeatable request is at most 64 printable characters without a slash."""
    if len(request_id) > 64 or not request_id.isprintable() or "/" in request_id:
        raise invalid("request_id", "takes at most 64 printable characters without '/'")


__all__ = [
    "Resolver",
    "check_labels",
    "check_request_id",
    "check_template",
    "complete_template",
    "merge_templates",
    "needed",
]
