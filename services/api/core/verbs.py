"""The verb table: (verb, view state) → change of the desired state. A missing row is STATE_FORBIDS. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple

from moln.compute.v1 import vm_pb2
from services.common.domain.errors import MolnError
from services.common.domain.reasons import Reason

S = vm_pb2.VmState


class Verb(StrEnum):
    """What a user can ask of a VM beside creating it."""

    HOLD = "hold"
    RELEASE = "release"
    POWEROFF = "poweroff"
    RESUME = "resume"
    REBOOT = "reboot"
    SUSPEND = "suspend"
    STOP = "stop"
    UNDEPLOY = "undeploy"
    MIGRATE = "migrate"
    TERMINATE = "terminate"
    CONSOLE = "console"


class Executor(StrEnum):
    """Who carries a verb out. `NONE`: this release has no executor for it, and refuses it with CAPABILITY."""

    NODE = "node"
    SCHEDULER = "scheduler"
    NONE = "none"


class VerbRow(NamedTuple):
    """One verb: the states it is allowed in, what it makes desired (0: nothing), and who carries it out."""

    allowed: frozenset[int]
    desired: vm_pb2.DesiredState
    reached: vm_pb2.VmState
    executor: Executor


_EVERY = frozenset(S.values()) - {vm_pb2.VM_STATE_UNSPECIFIED, vm_pb2.VM_STATE_DONE}
_LIVE = frozenset({vm_pb2.VM_STATE_STARTING, vm_pb2.VM_STATE_RUNNING, vm_pb2.VM_STATE_POWERING_OFF})

VERBS: Mapping[Verb, VerbRow] = {
    Verb.HOLD: VerbRow(
        frozenset({vm_pb2.VM_STATE_PENDING, vm_pb2.VM_STATE_HELD}),
        vm_pb2.DESIRED_STATE_HELD,
        vm_pb2.VM_STATE_HELD,
        Executor.SCHEDULER,
    ),
    Verb.RELEASE: VerbRow(
        frozenset({vm_pb2.VM_STATE_HELD, vm_pb2.VM_STATE_PENDING}),
        vm_pb2.DESIRED_STATE_RUNNING,
        vm_pb2.VM_STATE_RUNNING,
        Executor.SCHEDULER,
    ),
    Verb.POWEROFF: VerbRow(
        _LIVE | {vm_pb2.VM_STATE_POWERED_OFF, vm_pb2.VM_STATE_FAILED, vm_pb2.VM_STATE_UNKNOWN},
        vm_pb2.DESIRED_STATE_POWERED_OFF,
        vm_pb2.VM_STATE_POWERED_OFF,
        Executor.NODE,
    ),
    Verb.RESUME: VerbRow(
        _LIVE
        | {
            vm_pb2.VM_STATE_POWERED_OFF,
            vm_pb2.VM_STATE_SUSPENDED,
            vm_pb2.VM_STATE_STOPPED,
            vm_pb2.VM_STATE_UNDEPLOYED,
            vm_pb2.VM_STATE_FAILED,
            vm_pb2.VM_STATE_UNKNOWN,
        },
        vm_pb2.DESIRED_STATE_RUNNING,
        vm_pb2.VM_STATE_RUNNING,
        Executor.NODE,
    ),
    Verb.REBOOT: VerbRow(
        frozenset({vm_pb2.VM_STATE_RUNNING}), vm_pb2.DESIRED_STATE_UNSPECIFIED, vm_pb2.VM_STATE_RUNNING, Executor.NONE
    ),
    Verb.SUSPEND: VerbRow(
        frozenset({vm_pb2.VM_STATE_RUNNING, vm_pb2.VM_STATE_SUSPENDING, vm_pb2.VM_STATE_SUSPENDED}),
        vm_pb2.DESIRED_STATE_SUSPENDED,
        vm_pb2.VM_STATE_SUSPENDED,
        Executor.NONE,
    ),
    Verb.STOP: VerbRow(
        frozenset(
            {vm_pb2.VM_STATE_RUNNING, vm_pb2.VM_STATE_SUSPENDED, vm_pb2.VM_STATE_STOPPING, vm_pb2.VM_STATE_STOPPED}
        ),
        vm_pb2.DESIRED_STATE_STOPPED,
        vm_pb2.VM_STATE_STOPPED,
        Executor.NONE,
    ),
    Verb.UNDEPLOY: VerbRow(
        frozenset(
            {
                vm_pb2.VM_STATE_RUNNING,
                vm_pb2.VM_STATE_POWERED_OFF,
                vm_pb2.VM_STATE_UNDEPLOYING,
                vm_pb2.VM_STATE_UNDEPLOYED,
            }
        ),
        vm_pb2.DESIRED_STATE_UNDEPLOYED,
        vm_pb2.VM_STATE_UNDEPLOYED,
        Executor.NONE,
    ),
    Verb.MIGRATE: VerbRow(
        frozenset({vm_pb2.VM_STATE_RUNNING, vm_pb2.VM_STATE_POWERED_OFF, vm_pb2.VM_STATE_SUSPENDED}),
        vm_pb2.DESIRED_STATE_UNSPECIFIED,
        vm_pb2.VM_STATE_RUNNING,
        Executor.NONE,
    ),
    Verb.TERMINATE: VerbRow(_EVERY, vm_pb2.DESIRED_STATE_TERMINATED, vm_pb2.VM_STATE_DONE, Executor.NODE),
    Verb.CONSOLE: VerbRow(_LIVE, vm_pb2.DESIRED_STATE_UNSPECIFIED, vm_pb2.VM_STATE_RUNNING, Executor.NODE),
}

# A state in which the wish is already carried out, or on its way: asking again changes nothing.
_ALREADY: Mapping[Verb, frozenset[int]] = {
    Verb.HOLD: frozenset({vm_pb2.VM_STATE_HELD}),
    Verb.RELEASE: frozenset({vm_pb2.VM_STATE_PENDING}),
    Verb.POWEROFF: frozenset({vm_pb2.VM_STATE_POWERED_OFF, vm_pb2.VM_STATE_POWERING_OFF}),
    Verb.RESUME: frozenset({vm_pb2.VM_STATE_RUNNING, vm_pb2.VM_STATE_STARTING}),
    Verb.TERMINATE: frozenset({vm_pb2.VM_STATE_TERMINATING}),
}


_STATE_NAMES = {number: name.removeprefix("VM_STATE_") for name, number in vm_pb2.VmState.items()}


def state_name(state: int) -> str:
    """`RUNNING` for VM_STATE_RUNNING."""
    return _STATE_NAMES[state]


def check_verb(verb: Verb, state: int, vm_name: str) -> VerbRow:
    """Returns the verb's row, or raises CAPABILITY or STATE_FORBIDS, naming the states in which the verb is allowed."""
    row = VERBS[verb]
    if row.executor is Executor.NONE:
        raise MolnError(Reason.CAPABILITY, f"{verb} VM {vm_name}: this release cannot {verb} VMs yet")
    if state not in row.allowed:
        allowed = ", ".join(sorted(state_name(each) for each in row.allowed))
        raise MolnError(
            Reason.STATE_FORBIDS,
            f"{verb} VM {vm_name}: it is {state_name(state)}; {verb} is allowed in {allowed}",
            metadata={"state": state_name(state), "allowed": allowed},
        )
    return row


def next_intent(
    verb: Verb, row: VerbRow, state: int, intent: vm_pb2.VmIntent, *, is_hard: bool
) -> vm_pb2.VmIntent | None:
    """The changed intent, or None when what is asked for is already so. Times and cause are the caller's to set."""
    is_harder = is_hard and not intent.is_hard and state != row.reached
    if row.desired == intent.desired and not is_harder and state in _ALREADY.get(verb, frozenset()):
        return None
    changed = vm_pb2.VmIntent()
    changed.CopyFrom(intent)
    changed.desired = row.desired
    changed.is_hard = is_hard
    changed.generation += 1
    return changed
