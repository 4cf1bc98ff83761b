"""What becomes desired of a VM whose wish is given up: to rest where it is. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from moln.compute.v1 import vm_pb2

_BACK: Mapping[int, vm_pb2.DesiredState] = {
    vm_pb2.VM_STATE_PENDING: vm_pb2.DESIRED_STATE_HELD,
    vm_pb2.VM_STATE_STARTING: vm_pb2.DESIRED_STATE_POWERED_OFF,
    vm_pb2.VM_STATE_POWERING_OFF: vm_pb2.DESIRED_STATE_RUNNING,
    vm_pb2.VM_STATE_SUSPENDING: vm_pb2.DESIRED_STATE_RUNNING,
    vm_pb2.VM_STATE_STOPPING: vm_pb2.DESIRED_STATE_RUNNING,
    vm_pb2.VM_STATE_UNDEPLOYING: vm_pb2.DESIRED_STATE_RUNNING,
}


def given_up(state: int, desired: vm_pb2.DesiredState) -> vm_pb2.DesiredState:
    """The desired state in which the VM rests, given its state. A VM that could not be started stays off; one that
    could not be brought down, suspended or stored goes on."""
    if state == vm_pb2.VM_STATE_FAILED:
        failed_to_start = desired == vm_pb2.DESIRED_STATE_RUNNING
        return vm_pb2.DESIRED_STATE_POWERED_OFF if failed_to_start else vm_pb2.DESIRED_STATE_RUNNING
    return _BACK.get(state, desired)
