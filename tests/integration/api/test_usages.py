"""Samples up a node's stream, and what users are told of them: by this process, and by one that has to ask another."""

from __future__ import annotations

import time
from typing import Any

import pytest

from moln.compute.v1 import host_service_pb2, placement_pb2, vm_service_pb2
from moln.node.v1 import node_service_pb2 as node_pb
from moln.operations.v1 import monitoring_service_pb2 as pb
from moln.operations.v1 import monitoring_service_pb2_grpc
from tests.integration.api.agent import Agent
from tests.integration.api.asking import request
from tests.integration.api.conftest import Nodes, Start
from tests.integration.api.running import Client, Clients, Running, refused
from tests.integration.api.world import World
from tests.support.eventually import eventually

MIB = 1 << 20


def stub(client: Client) -> Any:
    return monitoring_service_pb2_grpc.MonitoringServiceStub(client.channel)


async def a_vm(client: Client, world: World, host_id: int = 1) -> int:
    vm = await client.vms.CreateVm(request())
    await world.place(vm.id, host_id)
    await world.settle()
    return int(vm.id)


async def sample(agent: Agent, seconds_ago: float, cpu_s: float, *vm_ids: int, host_id: int = 1) -> None:
    """A sample of some time ago; each guest took `cpu_s` and read as many MiB until then."""
    vms = [
        node_pb.VmSample(
            vm_id=vm_id, cpu_nanoseconds=int(cpu_s * 1e9), vcpus=2, memory_bytes=vm_id * MIB,
            disk_read_bytes=int(cpu_s * MIB),
        ) for vm_id in vm_ids
    ]  # fmt: skip
    told = node_pb.HostSamples(
        host_id=host_id, cpus=4, cpu_busy_seconds=cpu_s * 2, memory_used_bytes=3 * MIB, memory_total_bytes=8 * MIB,
        vms=vms,
    )  # fmt: skip
    told.time.FromMilliseconds(int((time.time() - seconds_ago) * 1000))
    await agent.send(samples=[told])


async def usages(client: Client, **asked: Any) -> dict[int, pb.VmUsage]:
    answer = await stub(client).ListVmUsages(pb.ListVmUsagesRequest(**asked))
    return {vm.id: vm for vm in answer.vms}


async def has_usage(client: Client, vm_id: int) -> bool:
    found = (await usages(client)).get(vm_id)
    return found is not None and found.HasField("usage")


async def test_two_samples_are_rates_of_the_vm_and_of_its_host(admin: Client, nodes: Nodes, world: World) -> None:
    async with await nodes.agent() as agent:
        await agent.sync()
        vm_id = await a_vm(admin, world)
        await sample(agent, 10, 100, vm_id)
        await sample(agent, 0, 105, vm_id)
        await eventually(lambda: has_usage(admin, vm_id), what="there is a rate")
        vm = (await usages(admin))[vm_id]
        assert vm.usage.cpu_percent == pytest.approx(50, rel=0.02)
        assert vm.usage.disk_read_bytes_per_s == pytest.approx(MIB / 2, rel=0.02)
        assert (vm.usage.memory_bytes, vm.vcpus, vm.host, vm.memory_total_bytes) == (
            vm_id * MIB,
            2,
            "node-1",
            128 * MIB,
        )
        (host,) = (await stub(admin).ListHostUsages(pb.ListHostUsagesRequest())).hosts
        assert host.usage.cpu_percent == pytest.approx(100, rel=0.02)
        assert host.usage.disk_read_bytes_per_s == pytest.approx(vm.usage.disk_read_bytes_per_s, rel=0.02)
        assert (host.cpus, host.running_vms, host.memory_total_bytes) == (4, 1, 8 * MIB)
        history = await stub(admin).GetVmUsageHistory(pb.GetVmUsageHistoryRequest(id=vm_id))
        assert history.step.seconds == 60
        assert history.points[-1].usage.cpu_percent == pytest.approx(50, rel=0.1)


async def test_a_node_is_not_believed_about_vms_of_others(admin: Client, nodes: Nodes, world: World) -> None:
    async with await nodes.agent("node-1") as one, await nodes.agent("node-2") as two:
        await one.sync()
        await two.sync()
        mine, other = await a_vm(admin, world, 1), await a_vm(admin, world, 2)
        await sample(one, 10, 1, mine, other, host_id=1)
        await sample(one, 5, 1, other, host_id=2)  # nor may it speak for another host
        await sample(one, 0, 2, mine, other, host_id=1)
        await eventually(lambda: has_usage(admin, mine), what="its own VM is known")
        assert other not in await usages(admin)


