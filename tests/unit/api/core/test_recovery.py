"""What is stuck, and what becomes of a VM whose wish is given up."""

from __future__ import annotations

import pytest

from moln.compute.v1 import vm_pb2
from services.api.core.recovery import check_stuck, given_up
from services.common.domain.errors import MolnError
from services.common.domain.reasons import Reason

RUN, OFF, HELD = vm_pb2.DESIRED_STATE_RUNNING, vm_pb2.DESIRED_STATE_POWERED_OFF, vm_pb2.DESIRED_STATE_HELD
SUSPENDED = vm_pb2.DESIRED_STATE_SUSPENDED


@pytest.mark.parametrize(
    ("state", "desired", "then"),
    [
        (vm_pb2.VM_STATE_PENDING, RUN, HELD),
        (vm_pb2.VM_STATE_STARTING, RUN, OFF),
        (vm_pb2.VM_STATE_SUSPENDING, SUSPENDED, RUN),
        (vm_pb2.VM_STATE_POWERING_OFF, OFF, RUN),
        (vm_pb2.VM_STATE_FAILED, RUN, OFF),
        (vm_pb2.VM_STATE_FAILED, OFF, RUN),
        (vm_pb2.VM_STATE_FAILED, SUSPENDED, RUN),
        (vm_pb2.VM_STATE_RUNNING, RUN, RUN),
        (vm_pb2.VM_STATE_SUSPENDED, SUSPENDED, SUSPENDED),
    ],
)
def test_a_vm_whose_wish_is_given_up_rests_where_it_was(
    state: vm_pb2.VmState, desired: vm_pb2.DesiredState, then: vm_pb2.DesiredState
) -> None:
    assert given_up(state, desired) == then


@pytest.mark.parametrize("state", [vm_pb2.VM_STATE_RUNNING, vm_pb2.VM_STATE_HELD, vm_pb2.VM_STATE_SUSPENDED])
def test_where_a_vm_rests_there_is_nothing_to_recover_unless_an_operation_is_in_flight(state: vm_pb2.VmState) -> None:
    with pytest.raises(MolnError, match="recover VM web: it is .* here is nothing to recover") as caught:
        check_stuck(state, "web", is_at_work=False)
    assert caught.value.reason == Reason.STATE_FORBIDS
    check_stuck(state, "web", is_at_work=True)


def test_what_failed_or_passes_is_recovered_and_what_goes_away_is_not() -> None:
    for state in (vm_pb2.VM_STATE_FAILED, vm_pb2.VM_STATE_UNKNOWN, vm_pb2.VM_STATE_STOPPING, vm_pb2.VM_STATE_PENDING):
        check_stuck(state, "web", is_at_work=False)
    for is_at_work in (False, True):
        with pytest.raises(MolnError, match="it is TERMINATING"):
            check_stuck(vm_pb2.VM_STATE_TERMINATING, "web", is_at_work=is_at_work)
