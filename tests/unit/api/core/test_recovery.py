"""What becomes of a VM whose wish is given up."""

from __future__ import annotations

import pytest

from moln.compute.v1 import vm_pb2
from services.api.core.recovery import given_up

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
