"""What is allowed in a template of a VM, whatever its names stand for. Pure; every refusal names the field."""

from __future__ import annotations

import ipaddress
import re

from moln.compute.v1 import template_pb2
from services.api.core.policy_checks import check_policies_of_template
from services.api.core.shape_checks import MAX_MEMORY_MIB, MAX_VCPUS, check_choice, check_shape
from services.common.domain.caller import Caller, Capability
from services.common.domain.errors import invalid
from services.common.domain.reasons import Reason
from services.common.expressions import Kind, parse
from services.common.resources.labels import check_labels

MAX_DISK_MIB = 64 * 1024 * 1024
MAX_CONTEXT_BYTES = 32 * 1024
MAX_SECRET_BYTES = 12 * 1024
MAX_BYTES = 60 * 1024
"""Of a whole template; a spec, which holds it, takes 64 KiB."""
MAX_DESCRIPTION = 4096
MAX_DISKS = MAX_NICS = 32

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_MAC = re.compile(r"([0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}")
_HOSTNAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")

_DISK_CHOICES = {
    "format": ("qcow2", "raw"),
    "bus": ("virtio", "scsi", "sata", "ide", "usb"),
    "cache": ("none", "writeback", "writethrough", "unsafe"),
    "filesystem": ("none",),
    "io": ("threads", "native", "io_uring"),
    "discard": ("unmap", "ignore"),
}
_TARGETS = {"virtio": "vd", "scsi": "sd", "sata": "sd", "usb": "sd", "ide": "hd"}
_TARGET = re.compile(r"(vd|sd|hd|xvd)[a-z]{1,2}")
_NIC_CHOICES = {"model": ("virtio", "e1000", "e1000e", "rtl8139")}


def check_template(template: template_pb2.VmTemplate, caller: Caller, *, path: str = "template") -> None:
    """Raises INVALID or DENIED for what is wrong; 0 and empty stand for defaults, and memory may be missing."""
    check_size(template, path)
    _check_expressions(template, path)
    _check_privileges(template, caller, path)
    check_shape(template, path)
    _check_disks(template, path)
    _check_nics(template, path)
    check_context(template.context, f"{path}.context")
    check_about(template, path)
    if template.ByteSize() > MAX_BYTES:
        raise invalid(path, f"takes {template.ByteSize()} bytes; at most {MAX_BYTES} are allowed")


def check_about(template: template_pb2.VmTemplate, path: str) -> None:
    """Raises INVALID for labels or a description that are not allowed."""
    check_labels(f"{path}.labels", template.labels)
    if len(template.description) > MAX_DESCRIPTION:
        raise invalid(f"{path}.description", f"is longer than {MAX_DESCRIPTION} characters")


def check_size(template: template_pb2.VmTemplate, path: str) -> None:
    """Raises INVALID for a size beyond what any machine has."""
    if template.vcpus > MAX_VCPUS:
        raise invalid(f"{path}.vcpus", f"must be at most {MAX_VCPUS}")
    if template.cpu_percent > 100 * MAX_VCPUS:
        raise invalid(f"{path}.cpu_percent", f"must be at most {100 * MAX_VCPUS} (100 is one core)")
    if template.memory_mib > MAX_MEMORY_MIB:
        raise invalid(f"{path}.memory_mib", f"must be at most {MAX_MEMORY_MIB} (16 TiB)")


def _check_expressions(template: template_pb2.VmTemplate, path: str) -> None:
    if template.requirement:
        parse(template.requirement, Kind.REQUIREMENT, field=f"{path}.requirement")
    if template.rank:
        parse(template.rank, Kind.RANK, field=f"{path}.rank")
    check_policies_of_template(template, path)


def _check_privileges(template: template_pb2.VmTemplate, caller: Caller, path: str) -> None:
    if template.HasField("raw") and template.raw.libvirt_xml:
        caller.require(Capability.VM_RAW, f"{path}.raw")
    if template.pci_devices:
        caller.require(Capability.PCI, f"{path}.pci_devices")


def _check_disks(template: template_pb2.VmTemplate, path: str) -> None:
    if template.disks and template.on_host_loss == template_pb2.ON_HOST_LOSS_RESTART:
        problem = (
            "RESTART cannot keep the VM's disks: they live on its host and die with it; say RESTART_WITH_NEW_DISKS to "
            "have it started elsewhere with disks made anew (what was written is lost), or LEAVE to wait for the host"
        )
        raise invalid(f"{path}.on_host_loss", problem)
    if len(template.disks) > MAX_DISKS:
        raise invalid(f"{path}.disks", f"has {len(template.disks)} disks; at most {MAX_DISKS} are allowed")
    for number, disk in enumerate(template.disks):
        where = f"{path}.disks[{number}]"
        check_disk(disk, where)
        if disk.target and disk.target in [other.target for other in template.disks[:number]]:
            raise invalid(f"{where}.target", f"'{disk.target}' is that of another disk")


