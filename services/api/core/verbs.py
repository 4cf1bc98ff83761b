"""The verb table: CLI verb → RPC → states it is allowed in → state it reaches → who carries it out. Pure.

A missing state is STATE_FORBIDS. docs/states.md is made from the table.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import StrEnum
from typing import NamedTuple

from moln.compute.v1 import vm_pb2
from services.common.domain.errors import MolnError
from services.common.domain.reasons import Reason


class Verb(StrEnum):
    """What a user can ask of a VM beside creating it."""

    HOLD = "hold"
    RELEASE = "release"
    DEPLOY = "deploy"
    POWEROFF = "poweroff"
    RESUME = "resume"
    REBOOT = "reboot"
    SUSPEND = "suspend"
    STOP = "stop"
    UNDEPLOY = "undeploy"
    MIGRATE = "migrate"
    RESCHED = "resched"
    RECOVER = "recover"
    ATTACH_DISK = "attach-disk"
    DETACH_DISK = "detach-disk"
    ATTACH_NIC = "attach-nic"
    DETACH_NIC = "detach-nic"
    RESIZE = "resize"
    RESIZE_DISK = "resize-disk"
    CREATE_SNAPSHOT = "snapshot-create"
    REVERT_SNAPSHOT = "snapshot-revert"
    DELETE_SNAPSHOT = "snapshot-delete"
    CREATE_DISK_SNAPSHOT = "disk-snapshot-create"
    REVERT_DISK_SNAPSHOT = "disk-snapshot-revert"
    DELETE_DISK_SNAPSHOT = "disk-snapshot-delete"
    SAVE_DISK = "save-disk"
    CONTEXT = "context"
    TERMINATE = "terminate"
    CONSOLE = "console"


class Executor(StrEnum):
    """Who carries a verb out."""

    NODE = "node"
    SCHEDULER = "scheduler"
    API = "api"


class VerbRow(NamedTuple):
    """One verb. `desired` 0: it changes no desired state; `operation` 0: it is none.

    `capability`: what the VM's host must be able to do, as its inventory says; empty: every host can. Of several, with
    ` or ` between them, one is enough. In the states of `hard_only`, some of the allowed ones, it must be hard.
    """

    rpc: str
    allowed: frozenset[int]
    reached: vm_pb2.VmState
    executor: Executor
    desired: vm_pb2.DesiredState = vm_pb2.DESIRED_STATE_UNSPECIFIED
    operation: vm_pb2.OperationKind = vm_pb2.OPERATION_KIND_UNSPECIFIED
    capability: str = ""
    is_background: bool = False
    hard_only: frozenset[int] = frozenset()


_STATE_NAMES = {number: name.removeprefix("VM_STATE_") for name, number in vm_pb2.VmState.items()}


def state_name(state: int) -> str:
    """`RUNNING` for VM_STATE_RUNNING."""
    return _STATE_NAMES[state]


def _states(words: str) -> frozenset[int]:
    return frozenset(vm_pb2.VmState.Value(f"VM_STATE_{word}") for word in words.split())


_EVERY = frozenset(vm_pb2.VmState.values()) - {vm_pb2.VM_STATE_UNSPECIFIED, vm_pb2.VM_STATE_DONE}
_LIVE = _states("STARTING RUNNING POWERING_OFF")
_CHANGEABLE = _states("PENDING HELD RUNNING POWERED_OFF STOPPED UNDEPLOYED")
_CALM = _states("RUNNING POWERED_OFF")
_MOVABLE = _DISK_AT_HAND = _states("RUNNING POWERED_OFF SUSPENDED")
_STUCK = _EVERY - _states("HELD RUNNING POWERED_OFF SUSPENDED STOPPED UNDEPLOYED TERMINATING")
_MOVES = "migrate_live or migrate_save or migrate_cold"

VERBS: Mapping[Verb, VerbRow] = {
    Verb.HOLD: VerbRow(
        "HoldVm", _states("PENDING HELD"), vm_pb2.VM_STATE_HELD, Executor.SCHEDULER, vm_pb2.DESIRED_STATE_HELD
    ),
    Verb.RELEASE: VerbRow(
        "ReleaseVm", _states("HELD PENDING"), vm_pb2.VM_STATE_RUNNING, Executor.SCHEDULER, vm_pb2.DESIRED_STATE_RUNNING
    ),
    Verb.DEPLOY: VerbRow(
        "DeployVm",
        _states("PENDING HELD STOPPED UNDEPLOYED"),
        vm_pb2.VM_STATE_RUNNING,
        Executor.SCHEDULER,
        vm_pb2.DESIRED_STATE_RUNNING,
    ),
    Verb.POWEROFF: VerbRow(
        "PoweroffVm",
        _LIVE | _states("POWERED_OFF SUSPENDING SUSPENDED STOPPING UNDEPLOYING MIGRATING FAILED UNKNOWN"),
        vm_pb2.VM_STATE_POWERED_OFF,
        Executor.NODE,
        vm_pb2.DESIRED_STATE_POWERED_OFF,
        hard_only=_states("SUSPENDED"),
    ),
    Verb.RESUME: VerbRow(
        "ResumeVm",
        _LIVE
        | _states("POWERED_OFF SUSPENDING SUSPENDED STOPPING STOPPED UNDEPLOYING UNDEPLOYED MIGRATING FAILED UNKNOWN"),
        vm_pb2.VM_STATE_RUNNING,
        Executor.NODE,
        vm_pb2.DESIRED_STATE_RUNNING,
    ),
    Verb.REBOOT: VerbRow(
        "RebootVm",
        _states("RUNNING"),
        vm_pb2.VM_STATE_RUNNING,
        Executor.NODE,
        operation=vm_pb2.OPERATION_KIND_REBOOT,
        capability="reboot",
    ),
    Verb.SUSPEND: VerbRow(
        "SuspendVm",
        _states("RUNNING SUSPENDING SUSPENDED"),
        vm_pb2.VM_STATE_SUSPENDED,
        Executor.NODE,
        vm_pb2.DESIRED_STATE_SUSPENDED,
        capability="suspend",
    ),
    Verb.STOP: VerbRow(
        "StopVm",
        _states("RUNNING SUSPENDED STOPPING STOPPED"),
        vm_pb2.VM_STATE_STOPPED,
        Executor.NODE,
        vm_pb2.DESIRED_STATE_STOPPED,
        capability="stop",
    ),
    Verb.UNDEPLOY: VerbRow(
        "UndeployVm",
        _states("RUNNING POWERED_OFF UNDEPLOYING UNDEPLOYED"),
        vm_pb2.VM_STATE_UNDEPLOYED,
        Executor.NODE,
        vm_pb2.DESIRED_STATE_UNDEPLOYED,
        capability="stop",
    ),
    Verb.MIGRATE: VerbRow(
        "MigrateVm",
        _MOVABLE,
        vm_pb2.VM_STATE_RUNNING,
        Executor.SCHEDULER,
        operation=vm_pb2.OPERATION_KIND_MIGRATE,
        capability=_MOVES,
    ),
    Verb.RESCHED: VerbRow(
        "ReschedVm",
        _MOVABLE,
        vm_pb2.VM_STATE_RUNNING,
        Executor.SCHEDULER,
        operation=vm_pb2.OPERATION_KIND_MIGRATE,
        capability=_MOVES,
    ),
    Verb.RECOVER: VerbRow("RecoverVm", _STUCK, vm_pb2.VM_STATE_RUNNING, Executor.API),
    Verb.ATTACH_DISK: VerbRow(
        "AttachVmDisk",
        _CHANGEABLE,
        vm_pb2.VM_STATE_RUNNING,
        Executor.NODE,
        operation=vm_pb2.OPERATION_KIND_ATTACH_DISK,
        capability="attach_disk",
    ),
    Verb.DETACH_DISK: VerbRow(
        "DetachVmDisk",
        _CHANGEABLE,
        vm_pb2.VM_STATE_RUNNING,
        Executor.NODE,
        operation=vm_pb2.OPERATION_KIND_DETACH_DISK,
        capability="attach_disk",
    ),
    Verb.ATTACH_NIC: VerbRow(
        "AttachVmNic",
        _CHANGEABLE,
        vm_pb2.VM_STATE_RUNNING,
        Executor.NODE,
        operation=vm_pb2.OPERATION_KIND_ATTACH_NIC,
        capability="attach_nic",
    ),
    Verb.DETACH_NIC: VerbRow(
        "DetachVmNic",
        _CHANGEABLE,
        vm_pb2.VM_STATE_RUNNING,
        Executor.NODE,
        operation=vm_pb2.OPERATION_KIND_DETACH_NIC,
        capability="attach_nic",
    ),
    Verb.RESIZE: VerbRow(
        "ResizeVm",
        _CHANGEABLE,
        vm_pb2.VM_STATE_RUNNING,
        Executor.NODE,
        operation=vm_pb2.OPERATION_KIND_RESIZE,
        capability="resize",
    ),
    Verb.RESIZE_DISK: VerbRow(
        "ResizeVmDisk",
        _CHANGEABLE - _states("STOPPED UNDEPLOYED"),
        vm_pb2.VM_STATE_RUNNING,
        Executor.NODE,
        operation=vm_pb2.OPERATION_KIND_RESIZE_DISK,
        capability="resize_disk",
    ),
    Verb.CREATE_SNAPSHOT: VerbRow(
        "CreateVmSnapshot",
        _CALM,
        vm_pb2.VM_STATE_RUNNING,
        Executor.NODE,
        operation=vm_pb2.OPERATION_KIND_CREATE_SNAPSHOT,
        capability="snapshot",
    ),
    Verb.REVERT_SNAPSHOT: VerbRow(
        "RevertVmSnapshot",
        _CALM,
        vm_pb2.VM_STATE_RUNNING,
        Executor.NODE,
        operation=vm_pb2.OPERATION_KIND_REVERT_SNAPSHOT,
        capability="snapshot",
    ),
    Verb.DELETE_SNAPSHOT: VerbRow(
        "DeleteVmSnapshot",
        _CALM,
        vm_pb2.VM_STATE_RUNNING,
        Executor.NODE,
        operation=vm_pb2.OPERATION_KIND_DELETE_SNAPSHOT,
        capability="snapshot",
    ),
    Verb.CREATE_DISK_SNAPSHOT: VerbRow(
        "CreateVmDiskSnapshot",
        _DISK_AT_HAND,
        vm_pb2.VM_STATE_RUNNING,
        Executor.NODE,
        operation=vm_pb2.OPERATION_KIND_CREATE_DISK_SNAPSHOT,
        capability="disk_snapshot",
    ),
    Verb.REVERT_DISK_SNAPSHOT: VerbRow(
        "RevertVmDiskSnapshot",
        _states("POWERED_OFF"),
        vm_pb2.VM_STATE_RUNNING,
        Executor.NODE,
        operation=vm_pb2.OPERATION_KIND_REVERT_DISK_SNAPSHOT,
        capability="disk_snapshot",
    ),
    Verb.DELETE_DISK_SNAPSHOT: VerbRow(
        "DeleteVmDiskSnapshot",
        _DISK_AT_HAND,
        vm_pb2.VM_STATE_RUNNING,
        Executor.NODE,
        operation=vm_pb2.OPERATION_KIND_DELETE_DISK_SNAPSHOT,
        capability="disk_snapshot",
    ),
    Verb.SAVE_DISK: VerbRow(
        "SaveVmDisk",
        _CALM,
        vm_pb2.VM_STATE_RUNNING,
        Executor.NODE,
        operation=vm_pb2.OPERATION_KIND_SAVE_DISK,
        capability="save_disk",
        is_background=True,
    ),
    Verb.CONTEXT: VerbRow(
        "UpdateVmContext",
        _CHANGEABLE,
        vm_pb2.VM_STATE_RUNNING,
        Executor.NODE,
        operation=vm_pb2.OPERATION_KIND_UPDATE_CONTEXT,
        capability="context",
    ),
    Verb.TERMINATE: VerbRow(
        "TerminateVm", _EVERY, vm_pb2.VM_STATE_DONE, Executor.NODE, vm_pb2.DESIRED_STATE_TERMINATED
    ),
    Verb.CONSOLE: VerbRow("ConsoleVm", _LIVE, vm_pb2.VM_STATE_RUNNING, Executor.NODE),
}

# A state in which the wish is already carried out, or on its way: asking again changes nothing.
_ALREADY: Mapping[Verb, frozenset[int]] = {
    Verb.HOLD: _states("HELD"),
    Verb.RELEASE: _states("PENDING"),
    Verb.DEPLOY: _states("PENDING"),
    Verb.POWEROFF: _states("POWERED_OFF POWERING_OFF"),
    Verb.RESUME: _states("RUNNING STARTING PENDING MIGRATING"),
    Verb.SUSPEND: _states("SUSPENDED SUSPENDING"),
    Verb.STOP: _states("STOPPED STOPPING"),
    Verb.UNDEPLOY: _states("UNDEPLOYED UNDEPLOYING"),
    Verb.TERMINATE: _states("TERMINATING"),
}

SCHEDULABLE = (
    Verb.HOLD, Verb.RELEASE, Verb.POWEROFF, Verb.RESUME, Verb.REBOOT, Verb.SUSPEND, Verb.STOP, Verb.UNDEPLOY,
    Verb.RESCHED, Verb.TERMINATE,
)  # fmt: skip
"""Verbs that can be asked for at a time."""


NOT_OF_IMPORTED = frozenset(
    {
        Verb.DEPLOY, Verb.SUSPEND, Verb.STOP, Verb.UNDEPLOY, Verb.MIGRATE, Verb.RESCHED, Verb.ATTACH_DISK,
        Verb.DETACH_DISK, Verb.ATTACH_NIC, Verb.DETACH_NIC, Verb.RESIZE, Verb.RESIZE_DISK, Verb.CREATE_SNAPSHOT,
        Verb.REVERT_SNAPSHOT, Verb.DELETE_SNAPSHOT, Verb.CREATE_DISK_SNAPSHOT, Verb.REVERT_DISK_SNAPSHOT,
        Verb.DELETE_DISK_SNAPSHOT, Verb.SAVE_DISK, Verb.CONTEXT,
    }
)  # fmt: skip
"""Verbs for which moln would have to know the guest's disks, or to define it anew."""


