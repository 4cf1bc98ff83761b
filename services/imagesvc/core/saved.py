"""What becomes of the files of stopped VMs: when a VM counts as being in the datastore, and when not any more. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

from moln.compute.v1 import vm_pb2
from moln.compute.v1.vm_pb2 import SavedFile, VmIntent, VmPlacement, VmStatus, VmVolumes

STORED = frozenset({vm_pb2.DESIRED_STATE_STOPPED, vm_pb2.DESIRED_STATE_UNDEPLOYED})
DRIVERS_WITHOUT_FILES = frozenset({"sim"})
_RAN = frozenset(
    {
        vm_pb2.VM_PHASE_RUNNING, vm_pb2.VM_PHASE_POWERING_OFF, vm_pb2.VM_PHASE_POWERED_OFF,
        vm_pb2.VM_PHASE_SUSPENDING, vm_pb2.VM_PHASE_SUSPENDED, vm_pb2.VM_PHASE_MIGRATING,
        vm_pb2.VM_PHASE_HANDED_OVER,
    }
)  # fmt: skip


class Due(Enum):
    """What is to be done about the files of a VM."""

    NOTHING = "nothing"
    TAKE = "take"
    """The node has brought them all: verify them, and write that they are there."""
    DROP = "drop"
    """The VM has run from them: what is on the node is newer. They go."""


def due(intent: VmIntent, placement: VmPlacement, status: VmStatus | None, volumes: VmVolumes | None) -> Due:
    """Given the status of the placement's host."""
    is_there = volumes is not None and volumes.is_in_datastore
    saved_epoch = volumes.saved_epoch if volumes is not None else 0
    if status is None or status.epoch != placement.epoch:
        return Due.NOTHING
    if intent.desired in STORED:
        is_told = status.phase == vm_pb2.VM_PHASE_SAVED
        return Due.TAKE if is_told and not (is_there and saved_epoch == placement.epoch) else Due.NOTHING
    if not is_there:
        return Due.NOTHING
    if placement.epoch == saved_epoch:
        return Due.DROP if status.phase == vm_pb2.VM_PHASE_RUNNING else Due.NOTHING
    return Due.DROP if status.phase in _RAN and status.HasField("start_time") else Due.NOTHING


def taken(before: VmVolumes | None, uid: str, files: Sequence[SavedFile], epoch: int, datastore_id: int) -> VmVolumes:
    """The volumes of a VM whose files are in the datastore."""
    volumes = dropped(before, uid)
    volumes.is_in_datastore, volumes.saved_epoch, volumes.saved_datastore_id = True, epoch, datastore_id
    by_disk = {file.disk_id: file for file in files if not file.is_memory}
    for volume in volumes.disks:
        file = by_disk.get(volume.disk_id)
        if file is not None:
            volume.is_in_datastore = True
            volume.saved_sha256, volume.saved_size_bytes = file.sha256, file.size_bytes
            volume.format = file.format or volume.format
    for file in files:
        if file.is_memory:
            volumes.memory.CopyFrom(file)
    return volumes


def dropped(before: VmVolumes | None, uid: str) -> VmVolumes:
    """The volumes of a VM that has nothing in a datastore."""
    volumes = VmVolumes(uid=uid)
    if before is not None:
        volumes.CopyFrom(before)
    for name in ("is_in_datastore", "memory", "saved_epoch", "saved_datastore_id"):
        volumes.ClearField(name)
    for volume in volumes.disks:
        for name in ("is_in_datastore", "saved_sha256", "saved_size_bytes"):
            volume.ClearField(name)
    return volumes
