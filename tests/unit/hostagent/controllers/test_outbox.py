"""Reports on their way: numbered, in order, coalesced within a phase, sent again."""

from __future__ import annotations

from moln.compute.v1 import vm_pb2
from moln.compute.v1.vm_pb2 import VmPhase, VmStatus
from services.hostagent.controllers.outbox import Outbox
from services.hostagent.core.guest import Guest


def status(phase: VmPhase, percent: int = 0) -> VmStatus:
    return VmStatus(host_id=1, phase=phase, progress_percent=percent)


def opened() -> tuple[Outbox, list[int]]:
    wakes: list[int] = []
    outbox = Outbox(lambda: wakes.append(1))
    outbox.open()
    return outbox, wakes


def test_a_report_wakes_the_stream() -> None:
    outbox, wakes = opened()
    outbox.put(Guest(1, 7), status(vm_pb2.VM_PHASE_RUNNING))
    assert wakes and len(outbox.take(10)) == 1 and outbox.take(10) == []


def test_no_more_are_taken_than_asked_for() -> None:
    outbox, _ = opened()
    for vm_id in range(5):
        outbox.put(Guest(1, vm_id), status(vm_pb2.VM_PHASE_RUNNING))
    assert [len(outbox.take(2)) for _ in range(4)] == [2, 2, 1, 0]


def test_one_report_of_a_vm_is_on_its_way_at_a_time() -> None:
    outbox, _ = opened()
    guest = Guest(1, 7)
    outbox.put(guest, status(vm_pb2.VM_PHASE_POWERING_OFF))
    outbox.put(guest, status(vm_pb2.VM_PHASE_POWERED_OFF))
    (first,) = outbox.take(10)
    assert outbox.answered(guest, first.sequence) is first
    (second,) = outbox.take(10)
    assert second.sequence > first.sequence and second.status.phase == vm_pb2.VM_PHASE_POWERED_OFF


def test_the_newest_of_a_phase_replaces_older_ones_that_wait() -> None:
    outbox, _ = opened()
    guest = Guest(1, 7)
    for percent in range(4):
        outbox.put(guest, status(vm_pb2.VM_PHASE_STARTING, percent))
    assert [report.status.progress_percent for report in [*outbox.take(10), *guest.queued]] == [0, 3]


def test_a_change_of_phase_is_never_left_out() -> None:
    outbox, _ = opened()
    guest = Guest(1, 7)
    phases = [vm_pb2.VM_PHASE_STARTING, vm_pb2.VM_PHASE_RUNNING, vm_pb2.VM_PHASE_FAILED, vm_pb2.VM_PHASE_STARTING]
    for phase in phases:
        outbox.put(guest, status(phase))
    assert [report.status.phase for report in [*outbox.take(10), *guest.queued]] == phases


def test_claims_are_never_coalesced() -> None:
    outbox, _ = opened()
    guest = Guest(1, 7)
    for _ in range(3):
        outbox.put(guest, status(vm_pb2.VM_PHASE_STARTING), is_claim=True)
    assert len(guest.queued) == 2


def test_an_old_answer_is_passed_over() -> None:
    outbox, _ = opened()
    guest = Guest(1, 7)
    outbox.put(guest, status(vm_pb2.VM_PHASE_RUNNING))
    assert outbox.answered(guest, 99) is None and guest.in_flight is not None


def test_without_a_stream_reports_gather_with_their_guests() -> None:
    outbox, wakes = opened()
    outbox.close()
    guest = Guest(1, 7)
    outbox.put(guest, status(vm_pb2.VM_PHASE_RUNNING))
    assert not wakes and outbox.take(10) == []
    outbox.open()
    outbox.resend(guest)
    assert len(outbox.take(10)) == 1
