"""Templates of VMs: defaults filled in, names resolved, one laid over another. Pure: the caller hands in the names."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass

from google.protobuf.message import Message

from moln.common.v1 import common_pb2
from moln.compute.v1 import template_pb2
from services.api.core.template_checks import check_template
from services.common.domain.caller import Caller
from services.common.domain.errors import invalid
from services.common.domain.reasons import Reason


@dataclass(frozen=True)
class Resolver:
    """How names become ids. Each function takes (name or id, path of the field) and raises the error to show.

    `image_size` gives the virtual size in MiB of an image id, 0 while it is not known yet; `image_format` its
    format, empty as long.
    """

    image: Callable[[str, str], int]
    network: Callable[[str, str], int]
    image_size: Callable[[int], int]
    image_format: Callable[[int], str]
    default_network_id: int = 0


def complete_template(
    template: template_pb2.VmTemplate, caller: Caller, resolver: Resolver, *, path: str = "template"
) -> template_pb2.VmTemplate:
    """A copy with defaults filled in, names resolved, numbers given. Raises INVALID or NOT_FOUND, naming the field."""
    full = template_pb2.VmTemplate()
    full.CopyFrom(template)
    if not full.nics and not full.no_default_network and resolver.default_network_id:
        full.nics.add(network=str(resolver.default_network_id))
    check_template(full, caller, path=path)
    if not full.memory_mib:
        raise invalid(f"{path}.memory_mib", "is required: memory in MiB", reason=Reason.FIELD_REQUIRED)
    full.vcpus = full.vcpus or 1
    full.cpu_percent = full.cpu_percent or 100 * full.vcpus
    _complete_disks(full, resolver, path)
    _complete_nics(full, resolver, path)
    if full.HasField("boot"):
        _complete_boot(full.boot, resolver, f"{path}.boot")
    return full


def check_stored_template(template: template_pb2.VmTemplate, caller: Caller, *, path: str = "template") -> None:
    """Raises INVALID or DENIED for what a named template may not say. Names are resolved when it is instantiated."""
    check_template(template, caller, path=path)
    if template.context.secret_variables:
        problem = "go with a VM, not with a template, which everyone it is shown to can read"
        raise invalid(f"{path}.context.secret_variables", problem)


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
    _clear_lists(merged, over)
    merged.MergeFrom(over)
    return merged


def _clear_lists(merged: Message, over: Message) -> None:
    """Empties the lists that `over` has its own of, at any depth: merging would join the two."""
    for field, value in over.ListFields():
        if field.is_repeated:
            if field.message_type is None or not field.message_type.GetOptions().map_entry:
                merged.ClearField(field.name)
        elif isinstance(value, Message):
            _clear_lists(getattr(merged, field.name), value)


def _complete_disks(template: template_pb2.VmTemplate, resolver: Resolver, path: str) -> None:
    """Ids that a request states are not believed: they would name images that the caller may not see."""
    for number, disk in enumerate(template.disks):
        complete_disk(disk, number, resolver, f"{path}.disks[{number}]")


def complete_disk(disk: template_pb2.DiskTemplate, disk_id: int, resolver: Resolver, where: str) -> None:
    """Gives a disk its number, its defaults and the id of its image. Raises INVALID or NOT_FOUND, naming the field."""
    disk.disk_id, disk.image_id = disk_id, 0
    disk.format = disk.format or "qcow2"
    if disk.image:
        disk.image_id = resolver.image(disk.image, f"{where}.image")
        _complete_disk_size(disk, resolver.image_size(disk.image_id), where)


def _complete_disk_size(disk: template_pb2.DiskTemplate, image_mib: int, where: str) -> None:
    if disk.size_mib and disk.size_mib < image_mib:
        raise invalid(f"{where}.size_mib", f"is less than the {image_mib} MiB of image {disk.image}; disks only grow")
    disk.size_mib = disk.size_mib or image_mib


def _complete_nics(template: template_pb2.VmTemplate, resolver: Resolver, path: str) -> None:
    for number, nic in enumerate(template.nics):
        complete_nic(nic, number, resolver, f"{path}.nics[{number}]")


def complete_nic(nic: template_pb2.NicTemplate, nic_id: int, resolver: Resolver, where: str) -> None:
    """Gives an interface its number and the id of its network. Raises NOT_FOUND, naming the field."""
    nic.nic_id = nic_id
    nic.network_id = resolver.network(nic.network, f"{where}.network")
    nic.ipv4 = str(ipaddress.IPv4Address(nic.ipv4)) if nic.ipv4 else ""
    nic.mac = nic.mac.lower()
    del nic.security_group_ids[:]


def _complete_boot(boot: template_pb2.BootShape, resolver: Resolver, path: str) -> None:
    boot.kernel_image_id = _file(boot.kernel_image, resolver, f"{path}.kernel_image")
    boot.initrd_image_id = _file(boot.initrd_image, resolver, f"{path}.initrd_image")


def _file(image: str, resolver: Resolver, field: str) -> int:
    """The id of an image that holds a file as it is; 0 for none."""
    if not image:
        return 0
    image_id = resolver.image(image, field)
    format = resolver.image_format(image_id)
    if format not in ("", "raw"):
        raise invalid(field, f"image {image} has the format {format}: a kernel or RAM disk is a raw image")
    return image_id
