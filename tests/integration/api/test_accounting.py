"""The history of a VM and accounting records, from a life that really took place, also after it."""

from __future__ import annotations

import time
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from moln.compute.v1 import host_pb2, vm_pb2, vm_service_pb2
from moln.etcd.v1 import etcd_pb2
from moln.operations.v1 import operations_service_pb2 as pb
from services.common.store import Txn, key
from tests.integration.api.agent import Agent
from tests.integration.api.asking import becomes, request
from tests.integration.api.conftest import Nodes, Start
from tests.integration.api.running import Client, Clients, refused
from tests.integration.api.world import World
from tests.support.etcd import EtcdServer
from tests.support.eventually import eventually

P, S = vm_pb2.VmPhase, vm_pb2.VmState


async def run_a_life(client: Client, agent: Agent, world: World) -> int:
    """Created, running, terminated, gone."""
    vm_id = await start(client, agent, world)
    await client.vms.TerminateVm(vm_service_pb2.TerminateVmRequest(id=vm_id))
    erase = await agent.order(vm_id, lambda each: each.is_erase)
    await agent.gone(erase)
    await world.release(vm_id)

    async def is_told() -> bool:
        return (await history(client, vm_id)).transitions[-1].to == ""

    await eventually(is_told, what="its end is history")
    return vm_id


async def start(client: Client, agent: Agent, world: World) -> int:
    vm = await client.vms.CreateVm(request())
    await world.place(vm.id, 1)
    await agent.start(await agent.order(vm.id))
    await becomes(client, vm.id, S.VM_STATE_RUNNING)
    return int(vm.id)


async def history(client: Client, vm_id: int) -> pb.VmHistory:
    answer: pb.VmHistory = await client.operations.GetVmHistory(pb.GetVmHistoryRequest(id=vm_id))
    return answer


async def records(client: Client, **asked: Any) -> dict[int, pb.AccountingRecord]:
    answer = await client.operations.ListAccountingRecords(pb.ListAccountingRecordsRequest(**asked))
    return {record.vm_id: record for record in answer.records}


async def test_a_vm_that_is_gone_still_tells_its_hosts_with_times_and_causes(
    admin: Client, nodes: Nodes, world: World
) -> None:
    async with await nodes.agent() as agent:
        await agent.sync()
        vm_id = await run_a_life(admin, agent, world)
        found = await history(admin, vm_id)
        (stay,) = found.stays
        assert (stay.host_id, stay.host, stay.start_cause.actor) == (1, "node-1", "<scheduler>")
        assert stay.end_time.ToNanoseconds() > stay.start_time.ToNanoseconds()
        assert 0 < stay.running_seconds < 60
        assert (found.is_cut, list(found.gaps)) == (False, [])
        states = [event.to for event in found.transitions]
        assert states[0] == "PENDING"
        assert "RUNNING" in states
        assert states[-1] == ""


async def test_what_ran_is_charged_to_its_owner_by_what_it_held(
    admin: Client, clients: Clients, nodes: Nodes, world: World
) -> None:
    anna = await clients.user("anna")
    async with await nodes.agent() as agent:
        await agent.sync()
        gone, living, other = [
            await run_a_life(anna, agent, world), await start(anna, agent, world), await start(admin, agent, world)
        ]  # fmt: skip
        hers = await records(anna)
        assert set(hers) == {gone, living}
        assert {record.owner for record in hers.values()} == {"anna"}
        for record in hers.values():
            assert record.running_seconds > 0
            assert record.existing_seconds >= record.running_seconds
            assert abs(record.cpu_core_hours - record.running_seconds / 3600) < 1e-9
            assert abs(record.memory_mib_hours - 128 * record.running_seconds / 3600) < 1e-9
            assert not record.is_size_unknown
        assert set(await records(admin)) == {gone, living, other}
        assert set(await records(admin, owner_id=anna.user_id)) == {gone, living}
        with refused("ROLE_MISSING"):
            await records(anna, owner_id=1)
        with refused("VM_NOT_FOUND"):
            await history(anna, other)


async def test_a_span_counts_what_lies_within_it(admin: Client, nodes: Nodes, world: World) -> None:
    async with await nodes.agent() as agent:
        await agent.sync()
        vm_id = await start(admin, agent, world)
        soon = Timestamp(seconds=int(time.time()) + 3600)
        whole = (await records(admin, end_time=soon))[vm_id]
        assert 0 < whole.running_seconds < 60
        past = Timestamp(seconds=int(time.time()) - 7200)
        assert await records(admin, start_time=past, end_time=Timestamp(seconds=past.seconds + 60)) == {}
        with refused("FIELD_INVALID", "end_time"):
            await records(admin, start_time=soon, end_time=past)


async def test_what_happened_while_the_api_was_away_has_the_time_of_its_happening(
    start: Start, etcd: EtcdServer
) -> None:
    """The times of what is replayed are those of the ticks in the store, not that of the replay."""
    world = await World.open(etcd.settings)
    try:
        async with start() as api:
            made = Clients(api)
            vm = await made.admin().vms.CreateVm(request())
            await made.close()
        await world.pend(vm.id, "NO_HOST_FITS", "none")
        pended = time.time()
        await world.store.process.tick()
        async with start() as api:
            made = Clients(api)
            event = (await history(made.admin(), vm.id)).transitions[-1]
            await made.close()
            assert event.reason == "NO_HOST_FITS"
            assert abs(event.time.ToNanoseconds() / 1e9 - pended) < 3
    finally:
        await world.store.close()


async def test_an_unknown_vm_has_no_history(admin: Client) -> None:
    with refused("VM_NOT_FOUND", words="VM 77"):
        await history(admin, 77)


async def test_a_gap_in_the_history_is_shown_and_charged_for_nothing(start: Start, etcd: EtcdServer) -> None:
    """Nobody can say what the VM did while revisions were forgotten; after it, it is what it is."""
    async with start() as api:
        clients = Clients(api)
        vm = await clients.admin().vms.CreateVm(request())
        await history(clients.admin(), vm.id)
        await clients.close()
    world = await World.open(etcd.settings)
    try:
        await world.place(vm.id, 1)
        revision = await world.store.commit(Txn().put(key("cluster", 9, "spec"), host_pb2.HostSpec()))
        await world.store.client.compact(etcd_pb2.CompactionRequest(revision=revision).SerializeToString())
        async with start() as api:
            clients = Clients(api)
            admin = clients.admin()
            answer = await admin.operations.ListAccountingRecords(pb.ListAccountingRecordsRequest())
            (record,) = answer.records
            assert [gap.reason for gap in answer.gaps] == ["HISTORY_GAP"]
            assert 0 < record.unknown_seconds <= record.existing_seconds
            assert record.cpu_core_hours == 0
            assert [gap.reason for gap in (await history(admin, vm.id)).gaps] == ["HISTORY_GAP"]
            await clients.close()
    finally:
        await world.store.close()
