"""How a VM goes to another host: which step of a move comes next, from what its two nodes report. Pure, no clock.

Up to GO nothing has happened to the guest, and the move can be given up. From GO of a live one on only the source says
whether the guest was handed over; if it falls silent the VM is nobody's to start before one of the two has spoken.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import NamedTuple

from moln.compute.v1 import host_pb2, vm_pb2
from services.common.domain.reasons import Reason
from services.scheduler.core.hosts import HostFacts

PREPARE_S = 120
"""A target that is not ready by then is given up."""
LONGEST_S = 24 * 3600
"""No move takes longer; the tickets for its files end then."""
FETCHED, ARRIVED = "fetched", "arrived"

_P = vm_pb2.MovePhase
_LIVE, _SAVE, _COLD = vm_pb2.MOVE_MODE_LIVE, vm_pb2.MOVE_MODE_SAVE, vm_pb2.MOVE_MODE_COLD
NEEDS: Mapping[int, str] = {_LIVE: "migrate_live", _SAVE: "migrate_save", _COLD: "migrate_cold"}
"""What both hosts must be able to do."""
_SAME = ("DRIVER", "HYPERVISOR", "ARCH")
_PHASES: Mapping[int, str] = {
    vm_pb2.VM_PHASE_RUNNING: "running",
    vm_pb2.VM_PHASE_SUSPENDED: "suspended",
    vm_pb2.VM_PHASE_POWERED_OFF: "off",
}
_AWAY = frozenset({host_pb2.HOST_MODE_DRAINING, host_pb2.HOST_MODE_MAINTENANCE})


class Step(Enum):
    """What the scheduler writes next."""

    NOTHING = "nothing"
    GO = "go"
    TRANSFER = "transfer"
    SWITCH = "switch"
    """The target is the VM's host now."""
    ABORT = "abort"
    CANCEL = "cancel"
    """The source is told to give the move up; what it says then decides."""


class Next(NamedTuple):
    """The step, and why where it is an end."""

    step: Step
    reason: str = ""
    message: str = ""


class Moving(NamedTuple):
    """A VM that is on its way."""

    intent: vm_pb2.VmIntent
    placement: vm_pb2.VmPlacement
    source: vm_pb2.VmStatus | None
    target: vm_pb2.VmStatus | None
    source_host: HostFacts | None
    target_host: HostFacts | None


_WAIT = Next(Step.NOTHING)


def next_step(vm: Moving, now_s: float) -> Next:
    """What comes next."""
    move = vm.placement.move
    target = vm.target if vm.target is not None and vm.target.epoch == move.epoch else None
    if target is not None and target.phase == vm_pb2.VM_PHASE_RUNNING and move.phase != _P.MOVE_PHASE_PREPARE:
        return Next(Step.SWITCH)
    match move.phase:
        case _P.MOVE_PHASE_PREPARE:
            return _prepare(vm, target, now_s)
        case _P.MOVE_PHASE_GO:
            return _go(vm, now_s)
        case _P.MOVE_PHASE_TRANSFER:
            return _transfer(vm, target, now_s)
        case _:
            return Next(Step.ABORT, Reason.INTERNAL, "the move is in a phase that nobody knows")


def _prepare(vm: Moving, target: vm_pb2.VmStatus | None, now_s: float) -> Next:
    stop = _unwanted(vm) or _lost(vm.target_host, "target") or _lost(vm.source_host, "source")
    if stop is not None:
        return stop
    ended = _told(target, vm)
    if ended is not None:
        return Next(Step.ABORT, ended.reason, ended.message) if ended.reason else Next(Step.GO)
    if now_s - vm.placement.move.time.seconds > PREPARE_S:
        return Next(Step.ABORT, Reason.MIGRATION_FAILED, f"the target was not ready within {PREPARE_S} s")
    return _WAIT


def _go(vm: Moving, now_s: float) -> Next:
    move = vm.placement.move
    is_live = move.how == _LIVE
    ended = _told(vm.source, vm)
    if ended is not None and ended.reason:
        return Next(Step.ABORT, ended.reason, ended.message)
    if ended is not None and vm.source is not None and vm.source.phase == vm_pb2.VM_PHASE_HANDED_OVER:
        return Next(Step.SWITCH if is_live else Step.TRANSFER)
    if vm.source_host is not None and vm.source_host.is_fenced:
        return Next(Step.ABORT, Reason.HOST_FENCED, "the source was lost before the guest was handed over")
    stop = _unwanted(vm) or _overdue(move, now_s) or (None if is_live else _lost(vm.target_host, "target"))
    if stop is None:
        return _WAIT
    if is_live:
        return _WAIT if move.is_cancelled else Next(Step.CANCEL, stop.reason, stop.message)
    return stop


