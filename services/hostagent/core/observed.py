"""Reads a guest as the two words that the table decides by: what is observed and what is ordered. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from moln.compute.v1 import vm_pb2
from moln.compute.v1.template_pb2 import RestartPolicy
from moln.compute.v1.vm_pb2 import VmPhase, VmStatus
from moln.node.v1.node_service_pb2 import MoveOrder, VmOrder
from services.hostagent.core.guest import Guest
from services.hostagent.drivers.ports import End, Power


class Observed(Enum):
    """What there is of a guest."""

    ABSENT = "absent"
    """Nothing here, and nothing reported."""
    OFF = "off"
    """Not running, and not for good: it may be half-made, failed, or powered off by an order that is now past."""
    RESTING = "resting"
    """Powered off, as the present generation of the intent has it."""
    SUSPENDED = "suspended"
    """Off, with its memory kept on the host."""
    STORED = "stored"
    """Disks, and memory where it was saved, are in the datastore too."""
    READY = "ready"
    """Prepared as the target of a move."""
    FETCHED = "fetched"
    """The target of a move that has disks and memory of the source."""
    HANDED = "handed"
    """The source of a move that has let go."""
    ENDED = "ended"
    """Ended by itself; its policy leaves it so."""
    FELL = "fell"
    """Ended by itself; its policy starts it again, after a pause."""
    LOST = "lost"
    """Stopped by the agent's own end, or vanished without anybody's doing: it is started again at once."""
    RUNNING = "running"
    UNKNOWN = "unknown"
    """The hypervisor does not answer for it."""


class Ordered(Enum):
    """What is wanted of a guest here."""

    NOTHING = "nothing"
    """No order has come, so nothing is done: before the gateway has spoken, and for orphans."""
    WAIT = "wait"
    """The order cannot be carried out as it stands: parts are missing, or the state is none of this driver's."""
    RUN = "run"
    OFF = "off"
    OFF_HARD = "off_hard"
    SUSPEND = "suspend"
    """Memory saved on the host."""
    STOP = "stop"
    """Memory and disks brought to the datastore."""
    UNDEPLOY = "undeploy"
    """Shut down, and disks brought to the datastore."""
    UNDEPLOY_HARD = "undeploy_hard"
    MIGRATE = "migrate"
    """The source of a live move whose target is ready."""
    SAVE_AND_GO = "save_and_go"
    """The source of a move that takes the guest's memory along."""
    OFF_AND_GO = "off_and_go"
    """The source of a move of a guest that is off, or is shut down for it."""
    STAY = "stay"
    """The source of a move that is to be given up, where that is still possible."""
    RECEIVE = "receive"
    """The target of a move: get ready, and see the guest arrive."""
    FETCH = "fetch"
    """The target of a move whose source has let go."""
    ERASE = "erase"
    """Shut down first, then erase."""
    ERASE_HARD = "erase_hard"
    REPLACE = "replace"
    """What is here is of an earlier placement on this host: it goes before the new one begins."""


_POLICY_ALWAYS = RestartPolicy.RESTART_POLICY_ALWAYS
_POLICY_NEVER = RestartPolicy.RESTART_POLICY_NEVER
_LIVED = frozenset({VmPhase.VM_PHASE_RUNNING, VmPhase.VM_PHASE_UNKNOWN})
_SAVED: Mapping[int, Observed] = {
    vm_pb2.VM_PHASE_SAVED: Observed.STORED,
    vm_pb2.VM_PHASE_HANDED_OVER: Observed.HANDED,
}
FETCHED = "fetched"
"""Result of a move at its target: disks and memory of the source are here."""


def ordered(order: VmOrder | None, status: VmStatus | None) -> Ordered:
    """What the order asks for, given the status of what is here."""
    if order is None:
        return Ordered.NOTHING
    desired = order.intent.desired
    if order.is_erase or desired == vm_pb2.DESIRED_STATE_TERMINATED:
        is_soft = desired == vm_pb2.DESIRED_STATE_TERMINATED and not order.intent.is_hard
        return Ordered.ERASE if is_soft else Ordered.ERASE_HARD
    if status is not None and status.epoch != order.epoch:
        return Ordered.REPLACE if status.epoch < order.epoch else Ordered.WAIT
    if order.HasField("move"):
        moved = _moved(order.move, status)
        if moved is not None:
            return moved
    return _desired(order)


