"""The node gateway over its real protocol: orders, claims and reports."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import grpc
import pytest

from moln.compute.v1 import host_pb2, template_pb2, vm_pb2, vm_service_pb2
from moln.node.v1 import node_service_pb2 as node_pb
from moln.operations.v1 import records_pb2
from services.common.rpc.tickets import verify_ticket
from services.common.store import Txn, key
from tests.integration.api.asking import becomes, created, reason_is, request, view
from tests.integration.api.conftest import Nodes
from tests.integration.api.running import Client
from tests.integration.api.world import World
from tests.support.eventually import eventually

P, S = vm_pb2.VmPhase, vm_pb2.VmState


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
        await eventually(lambda: reason_is(admin, vm.id, "IMAGE_NOT_READY"))
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