async def test_users_see_their_own_vms_and_no_hosts(
    admin: Client, clients: Clients, nodes: Nodes, world: World
) -> None:
    anna = await clients.user("anna")
    async with await nodes.agent() as agent:
        await agent.sync()
        hers, other = await a_vm(anna, world), await a_vm(admin, world)
        await sample(agent, 10, 1, hers, other)
        await sample(agent, 0, 2, hers, other)
        await eventually(lambda: has_usage(anna, hers), what="hers is known")
        assert list(await usages(anna)) == [hers]
        async for top in stub(anna).WatchTop(pb.WatchTopRequest()):
            assert ([vm.id for vm in top.vms], list(top.hosts)) == ([hers], [])
            break
        with refused("ROLE_MISSING"):
            await stub(anna).ListHostUsages(pb.ListHostUsagesRequest())
        with refused("VM_NOT_FOUND"):
            await stub(anna).GetVmUsageHistory(pb.GetVmUsageHistoryRequest(id=other))


async def test_vms_come_in_the_order_that_is_asked_for_and_no_more_than_asked(
    admin: Client, nodes: Nodes, world: World
) -> None:
    async with await nodes.agent() as agent:
        await agent.sync()
        vms = [await a_vm(admin, world) for _ in range(3)]
        await sample(agent, 10, 1, *vms)
        await sample(agent, 0, 2, *vms)
        await eventually(lambda: has_usage(admin, vms[2]), what="there are rates")
        assert list(await usages(admin, order=pb.USAGE_ORDER_MEMORY)) == vms[::-1]
        assert list(await usages(admin, order=pb.USAGE_ORDER_ID, page_size=2)) == vms[:2]
        assert await usages(admin, host_id=99) == {}
        with refused("FIELD_INVALID", "order"):
            await usages(admin, order=77)
        with refused("FIELD_INVALID", "interval"):
            watching = pb.WatchTopRequest()
            watching.interval.FromMilliseconds(10)
            await anext(aiter(stub(admin).WatchTop(watching)))


async def test_an_api_that_holds_no_host_asks_the_one_that_does(
    admin: Client, api: Running, nodes: Nodes, world: World, start: Start
) -> None:
    async with start("second") as second, await nodes.agent() as agent:
        await agent.sync()
        vm_id = await a_vm(admin, world)
        await sample(agent, 10, 1, vm_id)
        await sample(agent, 0, 2, vm_id)
        elsewhere = Client(second.address, f"Bearer {api.admin_token}")
        try:
            await eventually(lambda: has_usage(elsewhere, vm_id), what="the other api knows")
            answer = await stub(elsewhere).ListHostUsages(pb.ListHostUsagesRequest())
            assert [(host.name, host.running_vms) for host in answer.hosts] == [("node-1", 1)]
            assert list(answer.missing) == []
            history = await stub(elsewhere).GetVmUsageHistory(pb.GetVmUsageHistoryRequest(id=vm_id))
            assert len(history.points) >= 1
            assert await usages(elsewhere, is_local=True) == {}
        finally:
            await elsewhere.channel.close()


async def test_what_is_off_or_gone_is_not_shown_as_running(admin: Client, nodes: Nodes, world: World) -> None:
    async with await nodes.agent() as agent:
        await agent.sync()
        vm_id = await a_vm(admin, world)
        order = await agent.order(vm_id)
        await sample(agent, 10, 1, vm_id)
        await sample(agent, 0, 2, vm_id)
        await eventually(lambda: has_usage(admin, vm_id), what="it is known")
        await admin.vms.TerminateVm(vm_service_pb2.TerminateVmRequest(id=vm_id))
        await agent.gone(order)
        await world.release(vm_id)

        async def is_gone() -> bool:
            return vm_id not in await usages(admin)

        await eventually(is_gone, what="it is no longer shown")


async def test_the_load_of_a_host_is_written_for_the_scheduler_and_goes_with_the_host(
    admin: Client, nodes: Nodes, world: World
) -> None:
    def load() -> placement_pb2.HostLoad | None:
        entry = world.store.cache.get("hostload", 1)
        return entry.value if entry is not None else None

    async with await nodes.agent() as agent:
        await agent.sync()
        await sample(agent, 10, 100)
        await sample(agent, 0, 105)
        await eventually(load, what="the load is written", within=30)
        found = load()
        assert found is not None
        assert found.cpu_percent == pytest.approx(25, abs=1)
        assert found.memory_percent == 37.5
    await admin.hosts.DeleteHost(host_service_pb2.DeleteHostRequest(id=1))
    await eventually(lambda: load() is None, what="the load is gone")