def check_verb(
    verb: Verb, state: int, vm_name: str, capabilities: Collection[str] | None = None, *, is_imported: bool = False,
    is_hard: bool = True,
) -> VerbRow:  # fmt: skip
    """Returns the verb's row, or raises STATE_FORBIDS, naming the states in which the verb is allowed, or CAPABILITY.

    `capabilities` are those of the VM's host; None where it has none, or none that is known.
    """
    row = VERBS[verb]
    if is_imported and verb in NOT_OF_IMPORTED:
        raise MolnError(
            Reason.CAPABILITY,
            f"{verb} VM {vm_name}: it was imported: moln does not know its disks, and its definition is its maker's",
        )
    if state not in row.allowed:
        allowed = ", ".join(sorted(state_name(each) for each in row.allowed))
        raise MolnError(
            Reason.STATE_FORBIDS,
            f"{verb} VM {vm_name}: it is {state_name(state)}; {verb} is allowed in {allowed}",
            metadata={"state": state_name(state), "allowed": allowed},
        )
    if state in row.hard_only and not is_hard:
        raise MolnError(
            Reason.STATE_FORBIDS,
            f"{verb} VM {vm_name}: it is {state_name(state)}, so that its guest cannot be asked; resume it first "
            f"(moln vm resume), or drop the memory that is saved of it (moln vm {verb} --hard)",
            metadata={"state": state_name(state), "allowed": f"{state_name(state)} (hard)"},
        )
    if row.capability and capabilities is not None and not set(row.capability.split(" or ")) & set(capabilities):
        raise MolnError(
            Reason.CAPABILITY,
            f"{verb} VM {vm_name}: its host cannot do that ({row.capability} is not among its capabilities; "
            "see: moln host show HOST)",
            metadata={"capability": row.capability},
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
