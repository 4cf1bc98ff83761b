"""One guest's life, step by step: claims, refusals, ends of guests, back-off, adoption, erasing."""

from __future__ import annotations

import asyncio

import pytest

from moln.compute.v1 import vm_pb2
from moln.compute.v1.template_pb2 import RestartPolicy
from moln.compute.v1.vm_pb2 import VmPhase, VmStatus
from moln.node.v1.node_service_pb2 import VmReport
from services.common.domain.reasons import Reason
from services.hostagent.drivers.ports import Deed, End, Outcome, Power, Seen, Work
from tests.unit.hostagent.controllers.scripted import HOST, Agent, Domain, ManualTimers, ScriptedDriver, an_order

OFF = vm_pb2.DESIRED_STATE_POWERED_OFF
RUN = vm_pb2.DESIRED_STATE_RUNNING
GONE = vm_pb2.DESIRED_STATE_TERMINATED
FAILURE = Outcome(False, Reason.START_FAILED, "no room on the node", "start")


@pytest.fixture
def driver() -> ScriptedDriver:
    return ScriptedDriver()


@pytest.fixture
def agent(driver: ScriptedDriver) -> Agent:
    made = Agent(driver, ManualTimers())
    made.connect()
    return made


def said(agent: Agent) -> list[VmReport]:
    """Takes what the agent says and answers it, until it says no more."""
    reports: list[VmReport] = []
    while batch := agent.take():
        for report in batch:
            reports.append(report)
            agent.answer(report)
    return reports


def phases(reports: list[VmReport]) -> list[str]:
    return [VmPhase.Name(report.status.phase).removeprefix("VM_PHASE_") for report in reports]


def start(agent: Agent) -> None:
    agent.order(an_order())
    said(agent)
    agent.driver.finish(7)
    said(agent)
    assert agent.driver.domains[7].is_running


def end(agent: Agent, how: End) -> None:
    domain = agent.driver.domains[7]
    domain.is_running, domain.end = False, how
    agent.look()


def test_nothing_is_touched_before_the_claim_is_granted(agent: Agent, driver: ScriptedDriver) -> None:
    agent.order(an_order())
    (claim,) = agent.take()
    assert claim.is_claim and claim.status.phase == vm_pb2.VM_PHASE_STARTING and claim.status.attempt == 1
    assert driver.begun == []
    agent.answer(claim)
    assert driver.begun == [Deed.START]


def test_a_started_guest_is_reported_running_with_the_generation(agent: Agent, driver: ScriptedDriver) -> None:
    agent.order(an_order(generation=4))
    said(agent)
    driver.finish(7)
    (report,) = said(agent)
    assert report.status.phase == vm_pb2.VM_PHASE_RUNNING
    assert report.status.observed_generation == 4
    assert report.status.start_time.seconds == int(agent.timers.now)


@pytest.mark.parametrize("reason", ["EPOCH_PAST", "HOST_FENCED"])
def test_a_refused_claim_touches_nothing_and_waits_for_another_order(
    agent: Agent, driver: ScriptedDriver, reason: str
) -> None:
    agent.order(an_order())
    agent.answer(agent.take()[0], reason)
    agent.timers.advance(100)
    assert agent.take() == [] and driver.begun == []
    agent.order(an_order(epoch=2))
    assert agent.take()[0].status.epoch == 2


def test_a_claim_that_could_not_be_stored_is_repeated(agent: Agent, driver: ScriptedDriver) -> None:
    agent.order(an_order())
    agent.answer(agent.take()[0], "STORE_UNAVAILABLE")
    assert agent.take() == []
    agent.timers.advance(2)
    (claim,) = agent.take()
    assert claim.is_claim and claim.status.attempt == 1


def test_a_claim_granted_after_the_order_has_changed_starts_nothing(agent: Agent, driver: ScriptedDriver) -> None:
    agent.order(an_order())
    (claim,) = agent.take()
    agent.order(an_order(OFF, generation=2))
    agent.answer(claim)
    assert driver.begun == []
    assert phases(said(agent)) == ["POWERED_OFF"]


