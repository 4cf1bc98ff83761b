"""How operations end, and what is left of the change that they had made to the spec."""

from __future__ import annotations

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from moln.compute.v1 import template_pb2, vm_pb2
from services.api.core.operations import DONE, End, Parts, end_of, is_instant, kind_name, result_of, settled
from services.common.domain.reasons import Reason

K = vm_pb2.OperationKind
RUN, OFF, GONE = vm_pb2.DESIRED_STATE_RUNNING, vm_pb2.DESIRED_STATE_POWERED_OFF, vm_pb2.DESIRED_STATE_TERMINATED
NOW, DEADLINE = 100.0, 200


def an_operation(kind: vm_pb2.OperationKind = K.OPERATION_KIND_REBOOT, *, cancelled: bool = False) -> vm_pb2.Operation:
    return vm_pb2.Operation(id="op", kind=kind, epoch=2, deadline=Timestamp(seconds=DEADLINE), is_cancelled=cancelled)


def parts(
    desired: vm_pb2.DesiredState = RUN, *, status: vm_pb2.VmStatus | None = None, epoch: int = 2, host_id: int = 4
) -> Parts:
    placement = vm_pb2.VmPlacement(host_id=host_id, epoch=epoch)
    return Parts(vm_pb2.VmIntent(desired=desired), placement, status)


def told(**words: object) -> vm_pb2.VmStatus:
    return vm_pb2.VmStatus(epoch=2, operation=vm_pb2.OperationStatus(**words))  # type: ignore[arg-type]


def reason_of(end: End | None) -> str | None:
    return None if end is None else end.reason


def test_it_is_in_flight_until_the_node_has_spoken() -> None:
    assert end_of(an_operation(), parts(), NOW) is None
    assert end_of(an_operation(), parts(status=told(id="op")), NOW) is None
    assert end_of(an_operation(), parts(status=told(id="another", is_done=True)), NOW) is None


def test_it_ends_as_the_node_says() -> None:
    assert end_of(an_operation(), parts(status=told(id="op", is_done=True)), NOW) == DONE
    failed = told(id="op", is_done=True, reason="OPERATION_FAILED", message="no room")
    assert end_of(an_operation(), parts(status=failed), NOW) == End("OPERATION_FAILED", "no room")


def test_it_ends_with_a_vm_that_is_terminated_or_has_left_its_host() -> None:
    superseded = Reason.OPERATION_SUPERSEDED
    assert reason_of(end_of(an_operation(), parts(GONE), NOW)) == superseded
    assert reason_of(end_of(an_operation(), parts(epoch=3), NOW)) == superseded
    assert reason_of(end_of(an_operation(), parts(host_id=0), NOW)) == superseded


def test_it_ends_at_its_deadline_whatever_happens() -> None:
    assert reason_of(end_of(an_operation(), parts(), DEADLINE)) == Reason.OPERATION_EXPIRED
    assert reason_of(end_of(an_operation(cancelled=True), parts(), DEADLINE)) == Reason.OPERATION_CANCELLED


def test_what_the_scheduler_refuses_ends_with_its_words() -> None:
    vm = parts()
    assert vm.placement is not None
    vm.placement.refusal.id, vm.placement.refusal.reason, vm.placement.refusal.message = "op", "NO_ROOM", "2 GiB short"
    assert end_of(an_operation(K.OPERATION_KIND_RESIZE), vm, NOW) == End("NO_ROOM", "2 GiB short")


def test_a_change_of_what_is_nowhere_is_done_by_being_written_once_it_is_granted() -> None:
    resize, vm = an_operation(K.OPERATION_KIND_RESIZE), parts(OFF)
    assert end_of(resize, vm, NOW) is None
    assert vm.placement is not None
    vm.placement.granted_operation_id = "op"
    assert end_of(resize, vm, NOW) == DONE
    assert end_of(an_operation(K.OPERATION_KIND_DETACH_NIC), parts(OFF), NOW) == DONE


def test_what_only_a_host_can_do_ends_where_nothing_of_the_vm_is_there_and_nothing_is_to_come() -> None:
    of_disk, move = K.OPERATION_KIND_REVERT_DISK_SNAPSHOT, K.OPERATION_KIND_MIGRATE
    for kind in (K.OPERATION_KIND_REBOOT, K.OPERATION_KIND_CREATE_SNAPSHOT, of_disk, move):
        assert reason_of(end_of(an_operation(kind), parts(OFF), NOW)) == Reason.OPERATION_SUPERSEDED
        assert end_of(an_operation(kind), parts(RUN), NOW) is None, "the host brings it up, and then does it"


