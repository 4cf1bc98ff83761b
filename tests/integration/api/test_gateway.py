"""The node gateway over its real protocol: joining, orders, claims, reports, and what becomes of streams."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from moln.compute.v1 import host_pb2, host_service_pb2, template_pb2, vm_pb2, vm_service_pb2
from moln.node.v1 import node_service_pb2 as node_pb
from tests.integration.api.agent import Agent, join
from tests.integration.api.conftest import Nodes
from tests.integration.api.running import Client, Running, refused
from tests.integration.api.world import World
from tests.support.eventually import eventually

P, S = vm_pb2.VmPhase, vm_pb2.VmState


def request(**template: object) -> vm_service_pb2.CreateVmRequest:
    """A VM of 64 MiB."""
    shape = template_pb2.VmTemplate(memory_mib=64)
    shape.MergeFrom(template_pb2.VmTemplate(**template))  # type: ignore[arg-type]
    return vm_service_pb2.CreateVmRequest(template=shape)


async def view(client: Client, vm_id: int) -> vm_pb2.VmView:
    """The view of a VM as a client sees it."""
    vm: vm_pb2.Vm = await client.vms.GetVm(vm_service_pb2.GetVmRequest(id=vm_id))
    return vm.view


async def becomes(client: Client, vm_id: int, state: vm_pb2.VmState) -> vm_pb2.Vm:
    """Waits for a state."""
    vm: vm_pb2.Vm = await client.vms.WaitVm(vm_service_pb2.WaitVmRequest(id=vm_id, state=state))
    return vm


# Joining


async def test_a_join_token_is_good_once(api: Running, admin: Client) -> None:
    created = await admin.hosts.CreateHost(host_service_pb2.CreateHostRequest(name="node-1"))
    joined = await join(api.nodes, created.join_token)
    assert (joined.host_id, joined.name, joined.host_uid) == (created.host.id, "node-1", created.host.spec.uid)
    with refused("JOIN_TOKEN_INVALID", words="moln host token"):
        await join(api.nodes, created.join_token)


async def test_of_two_who_join_with_one_token_one_gets_in(api: Running, admin: Client) -> None:
    created = await admin.hosts.CreateHost(host_service_pb2.CreateHostRequest(name="node-1"))
    answers = await asyncio.gather(*[join(api.nodes, created.join_token) for _ in range(2)], return_exceptions=True)
    assert sorted(isinstance(answer, grpc.aio.AioRpcError) for answer in answers) == [False, True]


async def test_a_new_token_ends_the_former_one_and_its_use_the_former_secret(
    api: Running, admin: Client, nodes: Nodes
) -> None:
    created = await admin.hosts.CreateHost(host_service_pb2.CreateHostRequest(name="node-1"))
    renewed = await admin.hosts.CreateJoinToken(host_service_pb2.CreateJoinTokenRequest(id=created.host.id))
    with refused("JOIN_TOKEN_INVALID"):
        await join(api.nodes, created.join_token)
    first = await join(api.nodes, renewed.join_token)
    hello = node_pb.HostHello(host_id=first.host_id, secret=first.secret, boot_id="1")
    async with nodes.again(hello) as agent:
        again = await admin.hosts.CreateJoinToken(host_service_pb2.CreateJoinTokenRequest(id=created.host.id))
        await agent.sync()
        await join(api.nodes, again.join_token)
        await eventually(lambda: agent.has_ended, what="the stream of the former secret ends")
    async with nodes.again(hello) as agent:
        assert list(agent.welcome.refused_hosts) == [first.host_id]


async def test_a_wrong_secret_is_refused_beside_a_right_one(nodes: Nodes) -> None:
    good, bad = await nodes.hello("node-1"), await nodes.hello("node-2")
    bad.secret = good.secret
    async with nodes.again(good, bad) as agent:
        assert list(agent.welcome.refused_hosts) == [bad.host_id]
        assert agent.welcome.heartbeat_interval_s > 0
        assert agent.welcome.cloud_uid
        await agent.sync(good.host_id)


async def test_a_stream_none_of_whose_hosts_is_let_in_ends(nodes: Nodes) -> None:
    bad = await nodes.hello("node-1")
    bad.secret = "molnnode_nonsense"
    async with nodes.again(bad) as agent:
        assert list(agent.welcome.refused_hosts) == [bad.host_id]
        await eventually(lambda: agent.has_ended)


async def test_a_stream_without_a_hello_is_refused(api: Running) -> None:
    agent = Agent(api.nodes)
    await agent.send(heartbeat=1)
    assert await agent._stream.code() == grpc.StatusCode.INVALID_ARGUMENT
    await agent._channel.close()


# A host's life


async def test_a_host_is_up_once_its_agent_has_reported_its_guests(admin: Client, nodes: Nodes) -> None:
    async with await nodes.agent() as agent:
        host_id = agent._hello.hosts[0].host_id

        async def state() -> host_pb2.HostState:
            host: host_pb2.Host = await admin.hosts.GetHost(host_service_pb2.GetHostRequest(id=host_id))
            return host.view.state

        assert await state() == host_pb2.HOST_STATE_NEW
        await agent.sync(cpus=4, memory_mib=1000)

        async def is_up() -> bool:
            return await state() == host_pb2.HOST_STATE_UP

        await eventually(is_up)
        host = await admin.hosts.GetHost(host_service_pb2.GetHostRequest(id=host_id))
        assert (host.view.cpu_percent_total, host.view.memory_mib_total) == (400, 1000)
        assert host.inventory.driver == "test"


async def test_a_second_stream_of_a_host_ends_the_first(nodes: Nodes) -> None:
    hello = await nodes.hello("node-1")
    async with nodes.again(hello) as first, nodes.again(hello) as second:
        await eventually(lambda: first.has_ended)
        await second.sync()
        assert not second.has_ended


async def test_a_stream_that_also_carries_other_hosts_goes_on(nodes: Nodes) -> None:
    hellos = [await nodes.hello("node-1"), await nodes.hello("node-2")]
    async with nodes.again(*hellos) as first:
        await first.sync()
        async with nodes.again(hellos[0]) as second:
            await second.sync()
            await first.sync(hellos[1].host_id)
            assert not first.has_ended


async def test_a_heartbeat_is_acknowledged_once_the_store_has_been_heard(nodes: Nodes) -> None:
    async with await nodes.agent() as agent:
        await agent.send(heartbeat=1)
        await agent.send(heartbeat=2)
        await eventually(lambda: agent.heartbeat_ack == 2)


# A VM's life


async def test_a_vm_goes_all_the_way_and_back_to_nothing(admin: Client, nodes: Nodes, world: World) -> None:
    async with await nodes.agent() as agent:
        await agent.sync()
        vm = await admin.vms.CreateVm(request())
        assert vm.view.state == S.VM_STATE_PENDING
        await world.place(vm.id, 1)
        order = await agent.order(vm.id)
        assert (order.uid, order.epoch, order.is_erase) == (vm.uid, 1, False)
        assert order.spec.template.memory_mib == 64
        await agent.start(order)
        assert (await becomes(admin, vm.id, S.VM_STATE_RUNNING)).view.host == "node-1"

        await admin.vms.PoweroffVm(vm_service_pb2.PoweroffVmRequest(id=vm.id))
        off = await agent.order(vm.id, lambda each: each.intent.desired == vm_pb2.DESIRED_STATE_POWERED_OFF)
        assert (await view(admin, vm.id)).state == S.VM_STATE_POWERING_OFF
        assert await agent.report(off, P.VM_PHASE_POWERED_OFF) == ""
        await becomes(admin, vm.id, S.VM_STATE_POWERED_OFF)

        await admin.vms.ResumeVm(vm_service_pb2.ResumeVmRequest(id=vm.id))
        on = await agent.order(vm.id, lambda each: each.intent.generation == 3)
        await agent.start(on)
        await becomes(admin, vm.id, S.VM_STATE_RUNNING)

        await admin.vms.TerminateVm(vm_service_pb2.TerminateVmRequest(id=vm.id))
        erase = await agent.order(vm.id, lambda each: each.is_erase)
        assert erase.uid == vm.uid
        assert (await view(admin, vm.id)).state == S.VM_STATE_TERMINATING
        assert await agent.gone(erase) == ""
        assert await agent.gone(erase) == ""  # said again, it changes nothing
        await world.release(vm.id)
        with pytest.raises(grpc.aio.AioRpcError):
            await becomes(admin, vm.id, S.VM_STATE_RUNNING)
        await eventually(lambda: not world.store.cache.object("vm", vm.id), what="nothing is left of the VM")
        assert world.value("usage", 1).amounts.vms == 0
