"""Reads a guest as the two words that the table decides by: what is observed and what is ordered. Pure."""

from __future__ import annotations

from enum import Enum

from moln.compute.v1 import vm_pb2
from moln.compute.v1.template_pb2 import RestartPolicy
from moln.compute.v1.vm_pb2 import DesiredState, VmPhase, VmStatus
from moln.node.v1.node_service_pb2 import VmOrder
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
    ERASE = "erase"
    """Shut down first, then erase."""
    ERASE_HARD = "erase_hard"
    REPLACE = "replace"
    """What is here is of an earlier placement on this host: it goes before the new one begins."""


_POLICY_ALWAYS = RestartPolicy.RESTART_POLICY_ALWAYS
_POLICY_NEVER = RestartPolicy.RESTART_POLICY_NEVER
_LIVED = frozenset({VmPhase.VM_PHASE_RUNNING, VmPhase.VM_PHASE_UNKNOWN})


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
    return _desired(order, desired)


def _desired(order: VmOrder, desired: DesiredState) -> Ordered:
    if desired == vm_pb2.DESIRED_STATE_RUNNING:
        return Ordered.RUN if _has_parts(order) else Ordered.WAIT
    if desired == vm_pb2.DESIRED_STATE_POWERED_OFF:
        return Ordered.OFF_HARD if order.intent.is_hard else Ordered.OFF
    return Ordered.WAIT


def _has_parts(order: VmOrder) -> bool:
    intent = order.intent
    has_addresses = not intent.needs_addresses or (order.HasField("addresses") and not order.addresses.reason)
    has_volumes = not intent.needs_volumes or (order.HasField("volumes") and not order.volumes.reason)
    return has_addresses and has_volumes


def observe(guest: Guest) -> Observed:
    """What there is of the guest, as seen from its order's generation and policy."""
    if guest.power is Power.RUNNING:
        return Observed.RUNNING
    if guest.power is Power.UNKNOWN:
        return Observed.UNKNOWN
    status = guest.status
    if status is None:
        return Observed.ABSENT if guest.power is Power.ABSENT else Observed.OFF
    if status.phase in _LIVED:
        return _ended(guest.end, _policy(guest.order))
    if status.phase == vm_pb2.VM_PHASE_POWERED_OFF and _is_settled(status, guest.order):
        return Observed.RESTING
    return Observed.OFF


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
