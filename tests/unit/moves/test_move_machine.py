"""Random histories of a VM that is moved, cut off, killed and asked for other things: it never runs in two places.

And left alone it becomes what is wanted, on one host, with nothing left on the other.
"""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from moln.compute.v1 import vm_pb2
from services.hostagent.drivers.ports import Deed, End
from services.scheduler.core.moves import Step
from tests.unit.moves.two_nodes import FAILED, HOSTS, OFF, RUN, SUSPENDED, VM, Cloud

hosts = st.sampled_from(HOSTS)
modes = st.sampled_from([vm_pb2.MOVE_MODE_LIVE, vm_pb2.MOVE_MODE_SAVE, vm_pb2.MOVE_MODE_COLD])
RESTS = {
    RUN: vm_pb2.VM_PHASE_RUNNING, OFF: vm_pb2.VM_PHASE_POWERED_OFF, SUSPENDED: vm_pb2.VM_PHASE_SUSPENDED,
}  # fmt: skip


class MoveMachine(RuleBasedStateMachine):
    """One VM, two hosts."""

    def __init__(self) -> None:
        super().__init__()
        self.cloud = Cloud()

    @initialize(how=modes, desired=st.sampled_from([RUN, RUN, RUN, OFF, SUSPENDED]))
    def begin(self, how: vm_pb2.MoveMode, desired: vm_pb2.DesiredState) -> None:
        """It runs, or rests, and is asked to move."""
        self.cloud.settle(6)
        if desired != RUN:
            self.cloud.want(desired)
            self.cloud.settle(6)
        self.migrate(how)

    @rule(host=hosts)
    def flow(self, host: int) -> None:
        """One node has its order, does what it is asked to, and is heard."""
        self.orders_arrive(host)
        self.reports_arrive(host)
        self.finish(host, fails=False, is_late=True)
        self.reports_arrive(host)
        self.schedule()

    @rule(how=modes)
    def migrate(self, how: vm_pb2.MoveMode) -> None:
        """A move is asked for; only a VM that is at rest is moved."""
        status = self.cloud.statuses.get(self.cloud.placement.host_id)
        is_settled = status is not None and status.observed_generation == self.cloud.intent.generation
        if is_settled and status is not None and status.phase in RESTS.values():
            off = status.phase != vm_pb2.VM_PHASE_RUNNING
            suspended = status.phase == vm_pb2.VM_PHASE_SUSPENDED
            self.cloud.migrate(vm_pb2.MOVE_MODE_SAVE if suspended else vm_pb2.MOVE_MODE_COLD if off else how)

    @rule()
    def cancel(self) -> None:
        """The move is to be given up."""
        if self.cloud.intent.operation.id:
            self.cloud.intent.operation.is_cancelled = True

    @rule(desired=st.sampled_from([RUN, OFF, SUSPENDED]), is_hard=st.booleans())
    def want(self, desired: vm_pb2.DesiredState, is_hard: bool) -> None:
        """A verb in between; what is suspended can only go on."""
        now = self.cloud.intent.desired
        if (desired == SUSPENDED and now != RUN) or (now == SUSPENDED and desired == OFF):
            return
        self.cloud.want(desired, is_hard=is_hard and desired == OFF)

    @rule()
    def schedule(self) -> None:
        """The scheduler looks."""
        self.cloud.step()

    @rule(host=hosts)
    def orders_arrive(self, host: int) -> None:
        """The gateway sends what is due."""
        order = self.cloud.order(host)
        if self.cloud.nodes[host].is_connected and order is not None:
            self.cloud.nodes[host].agent.order(order)

    @rule(host=hosts)
    def reports_arrive(self, host: int) -> None:
        """The gateway stores what was said."""
        self.cloud.answer(host)

    @rule(host=hosts)
    def connect(self, host: int) -> None:
        """A stream."""
        if not self.cloud.nodes[host].is_connected:
            self.cloud.connect(host)

    @rule(host=hosts)
    def cut(self, host: int) -> None:
        """The stream breaks."""
        self.cloud.cut(host)

    @rule(host=hosts, fails=st.booleans(), is_late=st.booleans())
    def finish(self, host: int, fails: bool, is_late: bool) -> None:
        """A deed ends. One that was to be broken off may have had its effect all the same."""
        node = self.cloud.nodes[host]
        work = node.under_way.get(VM)
        if work is None:
            return
        if VM in node.interrupted and is_late and work.deed is Deed.MIGRATE:
            node.take_effect(work)
            node.interrupted.discard(VM)
            node.finish(VM, node.outcome(work))
        else:
            node.finish(VM, FAILED if fails else self.cloud.end_of(node, work))

    @rule(host=hosts, took_effect=st.booleans())
    def kill(self, host: int, took_effect: bool) -> None:
        """kill -9 of an agent; what was under way may have had its effect."""
        node = self.cloud.nodes[host]
        for work in list(node.under_way.values()):
            if took_effect and work.deed is not Deed.OPERATE:
                node.take_effect(work)
        node.kill()

    @rule(host=hosts)
    def look(self, host: int) -> None:
        """A sweep."""
        self.cloud.nodes[host].agent.look()

    @precondition(lambda self: any(node.domain and node.domain.is_running for node in self.cloud.nodes.values()))
    @rule()
    def crash(self) -> None:
        """The guest crashes where it runs."""
        for node in self.cloud.nodes.values():
            if node.domain is not None and node.domain.is_running:
                node.domain.is_running, node.domain.end = False, End.CRASHED

    @rule(host=hosts)
    def wait(self, host: int) -> None:
        """Pauses after failures pass."""
        self.cloud.nodes[host].timers.advance(70)

    @invariant()
    def it_runs_in_one_place_at_most(self) -> None:
        """The first invariant of the project."""
        running = [host for host, node in self.cloud.nodes.items() if node.domain and node.domain.is_running]
        assert len(running) <= 1, f"it runs on {running}"

    def teardown(self) -> None:
        """Left alone, it becomes what is wanted, in one place."""
        self.cloud.settle()
        cloud = self.cloud
        host_id = cloud.placement.host_id
        status, node = cloud.statuses.get(host_id), cloud.nodes[host_id]
        assert not cloud.placement.HasField("move"), "a move has not ended"
        assert 3 - host_id not in cloud.statuses and cloud.nodes[3 - host_id].domain is None, "something is left"
        if status is None:
            assert cloud.intent.desired != RUN and node.domain is None
            return
        assert status.observed_generation == cloud.intent.generation, status
        wanted = RESTS[cloud.intent.desired]
        is_off_by_itself = status.phase == vm_pb2.VM_PHASE_POWERED_OFF
        assert status.phase == wanted or (is_off_by_itself and cloud.intent.desired == SUSPENDED), status
        is_running = node.domain is not None and node.domain.is_running
        assert is_running == (status.phase == vm_pb2.VM_PHASE_RUNNING)


TestMoveMachine = MoveMachine.TestCase
TestMoveMachine.settings = settings(max_examples=300, stateful_step_count=50, deadline=None)


@pytest.mark.parametrize("how", [vm_pb2.MOVE_MODE_LIVE, vm_pb2.MOVE_MODE_SAVE, vm_pb2.MOVE_MODE_COLD])
def test_a_running_vm_is_moved_there_and_back(how: vm_pb2.MoveMode) -> None:
    cloud = Cloud()
    cloud.settle()
    for target in (2, 1):
        cloud.migrate(how)
        cloud.settle()
        assert (cloud.placement.host_id, cloud.statuses[target].phase) == (target, vm_pb2.VM_PHASE_RUNNING)
        assert cloud.nodes[3 - target].domain is None


def test_a_move_that_is_cancelled_before_it_goes_leaves_the_vm_where_it_is() -> None:
    cloud = Cloud()
    cloud.settle()
    cloud.migrate(vm_pb2.MOVE_MODE_LIVE)
    cloud.intent.operation.is_cancelled = True
    assert cloud.step().step is Step.ABORT
    cloud.settle()
    assert cloud.placement.host_id == 1 and cloud.statuses[1].phase == vm_pb2.VM_PHASE_RUNNING