def check_disk(disk: template_pb2.DiskTemplate, where: str) -> None:
    """Raises INVALID for what is wrong with one disk; `where` is its path."""
    for name, allowed in _DISK_CHOICES.items():
        check_choice(getattr(disk, name), allowed, f"{where}.{name}")
    if not disk.image and not disk.size_mib:
        raise invalid(where, "needs an image or a size_mib", reason=Reason.FIELD_REQUIRED)
    if disk.size_mib > MAX_DISK_MIB:
        raise invalid(f"{where}.size_mib", f"must be at most {MAX_DISK_MIB} (64 TiB)")
    if disk.io == "native" and disk.cache != "none":
        raise invalid(f"{where}.io", "native needs cache: none")
    _check_target(disk, where)
    _check_limits(disk.io_limits, f"{where}.io_limits")


def _check_target(disk: template_pb2.DiskTemplate, where: str) -> None:
    if disk.target and not _TARGET.fullmatch(disk.target):
        raise invalid(f"{where}.target", f"'{disk.target}' is no device name such as vda")
    if disk.target and disk.bus and not disk.target.startswith(_TARGETS[disk.bus]):
        raise invalid(f"{where}.target", f"'{disk.target}' does not go with bus {disk.bus}: {_TARGETS[disk.bus]}a, …")


def _check_limits(limits: template_pb2.IoLimits, where: str) -> None:
    for unit in ("bytes_per_s", "iops"):
        if getattr(limits, f"total_{unit}") and (getattr(limits, f"read_{unit}") or getattr(limits, f"write_{unit}")):
            raise invalid(
                f"{where}.total_{unit}", f"goes without read_{unit} and write_{unit}: it limits both together"
            )


def _check_nics(template: template_pb2.VmTemplate, path: str) -> None:
    if len(template.nics) > MAX_NICS:
        raise invalid(f"{path}.nics", f"has {len(template.nics)} interfaces; at most {MAX_NICS} are allowed")
    for number, nic in enumerate(template.nics):
        check_nic(nic, f"{path}.nics[{number}]")


def check_nic(nic: template_pb2.NicTemplate, where: str) -> None:
    """Raises INVALID for what is wrong with one interface; `where` is its path."""
    for name, allowed in _NIC_CHOICES.items():
        check_choice(getattr(nic, name), allowed, f"{where}.{name}")
    if not nic.network:
        raise invalid(f"{where}.network", "is required", reason=Reason.FIELD_REQUIRED)
    if nic.security_groups:
        raise invalid(f"{where}.security_groups", "this release has none: the interface would stand open")
    _check_wishes(nic, where)


def _check_wishes(nic: template_pb2.NicTemplate, where: str) -> None:
    if nic.ipv4:
        try:
            ipaddress.IPv4Address(nic.ipv4)
        except ValueError as err:
            raise invalid(f"{where}.ipv4", f"'{nic.ipv4}' is no IPv4 address") from err
    if nic.mac and not _MAC.fullmatch(nic.mac):
        raise invalid(f"{where}.mac", f"'{nic.mac}' is no MAC address such as 02:00:0a:2c:00:05")


def check_context(context: template_pb2.Context, path: str) -> None:
    """Raises INVALID for what a guest could not be given."""
    if context.hostname and not _HOSTNAME.fullmatch(context.hostname):
        raise invalid(f"{path}.hostname", f"'{context.hostname}' is no host name")
    for field, names in (("variables", context.variables), ("secret_variables", context.secret_variables)):
        for name in names:
            if not _VARIABLE.fullmatch(name):
                raise invalid(f"{path}.{field}", f"'{name}' is no name of a variable (letters, digits and _)")
    for name in context.files:
        if not _FILE.fullmatch(name) or name == "context.sh":
            raise invalid(f"{path}.files", f"'{name}' is no name for a file beside context.sh")
    size = sum(len(content) for content in context.files.values()) + len(context.user_data)
    if size > MAX_CONTEXT_BYTES:
        problem = f"hold {size} bytes; at most {MAX_CONTEXT_BYTES} go with a VM, put more into an image"
        raise invalid(f"{path}.files", problem)
    hidden = sum(len(name) + len(value.encode()) for name, value in context.secret_variables.items())
    if hidden > MAX_SECRET_BYTES:
        raise invalid(f"{path}.secret_variables", f"hold {hidden} bytes; at most {MAX_SECRET_BYTES} are allowed")
