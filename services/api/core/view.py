"""The view of a VM: one pure function of its parts and its host's liveness. Never stored; no I/O, no clock."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from google.protobuf.timestamp_pb2 import Timestamp

from moln.compute.v1 import host_pb2, vm_pb2
from services.common.domain.reasons import Reason


class VmParts(NamedTuple):
    """The stored parts of a VM; None where a part is absent. `status` is that of the placement's host and epoch."""

    intent: vm_pb2.VmIntent | None
    placement: vm_pb2.VmPlacement | None
    addresses: vm_pb2.VmAddresses | None
    volumes: vm_pb2.VmVolumes | None
    status: vm_pb2.VmStatus | None


class View(NamedTuple):
    """What the parts amount to."""

    state: vm_pb2.VmState
    host_id: int = 0
    reason: str = ""
    message: str = ""
    since: Timestamp | None = None
    retry_time: Timestamp | None = None
    start_time: Timestamp | None = None


GONE = View(vm_pb2.VM_STATE_DONE)

# (what the node sees, what is desired) → what the user sees, while the node has not carried out the newest wish.
_ON_THE_WAY: Mapping[int, vm_pb2.VmState] = {
    vm_pb2.DESIRED_STATE_RUNNING: vm_pb2.VM_STATE_STARTING,
    vm_pb2.DESIRED_STATE_HELD: vm_pb2.VM_STATE_POWERING_OFF,
    vm_pb2.DESIRED_STATE_POWERED_OFF: vm_pb2.VM_STATE_POWERING_OFF,
    vm_pb2.DESIRED_STATE_SUSPENDED: vm_pb2.VM_STATE_SUSPENDING,
    vm_pb2.DESIRED_STATE_STOPPED: vm_pb2.VM_STATE_STOPPING,
    vm_pb2.DESIRED_STATE_UNDEPLOYED: vm_pb2.VM_STATE_UNDEPLOYING,
    vm_pb2.DESIRED_STATE_TERMINATED: vm_pb2.VM_STATE_TERMINATING,
}

# What the node sees → what the user sees, whatever is desired.
_PASSING: Mapping[int, vm_pb2.VmState] = {
    vm_pb2.VM_PHASE_POWERING_OFF: vm_pb2.VM_STATE_POWERING_OFF,
    vm_pb2.VM_PHASE_SUSPENDING: vm_pb2.VM_STATE_SUSPENDING,
    vm_pb2.VM_PHASE_READY: vm_pb2.VM_STATE_MIGRATING,
    vm_pb2.VM_PHASE_MIGRATING: vm_pb2.VM_STATE_MIGRATING,
    vm_pb2.VM_PHASE_HANDED_OVER: vm_pb2.VM_STATE_MIGRATING,
    vm_pb2.VM_PHASE_FAILED: vm_pb2.VM_STATE_FAILED,
    vm_pb2.VM_PHASE_UNKNOWN: vm_pb2.VM_STATE_UNKNOWN,
}

# A guest that is saved, or shut down, so that the VM can leave its host: the wish says more than the step.
_ON_ITS_WAY_DOWN = frozenset(
    {
        (vm_pb2.DESIRED_STATE_STOPPED, vm_pb2.VM_PHASE_SUSPENDING),
        (vm_pb2.DESIRED_STATE_UNDEPLOYED, vm_pb2.VM_PHASE_POWERING_OFF),
    }
)

# What the node sees → where a VM rests, once the node has carried out the newest wish.
_AT_REST: Mapping[int, vm_pb2.VmState] = {
    vm_pb2.VM_PHASE_RUNNING: vm_pb2.VM_STATE_RUNNING,
    vm_pb2.VM_PHASE_POWERED_OFF: vm_pb2.VM_STATE_POWERED_OFF,
    vm_pb2.VM_PHASE_SUSPENDED: vm_pb2.VM_STATE_SUSPENDED,
}