def _transfer(vm: Moving, target: vm_pb2.VmStatus | None, now_s: float) -> Next:
    ended = _told(target, vm)
    if ended is not None and ended.reason:
        return Next(Step.ABORT, ended.reason, ended.message)
    if ended is not None and FETCHED in ended.results:
        return Next(Step.SWITCH)
    return _unwanted(vm) or _lost(vm.target_host, "target") or _overdue(vm.placement.move, now_s) or _WAIT


def _told(status: vm_pb2.VmStatus | None, vm: Moving) -> vm_pb2.OperationStatus | None:
    """What a node says of its part, once it has ended it."""
    if status is None or status.move.id != vm.placement.move.move_id or not status.move.is_done:
        return None
    return status.move


def _lost(host: HostFacts | None, which: str) -> Next | None:
    if host is not None and host.is_connected:
        return None
    reason = Reason.HOST_FENCED if host is not None and host.is_fenced else Reason.HOST_SILENT
    return Next(Step.ABORT, reason, f"the {which} of the move was lost")


def _overdue(move: vm_pb2.Move, now_s: float) -> Next | None:
    if now_s - move.time.seconds <= LONGEST_S:
        return None
    return Next(Step.ABORT, Reason.OPERATION_EXPIRED, f"the move did not end within {LONGEST_S // 3600} h")


def _unwanted(vm: Moving) -> Next | None:
    """Whether nobody wants the move any more."""
    intent, move = vm.intent, vm.placement.move
    is_newer = intent.generation > move.generation
    if is_newer and intent.is_hard and intent.desired != vm_pb2.DESIRED_STATE_RUNNING:
        return Next(Step.ABORT, Reason.OPERATION_SUPERSEDED, "something else was asked for, at once")
    if not move.operation_id:
        is_over = vm.source_host is not None and vm.source_host.mode not in _AWAY
        return Next(Step.ABORT, Reason.OPERATION_CANCELLED, "the host is no longer drained") if is_over else None
    if intent.operation.id != move.operation_id:
        return Next(Step.ABORT, Reason.OPERATION_SUPERSEDED, "the operation that asked for it was closed")
    if intent.operation.is_cancelled:
        return Next(Step.ABORT, Reason.OPERATION_CANCELLED, "it was given up, as was asked for")
    return None


class Wish(NamedTuple):
    """A move that is to begin. `operation_id` is empty where the host is drained."""

    operation_id: str
    host_id: int
    modes: tuple[vm_pb2.MoveMode, ...]
    """Those that will do, the best one first; empty: the VM's state allows none."""
    bandwidth_mib_per_s: int = 0
    on_stall: vm_pb2.MoveStall = vm_pb2.MOVE_STALL_UNSPECIFIED
    generation: int = 0
    """That of the intent, which has been carried out."""


def wish(
    intent: vm_pb2.VmIntent, placement: vm_pb2.VmPlacement, status: vm_pb2.VmStatus | None, host: HostFacts | None
) -> Wish | None:
    """Whether a VM that is not on its way has to be moved; None while it is not, or not at rest."""
    is_ready = status is not None and status.epoch == placement.epoch and status.phase in _PHASES
    if not is_ready or status is None or status.observed_generation != intent.generation:
        return None
    operation = intent.operation
    if operation.kind == vm_pb2.OPERATION_KIND_MIGRATE and operation.id:
        answered = (placement.refusal.id, placement.last_abort.id)
        if operation.id in answered or operation.is_cancelled or placement.epoch != operation.epoch:
            return None
        asked = operation.parameters.move
        modes = _modes(status.phase, asked.mode)
        return Wish(
            operation.id, asked.host_id, modes, asked.bandwidth_mib_per_s, asked.on_stall, intent.generation
        )  # fmt: skip
    if host is not None and host.mode in _AWAY and not operation.id:
        modes = _modes(status.phase, vm_pb2.MOVE_MODE_UNSPECIFIED)
        return Wish("", 0, modes, generation=intent.generation)
    return None


def _modes(phase: int, asked: vm_pb2.MoveMode) -> tuple[vm_pb2.MoveMode, ...]:
    """A guest that is off goes cold and one that is suspended with its memory, whatever was asked for."""
    if phase == vm_pb2.VM_PHASE_POWERED_OFF:
        return (_COLD,)
    if phase == vm_pb2.VM_PHASE_SUSPENDED:
        return (_SAVE,)
    return (asked,) if asked else (_LIVE, _SAVE)


def mode_between(modes: tuple[vm_pb2.MoveMode, ...], source: HostFacts, target: HostFacts) -> vm_pb2.MoveMode | None:
    """The best of the modes that both hosts can do; None where there is none, or where they are too different."""
    if any(source.attributes.get(name) != target.attributes.get(name) for name in _SAME):
        return None
    for mode in modes:
        if NEEDS[mode] in source.capabilities and NEEDS[mode] in target.capabilities:
            return mode
    return None


def can_at_all(modes: tuple[vm_pb2.MoveMode, ...], source: HostFacts) -> bool:
    """Whether the source can do any of the modes."""
    return any(NEEDS[mode] in source.capabilities for mode in modes)
