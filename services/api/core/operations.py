"""Operations of a VM: begun in the intent, ended by what executors report. Decides how each ends; pure, no clock.

An operation changes the spec when it is asked for; where it fails the change is taken out again, and what goes with a
detach is taken out when it is done.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from google.protobuf.timestamp_pb2 import Timestamp

from moln.compute.v1 import template_pb2, vm_pb2
from services.common.domain.reasons import Reason

_K = vm_pb2.OperationKind
MINUTE, HOUR = 60, 3600
DEADLINES_S: Mapping[int, int] = {
    _K.OPERATION_KIND_MIGRATE: 6 * HOUR,
    _K.OPERATION_KIND_SAVE_DISK: 6 * HOUR,
    _K.OPERATION_KIND_BACKUP: 24 * HOUR,
    _K.OPERATION_KIND_CREATE_SNAPSHOT: HOUR,
    _K.OPERATION_KIND_REVERT_SNAPSHOT: HOUR,
    _K.OPERATION_KIND_DELETE_SNAPSHOT: HOUR,
    _K.OPERATION_KIND_CREATE_DISK_SNAPSHOT: HOUR,
    _K.OPERATION_KIND_REVERT_DISK_SNAPSHOT: HOUR,
    _K.OPERATION_KIND_DELETE_DISK_SNAPSHOT: HOUR,
}
"""Seconds after which an operation is closed as failed; ten minutes for those that are not here."""
DEFAULT_DEADLINE_S = 10 * MINUTE
_DETACHES = frozenset({_K.OPERATION_KIND_DETACH_DISK, _K.OPERATION_KIND_DETACH_NIC})
_GUESTLESS = frozenset(
    {
        _K.OPERATION_KIND_ATTACH_DISK, _K.OPERATION_KIND_DETACH_DISK, _K.OPERATION_KIND_ATTACH_NIC,
        _K.OPERATION_KIND_DETACH_NIC, _K.OPERATION_KIND_RESIZE, _K.OPERATION_KIND_RESIZE_DISK,
        _K.OPERATION_KIND_UPDATE_CONTEXT,
    }
)  # fmt: skip
COSTS_CAPACITY = frozenset({_K.OPERATION_KIND_ATTACH_DISK, _K.OPERATION_KIND_RESIZE, _K.OPERATION_KIND_RESIZE_DISK})
"""What the scheduler has to grant before anything is done."""


class Parts(NamedTuple):
    """What the end of an operation is read from; `status` is that of the placement's host and epoch."""

    intent: vm_pb2.VmIntent
    placement: vm_pb2.VmPlacement | None
    status: vm_pb2.VmStatus | None


class End(NamedTuple):
    """How an operation has ended: an empty reason where it is done."""

    reason: str = ""
    message: str = ""
    results: Mapping[str, str] = {}


DONE = End()
NOTHING_THERE = End(Reason.OPERATION_SUPERSEDED, "nothing of the VM is on its host that it could be done to")


def kind_name(kind: int) -> str:
    """`attach disk` for OPERATION_KIND_ATTACH_DISK."""
    return _K.Name(kind).removeprefix("OPERATION_KIND_").replace("_", " ").lower()


def is_instant(parts: Parts) -> bool:
    """Whether a change takes effect by being written: the VM has no host, and nothing of it is anywhere."""
    return parts.placement is None or not parts.placement.host_id


def end_of(operation: vm_pb2.Operation, parts: Parts, now_s: float, *, is_background: bool = False) -> End | None:
    """How the operation has ended, or None while it is in flight."""
    if parts.intent.desired == vm_pb2.DESIRED_STATE_TERMINATED:
        return End(Reason.OPERATION_SUPERSEDED, "the VM is terminated")
    placement = parts.placement
    if placement is not None and placement.refusal.id == operation.id:
        return End(placement.refusal.reason, placement.refusal.message)
    if operation.kind == _K.OPERATION_KIND_MIGRATE:
        return _end_of_move(operation, parts, now_s)
    reported = _reported(operation, parts.status, is_background)
    if reported is not None:
        return reported
    if placement is None or placement.epoch != operation.epoch or not placement.host_id:
        return End(Reason.OPERATION_SUPERSEDED, "the VM has left the host that was to do it")
    if parts.status is None and not _is_wanted_there(parts):
        if operation.kind not in _GUESTLESS:
            return NOTHING_THERE
        if _is_granted(operation, parts):
            return DONE  # the change of the spec is all there was to do
    return _expired(operation, now_s)


def _reported(operation: vm_pb2.Operation, status: vm_pb2.VmStatus | None, is_background: bool) -> End | None:
    if status is None:
        return None
    told = status.background if is_background else status.operation
    if told.id != operation.id or not told.is_done:
        return None
    return End(told.reason, told.message, dict(told.results))