# Where a VM without a host rests.
_WITHOUT_HOST: Mapping[int, vm_pb2.VmState] = {
    vm_pb2.DESIRED_STATE_HELD: vm_pb2.VM_STATE_HELD,
    vm_pb2.DESIRED_STATE_POWERED_OFF: vm_pb2.VM_STATE_HELD,
    vm_pb2.DESIRED_STATE_SUSPENDED: vm_pb2.VM_STATE_HELD,
    vm_pb2.DESIRED_STATE_STOPPED: vm_pb2.VM_STATE_STOPPED,
    vm_pb2.DESIRED_STATE_UNDEPLOYED: vm_pb2.VM_STATE_UNDEPLOYED,
}

_UNHEARD = {
    host_pb2.LIVENESS_STATE_SILENT: (Reason.HOST_SILENT, "its host is silent"),
    host_pb2.LIVENESS_STATE_FENCED: (Reason.HOST_FENCED, "its host is fenced"),
}


def compute_view(parts: VmParts, liveness: host_pb2.HostLiveness | None, host_name: Callable[[int], str] = str) -> View:
    """What a VM amounts to. `liveness` is that of the placement's host, None when it was never heard.

    `host_name` is what people call a host.
    """
    intent, placement, status = parts.intent, parts.placement, parts.status
    if intent is None:
        return GONE
    host_id = placement.host_id if placement is not None else 0
    if intent.desired == vm_pb2.DESIRED_STATE_TERMINATED:
        return _terminating(intent, host_id, status, liveness)
    if placement is None or host_id == 0:
        return _without_host(intent, placement)
    if liveness is not None and liveness.state in _UNHEARD:
        reason, message = _UNHEARD[liveness.state]
        return View(vm_pb2.VM_STATE_UNKNOWN, host_id, reason, message, liveness.since)
    if placement.HasField("move") and placement.move.phase in _MOVING:
        return _moving(placement, status, host_id, host_name(placement.move.target_host_id))
    if _is_stored(parts, intent, placement):
        since = status.since if status is not None else intent.change_time
        return View(_ON_THE_WAY[intent.desired], host_id, message="in the datastore; the node erases", since=since)
    if status is None:
        return _not_taken_up(parts, intent, placement)
    return _seen(intent, status, host_id)


_MOVING = frozenset({vm_pb2.MOVE_PHASE_PREPARE, vm_pb2.MOVE_PHASE_GO, vm_pb2.MOVE_PHASE_TRANSFER})
_MOVES = {
    vm_pb2.MOVE_PHASE_PREPARE: "host {target} prepares",
    vm_pb2.MOVE_PHASE_GO: "goes to host {target}",
    vm_pb2.MOVE_PHASE_TRANSFER: "host {target} fetches its disks",
}


def _moving(placement: vm_pb2.VmPlacement, status: vm_pb2.VmStatus | None, host_id: int, target: str) -> View:
    """On its way to another host; it is placed where it was until it has arrived."""
    move = placement.move
    message = _MOVES[move.phase].format(target=target)
    if status is not None and status.progress_percent:
        message += f", {status.progress_percent} %"
    start = status.start_time if status is not None and status.phase in _GUEST_RUNS else None
    return View(vm_pb2.VM_STATE_MIGRATING, host_id, "", message, move.time, None, start)


_GUEST_RUNS = frozenset({vm_pb2.VM_PHASE_RUNNING, vm_pb2.VM_PHASE_MIGRATING})


def _is_stored(parts: VmParts, intent: vm_pb2.VmIntent, placement: vm_pb2.VmPlacement) -> bool:
    """Whether everything is in the datastore, so that the host is about to be released."""
    volumes = parts.volumes
    is_wanted = intent.desired in (vm_pb2.DESIRED_STATE_STOPPED, vm_pb2.DESIRED_STATE_UNDEPLOYED)
    return is_wanted and volumes is not None and volumes.is_in_datastore and volumes.saved_epoch == placement.epoch


