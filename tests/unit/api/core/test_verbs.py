"""The table of verbs, row by row: which state allows what, and what is desired then."""

from __future__ import annotations

import pytest

from moln.compute.v1 import vm_pb2, vm_service_pb2
from services.api.core.verbs import SCHEDULABLE, VERBS, Verb, check_verb, next_intent, state_name
from services.common.domain.errors import MolnError
from services.common.domain.reasons import ErrorKind, Reason

S = vm_pb2.VmState
STATES = [state for state in S.values() if state != vm_pb2.VM_STATE_UNSPECIFIED]
CHANGEABLE = "HELD PENDING POWERED_OFF RUNNING STOPPED UNDEPLOYED"

# Written out a second time on purpose, by names: a changed row of the table must be meant.
ALLOWED = {
    Verb.HOLD: "HELD PENDING",
    Verb.RELEASE: "HELD PENDING",
    Verb.DEPLOY: "HELD PENDING STOPPED UNDEPLOYED",
    Verb.POWEROFF: (
        "FAILED MIGRATING POWERED_OFF POWERING_OFF RUNNING STARTING STOPPING SUSPENDED SUSPENDING UNDEPLOYING UNKNOWN"
    ),
    Verb.RESUME: (
        "FAILED MIGRATING POWERED_OFF POWERING_OFF RUNNING STARTING STOPPED STOPPING SUSPENDED SUSPENDING UNDEPLOYED "
        "UNDEPLOYING UNKNOWN"
    ),
    Verb.REBOOT: "RUNNING",
    Verb.SUSPEND: "RUNNING SUSPENDED SUSPENDING",
    Verb.STOP: "RUNNING STOPPED STOPPING SUSPENDED",
    Verb.UNDEPLOY: "POWERED_OFF RUNNING UNDEPLOYED UNDEPLOYING",
    Verb.MIGRATE: "POWERED_OFF RUNNING SUSPENDED",
    Verb.RESCHED: "POWERED_OFF RUNNING SUSPENDED",
    Verb.RECOVER: "FAILED MIGRATING PENDING POWERING_OFF STARTING STOPPING SUSPENDING UNDEPLOYING UNKNOWN",
    Verb.ATTACH_DISK: CHANGEABLE,
    Verb.DETACH_DISK: CHANGEABLE,
    Verb.ATTACH_NIC: CHANGEABLE,
    Verb.DETACH_NIC: CHANGEABLE,
    Verb.RESIZE: CHANGEABLE,
    Verb.RESIZE_DISK: "HELD PENDING POWERED_OFF RUNNING",
    Verb.CREATE_SNAPSHOT: "POWERED_OFF RUNNING",
    Verb.REVERT_SNAPSHOT: "POWERED_OFF RUNNING",
    Verb.DELETE_SNAPSHOT: "POWERED_OFF RUNNING",
    Verb.CREATE_DISK_SNAPSHOT: "POWERED_OFF RUNNING SUSPENDED",
    Verb.REVERT_DISK_SNAPSHOT: "POWERED_OFF",
    Verb.DELETE_DISK_SNAPSHOT: "POWERED_OFF RUNNING SUSPENDED",
    Verb.SAVE_DISK: "POWERED_OFF RUNNING",
    Verb.CONTEXT: CHANGEABLE,
    Verb.TERMINATE: " ".join(sorted({state_name(state) for state in STATES} - {"DONE"})),
    Verb.CONSOLE: "POWERING_OFF RUNNING STARTING",
}
DESIRED = {
    Verb.HOLD: vm_pb2.DESIRED_STATE_HELD,
    Verb.RELEASE: vm_pb2.DESIRED_STATE_RUNNING,
    Verb.POWEROFF: vm_pb2.DESIRED_STATE_POWERED_OFF,
    Verb.RESUME: vm_pb2.DESIRED_STATE_RUNNING,
    Verb.DEPLOY: vm_pb2.DESIRED_STATE_RUNNING,
    Verb.SUSPEND: vm_pb2.DESIRED_STATE_SUSPENDED,
    Verb.STOP: vm_pb2.DESIRED_STATE_STOPPED,
    Verb.UNDEPLOY: vm_pb2.DESIRED_STATE_UNDEPLOYED,
    Verb.TERMINATE: vm_pb2.DESIRED_STATE_TERMINATED,
}


def intent(desired: vm_pb2.DesiredState, *, is_hard: bool = False) -> vm_pb2.VmIntent:
    """An intent of the third generation."""
    return vm_pb2.VmIntent(uid="u", desired=desired, generation=3, is_hard=is_hard, owner_id=7)


def test_every_verb_has_a_row() -> None:
    assert set(VERBS) == set(Verb) == set(ALLOWED)


@pytest.mark.parametrize("verb", list(Verb))
def test_each_verb_is_allowed_in_its_states(verb: Verb) -> None:
    assert sorted(state_name(state) for state in VERBS[verb].allowed) == sorted(ALLOWED[verb].split())


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("verb", list(Verb))
def test_a_verb_passes_where_its_row_allows_it_and_is_refused_elsewhere(verb: Verb, state: vm_pb2.VmState) -> None:
    if state_name(state) in ALLOWED[verb].split():
        assert check_verb(verb, state, "web") is VERBS[verb]
        return
    with pytest.raises(MolnError) as caught:
        check_verb(verb, state, "web")
    assert caught.value.reason == Reason.STATE_FORBIDS
    assert caught.value.kind is ErrorKind.PRECONDITION
    assert caught.value.metadata == {"state": state_name(state), "allowed": ", ".join(ALLOWED[verb].split())}
    assert all(name in caught.value.message for name in ALLOWED[verb].split())


