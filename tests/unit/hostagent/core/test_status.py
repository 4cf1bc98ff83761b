"""Statuses that the agent reports, and the pauses that they name."""

from __future__ import annotations

from moln.compute.v1 import vm_pb2
from moln.compute.v1.vm_pb2 import VmStatus
from moln.node.v1.node_service_pb2 import VmOrder
from services.common.domain.reasons import Reason
from services.hostagent.core import status as statuses
from services.hostagent.core.backoff import pause_s
from services.hostagent.drivers.ports import Outcome

BASE = statuses.host_base(1, "boot-1", "sim", "<node n1>", 1)
NOW = statuses.stamp(1000.5)
ORDER = VmOrder(host_id=1, vm_id=7, uid="u", epoch=2)
FAILURE = Outcome(False, Reason.START_FAILED, "no room", "start")


def test_a_first_claim_is_the_first_attempt_of_its_epoch() -> None:
    status = statuses.claimed(BASE, None, ORDER, NOW)
    assert (status.epoch, status.attempt, status.phase) == (2, 1, vm_pb2.VM_PHASE_STARTING)
    assert (status.uid, status.host_id, status.boot_id) == ("u", 1, "boot-1")


def test_a_later_claim_counts_on_and_keeps_the_failures_in_a_row() -> None:
    before = VmStatus(uid="u", epoch=2, attempt=3, failures=2, reason="START_FAILED", boot_id="boot-0")
    before.disk_snapshots.add(disk_id=1, name="a")
    status = statuses.claimed(BASE, before, ORDER, NOW)
    assert status.disk_snapshots == before.disk_snapshots, "what is in the disks outlives an attempt"
    assert (status.attempt, status.failures, status.reason, status.boot_id) == (4, 2, "", "boot-1")


def test_attempts_begin_anew_with_an_epoch() -> None:
    assert statuses.claimed(BASE, VmStatus(epoch=1, attempt=9), ORDER, NOW).attempt == 1


def test_running_carries_out_a_generation_and_has_a_start_time() -> None:
    status = statuses.running(statuses.claimed(BASE, None, ORDER, NOW), statuses.stamp(1001), 5)
    assert (status.phase, status.observed_generation, status.start_time.seconds) == (vm_pb2.VM_PHASE_RUNNING, 5, 1001)


def test_what_was_reported_is_never_changed() -> None:
    claim = statuses.claimed(BASE, None, ORDER, NOW)
    before = claim.SerializeToString()
    statuses.running(claim, NOW, 5)
    statuses.failed(claim, FAILURE, 1001)
    statuses.stepped(claim, "stage_disks", 10)
    assert claim.SerializeToString() == before


def test_a_failure_names_its_step_and_the_next_try() -> None:
    status = statuses.failed(VmStatus(failures=2), FAILURE, 1000)
    assert (status.phase, status.reason, status.message, status.step) == (
        vm_pb2.VM_PHASE_FAILED, "START_FAILED", "no room", "start",
    )  # fmt: skip
    assert (status.failures, status.not_before.seconds) == (3, 1004)


def test_a_guest_that_lasted_forgets_earlier_failures() -> None:
    before = VmStatus(failures=5, start_time=statuses.stamp(1000))
    assert statuses.fell(before, Reason.GUEST_CRASHED, "", 1000 + statuses.STABLE_S).failures == 1
    assert statuses.fell(before, Reason.GUEST_CRASHED, "", 1001).failures == 6


def test_what_is_gone_has_the_epoch_of_what_was_here() -> None:
    assert statuses.gone(VmStatus(epoch=1), ORDER, 1).epoch == 1
    assert statuses.gone(None, ORDER, 1).epoch == 2
    known = VmOrder(uid="u", epoch=3, status=VmStatus(epoch=1))
    assert statuses.gone(None, known, 1).epoch == 1


def test_pauses_double_up_to_a_minute() -> None:
    assert [pause_s(failures) for failures in (1, 2, 3, 4, 5, 6, 7, 8, 1000)] == [1, 2, 4, 8, 16, 32, 60, 60, 60]
