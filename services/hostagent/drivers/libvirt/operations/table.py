"""Which function carries out which kind of operation. The only place that knows them all."""

from __future__ import annotations

from moln.compute.v1.vm_pb2 import OperationKind
from services.common.domain.errors import MolnError
from services.common.domain.reasons import Reason
from services.hostagent.drivers.libvirt.operations import (
    context,
    devices,
    disk_snapshots,
    power,
    save_disk,
    size,
    snapshots,
)
from services.hostagent.drivers.libvirt.operations.base import Op, Perform, Tools
from services.hostagent.drivers.ports import Outcome, Work

_K = OperationKind
TABLE: dict[OperationKind, Perform] = {
    _K.OPERATION_KIND_REBOOT: power.reboot,
    _K.OPERATION_KIND_ATTACH_DISK: devices.attach_disk,
    _K.OPERATION_KIND_DETACH_DISK: devices.detach_disk,
    _K.OPERATION_KIND_ATTACH_NIC: devices.attach_nic,
    _K.OPERATION_KIND_DETACH_NIC: devices.detach_nic,
    _K.OPERATION_KIND_RESIZE: size.resize,
    _K.OPERATION_KIND_RESIZE_DISK: size.resize_disk,
    _K.OPERATION_KIND_CREATE_SNAPSHOT: snapshots.create,
    _K.OPERATION_KIND_REVERT_SNAPSHOT: snapshots.revert,
    _K.OPERATION_KIND_DELETE_SNAPSHOT: snapshots.delete,
    _K.OPERATION_KIND_CREATE_DISK_SNAPSHOT: disk_snapshots.create,
    _K.OPERATION_KIND_REVERT_DISK_SNAPSHOT: disk_snapshots.revert,
    _K.OPERATION_KIND_DELETE_DISK_SNAPSHOT: disk_snapshots.delete,
    _K.OPERATION_KIND_SAVE_DISK: save_disk.save,
    _K.OPERATION_KIND_UPDATE_CONTEXT: context.update,
}

QEMU_CAPABILITIES = frozenset(
    {
        "reboot", "attach_disk", "attach_nic", "resize", "resize_disk", "snapshot", "disk_snapshot", "save_disk",
        "context",
    }
)  # fmt: skip
TEST_CAPABILITIES = frozenset({"reboot", "resize"})
"""libvirt's test hypervisor has guests without disks, so that neither snapshots nor devices mean anything there."""


async def operate(tools: Tools, work: Work) -> Outcome:
    """Carries out `work.operation`. Raises MolnError: CAPABILITY for what this driver cannot do."""
    if work.order is None or work.operation is None:
        raise MolnError(Reason.INTERNAL, "an operation was asked for without an order")
    perform = TABLE.get(work.operation.kind)
    if perform is None:
        kind = OperationKind.Name(work.operation.kind).removeprefix("OPERATION_KIND_").lower().replace("_", " ")
        raise MolnError(Reason.CAPABILITY, f"this driver cannot do a {kind}")
    return await perform(Op(tools, work, work.order, work.operation))
