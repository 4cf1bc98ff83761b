"""Builds the statuses that the agent reports. Each function gives a new message: what was reported is never changed."""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf.timestamp_pb2 import Timestamp

from moln.compute.v1 import vm_pb2
from moln.compute.v1.vm_pb2 import OperationStatus, VmPhase, VmStatus
from moln.node.v1.node_service_pb2 import VmOrder
from services.common.domain.reasons import Reason
from services.hostagent.core.backoff import pause_s
from services.hostagent.drivers.ports import FACTS, Outcome

STABLE_S = 60.0
"""A guest that ran that long has forgotten earlier failures."""


def stamp(unix_s: float) -> Timestamp:
    """A moment as the contract writes it."""
    seconds = int(unix_s)
    return Timestamp(seconds=seconds, nanos=int((unix_s - seconds) * 1_000_000_000))


def host_base(host_id: int, boot_id: str, driver: str, actor: str, schema_version: int) -> VmStatus:
    """What all statuses of a host have in common."""
    base = VmStatus(host_id=host_id, boot_id=boot_id, driver=driver, schema_version=schema_version)
    base.cause.actor = actor
    return base


def claimed(base: VmStatus, before: VmStatus | None, order: VmOrder, now: Timestamp) -> VmStatus:
    """The claim: the next attempt of the order's epoch. Failures in a row and the reason of the last end are kept."""
    status = VmStatus()
    status.CopyFrom(base)
    status.uid = order.uid
    status.epoch = order.epoch
    status.attempt = 1
    status.phase = vm_pb2.VM_PHASE_STARTING
    if before is not None and before.epoch == order.epoch:
        status.attempt = before.attempt + 1
        status.failures = before.failures
        status.observed_generation = before.observed_generation
        status.snapshots.extend(before.snapshots)
        status.disk_snapshots.extend(before.disk_snapshots)
        for name in ("operation", "background", "move"):
            if before.HasField(name):
                getattr(status, name).CopyFrom(getattr(before, name))
    _moment(status, now)
    return status


def place_claimed(base: VmStatus, order: VmOrder, now: Timestamp) -> VmStatus:
    """The claim of a move's target: nothing runs there yet, and nothing is prepared."""
    status = VmStatus()
    status.CopyFrom(base)
    status.uid, status.epoch = order.uid, order.epoch
    status.phase = vm_pb2.VM_PHASE_READY
    status.move.id = order.move.move.move_id
    _moment(status, now)
    return status


def moved(before: VmStatus, phase: VmPhase, move: OperationStatus, now: Timestamp, *, generation: int = 0) -> VmStatus:
    """How far the node's part of a move is."""
    status = entered(before, phase, now, generation=generation) if phase != before.phase else _copy(before)
    status.move.CopyFrom(move)
    return status


def with_facts(before: VmStatus, outcome: Outcome) -> VmStatus:
    """What a deed has found out about the guest."""
    if outcome.facts is None and not outcome.cleared:
        return before
    status = _copy(before)
    for name in outcome.cleared:
        status.ClearField(name)
    if outcome.facts is not None:
        for name in FACTS:
            if _is_set(outcome.facts, name):
                status.ClearField(name)
        status.MergeFrom(outcome.facts)
    return status


def operated(before: VmStatus, operation: OperationStatus, *, is_background: bool) -> VmStatus:
    """How far an operation is."""
    status = _copy(before)
    (status.background if is_background else status.operation).CopyFrom(operation)
    return status


def _is_set(facts: VmStatus, name: str) -> bool:
    return any(field.name == name for field, _ in facts.ListFields())


def _copy(before: VmStatus) -> VmStatus:
    status = VmStatus()
    status.CopyFrom(before)
    return status


def entered(
    before: VmStatus, phase: VmPhase, now: Timestamp, *, generation: int = 0, reason: str = "", message: str = ""
) -> VmStatus:
    """The phase is entered. `generation` of the intent, where it is carried out by that; 0 leaves it as it was."""
    status = VmStatus()
    status.CopyFrom(before)
    status.phase = phase
    status.reason = reason
    status.message = message
    if phase != vm_pb2.VM_PHASE_RUNNING:
        del status.guest_addresses[:]
    _clear_step(status)
    if generation:
        status.observed_generation = generation
    _moment(status, now)
    return status


def running(before: VmStatus, now: Timestamp, generation: int) -> VmStatus:
    """The guest has been started."""
    status = entered(before, vm_pb2.VM_PHASE_RUNNING, now, generation=generation)
    status.start_time.CopyFrom(now)
    return status


def failed(before: VmStatus, outcome: Outcome, now_s: float) -> VmStatus:
    """A step failed; `not_before` says when it is tried again."""
    reason = outcome.reason or Reason.INTERNAL
    status = entered(before, vm_pb2.VM_PHASE_FAILED, stamp(now_s), reason=reason, message=outcome.message)
    status.step = outcome.step
    status.failures = before.failures + 1
    status.not_before.CopyFrom(stamp(now_s + pause_s(status.failures)))
    return status


def fell(before: VmStatus, reason: Reason, message: str, now_s: float) -> VmStatus:
    """A running guest ended and is started again after a pause, which grows while it does not last."""
    lasted = now_s - before.start_time.seconds if before.HasField("start_time") else 0.0
    known = VmStatus()
    known.CopyFrom(before)
    if lasted >= STABLE_S:
        known.failures = 0
    return failed(known, Outcome(is_done=False, reason=reason, message=message), now_s)


def stepped(before: VmStatus, step: str, percent: int) -> VmStatus:
    """Progress within a phase."""
    status = VmStatus()
    status.CopyFrom(before)
    status.step = step
    status.progress_percent = percent
    return status


def with_addresses(before: VmStatus, addresses: Sequence[str]) -> VmStatus:
    """The guest's agent tells other addresses than before."""
    status = VmStatus()
    status.CopyFrom(before)
    status.guest_addresses[:] = addresses
    return status


def remains(base: VmStatus, uid: str, epoch: int) -> VmStatus:
    """What is reported of something that was found here, of which nothing else is remembered."""
    status = VmStatus()
    status.CopyFrom(base)
    status.uid = uid
    status.epoch = epoch
    return status


def gone(status: VmStatus | None, order: VmOrder, host_id: int) -> VmStatus:
    """What is reported of a VM of which nothing is left: uid, host and epoch."""
    if status is None and order.HasField("status"):
        status = order.status
    epoch = status.epoch if status is not None else order.epoch
    return VmStatus(uid=order.uid, host_id=host_id, epoch=epoch)


def _clear_step(status: VmStatus) -> None:
    status.step = ""
    status.progress_percent = 0
    status.ClearField("not_before")


def _moment(status: VmStatus, now: Timestamp) -> None:
    status.since.CopyFrom(now)
    status.cause.time.CopyFrom(now)
