"""Orders of many shapes, for tests of what is rendered."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from google.protobuf.json_format import ParseDict

from moln.node.v1.node_service_pb2 import VmOrder
from services.hostagent.drivers.libvirt.compose import Endpoint
from services.hostagent.storage.folders import VmFolder
from tests.support.hypervisor import add_nic, order

FOLDER = VmFolder(Path("/state/vms/u"))
NUMA = {0: "0-3", 1: "4-7", 2: "8", 3: "9-11"}
ENDPOINTS = {
    name: Endpoint("cloud-1", name, "x86_64", numa_cpus=NUMA)
    for name in ("qemu", "kvm", "xen", "lxc", "vmware", "test")
}
# What users ask for, by feature of docs/guest-features.md.
SHAPES: Mapping[str, dict[str, Any]] = {
    "plain": {},
    "cpu weight": {"cpu_percent": 150},
    "cpu limit": {"cpu_percent": 50, "cpu": {"is_capped": True}},
    "vcpus": {"vcpus": 4},
    "more vcpus later": {"vcpus": 1, "cpu": {"max_vcpus": 4}},
    "cpu topology": {"vcpus": 8, "cpu": {"sockets": 2, "cores": 2, "threads": 2}},
    "cpu model": {"cpu": {"model": "Nehalem"}},
    "cpu features": {"cpu": {"model": "host-model", "features": ["+vmx", "-svm"]}},
    "cpu of the host": {"cpu": {"model": "host-passthrough"}},
    "more memory later": {"memory": {"max_memory_mib": "512"}},
    "no balloon": {"memory": {"no_balloon": True}},
    "numa nodes": {"vcpus": 4, "memory": {"numa_nodes": 2}},
    "pinning": {"vcpus": 2, "cpu": {"pinning": "shared"}},
    "huge pages": {"memory": {"hugepage_kib": 2048}},
    "uefi": {"boot": {"firmware": "uefi"}},
    "secure boot": {"boot": {"firmware": "uefi", "is_secure_boot": True}},
    "tpm": {"boot": {"has_tpm": True}},
    "machine type": {"boot": {"machine": "q35"}},
    "boot order": {"boot": {"order": ["nic0", "cdrom", "disk0"]}},
    "kernel boot": {"boot": {"kernel_image": "linux", "initrd_image": "initrd", "kernel_arguments": "console=ttyS0"}},
    "disk on scsi": {"disks": [{"size_mib": 1, "bus": "scsi"}]},
    "disk on sata": {"disks": [{"size_mib": 1, "bus": "sata"}]},
    "disk on ide": {"disks": [{"size_mib": 1, "bus": "ide"}]},
    "disk on usb": {"disks": [{"size_mib": 1, "bus": "usb"}]},
    "disk cache": {"disks": [{"size_mib": 1, "cache": "unsafe"}]},
    "disk io": {"disks": [{"size_mib": 1, "cache": "none", "io": "native"}]},
    "disk discard": {"disks": [{"size_mib": 1, "discard": "unmap"}]},
    "disk limits": {"disks": [{"size_mib": 1, "io_limits": {"read_iops": "100", "write_bytes_per_s": "1048576"}}]},
    "read-only disk": {"disks": [{"size_mib": 1, "is_read_only": True}]},
    "cd-rom": {"disks": [{"image": "iso", "image_id": 3, "device": "DISK_DEVICE_CDROM"}]},
    "vnc": {"graphics": {"type": "vnc", "keymap": "sv", "inputs": ["tablet"]}},
    "spice": {"graphics": {"type": "spice", "inputs": ["mouse", "keyboard"]}},
    "video model": {"graphics": {"type": "vnc", "video": "vga"}},
    "pci device": {"pci_devices": [{"vendor": "10de"}]},
    "raw xml": {"raw": {"libvirt_xml": "<sysinfo type='smbios'><bios><entry name='vendor'>x</entry></bios></sysinfo>"}},
}


def shaped(fields: Mapping[str, Any]) -> VmOrder:
    """An order for a VM of this template, with all that other services would have granted."""
    vm = order(None)
    template = vm.spec.template
    ParseDict({"disks": [{"size_mib": 1}, {"size_mib": 1}], **fields}, template)
    for number, disk in enumerate(template.disks):
        disk.disk_id = number
    add_nic(vm, "10.0.0.2", bridge="moln1")
    grant(vm)
    return vm


def grant(vm: VmOrder) -> None:
    """What a scheduler and imagesvc add."""
    template, granted = vm.spec.template, vm.placement.granted
    if template.boot.kernel_image:
        vm.volumes.kernel.source_format = "raw"
    if template.boot.initrd_image:
        vm.volumes.initrd.source_format = "raw"
    granted.pci_addresses[:] = [f"0000:01:0{number}.0" for number in range(len(template.pci_devices))]
    if template.memory.numa_nodes > 1 or template.cpu.pinning:
        granted.numa_nodes[:] = range(max(1, template.memory.numa_nodes))
