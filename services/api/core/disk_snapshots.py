"""What can be asked about snapshots: their names, and which disks can have them. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

from moln.compute.v1 import template_pb2
from moln.compute.v1.vm_pb2 import OperationParameters
from services.common.domain.errors import MolnError, invalid
from services.common.domain.reasons import Reason

MAX_SNAPSHOTS = 32
"""Of a VM, and of each of its disks."""
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")


def check_snapshot_name(name: str) -> None:
    """Raises INVALID for what is no name of a snapshot."""
    if not _NAME.fullmatch(name):
        raise invalid("name", f"'{name}' is no name: 1 to 64 letters, digits, '.', '_' or '-'")


def new_snapshot(disk: template_pb2.DiskTemplate, there: Sequence[str], name: str) -> OperationParameters:
    """What the operation is about. Raises INVALID for a disk that can have none, or no more, and NAME_TAKEN."""
    _check_holds_snapshots(disk)
    if name in there:
        problem = f"disk {disk.disk_id} has a snapshot {name} already; delete it, or choose another name"
        raise MolnError(Reason.NAME_TAKEN, f"name: {problem}", fields=[("name", problem)])
    if len(there) >= MAX_SNAPSHOTS:
        raise invalid("name", f"would be one too many: a disk has at most {MAX_SNAPSHOTS} snapshots; delete one first")
    return OperationParameters(disk_id=disk.disk_id, snapshot=name)


def that_snapshot(disk_id: int, there: Sequence[str], name: str) -> OperationParameters:
    """The same of one that is there. Raises SNAPSHOT_NOT_FOUND, naming those that are."""
    if name not in there:
        known = f"it has {', '.join(there)}" if there else "it has none"
        raise MolnError(Reason.SNAPSHOT_NOT_FOUND, f"name: disk {disk_id} has no snapshot '{name}'; {known}")
    return OperationParameters(disk_id=disk_id, snapshot=name)


def _check_holds_snapshots(disk: template_pb2.DiskTemplate) -> None:
    if disk.is_read_only or disk.device == template_pb2.DISK_DEVICE_CDROM:
        kind = "a CD-ROM" if disk.device == template_pb2.DISK_DEVICE_CDROM else "read-only"
        raise invalid("disk_id", f"disk {disk.disk_id} is {kind}: it never changes, so there is nothing to go back to")
    if disk.format == "raw":
        remedy = "save it as an image (save-disk), or use a disk of format qcow2"
        raise invalid("disk_id", f"disk {disk.disk_id} is raw: only a qcow2 disk holds snapshots; {remedy}")