def test_a_failed_start_says_why_and_is_tried_again_after_its_pause(agent: Agent, driver: ScriptedDriver) -> None:
    agent.order(an_order())
    said(agent)
    driver.finish(7, FAILURE)
    (report,) = said(agent)
    status = report.status
    assert (status.phase, status.reason, status.message) == (
        vm_pb2.VM_PHASE_FAILED, "START_FAILED", "no room on the node",
    )  # fmt: skip
    assert status.not_before.seconds == int(agent.timers.now) + 1
    agent.timers.advance(1.5)
    (claim,) = said(agent)
    assert claim.is_claim and claim.status.attempt == 2


def test_a_new_generation_does_not_wait_for_the_pause(agent: Agent, driver: ScriptedDriver) -> None:
    agent.order(an_order())
    said(agent)
    for _ in range(5):
        driver.finish(7, FAILURE)
        said(agent)
        agent.timers.advance(60)
        said(agent)
    driver.finish(7, FAILURE)
    said(agent)
    agent.order(an_order(generation=2))
    assert agent.take()[0].is_claim


def test_a_poweroff_asks_the_guest_and_reports_both_phases(agent: Agent, driver: ScriptedDriver) -> None:
    start(agent)
    agent.order(an_order(OFF, generation=2))
    assert phases(said(agent)) == ["POWERING_OFF"]
    assert driver.begun[-1] is Deed.SHUT_DOWN
    driver.finish(7, Outcome(True, Reason.PLUG_PULLED, "the guest did not shut down within 60 s"))
    (report,) = said(agent)
    assert report.status.phase == vm_pb2.VM_PHASE_POWERED_OFF
    assert (report.status.observed_generation, report.status.reason) == (2, "PLUG_PULLED")


def test_a_hard_poweroff_breaks_off_a_soft_one(agent: Agent, driver: ScriptedDriver) -> None:
    start(agent)
    agent.order(an_order(OFF, generation=2))
    agent.order(an_order(OFF, generation=3, is_hard=True))
    assert 7 in driver.interrupted
    driver.finish(7)
    assert driver.begun[-1] is Deed.PLUG
    driver.finish(7)
    assert phases(said(agent))[-1] == "POWERED_OFF"


def test_a_resume_claims_again_with_the_next_attempt(agent: Agent, driver: ScriptedDriver) -> None:
    start(agent)
    agent.order(an_order(OFF, generation=2))
    said(agent)
    driver.finish(7)
    said(agent)
    agent.order(an_order(RUN, generation=3))
    (claim,) = said(agent)
    assert claim.is_claim and claim.status.attempt == 2


def test_a_guest_that_shuts_itself_down_stays_off_until_the_generation_grows(
    agent: Agent, driver: ScriptedDriver
) -> None:
    start(agent)
    end(agent, End.SHUT_DOWN)
    (report,) = said(agent)
    assert (report.status.phase, report.status.reason) == (vm_pb2.VM_PHASE_POWERED_OFF, "GUEST_SHUT_DOWN")
    agent.look()
    agent.order(an_order())
    assert said(agent) == []
    agent.order(an_order(generation=2))
    assert agent.take()[0].is_claim


def test_a_guest_that_crashes_is_started_again_after_a_pause_that_grows(agent: Agent, driver: ScriptedDriver) -> None:
    start(agent)
    for failures, pause in ((1, 1), (2, 2), (3, 4)):
        end(agent, End.CRASHED)
        (report,) = said(agent)
        assert (report.status.phase, report.status.reason) == (vm_pb2.VM_PHASE_FAILED, "GUEST_CRASHED")
        assert report.status.failures == failures
        agent.timers.advance(pause - 0.1)
        assert agent.take() == []
        agent.timers.advance(0.2)
        said(agent)
        driver.finish(7)
        said(agent)


