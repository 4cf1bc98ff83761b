"""The ledger: whatever happens in whatever order, what it holds is what the store and the writes on their way say."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from moln.compute.v1 import host_pb2, template_pb2, vm_pb2
from services.scheduler.core.amounts import KIB_PER_MIB, Amounts
from services.scheduler.core.hosts import HostFacts, facts
from services.scheduler.core.ledger import HostRevisions, Ledger
from services.scheduler.core.plan import plan
from services.scheduler.core.queues import VmRecord

RUNNING, OFF, HELD, TERMINATED = (
    vm_pb2.DESIRED_STATE_RUNNING, vm_pb2.DESIRED_STATE_POWERED_OFF, vm_pb2.DESIRED_STATE_HELD,
    vm_pb2.DESIRED_STATE_TERMINATED,
)  # fmt: skip


@dataclass
class Stored:
    """A part in the imagined store."""

    value: Any
    mod_revision: int


@dataclass
class ImaginedStore:
    """Parts of VMs by key, with revisions."""

    vms: dict[str, dict[str, Stored]] = field(default_factory=dict)
    revision: int = 0

    def put(self, key: str, part: str, value: Any) -> None:
        self.revision += 1
        self.vms.setdefault(key, {})[part] = Stored(value, self.revision)

    def parts(self, key: str) -> dict[str, Stored]:
        return self.vms.get(key, {})

    def create(self, key: str, memory_mib: int = 1, **template: Any) -> None:
        spec = vm_pb2.VmSpec(uid=key)
        spec.template.CopyFrom(template_pb2.VmTemplate(vcpus=1, cpu_percent=100, memory_mib=memory_mib, **template))
        self.put(key, "spec", spec)
        self.desire(key, RUNNING)

    def desire(self, key: str, desired: vm_pb2.DesiredState) -> None:
        self.put(key, "intent", vm_pb2.VmIntent(uid=key, desired=desired))

    def place(self, key: str, host_id: int, epoch: int, memory_mib: int = 1, **more: Any) -> None:
        granted = vm_pb2.Granted(vcpus=1, cpu_percent=100, memory_mib=memory_mib, **more)
        self.put(key, "placement", vm_pb2.VmPlacement(uid=key, host_id=host_id, epoch=epoch, granted=granted))


def host(host_id: int, *, cpu: int = 300, is_fenced: bool = False) -> tuple[HostFacts, HostRevisions]:
    found = HostFacts(
        host_id, f"h{host_id}", is_connected=not is_fenced, is_fenced=is_fenced,
        total=Amounts(cpu, 1000 * KIB_PER_MIB, 1000),
    )  # fmt: skip
    return found, HostRevisions(1, 1)


def place_all(ledger: Ledger) -> list[VmRecord]:
    queues = ledger.queues()
    return ledger.bind(queues, plan(ledger.columns, [queue.demand for queue in queues]))


KEYS = [f"{number:010d}" for number in range(1, 7)]
keys = st.sampled_from(KEYS)


class LedgerMachine(RuleBasedStateMachine):
    """The ledger beside a store in which users, nodes and our own writes change things."""

    def __init__(self) -> None:
        super().__init__()
        self.store = ImaginedStore()
        self.ledger = Ledger()
        self.ledger.update_hosts([host(1), host(2)])
        self.fenced: set[int] = set()
        self.on_their_way: list[VmRecord] = []

    def look(self, key: str) -> None:
        record = self.ledger.vms.get(key)
        if record is None or not record.is_busy:
            self.ledger.update_vm(key, self.store.parts(key))

    def end(self, record: VmRecord) -> None:
        self.ledger.settle(record)
        self.ledger.update_vm(record.key, self.store.parts(record.key))

    @rule(key=keys, memory=st.sampled_from([1, 1, 2]), restart=st.booleans())
    def create(self, key: str, memory: int, restart: bool) -> None:
        if key not in self.store.vms:
            loss = template_pb2.ON_HOST_LOSS_RESTART if restart else template_pb2.ON_HOST_LOSS_LEAVE
            self.store.create(key, memory, on_host_loss=loss)
            self.look(key)

    @rule(key=keys, desired=st.sampled_from([RUNNING, OFF, HELD, TERMINATED]))
    def desire(self, key: str, desired: vm_pb2.DesiredState) -> None:
        intent = self.store.parts(key).get("intent")
        if intent is not None and intent.value.desired != TERMINATED:
            self.store.desire(key, desired)
            self.look(key)

    @rule()
    def plan_and_bind(self) -> None:
        self.on_their_way += place_all(self.ledger)

    @precondition(lambda self: self.on_their_way)
    @rule(data=st.data())
    def a_binding_takes_effect(self, data: st.DataObject) -> None:
        record = self.on_their_way.pop(data.draw(st.integers(0, len(self.on_their_way) - 1)))
        parts = self.store.parts(record.key)
        intent, placement = parts.get("intent"), parts.get("placement")
        fits = intent is not None and intent.mod_revision == record.intent_revision
        seen = placement.mod_revision if placement is not None else 0
        if fits and seen == record.placement_revision and record.bound_for not in self.fenced:
            memory = parts["spec"].value.template.memory_mib
            self.store.place(record.key, record.bound_for, record.epoch + 1, memory)
        else:
            self.ledger.unbind(record, parts)
        self.end(record)

    @precondition(lambda self: self.on_their_way)
    @rule()
    def a_binding_fails_for_a_while(self) -> None:
        self.ledger.unbind(self.on_their_way[0], self.store.parts(self.on_their_way[0].key))

    @precondition(lambda self: self.on_their_way)
    @rule()
    def a_failed_binding_ends(self) -> None:
        record = self.on_their_way.pop(0)
        self.ledger.unbind(record, self.store.parts(record.key))
        self.end(record)

    @rule(key=keys)
    def a_node_claims(self, key: str) -> None:
        placement = self.store.parts(key).get("placement")
        if placement is not None and placement.value.host_id not in self.fenced | {0}:
            self.store.put(key, f"status/{placement.value.host_id:010d}", vm_pb2.VmStatus())
            self.look(key)

    @rule(key=keys)
    def nodes_erase(self, key: str) -> None:
        for part in [part for part in self.store.parts(key) if part.startswith("status/")]:
            del self.store.vms[key][part]
        self.look(key)

    @rule()
    def release_what_is_doomed(self) -> None:
        for record in list(self.ledger.doomed.values()):
            self.ledger.hold_still(record)
            del self.store.vms[record.key]["placement"]
            self.end(record)
            del self.store.vms[record.key]
            self.look(record.key)

    @rule(host_id=st.integers(1, 2), is_fenced=st.booleans())
    def a_host_is_lost_or_found(self, host_id: int, is_fenced: bool) -> None:
        (self.fenced.add if is_fenced else self.fenced.discard)(host_id)
        for key in self.ledger.update_hosts([host(host_id, is_fenced=is_fenced)]):
            self.look(key)

    @invariant()
    def what_is_held_is_what_the_store_and_our_writes_say(self) -> None:
        wanted: dict[int, list[int]] = {1: [0, 0, 0], 2: [0, 0, 0]}
        bound = {record.key: record for record in self.on_their_way if record.bound_for}
        for key, parts in self.store.vms.items():
            if key in bound:
                host_id, memory = bound[key].bound_for, parts["spec"].value.template.memory_mib
            elif "placement" in parts:
                host_id, memory = parts["placement"].value.host_id, parts["placement"].value.granted.memory_mib
            else:
                continue
            if host_id:
                for index, amount in enumerate((100, memory * KIB_PER_MIB, 1)):
                    wanted[host_id][index] += amount
        columns = self.ledger.columns
        for row, host_id in enumerate(columns.ids.tolist()):
            held = [int(columns.used[0][row]), int(columns.used[1][row]), int(columns.vms[row])]
            assert held == wanted[host_id]

    @invariant()
    def those_wait_that_should(self) -> None:
        waiting = {key for group in self.ledger.waiting for key in group.waiting}
        for key, parts in self.store.vms.items():
            placement = parts["placement"].value if "placement" in parts else vm_pb2.VmPlacement()
            is_lost = placement.host_id in self.fenced and (
                parts["spec"].value.template.on_host_loss == template_pb2.ON_HOST_LOSS_RESTART
            )
            statuses = {part for part in parts if part.startswith("status/")}
            own = {f"status/{placement.host_id:010d}"} if is_lost else set()
            wants = parts["intent"].value.desired == RUNNING and not statuses - own
            is_busy = any(record.key == key for record in self.on_their_way)
            assert (key in waiting) is (wants and not is_busy and (placement.host_id == 0 or is_lost))

    @invariant()
    def those_are_doomed_that_should_be(self) -> None:
        for key, parts in self.store.vms.items():
            has_status = any(part.startswith("status/") for part in parts)
            is_busy = any(record.key == key for record in self.on_their_way)
            is_doomed = parts["intent"].value.desired == TERMINATED and "placement" in parts and not has_status
            assert (key in self.ledger.doomed) is (is_doomed and not is_busy)


TestLedger = LedgerMachine.TestCase


def test_what_is_on_a_host_that_comes_later_is_counted() -> None:
    ledger, store = Ledger(), ImaginedStore()
    store.create(KEYS[0])
    store.place(KEYS[0], 1, 1)
    ledger.update_vm(KEYS[0], store.parts(KEYS[0]))
    ledger.update_hosts([host(1)])
    assert ledger.columns.used[0].tolist() == [100]


def test_a_group_that_does_not_fit_is_not_tried_again_until_something_changes() -> None:
    ledger, store = Ledger(), ImaginedStore()
    ledger.update_hosts([host(1, cpu=50)])
    store.create(KEYS[0])
    ledger.update_vm(KEYS[0], store.parts(KEYS[0]))
    assert place_all(ledger) == []
    assert ledger.queues() == []
    ledger.update_hosts([host(2)])
    assert [record.bound_for for record in place_all(ledger)] == [2]


def test_a_group_that_waits_for_what_the_plan_itself_does_is_tried_once_more() -> None:
    store, ledger = ImaginedStore(), Ledger()
    ledger.update_hosts([host(1)])
    store.create(KEYS[0], requirement="RUNNING_VMS > 0", priority=1)
    store.create(KEYS[1])
    for key in KEYS[:2]:
        ledger.update_vm(key, store.parts(key))
    assert [record.key for record in place_all(ledger)] == [KEYS[1]]
    assert [record.key for record in place_all(ledger)] == [KEYS[0]]
    assert ledger.queues() == []


def test_a_change_of_the_requirement_moves_a_waiting_vm_to_another_group() -> None:
    ledger, store = Ledger(), ImaginedStore()
    ledger.update_hosts([host(1)])
    store.create(KEYS[0], requirement="ID = 9")
    ledger.update_vm(KEYS[0], store.parts(KEYS[0]))
    assert place_all(ledger) == []
    store.create(KEYS[0], requirement="ID = 1")
    ledger.update_vm(KEYS[0], store.parts(KEYS[0]))
    assert [record.bound_for for record in place_all(ledger)] == [1]
    assert not ledger.waiting


def test_a_vm_of_another_scheduler_is_left_alone() -> None:
    ledger, store = Ledger(), ImaginedStore()
    ledger.update_hosts([host(1)])
    store.create(KEYS[0], scheduler="mine")
    ledger.update_vm(KEYS[0], store.parts(KEYS[0]))
    assert not ledger.waiting


def test_absurd_amounts_are_bounded() -> None:
    spec = host_pb2.HostSpec(name="h", cpu_overcommit_percent=2**32 - 1, reserved_memory_mib=2**63)
    inventory = host_pb2.HostInventory(cpus=2**32 - 1, memory_mib=2**64 - 1, disk_mib=2**64 - 1)
    total = facts(1, spec, inventory, None, "default").total
    assert all(0 <= amount <= 1 << 42 for amount in total)


@pytest.mark.parametrize(
    ("reserved", "percent", "memory_mib"), [(0, 0, 1000), (100, 0, 900), (0, 150, 1500), (2000, 0, 0), (100, 200, 1900)]
)
def test_what_may_be_given_out_is_overcommitted_and_reserved(reserved: int, percent: int, memory_mib: int) -> None:
    spec = host_pb2.HostSpec(name="h", memory_overcommit_percent=percent, reserved_memory_mib=reserved)
    found = facts(1, spec, host_pb2.HostInventory(cpus=2, memory_mib=1000), None, "default")
    assert found.total == Amounts(200, memory_mib * KIB_PER_MIB, 0)


def test_attributes_of_every_host_cannot_be_passed_off_by_an_agent() -> None:
    spec = host_pb2.HostSpec(name="real", labels={"disk-type": "ssd"}, cluster_id=3)
    inventory = host_pb2.HostInventory(architecture="x86_64", cpu_model="Epyc")
    inventory.attributes.update({"NAME": "fake", "free_cpu": "9", "label_gold": "1", "kernel": "6.1", "": "x"})
    found = facts(1, spec, inventory, None, "east")
    assert found.attributes == {
        "KERNEL": "6.1", "ARCH": "x86_64", "CPU_MODEL": "Epyc", "MODELNAME": "Epyc", "LABEL_DISK_TYPE": "ssd",
        "NAME": "real", "HOSTNAME": "real", "CLUSTER": "east", "CLUSTER_ID": "3",
    }  # fmt: skip


def test_a_group_that_was_served_is_tried_at_once_for_the_next_vm() -> None:
    ledger, store = Ledger(), ImaginedStore()
    ledger.update_hosts([host(1)])
    for key in KEYS[:2]:
        store.create(key)
        ledger.update_vm(key, store.parts(key))
        assert [record.key for record in place_all(ledger)] == [key]


def test_no_more_vms_are_planned_for_than_could_fit_and_those_are_the_oldest() -> None:
    ledger, store = Ledger(), ImaginedStore()
    ledger.update_hosts([host(1, cpu=200)])
    for seconds, key in zip([5, 3, 9, 1], KEYS, strict=False):
        store.create(key)
        store.parts(key)["intent"].value.create_time.seconds = seconds
        ledger.update_vm(key, store.parts(key))
    assert [len(queue.records) for queue in ledger.queues()] == [2]
    assert [record.key for record in place_all(ledger)] == [KEYS[3], KEYS[1]]
    assert ledger.queues() == []