def _terminating(
    intent: vm_pb2.VmIntent, host_id: int, status: vm_pb2.VmStatus | None, liveness: host_pb2.HostLiveness | None
) -> View:
    reason, message, retry = "", "", None
    if status is not None:
        if liveness is not None and liveness.state in _UNHEARD:
            reason, message = _UNHEARD[liveness.state]
        elif status.phase == vm_pb2.VM_PHASE_FAILED:
            reason, message, retry = status.reason, status.message, status.not_before
    return View(vm_pb2.VM_STATE_TERMINATING, host_id, reason, message, intent.change_time, retry)


def _without_host(intent: vm_pb2.VmIntent, placement: vm_pb2.VmPlacement | None) -> View:
    state = _WITHOUT_HOST.get(intent.desired, vm_pb2.VM_STATE_PENDING)
    if state != vm_pb2.VM_STATE_PENDING:
        return View(state, since=intent.change_time)
    if placement is not None and placement.pending.reason:
        pending = placement.pending
        return View(state, 0, pending.reason, pending.message, intent.change_time)
    waiting = "the scheduler has not looked at it yet"
    return View(state, 0, Reason.WAITING_FOR_SCHEDULER, waiting, intent.change_time)


def _not_taken_up(parts: VmParts, intent: vm_pb2.VmIntent, placement: vm_pb2.VmPlacement) -> View:
    if intent.desired != vm_pb2.DESIRED_STATE_RUNNING:
        return View(vm_pb2.VM_STATE_POWERED_OFF, placement.host_id, since=intent.change_time)
    reason, message = _owed(parts, intent)
    return View(vm_pb2.VM_STATE_STARTING, placement.host_id, reason, message, placement.time)


def _owed(parts: VmParts, intent: vm_pb2.VmIntent) -> tuple[str, str]:
    """Which part a placed VM still waits for, and by whom it is owed."""
    if intent.needs_addresses:
        if parts.addresses is None:
            return Reason.WAITING_FOR_ADDRESSES, "netsvc owes it addresses"
        if parts.addresses.reason:
            return parts.addresses.reason, parts.addresses.message
    if intent.needs_volumes:
        if parts.volumes is None:
            return Reason.WAITING_FOR_VOLUMES, "imagesvc owes it volumes"
        if parts.volumes.reason:
            return parts.volumes.reason, parts.volumes.message
    return Reason.WAITING_FOR_NODE, "the node has not taken it up yet"


def _seen(intent: vm_pb2.VmIntent, status: vm_pb2.VmStatus, host_id: int) -> View:
    phase = status.phase
    state = _PASSING.get(phase)
    if state is not None:
        if (intent.desired, phase) in _ON_ITS_WAY_DOWN:
            state = _ON_THE_WAY[intent.desired]
        if phase == vm_pb2.VM_PHASE_READY:
            return View(state, host_id, "", "it is on its new host, and is about to go on", status.since)
        retry = status.not_before if phase == vm_pb2.VM_PHASE_FAILED and status.HasField("not_before") else None
        return View(state, host_id, status.reason, status.message, status.since, retry)
    rest = _AT_REST.get(phase)
    if rest is None or status.observed_generation < intent.generation:
        since = status.since if rest is None else intent.change_time
        return View(
            _ON_THE_WAY.get(intent.desired, vm_pb2.VM_STATE_STARTING), host_id, status.reason, status.message, since
        )
    start = status.start_time if rest == vm_pb2.VM_STATE_RUNNING else None
    message = status.message
    if status.needs_restart and not message:
        message = f"takes effect at the next start: {', '.join(status.restart_fields)}"
    return View(rest, host_id, status.reason, message, status.since, None, start)


def to_message(view: View, host_name: str, resource_version: int, etag: str, ipv4: str) -> vm_pb2.VmView:
    """The view as clients get it."""
    message = vm_pb2.VmView(
        state=view.state,
        host_id=view.host_id,
        host=host_name,
        reason=view.reason,
        message=view.message,
        since=view.since,
        resource_version=resource_version,
        etag=etag,
        ipv4=ipv4,
    )
    if view.retry_time is not None:
        message.retry_time.CopyFrom(view.retry_time)
    if view.start_time is not None:
        message.start_time.CopyFrom(view.start_time)
    return message