def _moved(order: MoveOrder, status: VmStatus | None) -> Ordered | None:
    """What a move makes of its two hosts; None where the source goes on as before: not yet begun, or failed."""
    move = order.move
    if order.is_target:
        return Ordered.FETCH if move.phase == vm_pb2.MOVE_PHASE_TRANSFER else Ordered.RECEIVE
    if move.phase not in (vm_pb2.MOVE_PHASE_GO, vm_pb2.MOVE_PHASE_TRANSFER):
        return None
    if status is not None and status.move.id == move.move_id and status.move.is_done and status.move.reason:
        return None
    if move.is_cancelled and move.phase == vm_pb2.MOVE_PHASE_GO:
        return Ordered.STAY
    if move.how == vm_pb2.MOVE_MODE_LIVE:
        return Ordered.MIGRATE
    return Ordered.SAVE_AND_GO if move.how == vm_pb2.MOVE_MODE_SAVE else Ordered.OFF_AND_GO


def _desired(order: VmOrder) -> Ordered:
    is_hard = order.intent.is_hard
    match order.intent.desired:
        case vm_pb2.DESIRED_STATE_RUNNING:
            return Ordered.RUN if _has_parts(order) else Ordered.WAIT
        case vm_pb2.DESIRED_STATE_POWERED_OFF:
            return Ordered.OFF_HARD if is_hard else Ordered.OFF
        case vm_pb2.DESIRED_STATE_SUSPENDED:
            return Ordered.SUSPEND
        case vm_pb2.DESIRED_STATE_STOPPED:
            return Ordered.STOP
        case vm_pb2.DESIRED_STATE_UNDEPLOYED:
            return Ordered.UNDEPLOY_HARD if is_hard else Ordered.UNDEPLOY
        case _:
            return Ordered.WAIT


def _has_parts(order: VmOrder) -> bool:
    """Whether every disk and interface that the VM has by now has its volume and its address."""
    intent, template = order.intent, order.spec.template
    if intent.needs_addresses:
        known = {address.nic_id for address in order.addresses.nics}
        if (
            not order.HasField("addresses")
            or order.addresses.reason
            or any(n.nic_id not in known for n in template.nics)
        ):
            return False
    if intent.needs_volumes:
        known = {volume.disk_id for volume in order.volumes.disks}
        if not order.HasField("volumes") or order.volumes.reason or any(d.disk_id not in known for d in template.disks):
            return False
    return True


def observe(guest: Guest) -> Observed:
    """What there is of the guest, as seen from its order's generation and policy."""
    match guest.power:
        case Power.RUNNING:
            return Observed.RUNNING
        case Power.UNKNOWN:
            return Observed.UNKNOWN
        case Power.SAVED if guest.status is not None:
            return _target(guest.status) or _SAVED.get(guest.status.phase, Observed.SUSPENDED)
        case Power.SAVED:
            return Observed.SUSPENDED
        case Power.OFF | Power.ABSENT:
            pass
    status = guest.status
    if status is None:
        return Observed.ABSENT if guest.power is Power.ABSENT else Observed.OFF
    return _off(guest, status)


def _off(guest: Guest, status: VmStatus) -> Observed:
    """What a guest is that does not run and has no memory saved."""
    if (target := _target(status)) is not None:
        return target
    if status.phase in _SAVED:
        return _SAVED[status.phase]
    if status.phase in _LIVED:
        return _ended(guest.end, _policy(guest.order))
    if status.phase == vm_pb2.VM_PHASE_POWERED_OFF and _is_settled(status, guest.order):
        return Observed.RESTING
    return Observed.OFF


def _target(status: VmStatus) -> Observed | None:
    """What the target of a move has."""
    if status.phase != vm_pb2.VM_PHASE_READY or not status.move.is_done:
        return None
    return Observed.FETCHED if FETCHED in status.move.results else Observed.READY


def _policy(order: VmOrder | None) -> RestartPolicy:
    return order.spec.template.restart_policy if order is not None else RestartPolicy.RESTART_POLICY_UNSPECIFIED


def _ended(end: End, policy: RestartPolicy) -> Observed:
    """What becomes of a guest that ran when it was last reported, and is off."""
    if end is End.BY_AGENT:
        return Observed.LOST
    if policy == _POLICY_NEVER:
        return Observed.ENDED
    if end is End.CRASHED:
        return Observed.FELL
    if end is End.SHUT_DOWN:
        return Observed.FELL if policy == _POLICY_ALWAYS else Observed.ENDED
    return Observed.LOST


def _is_settled(status: VmStatus, order: VmOrder | None) -> bool:
    return order is None or status.observed_generation >= order.intent.generation
