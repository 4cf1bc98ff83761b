"""An agent's reconciler with everything around it under the test's hand: clock, timers, hypervisor, gateway."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass

from moln.compute.v1 import vm_pb2
from moln.compute.v1.vm_pb2 import VmStatus
from moln.node.v1.node_service_pb2 import ReportAck, VmOrder, VmReport
from services.hostagent.controllers.hand import Hand
from services.hostagent.controllers.life import Life
from services.hostagent.controllers.outbox import Outbox
from services.hostagent.controllers.reconciler import Guests, Reconciler
from services.hostagent.core.guest import Guest
from services.hostagent.core.status import host_base
from services.hostagent.drivers.ports import DONE, INTERRUPTED, Deed, End, Outcome, Power, Seen, Work

HOST = 1


@dataclass
class Domain:
    """A guest in the scripted hypervisor."""

    vm_id: int
    uid: str
    epoch: int
    is_running: bool = False
    end: End = End.NONE
    is_saved: bool = False

    @property
    def power(self) -> Power:
        """As a driver tells it."""
        return Power.RUNNING if self.is_running else Power.SAVED if self.is_saved else Power.OFF


class ManualTimers:
    """Timers that the test moves."""

    def __init__(self) -> None:
        self.now = 1_000_000.0
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    def after(self, seconds: float, callback: Callable[[], None]) -> None:
        heapq.heappush(self._heap, (self.now + seconds, next(self._order), callback))

    def advance(self, seconds: float) -> None:
        end = self.now + seconds
        while self._heap and self._heap[0][0] <= end:
            self.now, _, callback = heapq.heappop(self._heap)
            callback()
        self.now = end


class ScriptedDriver:
    """Deeds begin, and end when the test says so. It holds what a hypervisor holds, and checks what it is asked."""

    def __init__(self, host_id: int = HOST) -> None:
        self.host_id = host_id
        self.domains: dict[int, Domain] = {}
        self.under_way: dict[int, Work] = {}
        self.interrupted: set[int] = set()
        self.remembered: dict[int, VmStatus] = {}
        self.begun: list[Deed] = []
        self.on_begin: Callable[[Work], None] = lambda _work: None

    def begin(self, work: Work) -> None:
        assert work.vm_id not in self.under_way, "a second deed was begun while one is under way"
        self.on_begin(work)
        self.begun.append(work.deed)
        self.under_way[work.vm_id] = work

    def interrupt(self, host_id: int, vm_id: int, *, is_background: bool = False) -> None:
        assert host_id == self.host_id
        if vm_id in self.under_way:
            self.interrupted.add(vm_id)

    def remember(self, status: VmStatus, vm_id: int) -> None:
        self.remembered[vm_id] = status

    def take_effect(self, work: Work) -> None:
        """The deed's effect on the hypervisor."""
        if work.deed is Deed.ERASE:
            self.domains.pop(work.vm_id, None)
            self.remembered.pop(work.vm_id, None)
        elif work.deed is Deed.START:
            self.domains[work.vm_id] = Domain(work.vm_id, work.uid, work.status.epoch, is_running=True)
        elif work.deed is not Deed.OPERATE and work.vm_id in self.domains:
            domain = self.domains[work.vm_id]
            domain.is_running, domain.is_saved = False, work.deed is Deed.SUSPEND
            domain.end = End.BY_AGENT if work.deed is Deed.HALT else End.NONE

    def finish(self, vm_id: int, outcome: Outcome = DONE) -> None:
        """Ends the deed under way: interrupted where that was asked for, and otherwise with `outcome`."""
        work = self.under_way.pop(vm_id)
        if vm_id in self.interrupted:
            self.interrupted.discard(vm_id)
            outcome = INTERRUPTED
        if outcome.is_done:
            self.take_effect(work)
        work.done(work, outcome)

    def seen(self) -> list[Seen]:
        """What a look finds."""
        return [
            Seen(
                self.host_id, domain.vm_id, domain.uid, domain.epoch, domain.power, domain.end,
                self.remembered.get(domain.vm_id),
            )
            for domain in self.domains.values()
        ]  # fmt: skip


class NoMetrics:
    """Counts nothing."""

    def did(self, deed: Deed, outcome: Outcome) -> None: ...

    def started_after(self, seconds: float) -> None: ...

    def refused(self) -> None: ...


class Agent:
    """The reconciler of one host; a new one over the same driver is an agent that was killed and started again."""

    def __init__(self, driver: ScriptedDriver, timers: ManualTimers) -> None:
        self.driver, self.timers = driver, timers
        host_id = self.host_id = driver.host_id
        self.guests = Guests([host_id])
        self.outbox = Outbox(lambda: None)
        bases = {host_id: host_base(host_id, "boot-1", "scripted", f"<node n{host_id}>", 1)}
        hand = Hand(
            driver, self.outbox, timers, bases, NoMetrics(), now=lambda: timers.now, look=lambda _host: self.look(),
            is_verbose=False,
        )  # fmt: skip
        self.life = Life(hand, monotonic=lambda: timers.now, forget=self.guests.remove)
        self.reconciler = Reconciler(self.guests, self.life, self.outbox, timers, bases)
        self.look()

    def look(self) -> None:
        """Compares with the hypervisor."""
        self.reconciler.compare(self.host_id, self.driver.seen(), self.reconciler.changes)

    def connect(self) -> None:
        """A stream is there."""
        self.outbox.open()
        self.reconciler.report_all([self.host_id])

    def order(self, *orders: VmOrder) -> None:
        self.reconciler.take_orders(orders, self.timers.now)

    def take(self) -> list[VmReport]:
        """What it says now."""
        return self.outbox.take(1000)

    def answer(self, report: VmReport, reason: str = "") -> None:
        ack = ReportAck(
            host_id=self.host_id, vm_id=report.vm_id, sequence=report.sequence, is_stored=not reason, reason=reason
        )
        self.reconciler.take_acks([ack])

    def guest(self, vm_id: int = 7) -> Guest:
        found = self.guests.get(self.host_id, vm_id)
        assert found is not None
        return found


def an_order(
    desired: vm_pb2.DesiredState = vm_pb2.DESIRED_STATE_RUNNING,
    *,
    vm_id: int = 7,
    epoch: int = 1,
    generation: int = 1,
    is_hard: bool = False,
    is_erase: bool = False,
) -> VmOrder:
    """An order for the host."""
    order = VmOrder(host_id=HOST, vm_id=vm_id, uid=f"uid-{vm_id}", epoch=epoch)
    order.intent.desired, order.intent.generation, order.intent.is_hard = desired, generation, is_hard
    order.is_erase = is_erase or desired == vm_pb2.DESIRED_STATE_TERMINATED
    return order
