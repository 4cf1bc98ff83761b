"""Whether a VM is stuck in anything, and what becomes desired of one whose wish is given up. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from moln.compute.v1 import vm_pb2
from services.api.core.verbs import VERBS, Verb, check_verb, state_name
from services.common.domain.errors import MolnError
from services.common.domain.reasons import Reason

_BACK: Mapping[int, vm_pb2.DesiredState] = {
    vm_pb2.VM_STATE_PENDING: vm_pb2.DESIRED_STATE_HELD,
    vm_pb2.VM_STATE_STARTING: vm_pb2.DESIRED_STATE_POWERED_OFF,
    vm_pb2.VM_STATE_POWERING_OFF: vm_pb2.DESIRED_STATE_RUNNING,
    vm_pb2.VM_STATE_SUSPENDING: vm_pb2.DESIRED_STATE_RUNNING,
    vm_pb2.VM_STATE_STOPPING: vm_pb2.DESIRED_STATE_RUNNING,
    vm_pb2.VM_STATE_UNDEPLOYING: vm_pb2.DESIRED_STATE_RUNNING,
}


def check_stuck(state: int, vm_name: str, *, is_at_work: bool) -> None:
    """Raises STATE_FORBIDS where nothing is to recover: it rests, and no operation is in flight (`is_at_work`)."""
    allowed = VERBS[Verb.RECOVER].allowed
    if state == vm_pb2.VM_STATE_TERMINATING:
        check_verb(Verb.RECOVER, state, vm_name)
    if state in allowed or is_at_work:
        return
    names = ", ".join(sorted(map(state_name, allowed)))
    raise MolnError(
        Reason.STATE_FORBIDS,
        f"recover VM {vm_name}: it is {state_name(state)}; recover is allowed in {names}, and while an operation is in "
        "flight: it gets a VM out of what failed or does not end, and here is nothing to recover",
        metadata={"state": state_name(state), "allowed": names},
    )


def given_up(state: int, desired: vm_pb2.DesiredState) -> vm_pb2.DesiredState:
    """The desired state in which the VM rests, given its state. A VM that could not be started stays off; one that
    could not be brought down, suspended or stored goes on."""
    if state == vm_pb2.VM_STATE_FAILED:
        failed_to_start = desired == vm_pb2.DESIRED_STATE_RUNNING
        return vm_pb2.DESIRED_STATE_POWERED_OFF if failed_to_start else vm_pb2.DESIRED_STATE_RUNNING
    return _BACK.get(state, desired)
