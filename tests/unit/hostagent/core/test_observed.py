"""How a guest and its order are read."""

from __future__ import annotations

import pytest

from moln.compute.v1 import vm_pb2
from moln.compute.v1.template_pb2 import RestartPolicy
from moln.compute.v1.vm_pb2 import VmPhase, VmStatus
from moln.node.v1.node_service_pb2 import VmOrder
from services.hostagent.core.guest import Guest
from services.hostagent.core.observed import Observed, Ordered, observe, ordered
from services.hostagent.drivers.ports import End, Power

ALWAYS = RestartPolicy.RESTART_POLICY_ALWAYS
NEVER = RestartPolicy.RESTART_POLICY_NEVER
DEFAULT = RestartPolicy.RESTART_POLICY_UNSPECIFIED
ON_CRASH = RestartPolicy.RESTART_POLICY_ON_CRASH


def order(desired: vm_pb2.DesiredState = vm_pb2.DESIRED_STATE_RUNNING, *, epoch: int = 2) -> VmOrder:
    made = VmOrder(host_id=1, vm_id=7, uid="u", epoch=epoch)
    made.intent.desired, made.intent.generation = desired, 5
    return made


def guest(
    power: Power,
    phase: VmPhase = vm_pb2.VM_PHASE_UNSPECIFIED,
    *,
    end: End = End.NONE,
    policy: RestartPolicy = DEFAULT,
    seen: int = 5,
) -> Guest:
    made = Guest(1, 7)
    made.order = order()
    made.order.spec.template.restart_policy = policy
    made.power, made.end = power, end
    if phase:
        made.status = VmStatus(uid="u", epoch=2, phase=phase, observed_generation=seen)
    return made


def test_no_order_is_nothing() -> None:
    assert ordered(None, None) is Ordered.NOTHING


@pytest.mark.parametrize(
    ("desired", "is_hard", "expected"),
    [
        (vm_pb2.DESIRED_STATE_RUNNING, False, Ordered.RUN),
        (vm_pb2.DESIRED_STATE_POWERED_OFF, False, Ordered.OFF),
        (vm_pb2.DESIRED_STATE_POWERED_OFF, True, Ordered.OFF_HARD),
        (vm_pb2.DESIRED_STATE_TERMINATED, False, Ordered.ERASE),
        (vm_pb2.DESIRED_STATE_TERMINATED, True, Ordered.ERASE_HARD),
        (vm_pb2.DESIRED_STATE_HELD, False, Ordered.WAIT),
        (vm_pb2.DESIRED_STATE_SUSPENDED, False, Ordered.SUSPEND),
        (vm_pb2.DESIRED_STATE_STOPPED, False, Ordered.STOP),
        (vm_pb2.DESIRED_STATE_UNDEPLOYED, False, Ordered.UNDEPLOY),
        (vm_pb2.DESIRED_STATE_UNDEPLOYED, True, Ordered.UNDEPLOY_HARD),
    ],
)
def test_the_desired_state_says_what_is_ordered(desired: vm_pb2.DesiredState, is_hard: bool, expected: Ordered) -> None:
    made = order(desired)
    made.intent.is_hard = is_hard
    assert ordered(made, None) is expected


def test_a_vm_that_is_placed_elsewhere_is_erased_without_asking_its_guest() -> None:
    made = order()
    made.is_erase = True
    assert ordered(made, None) is Ordered.ERASE_HARD


def test_what_is_of_an_earlier_epoch_is_replaced() -> None:
    assert ordered(order(epoch=3), VmStatus(epoch=2)) is Ordered.REPLACE


def test_an_order_of_an_epoch_that_is_past_waits() -> None:
    assert ordered(order(epoch=1), VmStatus(epoch=2)) is Ordered.WAIT


@pytest.mark.parametrize("part", ["addresses", "volumes"])
def test_a_vm_waits_for_parts_that_it_needs(part: str) -> None:
    made = order()
    setattr(made.intent, f"needs_{part}", True)
    assert ordered(made, None) is Ordered.WAIT
    getattr(made, part).reason = "NOT_YET"
    assert ordered(made, None) is Ordered.WAIT
    getattr(made, part).reason = ""
    assert ordered(made, None) is Ordered.RUN


def test_a_guest_that_was_never_here_is_absent() -> None:
    assert observe(guest(Power.ABSENT)) is Observed.ABSENT


def test_disks_without_a_status_are_a_guest_that_is_off() -> None:
    assert observe(guest(Power.OFF)) is Observed.OFF


def test_a_powered_off_guest_rests_until_the_generation_grows() -> None:
    assert observe(guest(Power.OFF, vm_pb2.VM_PHASE_POWERED_OFF, seen=5)) is Observed.RESTING
    assert observe(guest(Power.OFF, vm_pb2.VM_PHASE_POWERED_OFF, seen=4)) is Observed.OFF


@pytest.mark.parametrize(
    ("end", "policy", "expected"),
    [
        (End.SHUT_DOWN, DEFAULT, Observed.ENDED),
        (End.SHUT_DOWN, ON_CRASH, Observed.ENDED),
        (End.SHUT_DOWN, NEVER, Observed.ENDED),
        (End.SHUT_DOWN, ALWAYS, Observed.FELL),
        (End.CRASHED, DEFAULT, Observed.FELL),
        (End.CRASHED, ON_CRASH, Observed.FELL),
        (End.CRASHED, ALWAYS, Observed.FELL),
        (End.CRASHED, NEVER, Observed.ENDED),
        (End.VANISHED, DEFAULT, Observed.LOST),
        (End.VANISHED, NEVER, Observed.ENDED),
        (End.NONE, DEFAULT, Observed.LOST),
        (End.BY_AGENT, DEFAULT, Observed.LOST),
        (End.BY_AGENT, NEVER, Observed.LOST),
    ],
)
def test_the_policy_says_what_becomes_of_a_guest_that_ended(
    end: End, policy: RestartPolicy, expected: Observed
) -> None:
    assert observe(guest(Power.OFF, vm_pb2.VM_PHASE_RUNNING, end=end, policy=policy)) is expected


def test_what_the_hypervisor_says_goes_before_what_was_reported() -> None:
    assert observe(guest(Power.RUNNING, vm_pb2.VM_PHASE_POWERED_OFF)) is Observed.RUNNING
    assert observe(guest(Power.UNKNOWN, vm_pb2.VM_PHASE_RUNNING)) is Observed.UNKNOWN
