"""The view of a VM: every state can be reached, and some things hold whatever the parts say."""

from __future__ import annotations

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given, settings
from hypothesis import strategies as st

from moln.compute.v1 import host_pb2, vm_pb2
from services.api.core.verbs import VERBS, state_name
from services.api.core.view import GONE, View, VmParts, compute_view, to_message
from services.common.domain.reasons import Reason

P, D, L = vm_pb2.VmPhase, vm_pb2.DesiredState, host_pb2.LivenessState
HOST = 3
SILENT = host_pb2.HostLiveness(state=host_pb2.LIVENESS_STATE_SILENT, since=Timestamp(seconds=50))
FENCED = host_pb2.HostLiveness(state=host_pb2.LIVENESS_STATE_FENCED)
CONNECTED = host_pb2.HostLiveness(state=host_pb2.LIVENESS_STATE_CONNECTED)


def intent(desired: vm_pb2.DesiredState = vm_pb2.DESIRED_STATE_RUNNING, **fields: object) -> vm_pb2.VmIntent:
    """An intent of the second generation."""
    return vm_pb2.VmIntent(
        desired=desired,
        generation=2,
        change_time=Timestamp(seconds=10),
        **fields,  # type: ignore[arg-type]
    )


def placed(host_id: int = HOST) -> vm_pb2.VmPlacement:
    """A placement."""
    return vm_pb2.VmPlacement(host_id=host_id, epoch=1, time=Timestamp(seconds=20))


def status(phase: vm_pb2.VmPhase, observed: int = 2, **fields: object) -> vm_pb2.VmStatus:
    """What the node sees."""
    return vm_pb2.VmStatus(
        host_id=HOST, epoch=1, phase=phase, observed_generation=observed, since=Timestamp(seconds=30),
        start_time=Timestamp(seconds=31), **fields,  # type: ignore[arg-type]
    )  # fmt: skip


def view(
    desired: vm_pb2.DesiredState = vm_pb2.DESIRED_STATE_RUNNING,
    placement: vm_pb2.VmPlacement | None = None,
    seen: vm_pb2.VmStatus | None = None,
    liveness: host_pb2.HostLiveness | None = CONNECTED,
) -> View:
    """The view of a VM without disks and interfaces."""
    return compute_view(VmParts(intent(desired), placement, None, None, seen), liveness)


def test_a_move_names_its_target_as_people_do() -> None:
    moving = placed()
    moving.move.target_host_id, moving.move.phase = 9, vm_pb2.MOVE_PHASE_PREPARE
    parts = VmParts(intent(), moving, None, None, None)
    assert compute_view(parts, CONNECTED, {9: "node-9"}.__getitem__).message == "host node-9 prepares"


CASES = {
    "DONE": compute_view(VmParts(None, placed(), None, None, status(vm_pb2.VM_PHASE_RUNNING)), CONNECTED),
    "PENDING": view(),
    "HELD": view(vm_pb2.DESIRED_STATE_HELD),
    "STARTING": view(placement=placed()),
    "RUNNING": view(placement=placed(), seen=status(vm_pb2.VM_PHASE_RUNNING)),
    "SUSPENDING": view(vm_pb2.DESIRED_STATE_SUSPENDED, placed(), status(vm_pb2.VM_PHASE_RUNNING, 1)),
    "SUSPENDED": view(vm_pb2.DESIRED_STATE_SUSPENDED, placed(), status(vm_pb2.VM_PHASE_SUSPENDED)),
    "STOPPING": view(vm_pb2.DESIRED_STATE_STOPPED, placed(), status(vm_pb2.VM_PHASE_SAVING)),
    "STOPPED": view(vm_pb2.DESIRED_STATE_STOPPED),
    "POWERING_OFF": view(vm_pb2.DESIRED_STATE_POWERED_OFF, placed(), status(vm_pb2.VM_PHASE_RUNNING, 1)),
    "POWERED_OFF": view(vm_pb2.DESIRED_STATE_POWERED_OFF, placed(), status(vm_pb2.VM_PHASE_POWERED_OFF)),
    "UNDEPLOYING": view(vm_pb2.DESIRED_STATE_UNDEPLOYED, placed(), status(vm_pb2.VM_PHASE_RUNNING, 1)),
    "UNDEPLOYED": view(vm_pb2.DESIRED_STATE_UNDEPLOYED),
    "MIGRATING": view(placement=placed(), seen=status(vm_pb2.VM_PHASE_MIGRATING)),
    "TERMINATING": view(vm_pb2.DESIRED_STATE_TERMINATED, placed(), status(vm_pb2.VM_PHASE_RUNNING)),
    "UNKNOWN": view(placement=placed(), seen=status(vm_pb2.VM_PHASE_RUNNING), liveness=SILENT),
    "FAILED": view(placement=placed(), seen=status(vm_pb2.VM_PHASE_FAILED)),
}