def test_a_suspended_guest_cannot_be_asked_to_shut_down_but_its_memory_can_be_dropped() -> None:
    with pytest.raises(
        MolnError, match="resume it first .*, or drop the memory that is saved of it .*--hard"
    ) as caught:
        check_verb(Verb.POWEROFF, vm_pb2.VM_STATE_SUSPENDED, "web", is_hard=False)
    assert caught.value.reason == Reason.STATE_FORBIDS
    row = check_verb(Verb.POWEROFF, vm_pb2.VM_STATE_SUSPENDED, "web", is_hard=True)
    assert check_verb(Verb.POWEROFF, vm_pb2.VM_STATE_RUNNING, "web", is_hard=False) is row


def test_a_state_in_which_a_verb_has_to_be_hard_is_one_that_allows_it() -> None:
    assert all(row.hard_only <= row.allowed for row in VERBS.values())


@pytest.mark.parametrize("verb", [verb for verb, row in VERBS.items() if row.capability])
def test_what_the_host_cannot_do_is_refused_as_such(verb: Verb) -> None:
    row = VERBS[verb]
    state = min(row.allowed)
    with pytest.raises(MolnError) as caught:
        check_verb(verb, state, "web", {"power"})
    assert caught.value.reason == Reason.CAPABILITY and row.capability in caught.value.message
    for enough in row.capability.split(" or "):
        assert check_verb(verb, state, "web", {"power", enough}) is row
    assert check_verb(verb, state, "web", None) is row, "a VM without a host may be changed for any host to come"


def test_a_verb_changes_what_is_desired_or_is_an_operation_or_neither_but_never_both() -> None:
    neither = {verb for verb, row in VERBS.items() if not row.desired and not row.operation}
    assert neither == {Verb.CONSOLE, Verb.RECOVER}
    assert not {verb for verb, row in VERBS.items() if row.desired and row.operation}


def test_every_verb_names_an_rpc_of_the_contract() -> None:
    methods = vm_service_pb2.DESCRIPTOR.services_by_name["VmService"].methods_by_name
    assert {row.rpc for row in VERBS.values()} <= set(methods)


def test_what_can_be_scheduled_is_what_needs_nothing_but_the_vm() -> None:
    for verb in SCHEDULABLE:
        request = vm_service_pb2.DESCRIPTOR.message_types_by_name[f"{VERBS[verb].rpc}Request"]
        assert {field.name for field in request.fields} <= {"id", "is_hard", "request_id"}


@pytest.mark.parametrize("verb", list(DESIRED))
def test_a_verb_changes_what_is_desired_and_counts_it(verb: Verb) -> None:
    for state in VERBS[verb].allowed:
        for desired in DESIRED.values():
            before = intent(desired)
            after = next_intent(verb, VERBS[verb], state, before, is_hard=False)
            assert before == intent(desired), "the stored intent is never touched"
            if after is not None:
                assert (after.desired, after.generation) == (DESIRED[verb], 4)
                assert (after.uid, after.owner_id) == ("u", 7)


@pytest.mark.parametrize(
    ("verb", "state"),
    [
        (Verb.HOLD, vm_pb2.VM_STATE_HELD),
        (Verb.RELEASE, vm_pb2.VM_STATE_PENDING),
        (Verb.POWEROFF, vm_pb2.VM_STATE_POWERING_OFF),
        (Verb.POWEROFF, vm_pb2.VM_STATE_POWERED_OFF),
        (Verb.RESUME, vm_pb2.VM_STATE_STARTING),
        (Verb.RESUME, vm_pb2.VM_STATE_RUNNING),
        (Verb.TERMINATE, vm_pb2.VM_STATE_TERMINATING),
    ],
)
def test_asking_for_what_is_desired_already_changes_nothing(verb: Verb, state: vm_pb2.VmState) -> None:
    assert next_intent(verb, VERBS[verb], state, intent(DESIRED[verb]), is_hard=False) is None


@pytest.mark.parametrize(
    ("verb", "state"),
    [(Verb.POWEROFF, vm_pb2.VM_STATE_POWERING_OFF), (Verb.TERMINATE, vm_pb2.VM_STATE_TERMINATING)],
)
def test_what_is_under_way_gently_can_be_made_hard_but_not_gentle_again(verb: Verb, state: vm_pb2.VmState) -> None:
    harder = next_intent(verb, VERBS[verb], state, intent(DESIRED[verb]), is_hard=True)
    assert harder is not None and harder.is_hard
    assert next_intent(verb, VERBS[verb], state, intent(DESIRED[verb], is_hard=True), is_hard=False) is None


def test_a_vm_that_is_off_cannot_be_switched_off_harder() -> None:
    off = intent(vm_pb2.DESIRED_STATE_POWERED_OFF)
    assert next_intent(Verb.POWEROFF, VERBS[Verb.POWEROFF], vm_pb2.VM_STATE_POWERED_OFF, off, is_hard=True) is None


def test_a_guest_that_shut_down_by_itself_can_be_started_again() -> None:
    row = VERBS[Verb.RESUME]
    again = next_intent(
        Verb.RESUME, row, vm_pb2.VM_STATE_POWERED_OFF, intent(vm_pb2.DESIRED_STATE_RUNNING), is_hard=False
    )
    assert again is not None and again.generation == 4


def test_a_failed_start_is_tried_at_once_when_asked_for_again() -> None:
    row = VERBS[Verb.RESUME]
    again = next_intent(Verb.RESUME, row, vm_pb2.VM_STATE_FAILED, intent(vm_pb2.DESIRED_STATE_RUNNING), is_hard=False)
    assert again is not None and again.generation == 4
