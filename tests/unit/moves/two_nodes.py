"""A cloud of two nodes in one hand, with the rules of agents, gateway and scheduler over a store of a few fields.

Real are the agents' reconcilers, the gateway's orders and judgements, the scheduler's steps; the test's are the
hypervisors, time, and who is heard when.
"""

from __future__ import annotations

from typing import Any, cast

from google.protobuf.message import Message

from moln.compute.v1 import host_pb2, vm_pb2
from moln.node.v1.node_service_pb2 import VmOrder, VmReport
from services.api.index.cloud import CloudIndex
from services.api.index.hosts import HostIndex
from services.api.index.vms import VmRecord
from services.api.nodes import orders
from services.api.nodes.reports import judge
from services.common.domain.keys import KEYS
from services.common.store import Entry
from services.hostagent.core.observed import FETCHED
from services.hostagent.drivers.ports import DONE, Deed, End, Outcome, Power, Work
from services.scheduler.core.hosts import HostFacts
from services.scheduler.core.moves import Moving, Next, Step, next_step
from tests.unit.hostagent.controllers.scripted import Agent, Domain, ManualTimers, ScriptedDriver

VM, UID = 7, "uid-7"
HOSTS = (1, 2)
RUN, OFF, SUSPENDED = (
    vm_pb2.DESIRED_STATE_RUNNING, vm_pb2.DESIRED_STATE_POWERED_OFF, vm_pb2.DESIRED_STATE_SUSPENDED,
)  # fmt: skip
TICKETING = orders.Ticketing("", 0, lambda *_: "ticket")


class Node(ScriptedDriver):
    """A hypervisor, and the agent on it."""

    def __init__(self, host_id: int, cloud: Cloud) -> None:
        super().__init__(host_id)
        self.cloud = cloud
        self.timers = ManualTimers()
        self.agent = Agent(self, self.timers)
        self.is_connected = False
        self.said: list[VmReport] = []

    @property
    def domain(self) -> Domain | None:
        """What the hypervisor has of the VM."""
        return self.domains.get(VM)

    def take_effect(self, work: Work) -> None:
        """As the ports say."""
        match work.deed:
            case Deed.RECEIVE | Deed.FETCH:
                domain = self.domains.setdefault(VM, Domain(VM, work.uid, work.status.epoch))
                saved = work.order.move.peer_status.saved if work.order is not None else ()
                if work.deed is Deed.FETCH and not domain.is_running:
                    domain.is_saved = any(each.is_memory for each in saved)
            case Deed.MIGRATE:
                self._hand_over()
            case Deed.HAND_OVER | Deed.UPLOAD | Deed.OPERATE:
                pass
            case Deed.START:
                super().take_effect(work)
                self.domains[VM].is_saved = False
            case _:
                super().take_effect(work)

    def _hand_over(self) -> None:
        """The guest runs there and not here, in one moment."""
        domain, there = self.domain, self.cloud.nodes[3 - self.host_id].domain
        if domain is not None and domain.is_running and there is not None:
            domain.is_running, domain.end = False, End.NONE
            there.is_running, there.epoch = True, there.epoch

    def outcome(self, work: Work) -> Outcome:
        """What a deed that succeeds says."""
        if work.deed is Deed.MIGRATE:
            domain = self.domain
            return FAILED if domain is not None and domain.is_running else DONE
        if work.deed in (Deed.HAND_OVER, Deed.UPLOAD):
            memory = [vm_pb2.SavedFile(is_memory=True)] if self.domain is not None and self.domain.is_saved else []
            return Outcome(True, facts=vm_pb2.VmStatus(saved=memory), cleared=("saved",))
        return DONE

    def kill(self) -> None:
        """kill -9 of the agent, and a new one."""
        self.under_way.clear()
        self.interrupted.clear()
        self.said.clear()
        self.is_connected = False
        fresh = ManualTimers()
        fresh.now = self.timers.now
        self.timers = fresh
        self.agent = Agent(self, self.timers)


FAILED = Outcome(False, None, "it was told to fail", "step")