@pytest.mark.parametrize("host_id", [0, 4])
def test_only_without_a_host_is_a_change_instant(host_id: int) -> None:
    assert is_instant(parts(OFF, host_id=host_id)) is (host_id == 0)
    assert is_instant(Parts(vm_pb2.VmIntent(), None, None))


class TestMoves:
    """A move ends with the placement that it has changed."""

    MOVE = an_operation(K.OPERATION_KIND_MIGRATE)

    def test_it_is_done_when_the_vm_has_another_epoch(self) -> None:
        assert end_of(self.MOVE, parts(epoch=3, host_id=9), NOW) == End(results={"host_id": "9"})

    def test_its_deadline_does_not_end_it_while_it_is_under_way(self) -> None:
        vm = parts()
        assert vm.placement is not None
        vm.placement.move.operation_id = "op"
        assert end_of(self.MOVE, vm, DEADLINE + 1) is None

    def test_it_ends_as_the_scheduler_says_that_gave_it_up(self) -> None:
        vm = parts()
        assert vm.placement is not None
        vm.placement.last_abort.id, vm.placement.last_abort.reason = "op", "MIGRATION_FAILED"
        assert reason_of(end_of(self.MOVE, vm, NOW)) == "MIGRATION_FAILED"

    def test_one_that_was_given_up_before_it_began_ends_at_once(self) -> None:
        given_up = an_operation(K.OPERATION_KIND_MIGRATE, cancelled=True)
        assert reason_of(end_of(given_up, parts(), NOW)) == Reason.OPERATION_CANCELLED


def a_spec(*disks: int, memory_mib: int = 512) -> vm_pb2.VmSpec:
    return vm_pb2.VmSpec(
        template=template_pb2.VmTemplate(
            memory_mib=memory_mib, disks=[template_pb2.DiskTemplate(disk_id=each) for each in disks]
        )
    )


def disks_after(kind: vm_pb2.OperationKind, end: End) -> list[int]:
    operation = an_operation(kind)
    operation.parameters.disk_id = 1
    after = settled(a_spec(0, 1), operation, end)
    return [disk.disk_id for disk in (after if after is not None else a_spec(0, 1)).template.disks]


def test_a_disk_goes_when_its_detach_is_done_and_stays_when_it_failed() -> None:
    assert disks_after(K.OPERATION_KIND_DETACH_DISK, DONE) == [0]
    assert disks_after(K.OPERATION_KIND_DETACH_DISK, End("OPERATION_FAILED")) == [0, 1]


def test_a_disk_stays_when_its_attach_is_done_and_goes_when_it_failed() -> None:
    assert disks_after(K.OPERATION_KIND_ATTACH_DISK, DONE) == [0, 1]
    assert disks_after(K.OPERATION_KIND_ATTACH_DISK, End("OPERATION_FAILED")) == [0]


def test_a_vm_has_its_former_size_again_when_it_could_not_be_resized() -> None:
    operation = an_operation(K.OPERATION_KIND_RESIZE)
    operation.parameters.former_size.memory_mib = 256
    after = settled(a_spec(), operation, End("NO_ROOM"))
    assert after is not None and after.template.memory_mib == 256
    assert settled(a_spec(), operation, DONE) is None


def test_who_had_changed_the_spec_is_named_again_unless_somebody_else_has_changed_it_since() -> None:
    operation, spec = an_operation(K.OPERATION_KIND_RESIZE), a_spec()
    operation.cause.reason = spec.cause.reason = "RESIZE"
    operation.parameters.former_cause.reason = "CREATE"
    after = settled(spec, operation, End("NO_ROOM"))
    assert after is not None and after.cause.reason == "CREATE"
    spec.cause.reason = "UPDATE"
    after = settled(spec, operation, End("NO_ROOM"))
    assert after is not None and after.cause.reason == "UPDATE"


def test_what_is_kept_of_an_operation_says_when_and_why() -> None:
    kept = result_of(an_operation(), End("NO_ROOM", "too big", {"a": "b"}), Timestamp(seconds=9))
    assert (kept.id, kept.kind, kept.reason, kept.message) == ("op", K.OPERATION_KIND_REBOOT, "NO_ROOM", "too big")
    assert kept.end_time.seconds == 9 and dict(kept.results) == {"a": "b"}
    assert kind_name(K.OPERATION_KIND_ATTACH_DISK) == "attach disk"
