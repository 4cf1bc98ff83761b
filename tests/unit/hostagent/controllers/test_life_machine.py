"""Random histories of orders, answers, deeds, ends, cuts and kills: nothing forbidden happens, all ends as ordered.

The store and the gateway are as the contract has them; the agent may be killed after any step.
"""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from moln.compute.v1 import vm_pb2
from moln.compute.v1.vm_pb2 import VmStatus
from moln.node.v1.node_service_pb2 import VmOrder, VmReport
from services.common.domain.reasons import Reason
from services.hostagent.drivers.ports import DONE, Deed, End, Outcome, Work
from tests.unit.hostagent.controllers.scripted import HOST, Agent, ManualTimers, ScriptedDriver, an_order

VMS = (1, 2)
RUN, OFF, GONE = (
    vm_pb2.DESIRED_STATE_RUNNING, vm_pb2.DESIRED_STATE_POWERED_OFF, vm_pb2.DESIRED_STATE_TERMINATED,
)  # fmt: skip
vms = st.sampled_from(VMS)
FAILURE = Outcome(False, Reason.START_FAILED, "it was told to fail", "start")


class LifeMachine(RuleBasedStateMachine):
    """One host, two VMs."""

    def __init__(self) -> None:
        super().__init__()
        self.driver, self.timers = ScriptedDriver(), ManualTimers()
        self.driver.on_begin = self._begun
        self.agent = Agent(self.driver, self.timers)
        self.orders: dict[int, VmOrder] = {}
        self.store: dict[int, VmStatus] = {}
        self.epochs = dict.fromkeys(VMS, 0)
        self.generations = dict.fromkeys(VMS, 0)
        self.is_connected = False
        self.unanswered: list[VmReport] = []

    # The user and the scheduler

    @precondition(lambda self: any(vm_id not in self.orders for vm_id in VMS))
    @rule(vm_id=vms, policy=st.integers(0, 3))
    def place(self, vm_id: int, policy: int) -> None:
        """The VM is placed here, for the first time or again."""
        if vm_id in self.orders:
            return
        self.epochs[vm_id] += 2
        self.generations[vm_id] += 1
        order = an_order(vm_id=vm_id, epoch=self.epochs[vm_id], generation=self.generations[vm_id])
        order.spec.template.restart_policy = policy  # type: ignore[assignment]  # all numbers of the enum
        self._send(order)

    @rule(vm_id=vms, desired=st.sampled_from([RUN, OFF, GONE]), is_hard=st.booleans())
    def want(self, vm_id: int, desired: vm_pb2.DesiredState, is_hard: bool) -> None:
        """A verb of the user. Termination is for ever."""
        former = self.orders.get(vm_id)
        if former is None or former.is_erase:
            return
        self.generations[vm_id] += 1
        order = VmOrder()
        order.CopyFrom(former)
        order.intent.desired, order.intent.is_hard = desired, is_hard
        order.intent.generation = self.generations[vm_id]
        order.is_erase = desired == GONE
        self._send(order)

    @rule(vm_id=vms)
    def place_elsewhere(self, vm_id: int) -> None:
        """The VM has another host now: what is here goes."""
        former = self.orders.get(vm_id)
        if former is None or former.is_erase:
            return
        order = VmOrder()
        order.CopyFrom(former)
        order.is_erase = True
        self._send(order)

    @rule(vm_id=vms)
    def come_back_at_once(self, vm_id: int) -> None:
        """The VM was elsewhere and is placed here again, before what is here of the earlier epoch has gone."""
        former = self.orders.get(vm_id)
        if former is None or not former.is_erase or former.intent.desired == GONE:
            return
        self.epochs[vm_id] += 2
        order = VmOrder()
        order.CopyFrom(former)
        order.is_erase, order.epoch = False, self.epochs[vm_id]
        self._send(order)

    # The gateway

    @precondition(lambda self: not self.is_connected)
    @rule()
    def connect(self) -> None:
        """A new stream: reports, then all orders, then complete."""
        self.is_connected = True
        self.agent.connect()
        self._listen()
        for order in self.orders.values():
            self.agent.order(self._full(order))
        self.agent.reconciler.take_complete(HOST, list(self.orders))

    @precondition(lambda self: self.is_connected)
    @rule()
    def cut(self) -> None:
        """The stream breaks; what was said and not answered may have been stored."""
        self.is_connected = False
        self.agent.outbox.close()
        self.unanswered.clear()

    @rule(how_many=st.integers(1, 4), is_lost=st.booleans())
    def answer(self, how_many: int, is_lost: bool) -> None:
        """Some reports are stored; the answers may be lost with the stream."""
        self._listen()
        for report in self.unanswered[:how_many]:
            reason = self._store(report)
            if not is_lost:
                self.agent.answer(report, reason)
        del self.unanswered[:how_many]
        if is_lost and self.is_connected:
            self.cut()

    @precondition(lambda self: self.unanswered)
    @rule()
    def refuse_for_now(self) -> None:
        """The store does not answer the gateway."""
        self.agent.answer(self.unanswered.pop(0), "STORE_UNAVAILABLE")

    # The hypervisor

    @precondition(lambda self: self.driver.under_way)
    @rule(fails=st.booleans())
    def finish(self, fails: bool) -> None:
        """A deed ends."""
        self.driver.finish(next(iter(self.driver.under_way)), FAILURE if fails else DONE)

    @rule(vm_id=vms, how=st.sampled_from([End.SHUT_DOWN, End.CRASHED, End.VANISHED]))
    def end(self, vm_id: int, how: End) -> None:
        """A guest ends by itself; the agent hears of it or finds it out."""
        domain = self.driver.domains.get(vm_id)
        if domain is not None and domain.is_running:
            domain.is_running, domain.end = False, how
            self.agent.look()

    @rule(seconds=st.sampled_from([0.5, 3.0, 70.0]))
    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.timers.advance(seconds)

    # The agent

    @rule(took_effect=st.booleans())
    def kill(self, took_effect: bool) -> None:
        """kill -9: deeds under way may have taken effect; all else that the agent knew is gone."""
        for work in list(self.driver.under_way.values()):
            if took_effect:
                self.driver.take_effect(work)
        self._new_agent()

    @rule()
    def stop(self) -> None:
        """The agent ends in order and takes its guests along."""
        for domain in self.driver.domains.values():
            if domain.is_running and domain.vm_id in self.orders:
                domain.is_running, domain.end = False, End.BY_AGENT
        self._new_agent()

    # What must hold

    @invariant()
    def a_running_guest_has_been_claimed(self) -> None:
        """Whatever runs here was started by leave of the store."""
        for vm_id, domain in self.driver.domains.items():
            if domain.is_running:
                assert domain.epoch <= self.epochs[vm_id]

    def teardown(self) -> None:
        """Left alone, everything becomes as ordered."""
        self.driver.on_begin = self._begun
        if not self.is_connected:
            self.connect()
        for _ in range(40):
            self._listen()
            self.answer(100, is_lost=False)
            for vm_id in list(self.driver.under_way):
                self.driver.finish(vm_id)
            self.timers.advance(70)
        assert not self.driver.under_way and not self.unanswered
        for vm_id in VMS:
            self._check_end(vm_id)

    def _check_end(self, vm_id: int) -> None:
        order, domain, status = self.orders.get(vm_id), self.driver.domains.get(vm_id), self.store.get(vm_id)
        if order is None:
            assert domain is None and status is None
            return
        if status is not None and status.epoch < order.epoch and order.intent.desired == OFF:
            status = None  # what the store still has of an earlier epoch counts for nothing, and goes with the VM
        is_running = domain is not None and domain.is_running
        assert order.is_erase is False, "what was to be erased is still ordered so"
        if order.intent.desired == OFF:
            assert not is_running
            assert status is None or status.phase == vm_pb2.VM_PHASE_POWERED_OFF
        else:
            assert status is not None and status.epoch == order.epoch
            expected = vm_pb2.VM_PHASE_RUNNING if is_running else vm_pb2.VM_PHASE_POWERED_OFF
            assert status.phase == expected
            assert is_running or status.reason in ("GUEST_SHUT_DOWN", "GUEST_CRASHED", "GUEST_VANISHED")
        assert status is None or status.observed_generation == order.intent.generation

    # Parts

    def _new_agent(self) -> None:
        self.driver.under_way.clear()
        self.driver.interrupted.clear()
        self.unanswered.clear()
        self.is_connected = False
        self.timers = ManualTimersFrom(self.timers)
        self.agent = Agent(self.driver, self.timers)

    def _begun(self, work: Work) -> None:
        """Every deed is one that was ordered, and a start is one that the store has granted."""
        domain = self.driver.domains.get(work.vm_id)
        assert domain is None or domain.uid == work.uid
        assert work.order is not None
        if work.deed is Deed.START:
            status = self.store[work.vm_id]
            assert (status.epoch, status.attempt) == (work.status.epoch, work.status.attempt)
            assert domain is None or not domain.is_running
        elif work.deed is Deed.ERASE:
            assert work.order.is_erase or (domain is None or domain.epoch < work.order.epoch)

    def _send(self, order: VmOrder) -> None:
        self.orders[order.vm_id] = order
        if self.is_connected:
            self.agent.order(self._full(order))

    def _full(self, order: VmOrder) -> VmOrder:
        full = VmOrder()
        full.CopyFrom(order)
        if order.vm_id in self.store:
            full.status.CopyFrom(self.store[order.vm_id])
        return full

    def _listen(self) -> None:
        if self.is_connected:
            self.unanswered += self.agent.take()

    def _store(self, report: VmReport) -> str:
        vm_id, order, stored = report.vm_id, self.orders.get(report.vm_id), self.store.get(report.vm_id)
        if report.is_gone:
            if stored is None or stored.epoch <= report.status.epoch:
                self.store.pop(vm_id, None)
                if order is not None and order.is_erase:
                    del self.orders[vm_id]
            return ""
        if order is None:
            return "VM_NOT_FOUND"
        if report.is_claim:
            if order.is_erase or order.epoch != report.status.epoch:
                return "EPOCH_PAST"
            if order.intent.desired != RUN:
                return "STATE_FORBIDS"
        elif stored is None or stored.epoch != report.status.epoch:
            return "EPOCH_PAST"
        self.store[vm_id] = report.status
        return ""


class ManualTimersFrom(ManualTimers):
    """Timers that go on where others were, without what those waited for."""

    def __init__(self, former: ManualTimers) -> None:
        super().__init__()
        self.now = former.now


TestLifeMachine = LifeMachine.TestCase
TestLifeMachine.settings = settings(max_examples=200, stateful_step_count=40)