def _is_wanted_there(parts: Parts) -> bool:
    """Whether the host is to bring the VM up: then it does, and carries the operation out."""
    return parts.intent.desired == vm_pb2.DESIRED_STATE_RUNNING


def _is_granted(operation: vm_pb2.Operation, parts: Parts) -> bool:
    return operation.kind not in COSTS_CAPACITY or (
        parts.placement is not None and parts.placement.granted_operation_id == operation.id
    )


def _end_of_move(operation: vm_pb2.Operation, parts: Parts, now_s: float) -> End | None:
    placement = parts.placement
    if placement is None or not placement.host_id:
        return End(Reason.OPERATION_SUPERSEDED, "the VM has no host any more")
    if placement.HasField("move"):
        return None  # a move ends well or not; past its deadline the scheduler gives it up
    if placement.last_abort.id == operation.id:
        return End(placement.last_abort.reason, placement.last_abort.message)
    if placement.epoch > operation.epoch:
        return End(results={"host_id": str(placement.host_id)})
    if operation.is_cancelled:
        return End(Reason.OPERATION_CANCELLED, "it was given up before it began")
    if parts.status is None and not _is_wanted_there(parts):
        return NOTHING_THERE
    return _expired(operation, now_s)


def _expired(operation: vm_pb2.Operation, now_s: float) -> End | None:
    if operation.deadline.seconds > now_s:
        return None
    if operation.is_cancelled:
        return End(Reason.OPERATION_CANCELLED, "it was given up; the node has not answered for it")
    return End(Reason.OPERATION_EXPIRED, f"{kind_name(operation.kind)} did not end before its deadline")


def result_of(operation: vm_pb2.Operation, end: End, now: Timestamp) -> vm_pb2.OperationResult:
    """What is kept of an operation that has ended."""
    return vm_pb2.OperationResult(
        id=operation.id,
        kind=operation.kind,
        reason=end.reason,
        message=end.message,
        results=end.results,
        create_time=operation.create_time,
        end_time=now,
        cause=operation.cause,
    )


def settled(spec: vm_pb2.VmSpec, operation: vm_pb2.Operation, end: End) -> vm_pb2.VmSpec | None:
    """The spec as it is after the operation; None where it stays as it was."""
    is_taken_out = operation.kind in _DETACHES if not end.reason else operation.kind in _UNDO
    if not is_taken_out:
        return None
    after = vm_pb2.VmSpec()
    after.CopyFrom(spec)
    if not end.reason:
        _UNDO[_OPPOSITE[operation.kind]](after.template, operation.parameters)
    else:
        _UNDO[operation.kind](after.template, operation.parameters)
        if operation.parameters.HasField("former_cause") and after.cause == operation.cause:
            after.cause.CopyFrom(operation.parameters.former_cause)
    return after


def _without_disk(template: template_pb2.VmTemplate, wanted: vm_pb2.OperationParameters) -> None:
    kept = [disk for disk in template.disks if disk.disk_id != wanted.disk_id]
    del template.disks[:]
    template.disks.extend(kept)


def _without_nic(template: template_pb2.VmTemplate, wanted: vm_pb2.OperationParameters) -> None:
    kept = [nic for nic in template.nics if nic.nic_id != wanted.nic_id]
    del template.nics[:]
    template.nics.extend(kept)


def _former_size(template: template_pb2.VmTemplate, wanted: vm_pb2.OperationParameters) -> None:
    set_size(template, wanted.former_size)


def _former_disk_size(template: template_pb2.VmTemplate, wanted: vm_pb2.OperationParameters) -> None:
    for disk in template.disks:
        if disk.disk_id == wanted.disk_id:
            disk.size_mib = wanted.former_disk_size_mib


def set_size(template: template_pb2.VmTemplate, size: vm_pb2.VmSize) -> None:
    """Gives the template this size; what is 0 stays as it is."""
    template.vcpus = size.vcpus or template.vcpus
    template.cpu_percent = size.cpu_percent or template.cpu_percent
    template.memory_mib = size.memory_mib or template.memory_mib


def size_of(template: template_pb2.VmTemplate) -> vm_pb2.VmSize:
    """CPU and memory of the template."""
    return vm_pb2.VmSize(vcpus=template.vcpus, cpu_percent=template.cpu_percent, memory_mib=template.memory_mib)


_UNDO = {
    _K.OPERATION_KIND_ATTACH_DISK: _without_disk,
    _K.OPERATION_KIND_ATTACH_NIC: _without_nic,
    _K.OPERATION_KIND_RESIZE: _former_size,
    _K.OPERATION_KIND_RESIZE_DISK: _former_disk_size,
}
_OPPOSITE = {
    _K.OPERATION_KIND_DETACH_DISK: _K.OPERATION_KIND_ATTACH_DISK,
    _K.OPERATION_KIND_DETACH_NIC: _K.OPERATION_KIND_ATTACH_NIC,
}