def test_a_guest_that_must_not_be_restarted_stays_off(agent: Agent, driver: ScriptedDriver) -> None:
    order = an_order()
    order.spec.template.restart_policy = RestartPolicy.RESTART_POLICY_NEVER
    agent.order(order)
    said(agent)
    driver.finish(7)
    said(agent)
    end(agent, End.CRASHED)
    assert phases(said(agent)) == ["POWERED_OFF"]


def test_a_guest_that_vanished_is_started_again_at_once(agent: Agent, driver: ScriptedDriver) -> None:
    start(agent)
    end(agent, End.VANISHED)
    (claim,) = agent.take()
    assert claim.is_claim and claim.status.attempt == 2


def test_a_soft_terminate_shuts_down_and_then_erases(agent: Agent, driver: ScriptedDriver) -> None:
    start(agent)
    agent.order(an_order(GONE, generation=2))
    driver.finish(7)
    driver.finish(7)
    assert driver.begun == [Deed.START, Deed.SHUT_DOWN, Deed.ERASE]
    (report,) = said(agent)
    assert report.is_gone and report.status.epoch == 1
    assert len(agent.guests) == 0


def test_a_hard_terminate_breaks_off_a_start(agent: Agent, driver: ScriptedDriver) -> None:
    agent.order(an_order())
    said(agent)
    agent.order(an_order(GONE, generation=2, is_hard=True))
    driver.finish(7)
    assert driver.begun == [Deed.START, Deed.ERASE]


def test_what_is_not_here_is_gone_at_once(agent: Agent, driver: ScriptedDriver) -> None:
    agent.order(an_order(GONE))
    (report,) = said(agent)
    assert report.is_gone and driver.begun == [] and len(agent.guests) == 0


def test_a_failed_erase_says_so_and_is_tried_again(agent: Agent, driver: ScriptedDriver) -> None:
    start(agent)
    agent.order(an_order(GONE, generation=2, is_hard=True))
    driver.finish(7, Outcome(False, Reason.ERASE_FAILED, "the folder is busy", "remove_folder"))
    (report,) = said(agent)
    assert (report.status.reason, report.status.step) == ("ERASE_FAILED", "remove_folder")
    agent.timers.advance(2)
    driver.finish(7)
    assert said(agent)[-1].is_gone


def test_remains_of_an_earlier_placement_go_before_the_new_one_begins(agent: Agent, driver: ScriptedDriver) -> None:
    start(agent)
    agent.order(an_order(epoch=3))
    assert driver.begun[-1] is Deed.ERASE
    driver.finish(7)
    (claim,) = agent.take()
    assert claim.is_claim and (claim.status.epoch, claim.status.attempt) == (3, 1)


def test_a_running_guest_that_is_found_is_adopted_and_reported(driver: ScriptedDriver) -> None:
    driver.domains[7] = Domain(7, "uid-7", 1, is_running=True)
    driver.remembered[7] = VmStatus(
        uid="uid-7", host_id=HOST, epoch=1, attempt=2, phase=vm_pb2.VM_PHASE_RUNNING, observed_generation=1
    )
    agent = Agent(driver, ManualTimers())
    agent.connect()
    (report,) = said(agent)
    assert not report.is_claim and (report.status.phase, report.status.attempt) == (vm_pb2.VM_PHASE_RUNNING, 2)
    agent.order(an_order())
    assert said(agent) == [] and driver.begun == []


def test_a_start_that_a_killed_agent_had_ended_is_not_repeated(driver: ScriptedDriver) -> None:
    driver.domains[7] = Domain(7, "uid-7", 1, is_running=True)
    driver.remembered[7] = VmStatus(uid="uid-7", host_id=HOST, epoch=1, attempt=1, phase=vm_pb2.VM_PHASE_STARTING)
    agent = Agent(driver, ManualTimers())
    agent.connect()
    assert phases(said(agent)) == ["RUNNING"]
    agent.order(an_order())
    (report,) = said(agent)
    assert report.status.observed_generation == 1 and driver.begun == []


