"""What can be asked of a guest, by name: the list that tests prove and docs/guest-features.md shows. Data only."""

from __future__ import annotations

from collections.abc import Mapping

SHAPES: Mapping[str, str] = {
    "plain": "nothing but memory and disks",
    "cpu weight": "`cpu_percent`",
    "cpu limit": "`cpu.is_capped`",
    "vcpus": "`vcpus`",
    "more vcpus later": "`cpu.max_vcpus`",
    "cpu topology": "`cpu.sockets`, `cpu.cores`, `cpu.threads`",
    "cpu model": "`cpu.model`: a name",
    "cpu of the host": "`cpu.model`: `host-model`, `host-passthrough`",
    "cpu features": "`cpu.features`",
    "more memory later": "`memory.max_memory_mib`",
    "no balloon": "`memory.no_balloon`",
    "numa nodes": "`memory.numa_nodes`",
    "pinning": "`cpu.pinning: shared`",
    "huge pages": "`memory.hugepage_kib`",
    "uefi": "`boot.firmware: uefi`",
    "secure boot": "`boot.is_secure_boot`",
    "tpm": "`boot.has_tpm`",
    "machine type": "`boot.machine`",
    "boot order": "`boot.order`",
    "kernel boot": "`boot.kernel_image`, `boot.initrd_image`, `boot.kernel_arguments`",
    "disk on scsi": "`disks[].bus: scsi`",
    "disk on sata": "`disks[].bus: sata`",
    "disk on ide": "`disks[].bus: ide`",
    "disk on usb": "`disks[].bus: usb`",
    "disk cache": "`disks[].cache`",
    "disk io": "`disks[].io`",
    "disk discard": "`disks[].discard`",
    "disk limits": "`disks[].io_limits`",
    "read-only disk": "`disks[].is_read_only`",
    "cd-rom": "`disks[].device: DISK_DEVICE_CDROM`",
    "vnc": "`graphics.type: vnc`, `keymap`, `inputs`",
    "spice": "`graphics.type: spice`",
    "video model": "`graphics.video`",
    "pci device": "`pci_devices`, with the capability `pci`",
    "raw xml": "`raw.libvirt_xml`, with the capability `vm.raw`",
}
"""Shapes of a guest on QEMU and KVM: name → how a template asks for it."""

INSIDE: Mapping[str, str] = {
    "screen by VNC": "`moln vm vnc`, several viewers at a time",
    "picture of the screen": "`moln vm screenshot`, PNG",
    "commands in the guest": "`moln vm exec`, with the capability `vm.exec` and an agent in the guest",
    "held writes": "`moln vm freeze`, `thaw`, with an agent in the guest",
    "guests of others": "`moln host guests`: listed, never touched",
    "guests of others that are imported": "`moln vm import`: marked, ended and started as they are defined, given back",
    "addresses told by the agent": "`statuses[].guest_addresses`",
}
"""Ways of looking into a guest on QEMU and KVM: name → how."""

HYPERVISORS: Mapping[str, str] = {
    "Xen HVM": "xen",
    "Xen PV": "xen",
    "LXC": "lxc",
    "ESX": "vmware",
    "test hypervisor": "test",
}
"""Hypervisors beside QEMU and KVM: name → libvirt's domain type."""
