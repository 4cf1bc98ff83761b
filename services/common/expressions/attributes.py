"""Names of the attributes that every host has. What labels and agents add has no fixed type and no entry here."""

from __future__ import annotations

import re

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_FOREIGN = re.compile(r"[^A-Z0-9_]")

NUMBERS = {
    "ID": "Id of the host.",
    "CLUSTER_ID": "Id of its cluster; 0 is the default one.",
    "TOTAL_CPU": "CPU that may be given out, in percent of one core.",
    "USED_CPU": "CPU that is given out, in percent of one core.",
    "FREE_CPU": "CPU that is left, in percent of one core.",
    "TOTAL_MEMORY": "Memory that may be given out, in KiB.",
    "USED_MEMORY": "Memory that is given out, in KiB.",
    "FREE_MEMORY": "Memory that is left, in KiB.",
    "TOTAL_DISK": "Disk that may be given out, in MiB.",
    "USED_DISK": "Disk that is given out, in MiB.",
    "FREE_DISK": "Disk that is left, in MiB.",
    "RUNNING_VMS": "VMs that are placed on the host.",
    "LOAD_CPU": "CPU in use, measured and smoothed, in percent of the machine; with what was placed since.",
    "LOAD_MEMORY": "Memory in use, likewise.",
    "PREFERENCE": "What the host's label `preference` says, or that of its cluster.",
}
"""Attributes that are numbers, with what they mean."""

TEXTS = {
    "NAME": "Name of the host.",
    "HOSTNAME": "Name of the host; the same as NAME.",
    "CLUSTER": "Name of its cluster.",
    "ARCH": "Architecture, for example x86_64.",
    "HYPERVISOR": "Hypervisor, for example kvm, qemu, test or sim.",
    "CPU_MODEL": "CPU model.",
    "MODELNAME": "CPU model; the same as CPU_MODEL.",
    "DRIVER": "Driver of its agent, for example libvirt or sim.",
}
"""Attributes that are text, with what they mean."""

CURRENT_VMS = "CURRENT_VMS"
"""Ids of the VMs that are placed on the host: a list, for `=`, `!=` and `@>` with one id."""

VM_NUMBERS = {
    "VM_CPU": "CPU that the VM asks for, in percent of one core.",
    "VM_VCPUS": "Its virtual CPUs.",
    "VM_MEMORY": "Its memory, in KiB.",
    "VM_DISK": "Its disks together, in MiB.",
    "VM_PRIORITY": "Its priority.",
}
"""Attributes of the VM that is to be placed, with what they mean."""

ALIASES = {"MAX_CPU": "TOTAL_CPU", "CPU_USAGE": "USED_CPU", "MAX_MEM": "TOTAL_MEMORY", "MEM_USAGE": "USED_MEMORY"}
"""Names that OpenNebula's hosts have for the same."""

_OF_PLACEMENTS = "USED_CPU FREE_CPU USED_MEMORY FREE_MEMORY USED_DISK FREE_DISK RUNNING_VMS LOAD_CPU LOAD_MEMORY"
DYNAMIC = frozenset({*_OF_PLACEMENTS.split(), CURRENT_VMS})
"""Attributes that change with every placement."""

LABEL_PREFIX = "LABEL_"
CLUSTER_LABEL_PREFIX = "CLUSTER_LABEL_"
VM_LABEL_PREFIX = "VM_LABEL_"


def is_of_vm(name: str) -> bool:
    """Whether an attribute is one of the VM, not of a host."""
    return name in VM_NUMBERS or name.startswith(VM_LABEL_PREFIX)


def is_given(name: str) -> bool:
    """Whether moln itself says what the attribute is, so that no agent may."""
    is_ours = name in NUMBERS or name in TEXTS or name in ALIASES or name == CURRENT_VMS
    return is_ours or is_of_vm(name) or name.startswith((LABEL_PREFIX, CLUSTER_LABEL_PREFIX))


def attribute_name(raw: str) -> str:
    """The name under which an expression can reach what a label or an agent calls `raw`; empty where there is none.

    Upper case; what is neither letter, digit nor `_` becomes `_`: `rack-row` is `RACK_ROW`.
    """
    name = _FOREIGN.sub("_", raw.upper())
    return name if _NAME.fullmatch(name) else ""