def test_a_guest_that_the_agent_stopped_at_its_end_runs_again(driver: ScriptedDriver) -> None:
    driver.domains[7] = Domain(7, "uid-7", 1, end=End.BY_AGENT)
    driver.remembered[7] = VmStatus(
        uid="uid-7", host_id=HOST, epoch=1, attempt=1, phase=vm_pb2.VM_PHASE_RUNNING, observed_generation=1
    )
    agent = Agent(driver, ManualTimers())
    agent.connect()
    assert said(agent) == []
    agent.order(an_order())
    assert agent.take()[0].status.attempt == 2


def test_what_the_store_knows_is_taken_over_where_the_node_knows_nothing(agent: Agent) -> None:
    order = an_order()
    order.status.CopyFrom(VmStatus(uid="uid-7", host_id=HOST, epoch=1, attempt=4, phase=vm_pb2.VM_PHASE_RUNNING))
    agent.order(order)
    (claim,) = agent.take()
    assert claim.is_claim and claim.status.attempt == 5


def test_a_running_guest_of_which_nothing_is_remembered_counts_on_from_the_store(driver: ScriptedDriver) -> None:
    driver.domains[7] = Domain(7, "uid-7", 1, is_running=True)
    agent = Agent(driver, ManualTimers())
    order = an_order(generation=2)
    order.status.CopyFrom(VmStatus(uid="uid-7", host_id=HOST, epoch=1, attempt=4, phase=vm_pb2.VM_PHASE_RUNNING))
    agent.order(order)
    agent.connect()
    (report,) = said(agent)
    assert (report.status.attempt, report.status.observed_generation) == (4, 2) and driver.begun == []


def test_a_marked_guest_without_an_order_is_an_orphan_and_never_touched(driver: ScriptedDriver) -> None:
    driver.domains[7] = Domain(7, "uid-7", 1, is_running=True)
    agent = Agent(driver, ManualTimers())
    agent.connect()
    said(agent)
    assert agent.reconciler.orphans(HOST) == []
    agent.reconciler.take_complete(HOST, [])
    assert agent.reconciler.orphans(HOST) == ["vm 7 (uid-7)"]
    agent.timers.advance(1000)
    agent.look()
    assert driver.begun == [] and driver.domains[7].is_running


def test_a_guest_that_was_terminated_while_the_agent_was_away_is_erased(driver: ScriptedDriver) -> None:
    driver.domains[7] = Domain(7, "uid-7", 1, is_running=True)
    agent = Agent(driver, ManualTimers())
    agent.connect()
    said(agent)
    agent.order(an_order(is_erase=True))
    agent.reconciler.take_complete(HOST, [])
    assert agent.reconciler.orphans(HOST) == []
    while driver.begun and driver.domains.get(7) is not None:
        driver.finish(7)
    (gone,) = agent.take()
    assert gone.is_gone


def test_a_guest_of_the_same_number_and_another_uid_is_an_orphan(agent: Agent, driver: ScriptedDriver) -> None:
    start(agent)
    agent.reconciler.compare(
        HOST, [Seen(HOST, 7, "another", 1, Power.RUNNING), *driver.seen()], agent.reconciler.changes
    )
    agent.reconciler.take_complete(HOST, [7])
    assert agent.reconciler.orphans(HOST) == ["vm 7 (another)"]


def test_what_was_not_answered_is_said_again_on_the_next_stream(agent: Agent, driver: ScriptedDriver) -> None:
    agent.order(an_order())
    (claim,) = agent.take()
    agent.outbox.close()
    agent.connect()
    assert agent.take() == [claim]
    agent.answer(claim)
    assert driver.begun == [Deed.START]


def test_while_disconnected_nothing_is_started(agent: Agent, driver: ScriptedDriver) -> None:
    start(agent)
    agent.outbox.close()
    end(agent, End.VANISHED)
    agent.timers.advance(1000)
    assert driver.begun == [Deed.START] and agent.take() == []
    agent.connect()
    assert agent.take()[0].is_claim


