"""Nodes: joining, streams that come and go, and whether a host is heard."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from moln.compute.v1 import host_pb2, host_service_pb2, vm_pb2
from moln.node.v1 import node_service_pb2 as node_pb
from moln.operations.v1 import operations_service_pb2
from services.api.nodes import gateway
from services.common.store import Txn, key
from tests.integration.api.agent import Agent, join
from tests.integration.api.asking import becomes, request, state_is
from tests.integration.api.conftest import Nodes, Start
from tests.integration.api.running import Client, Clients, Running, refused
from tests.integration.api.world import World
from tests.support.eventually import eventually

P, S = vm_pb2.VmPhase, vm_pb2.VmState


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


# Streams


async def test_an_agent_that_falls_silent_is_hung_up_on(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway, "SILENT_S", 0.3)
    async with await nodes.agent() as agent:
        await eventually(lambda: agent.has_ended)


async def test_a_deleted_hosts_stream_ends(admin: Client, nodes: Nodes) -> None:
    async with await nodes.agent() as agent:
        await agent.sync()
        await admin.hosts.DeleteHost(host_service_pb2.DeleteHostRequest(id=1))
        await eventually(lambda: agent.has_ended)


async def test_a_host_that_dials_another_api_leaves_the_first(
    start: Start, api: Running, nodes: Nodes, admin: Client
) -> None:
    hello = await nodes.hello("node-1")
    async with nodes.again(hello) as first, start("second") as second:
        await first.sync()
        async with Agent(second.nodes, hello) as moved:
            await moved.sync()
            await eventually(lambda: first.has_ended)
            await eventually(lambda: state_is(admin, 1, host_pb2.HOST_STATE_UP))
            assert not moved.has_ended


async def test_a_record_of_a_stream_that_was_lost_is_written_again(nodes: Nodes, world: World) -> None:
    async with await nodes.agent() as agent:
        await agent.sync()
        await world.store.commit(Txn().delete(key("hostconn", 1)))
        await eventually(lambda: world.value("hostconn", 1) is not None and world.value("hostconn", 1).is_synced)
    await eventually(lambda: world.value("hostconn", 1) is None)


async def test_what_is_nobodys_is_told_to_administrators(admin: Client, clients: Clients, nodes: Nodes) -> None:
    anna = await clients.user("anna")
    async with await nodes.agent() as agent:
        await agent.sync()
        await agent.send(hosts=[node_pb.HostReport(host_id=1, orphans=["vm 9 (uid)"])])
        status = operations_service_pb2.CloudStatus()

        async def is_told() -> bool:
            status.CopyFrom(await admin.operations.GetStatus(operations_service_pb2.GetStatusRequest()))
            found = [each for each in status.problems if each.subject == "host node-1"]
            return bool(found) and "vm 9 (uid)" in found[0].message and bool(found[0].remedy)

        await eventually(is_told)
        assert {each.subject for each in status.problems if each.message == "no process leads"} == {
            "scheduler", "imagesvc", "netsvc",
        }  # fmt: skip
        hers = await anna.operations.GetStatus(operations_service_pb2.GetStatusRequest())
        assert not hers.problems and not hers.processes and hers.hosts


# Liveness


async def test_a_silent_hosts_vms_are_unknown_until_it_is_back(
    quickly_silent: None, admin: Client, nodes: Nodes, world: World
) -> None:
    hello = await nodes.hello("node-1")
    async with nodes.again(hello) as agent:
        await agent.sync()
        vm = await admin.vms.CreateVm(request())
        await world.place(vm.id, 1)
        await agent.start(await agent.order(vm.id))
        await becomes(admin, vm.id, S.VM_STATE_RUNNING)
        with refused("STATE_FORBIDS"):
            await admin.hosts.FenceHost(host_service_pb2.FenceHostRequest(id=1, is_confirmed=True))
    lost = await becomes(admin, vm.id, S.VM_STATE_UNKNOWN)
    assert (lost.view.reason, lost.view.host) == ("HOST_SILENT", "node-1")
    assert await state_is(admin, 1, host_pb2.HOST_STATE_SILENT)
    status = await admin.operations.GetStatus(operations_service_pb2.GetStatusRequest())
    assert "HOST_SILENT" in {each.reason for each in status.problems}
    async with nodes.again(hello) as agent:
        await agent.sync()
        await becomes(admin, vm.id, S.VM_STATE_RUNNING)


async def test_a_short_absence_is_no_loss(admin: Client, nodes: Nodes, world: World) -> None:
    hello = await nodes.hello("node-1")
    async with nodes.again(hello) as agent:
        await agent.sync()
        await eventually(lambda: state_is(admin, 1, host_pb2.HOST_STATE_UP))
    async with nodes.again(hello) as agent:
        await agent.sync()
        events = await admin.operations.ListEvents(operations_service_pb2.ListEventsRequest(filter="kind=host"))
        assert "SILENT" not in {event.to for event in events.events}


async def test_a_fenced_host_starts_nothing_until_it_is_back(
    quickly_silent: None, admin: Client, nodes: Nodes, world: World
) -> None:
    hello = await nodes.hello("node-1")
    async with nodes.again(hello) as agent:
        await agent.sync()
        await eventually(lambda: state_is(admin, 1, host_pb2.HOST_STATE_UP))
    await eventually(lambda: state_is(admin, 1, host_pb2.HOST_STATE_SILENT))
    with refused("SCRIPT_MISSING", words="moln host fence node-1 --confirmed"):
        await admin.hosts.FenceHost(host_service_pb2.FenceHostRequest(id=1))
    fenced = await admin.hosts.FenceHost(host_service_pb2.FenceHostRequest(id=1, is_confirmed=True))
    assert (fenced.view.state, fenced.liveness.proof) == (host_pb2.HOST_STATE_FENCED, "confirmed")
    vm = await admin.vms.CreateVm(request())
    await world.place(vm.id, 1)
    assert (await becomes(admin, vm.id, S.VM_STATE_UNKNOWN)).view.reason == "HOST_FENCED"
    async with nodes.again(hello) as agent:
        claim = node_pb.VmReport(vm_id=vm.id, is_claim=True)
        claim.status.uid, claim.status.host_id, claim.status.epoch = vm.uid, 1, 1
        assert await agent.tell(claim) == "HOST_FENCED"
        await agent.sync()
        await eventually(lambda: state_is(admin, 1, host_pb2.HOST_STATE_UP))
        await agent.start(await agent.order(vm.id))
