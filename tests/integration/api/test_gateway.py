"""The node gateway over its real protocol: joining, orders, claims, reports, and what becomes of streams."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import grpc
import pytest

from moln.compute.v1 import host_pb2, host_service_pb2, template_pb2, vm_pb2, vm_service_pb2
from moln.node.v1 import node_service_pb2 as node_pb
from moln.operations.v1 import operations_service_pb2, records_pb2
from services.api.controllers import liveness
from services.api.nodes import gateway
from services.common.rpc.tickets import verify_ticket
from services.common.store import Txn, key
from tests.integration.api.agent import Agent, join
from tests.integration.api.conftest import Nodes, Start
from tests.integration.api.running import Client, Clients, Running, refused
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


async def test_an_order_is_sent_once_all_parts_are_there_and_again_when_one_changes(
    admin: Client, nodes: Nodes, world: World
) -> None:
    await world.image(1, "debian")
    await world.network(1, "net")
    async with await nodes.agent() as agent:
        await agent.sync()
        made = request(disks=[template_pb2.DiskTemplate(image="1")], nics=[template_pb2.NicTemplate(network="1")])
        vm = await created(admin, made)
        await world.place(vm.id, 1)
        await becomes(admin, vm.id, S.VM_STATE_STARTING)
        assert (await view(admin, vm.id)).reason == "WAITING_FOR_ADDRESSES"
        await world.address(vm.id)
        await world.volumes(vm.id, reason="IMAGE_NOT_READY")
        await eventually(lambda: _reason_is(admin, vm.id, "IMAGE_NOT_READY"))
        assert agent.history == []
        await world.volumes(vm.id)
        order = await agent.order(vm.id)
        assert order.volumes.disks[0].source == "/images/1"
        assert order.addresses.nics[0].ipv4 == "10.0.0.5"
        await agent.start(order)
        assert len(agent.history) == 1, "a status is the node's own word: it makes no order"
        await world.address(vm.id, "10.0.0.6")
        again = await agent.order(vm.id, lambda each: each.addresses.nics[0].ipv4 == "10.0.0.6")
        assert again.status.phase == P.VM_PHASE_RUNNING


async def created(client: Client, wanted: vm_service_pb2.CreateVmRequest) -> vm_pb2.Vm:
    """A new VM, once the api has heard of the image and the network that it needs."""
    made: list[vm_pb2.Vm] = []

    async def is_made() -> bool:
        try:
            made.append(await client.vms.CreateVm(wanted))
        except grpc.aio.AioRpcError:
            return False
        return True

    await eventually(is_made, what="image and network are known")
    return made[0]


async def _reason_is(client: Client, vm_id: int, reason: str) -> bool:
    return (await view(client, vm_id)).reason == reason


async def test_secrets_go_with_orders_and_tickets_with_images(
    admin: Client, nodes: Nodes, world: World, secret_file: Path
) -> None:
    await world.image(1, "debian")
    leader = records_pb2.LeaderRecord(uuid="x", address="127.0.0.1:2635")
    await world.store.commit(Txn().put(key("leader", "imagesvc"), leader))
    async with await nodes.agent() as agent:
        await agent.sync()
        made = request(disks=[template_pb2.DiskTemplate(image="1")])
        made.template.context.secret_variables["PASSWORD"] = "hunter2"
        vm = await created(admin, made)
        await world.place(vm.id, 1)
        await world.volumes(vm.id)
        order = await agent.order(vm.id)
        assert order.secrets.context_variables["PASSWORD"] == "hunter2"
        (ticket,) = order.tickets
        assert (ticket.image_id, ticket.address) == (1, "127.0.0.1:2635")
        secret = secret_file.read_text().strip().encode()
        assert verify_ticket(secret, ticket.ticket, "image", "1", time.time()) == 1


async def test_a_reconnected_agent_is_told_everything_again(admin: Client, nodes: Nodes, world: World) -> None:
    hello = await nodes.hello("node-1")
    other = await nodes.hello("node-2")
    vms = [await admin.vms.CreateVm(request()) for _ in range(3)]
    async with nodes.again(hello) as agent:
        await agent.sync()
        for vm in vms:
            await world.place(vm.id, 1)
            await agent.start(await agent.order(vm.id))
    await admin.vms.PoweroffVm(vm_service_pb2.PoweroffVmRequest(id=vms[0].id))
    await admin.vms.TerminateVm(vm_service_pb2.TerminateVmRequest(id=vms[1].id))
    await world.place(vms[2].id, other.host_id)
    async with nodes.again(hello) as agent:
        await agent.sync()
        assert agent.complete[1] == [vms[0].id], "what is to be erased is not to be run"
        assert agent.orders[1, vms[0].id].intent.desired == vm_pb2.DESIRED_STATE_POWERED_OFF
        assert agent.orders[1, vms[0].id].status.phase == P.VM_PHASE_RUNNING
        for vm in vms[1:]:
            assert (agent.orders[1, vm.id].is_erase, agent.orders[1, vm.id].uid) == (True, vm.uid)
            assert await agent.gone(agent.orders[1, vm.id]) == ""
    async with nodes.again(other) as agent:
        await agent.sync()
        assert agent.complete[2] == [vms[2].id]
        assert agent.orders[2, vms[2].id].epoch == 2


async def test_orders_of_many_vms_come_before_complete(admin: Client, nodes: Nodes, world: World) -> None:
    batch = vm_service_pb2.BatchCreateVmsRequest(requests=[request() for _ in range(700)])
    made = [result.vm.id for result in (await admin.vms.BatchCreateVms(batch)).results]
    hello = await nodes.hello("node-1")
    await asyncio.gather(*[world.place(vm_id, 1) for vm_id in made])
    await world.settle()
    await becomes(admin, made[-1], S.VM_STATE_STARTING)
    async with nodes.again(hello) as agent:
        await agent.sync()
        assert agent.complete[1] == made
        assert len(agent.orders) == 700


# Claims


async def test_of_a_start_and_a_new_placement_exactly_one_commits(admin: Client, nodes: Nodes, world: World) -> None:
    async with await nodes.agent() as agent:
        await agent.sync()
        for _ in range(12):
            vm = await admin.vms.CreateVm(request())
            await world.place(vm.id, 1)
            order = await agent.order(vm.id)
            await world.settle()
            placed = world.store.cache.get("vm", vm.id, "placement")
            assert placed is not None
            anew = vm_pb2.VmPlacement(uid=vm.uid, host_id=2, epoch=2)
            txn = Txn().unchanged(placed.key, placed.mod_revision).none_under(key("vm", vm.id, "status/"))
            txn.put(placed.key, anew)
            answer, moved = await asyncio.gather(agent.claim(order), world.store.commit(txn), return_exceptions=True)
            assert (answer == "") != isinstance(moved, int), (answer, moved)
            assert answer in ("", "EPOCH_PAST")


async def test_what_was_told_of_a_former_placement_is_past(admin: Client, nodes: Nodes, world: World) -> None:
    async with await nodes.agent("node-1", "node-2") as agent:
        await agent.sync()
        vm = await admin.vms.CreateVm(request())
        await world.place(vm.id, 1)
        first = await agent.order(vm.id)
        await world.place(vm.id, 2)
        await agent.order(vm.id, host_id=2)
        assert await agent.claim(first) == "EPOCH_PAST"
        assert await agent.report(first, P.VM_PHASE_RUNNING) == "EPOCH_PAST"
        second = agent.orders[2, vm.id]
        assert await agent.report(second, P.VM_PHASE_RUNNING) == "EPOCH_PAST", "nothing runs that was not claimed"
        await agent.start(second)


async def test_a_vm_that_is_not_wanted_is_not_started(admin: Client, nodes: Nodes, world: World) -> None:
    async with await nodes.agent() as agent:
        await agent.sync()
        vm = await admin.vms.CreateVm(request())
        await world.place(vm.id, 1)
        order = await agent.order(vm.id)
        await admin.vms.TerminateVm(vm_service_pb2.TerminateVmRequest(id=vm.id))
        assert await agent.claim(order) == "STATE_FORBIDS"
        order.uid = "another"
        assert await agent.claim(order) == "VM_NOT_FOUND"


async def test_a_node_writes_of_its_own_hosts_only(admin: Client, nodes: Nodes, world: World) -> None:
    async with await nodes.agent() as agent:
        await agent.sync()
        vm = await admin.vms.CreateVm(request())
        await world.place(vm.id, 1)
        order = await agent.order(vm.id)
        order.host_id = 77
        assert await agent.claim(order) == "HOST_SECRET_INVALID"


async def test_reports_of_one_message_are_stored_in_their_order(admin: Client, nodes: Nodes, world: World) -> None:
    async with await nodes.agent() as agent:
        await agent.sync()
        vm = await admin.vms.CreateVm(request())
        await world.place(vm.id, 1)
        order = await agent.order(vm.id)
        claim = agent._report(order, P.VM_PHASE_STARTING)
        claim.is_claim = True
        steps = [agent._report(order, phase) for phase in (P.VM_PHASE_RUNNING, P.VM_PHASE_POWERED_OFF)]
        assert await agent.tell(claim, *steps) == ""
        assert all(ack.is_stored for ack in agent.acks.values())
        await becomes(admin, vm.id, S.VM_STATE_POWERED_OFF)


async def test_a_hypervisors_endless_words_are_cut(admin: Client, nodes: Nodes, world: World) -> None:
    async with await nodes.agent() as agent:
        await agent.sync()
        vm = await admin.vms.CreateVm(request())
        await world.place(vm.id, 1)
        order = await agent.order(vm.id)
        await agent.claim(order)
        assert await agent.report(order, P.VM_PHASE_FAILED, reason="START_FAILED", message="x" * 50_000) == ""
        failed = (await becomes(admin, vm.id, S.VM_STATE_FAILED)).view
        assert failed.reason == "START_FAILED" and len(failed.message) == 4096


async def test_what_cannot_be_stored_is_refused_and_the_stream_goes_on(
    admin: Client, nodes: Nodes, world: World
) -> None:
    async with await nodes.agent() as agent:
        inventory = host_pb2.HostInventory(attributes={"X": "y" * 70_000})
        await agent.send(hosts=[node_pb.HostReport(host_id=1, inventory=inventory)])
        await agent.sync()
        vm = await admin.vms.CreateVm(request())
        await world.place(vm.id, 1)
        order = await agent.order(vm.id)
        assert await agent.claim(order, guest_addresses=["x" * 20_000]) == "FIELD_INVALID"
        assert await agent.claim(order) == ""


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
            await eventually(lambda: _state_is(admin, 1, host_pb2.HOST_STATE_UP))
            assert not moved.has_ended


async def _state_is(client: Client, host_id: int, state: host_pb2.HostState) -> bool:
    host: host_pb2.Host = await client.hosts.GetHost(host_service_pb2.GetHostRequest(id=host_id))
    return host.view.state == state


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
    admin: Client, nodes: Nodes, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(liveness, "GRACE_S", 0.1)
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
    assert await _state_is(admin, 1, host_pb2.HOST_STATE_SILENT)
    status = await admin.operations.GetStatus(operations_service_pb2.GetStatusRequest())
    assert "HOST_SILENT" in {each.reason for each in status.problems}
    async with nodes.again(hello) as agent:
        await agent.sync()
        await becomes(admin, vm.id, S.VM_STATE_RUNNING)


async def test_a_short_absence_is_no_loss(admin: Client, nodes: Nodes, world: World) -> None:
    hello = await nodes.hello("node-1")
    async with nodes.again(hello) as agent:
        await agent.sync()
        await eventually(lambda: _state_is(admin, 1, host_pb2.HOST_STATE_UP))
    async with nodes.again(hello) as agent:
        await agent.sync()
        events = await admin.operations.ListEvents(operations_service_pb2.ListEventsRequest(filter="kind=host"))
        assert "SILENT" not in {event.to for event in events.events}


async def test_a_fenced_host_starts_nothing_until_it_is_back(
    admin: Client, nodes: Nodes, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(liveness, "GRACE_S", 0.1)
    hello = await nodes.hello("node-1")
    async with nodes.again(hello) as agent:
        await agent.sync()
        await eventually(lambda: _state_is(admin, 1, host_pb2.HOST_STATE_UP))
    await eventually(lambda: _state_is(admin, 1, host_pb2.HOST_STATE_SILENT))
    with refused("FIELD_INVALID", "is_confirmed"):
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
        await eventually(lambda: _state_is(admin, 1, host_pb2.HOST_STATE_UP))
        await agent.start(await agent.order(vm.id))