def test_reports_of_a_vm_go_one_after_the_other(agent: Agent, driver: ScriptedDriver) -> None:
    start(agent)
    agent.order(an_order(OFF, generation=2))
    driver.finish(7)
    (first,) = agent.take()
    assert phases([first]) == ["POWERING_OFF"] and agent.take() == []
    agent.answer(first)
    assert phases(agent.take()) == ["POWERED_OFF"]


def test_progress_within_a_phase_is_coalesced(agent: Agent, driver: ScriptedDriver) -> None:
    agent.order(an_order())
    said(agent)
    work = driver.under_way[7]
    for percent in range(100):
        work.progress(work, "stage_disks", percent)
    first = agent.take()
    driver.finish(7)
    for report in first:
        agent.answer(report)
    rest = said(agent)
    assert [report.status.progress_percent for report in [*first, *rest]] == [0, 99, 0]
    assert phases([*first, *rest]) == ["STARTING", "STARTING", "RUNNING"]


def test_what_was_read_before_a_start_had_ended_does_not_make_a_running_guest_an_ended_one(
    agent: Agent, driver: ScriptedDriver
) -> None:
    agent.order(an_order())
    said(agent)
    before = agent.reconciler.changes
    driver.finish(7)
    agent.reconciler.see(Seen(HOST, 7, "uid-7", 1, Power.OFF, End.NONE, began_at=before))
    assert phases(said(agent)) == ["RUNNING"]
    assert driver.begun == [Deed.START]
    domain = driver.domains[7]
    domain.is_running, domain.end = False, End.CRASHED
    agent.reconciler.see(Seen(HOST, 7, "uid-7", 1, Power.OFF, End.CRASHED, began_at=agent.reconciler.changes))
    assert phases(said(agent)) == ["FAILED"]


def test_a_crash_during_the_start_is_found_by_looking(agent: Agent, driver: ScriptedDriver) -> None:
    agent.order(an_order())
    said(agent)
    agent.reconciler.see(Seen(HOST, 7, "uid-7", 1, Power.OFF, End.CRASHED))
    work = driver.under_way.pop(7)
    driver.domains[7] = Domain(7, "uid-7", 1, is_running=False, end=End.CRASHED)
    work.done(work, Outcome(True))
    agent.look()
    assert phases(said(agent)) == ["RUNNING", "FAILED"]


async def test_at_the_agents_end_running_guests_are_halted_and_nothing_is_reported(
    agent: Agent, driver: ScriptedDriver
) -> None:
    start(agent)

    def begun(work: Work) -> None:
        asyncio.get_running_loop().call_soon(driver.finish, work.vm_id)

    driver.on_begin = begun
    assert await agent.reconciler.halt() == 1
    assert driver.begun[-1] is Deed.HALT and driver.domains[7].end is End.BY_AGENT
    assert agent.take() == []


@pytest.mark.parametrize(("desired", "is_hard"), [(OFF, True), (vm_pb2.DESIRED_STATE_SUSPENDED, False)])
def test_an_operation_that_was_asked_for_on_the_way_begins_when_the_guest_has_come_to_rest(
    agent: Agent, driver: ScriptedDriver, desired: vm_pb2.DesiredState, is_hard: bool
) -> None:
    start(agent)
    order = an_order(desired, generation=2, is_hard=is_hard)
    order.intent.operation.id, order.intent.operation.kind = "op-1", vm_pb2.OPERATION_KIND_DELETE_SNAPSHOT
    agent.order(order)
    assert set(driver.begun) & {Deed.PLUG, Deed.SUSPEND}
    driver.finish(7)
    said(agent)
    assert driver.begun[-1] is Deed.OPERATE
    driver.finish(7)
    (ended,) = [report.status.operation for report in said(agent) if report.status.operation.is_done]
    assert ended.id == "op-1" and not ended.reason