class Cloud:
    """The store, and who writes it."""

    def __init__(self) -> None:
        self.nodes = {host_id: Node(host_id, self) for host_id in HOSTS}
        self.facts = {host_id: HostFacts(host_id, f"h{host_id}", mode=host_pb2.HOST_MODE_ENABLED) for host_id in HOSTS}
        self.intent = vm_pb2.VmIntent(uid=UID, desired=RUN, generation=1)
        self.placement = vm_pb2.VmPlacement(uid=UID, host_id=1, epoch=1, last_epoch=1)
        self.statuses: dict[int, vm_pb2.VmStatus] = {}
        self.moves = 0

    # The gateway

    def record(self) -> VmRecord:
        """The VM as the gateway sees it."""
        record = VmRecord(f"{VM:010d}")
        parts: dict[str, Message] = {
            "spec": vm_pb2.VmSpec(uid=UID, name="web"), "intent": self.intent, "placement": self.placement,
        }  # fmt: skip
        parts |= {f"status/{host_id:010d}": status for host_id, status in self.statuses.items()}
        for part, value in parts.items():
            row = next(row for row in KEYS if row.kind == "vm" and row.part in (part, part[:7] + "*"))
            record.put(part, Entry(row, record.key_id, part, value, value.SerializeToString(), 1, 1))
        return record

    def order(self, host_id: int) -> VmOrder | None:
        """What the gateway would order there."""
        record = self.record()
        if orders.is_ordered(record, host_id):
            return VmOrder.FromString(orders.order_bytes(record, host_id, b"", TICKETING, HostIndex()))
        if host_id in self.statuses:
            return VmOrder.FromString(orders.erase_bytes(record, VM, UID, host_id))
        return None

    def publish(self) -> None:
        """Every node that is connected has its newest order."""
        for host_id, node in self.nodes.items():
            order = self.order(host_id) if node.is_connected else None
            if order is not None:
                node.agent.order(order)

    def connect(self, host_id: int) -> None:
        """A new stream: reports, then orders, then complete."""
        node = self.nodes[host_id]
        node.is_connected = True
        node.agent.connect()
        self.listen(host_id)
        order = self.order(host_id)
        if order is not None:
            node.agent.order(order)
        is_kept = order is not None and not order.is_erase
        node.agent.reconciler.take_complete(host_id, [VM] if is_kept else [])

    def cut(self, host_id: int) -> None:
        """The stream breaks; what was said and not answered may be lost."""
        node = self.nodes[host_id]
        node.is_connected = False
        node.agent.outbox.close()
        node.said.clear()

    def listen(self, host_id: int) -> None:
        """Takes what the node says."""
        node = self.nodes[host_id]
        if node.is_connected:
            node.said += node.agent.take()

    def answer(self, host_id: int) -> None:
        """Stores what was said, as the gateway judges it, and answers."""
        self.listen(host_id)
        node = self.nodes[host_id]
        for report in node.said:
            reason = self._store(report)
            node.agent.answer(report, reason)
        node.said.clear()

    def _store(self, report: VmReport) -> str:
        verdict = judge(report, "<node>", cast(CloudIndex, _Index(self.record())))
        if verdict.txn is not None:
            host_id = report.status.host_id
            if report.is_gone:
                self.statuses.pop(host_id, None)
            else:
                self.statuses[host_id] = vm_pb2.VmStatus.FromString(report.status.SerializeToString())
        return str(verdict.reason)

    # The user and the controllers

    def want(self, desired: vm_pb2.DesiredState, *, is_hard: bool = False) -> None:
        """A verb."""
        self.intent.desired, self.intent.is_hard = desired, is_hard
        self.intent.generation += 1

    def migrate(self, how: vm_pb2.MoveMode) -> None:
        """Asks for a move, and begins it."""
        if self.placement.HasField("move") or self.intent.operation.id:
            return
        self.moves += 1
        self.intent.operation.id = f"operation-{self.moves}"
        move = self.placement.move
        move.move_id, move.operation_id, move.how = f"move-{self.moves}", self.intent.operation.id, how
        move.target_host_id, move.phase = 3 - self.placement.host_id, vm_pb2.MOVE_PHASE_PREPARE
        self.placement.last_epoch += 1
        move.epoch = self.placement.last_epoch
        move.time.seconds = 1_000_000

    def step(self) -> Next:
        """The scheduler looks once; the operations controller clears what has ended."""
        placement = self.placement
        if not placement.HasField("move"):
            self.intent.ClearField("operation")
            return Next(Step.NOTHING)
        source, target = placement.host_id, placement.move.target_host_id
        found = next_step(
            Moving(
                self.intent, placement, self.statuses.get(source), self.statuses.get(target),
                self.facts[source], self.facts[target],
            ),
            1_000_000,
        )  # fmt: skip
        self._write(found)
        return found

    def _write(self, found: Next) -> None:
        placement = self.placement
        match found.step:
            case Step.GO:
                placement.move.phase = vm_pb2.MOVE_PHASE_GO
            case Step.TRANSFER:
                placement.move.phase = vm_pb2.MOVE_PHASE_TRANSFER
            case Step.CANCEL:
                placement.move.is_cancelled = True
            case Step.SWITCH:
                placement.host_id, placement.epoch = placement.move.target_host_id, placement.move.epoch
                placement.ClearField("move")
            case Step.ABORT:
                placement.ClearField("move")
            case Step.NOTHING:
                pass

    def settle(self, rounds: int = 40) -> None:
        """Everybody is heard, and whatever is begun ends well."""
        for host_id, node in self.nodes.items():
            if not node.is_connected:
                self.connect(host_id)
        for _ in range(rounds):
            for host_id, node in self.nodes.items():
                self.answer(host_id)
                for vm_id in list(node.under_way):
                    node.finish(vm_id, self.end_of(node, node.under_way[vm_id]))
                node.agent.look()
                node.timers.advance(70)
            self.step()
            self.publish()

    def end_of(self, node: Node, work: Work) -> Outcome:
        """How a deed ends that is let through."""
        if work.deed is Deed.MIGRATE:
            node.take_effect(work)
        return node.outcome(work)


class _Index:
    """As much of the api's index as a judgement asks for."""

    def __init__(self, record: VmRecord) -> None:
        self._record = record
        self.hosts: Any = HostIndex()

    @property
    def vms(self) -> Any:
        """The one VM."""
        return self

    def get(self, _vm_id: int) -> VmRecord:
        """It."""
        return self._record


__all__ = ["FAILED", "FETCHED", "HOSTS", "OFF", "RUN", "SUSPENDED", "VM", "Cloud", "Node", "Power"]