def test_every_state_can_be_reached() -> None:
    assert set(CASES) == {state_name(state) for state in vm_pb2.VmState.values()} - {"UNSPECIFIED"}
    assert {name: state_name(case.state) for name, case in CASES.items()} == {name: name for name in CASES}


def test_a_vm_without_a_host_says_what_the_scheduler_says() -> None:
    waiting = view()
    assert waiting.reason == Reason.WAITING_FOR_SCHEDULER
    pending = vm_pb2.VmPlacement(pending=vm_pb2.Pending(reason="NO_HOST_FITS", message="0 of 3 hosts have the memory"))
    told = view(placement=pending)
    assert (told.state, told.reason, told.message) == (
        vm_pb2.VM_STATE_PENDING, "NO_HOST_FITS", "0 of 3 hosts have the memory",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("addresses", "volumes", "reason"),
    [
        (None, None, Reason.WAITING_FOR_ADDRESSES),
        (vm_pb2.VmAddresses(reason="ADDRESSES_EXHAUSTED"), None, "ADDRESSES_EXHAUSTED"),
        (vm_pb2.VmAddresses(), None, Reason.WAITING_FOR_VOLUMES),
        (vm_pb2.VmAddresses(), vm_pb2.VmVolumes(reason="IMAGE_NOT_READY"), "IMAGE_NOT_READY"),
        (vm_pb2.VmAddresses(), vm_pb2.VmVolumes(), Reason.WAITING_FOR_NODE),
    ],
)
def test_a_placed_vm_says_who_owes_it_what(
    addresses: vm_pb2.VmAddresses | None, volumes: vm_pb2.VmVolumes | None, reason: str
) -> None:
    wanted = intent(needs_addresses=True, needs_volumes=True)
    seen = compute_view(VmParts(wanted, placed(), addresses, volumes, None), CONNECTED)
    assert (seen.state, seen.reason) == (vm_pb2.VM_STATE_STARTING, reason)


def test_a_wish_that_the_node_has_not_heard_of_is_on_its_way() -> None:
    resumed = view(placement=placed(), seen=status(vm_pb2.VM_PHASE_POWERED_OFF, observed=1))
    assert (resumed.state, resumed.since) == (vm_pb2.VM_STATE_STARTING, Timestamp(seconds=10))


def test_a_guest_that_shut_down_by_itself_is_off_though_running_is_desired() -> None:
    off = view(placement=placed(), seen=status(vm_pb2.VM_PHASE_POWERED_OFF, reason="GUEST_SHUT_DOWN"))
    assert (off.state, off.reason) == (vm_pb2.VM_STATE_POWERED_OFF, "GUEST_SHUT_DOWN")


def test_a_failure_says_when_it_is_tried_again() -> None:
    failed = view(placement=placed(), seen=status(vm_pb2.VM_PHASE_FAILED, not_before=Timestamp(seconds=99)))
    assert failed.retry_time == Timestamp(seconds=99)


def test_a_vm_of_a_fenced_host_says_so() -> None:
    assert view(placement=placed(), liveness=FENCED).reason == Reason.HOST_FENCED


def test_the_message_has_what_the_view_has() -> None:
    shown = to_message(CASES["RUNNING"], "node-1", 77, "12", "10.0.0.5")
    assert (shown.state, shown.host_id, shown.host) == (vm_pb2.VM_STATE_RUNNING, HOST, "node-1")
    assert (shown.resource_version, shown.etag, shown.ipv4) == (77, "12", "10.0.0.5")
    assert shown.start_time == Timestamp(seconds=31)
    assert not to_message(CASES["FAILED"], "", 1, "", "").HasField("retry_time")


# Whatever the parts say. Numbers that no enum has stand for what a newer release may have written.

desires = st.sampled_from([*D.values(), 99])
phases = st.sampled_from([*P.values(), 99])
intents = st.builds(
    lambda desired, generation, addresses, volumes: vm_pb2.VmIntent(
        desired=desired, generation=generation, needs_addresses=addresses, needs_volumes=volumes
    ),
    desires, st.integers(1, 3), st.booleans(), st.booleans(),
)  # fmt: skip
placements = st.builds(
    lambda host, reason: vm_pb2.VmPlacement(host_id=host, pending=vm_pb2.Pending(reason=reason)),
    st.sampled_from([0, HOST]), st.sampled_from(["", "NO_HOSTS"]),
)  # fmt: skip
statuses = st.builds(
    lambda phase, observed: vm_pb2.VmStatus(host_id=HOST, phase=phase, observed_generation=observed),
    phases, st.integers(0, 3),
)  # fmt: skip
parts = st.builds(
    VmParts,
    st.none() | intents,
    st.none() | placements,
    st.none() | st.just(vm_pb2.VmAddresses()) | st.just(vm_pb2.VmAddresses(reason="ADDRESS_TAKEN")),
    st.none() | st.just(vm_pb2.VmVolumes()) | st.just(vm_pb2.VmVolumes(reason="IMAGE_NOT_READY")),
    st.none() | statuses,
)
livenesses = st.none() | st.builds(lambda state: host_pb2.HostLiveness(state=state), st.sampled_from(L.values()))


@settings(max_examples=500)
@given(parts, livenesses)
def test_whatever_is_stored_has_a_view(made: VmParts, liveness: host_pb2.HostLiveness | None) -> None:
    seen = compute_view(made, liveness)
    assert seen.state in vm_pb2.VmState.values()
    assert seen.state != vm_pb2.VM_STATE_UNSPECIFIED
    assert (seen.state == vm_pb2.VM_STATE_DONE) == (made.intent is None)
    assert compute_view(made, liveness) == seen, "the same parts give the same view"


@settings(max_examples=500)
@given(parts, livenesses)
def test_a_terminated_vm_is_terminating_whatever_else_is_stored(
    made: VmParts, liveness: host_pb2.HostLiveness | None
) -> None:
    ended = made._replace(intent=vm_pb2.VmIntent(desired=vm_pb2.DESIRED_STATE_TERMINATED))
    assert compute_view(ended, liveness).state == vm_pb2.VM_STATE_TERMINATING
    allowed = [verb for verb, row in VERBS.items() if vm_pb2.VM_STATE_TERMINATING in row.allowed]
    assert allowed == ["terminate"], "there is no way back"


@settings(max_examples=500)
@given(parts)
def test_a_placed_vm_of_a_host_that_is_not_heard_is_unknown_unless_it_ends(made: VmParts) -> None:
    if made.intent is None or made.placement is None or not made.placement.host_id:
        return
    for liveness in (SILENT, FENCED):
        seen = compute_view(made, liveness)
        is_ending = made.intent.desired == vm_pb2.DESIRED_STATE_TERMINATED
        assert seen.state == (vm_pb2.VM_STATE_TERMINATING if is_ending else vm_pb2.VM_STATE_UNKNOWN)


@settings(max_examples=300)
@given(parts, livenesses)
def test_only_a_vm_whose_node_sees_it_run_is_running(made: VmParts, liveness: host_pb2.HostLiveness | None) -> None:
    seen = compute_view(made, liveness)
    if seen.state == vm_pb2.VM_STATE_RUNNING:
        assert made.status is not None and made.status.phase == vm_pb2.VM_PHASE_RUNNING
        assert seen.host_id == HOST


STORED = [
    (vm_pb2.DESIRED_STATE_STOPPED, vm_pb2.VM_STATE_STOPPING),
    (vm_pb2.DESIRED_STATE_UNDEPLOYED, vm_pb2.VM_STATE_UNDEPLOYING),
]


@pytest.mark.parametrize(("desired", "state"), STORED)
@pytest.mark.parametrize("seen", [None, status(vm_pb2.VM_PHASE_SAVED)])
def test_a_vm_in_the_datastore_is_not_at_rest_before_its_host_is_released(
    desired: vm_pb2.DesiredState, state: vm_pb2.VmState, seen: vm_pb2.VmStatus | None
) -> None:
    volumes = vm_pb2.VmVolumes(is_in_datastore=True, saved_epoch=1)
    assert compute_view(VmParts(intent(desired), placed(), None, volumes, seen), CONNECTED).state == state


def test_the_steps_of_a_stop_and_an_undeploy_do_not_show_as_other_wishes() -> None:
    assert view(STORED[0][0], placed(), status(vm_pb2.VM_PHASE_SUSPENDING)).state == vm_pb2.VM_STATE_STOPPING
    assert view(STORED[1][0], placed(), status(vm_pb2.VM_PHASE_POWERING_OFF)).state == vm_pb2.VM_STATE_UNDEPLOYING


def test_what_is_gone_is_gone() -> None:
    assert GONE.state == vm_pb2.VM_STATE_DONE


@pytest.mark.parametrize("seen", [None, status(vm_pb2.VM_PHASE_SUSPENDED, observed=1)])
@pytest.mark.parametrize("desired", [vm_pb2.DESIRED_STATE_STOPPED, vm_pb2.DESIRED_STATE_UNDEPLOYED])
def test_what_is_in_the_datastore_is_on_its_way_there_until_its_host_is_released(
    desired: vm_pb2.DesiredState, seen: vm_pb2.VmStatus | None
) -> None:
    volumes = vm_pb2.VmVolumes(is_in_datastore=True, saved_epoch=1)
    parts = VmParts(intent(desired), placed(), None, volumes, seen)
    expected = {
        vm_pb2.DESIRED_STATE_STOPPED: vm_pb2.VM_STATE_STOPPING,
        vm_pb2.DESIRED_STATE_UNDEPLOYED: vm_pb2.VM_STATE_UNDEPLOYING,
    }
    assert compute_view(parts, CONNECTED).state == expected[desired]
