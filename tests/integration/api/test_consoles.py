"""Serial consoles: a client's stream and a node's stream, joined through the api."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from moln.compute.v1 import template_pb2, vm_pb2, vm_service_pb2
from moln.node.v1 import node_service_pb2 as node_pb
from services.api.nodes import tunnels
from tests.integration.api.agent import Agent, NodeTunnel
from tests.integration.api.conftest import Nodes
from tests.integration.api.running import Client, Clients, refused
from tests.integration.api.world import World
from tests.support.eventually import eventually

Request = vm_service_pb2.ConsoleVmRequest


@pytest.fixture
async def agent(nodes: Nodes) -> AsyncIterator[Agent]:
    """The agent of one host."""
    async with await nodes.agent() as connected:
        await connected.sync()
        yield connected


@pytest.fixture
async def vm_id(agent: Agent, admin: Client, world: World) -> int:
    """A VM that runs there."""
    shape = template_pb2.VmTemplate(memory_mib=64)
    vm = await admin.vms.CreateVm(vm_service_pb2.CreateVmRequest(template=shape))
    await world.place(vm.id, 1)
    await agent.start(await agent.order(vm.id))
    await admin.vms.WaitVm(vm_service_pb2.WaitVmRequest(id=vm.id, state=vm_pb2.VM_STATE_RUNNING))
    return int(vm.id)


async def dialled(agent: Agent, number: int = 0) -> NodeTunnel:
    """The node's end of the tunnel that was asked for."""
    await eventually(lambda: len(agent.tunnels) > number, what="a tunnel is asked for")
    return await agent.open_tunnel(agent.tunnels[number])


async def opened(client: Client, vm_id: int, agent: Agent, number: int = 0) -> tuple[Any, NodeTunnel]:
    """Both ends of a console."""
    call: Any = client.vms.ConsoleVm()
    await call.write(Request(id=vm_id, data=b"\r"))
    node = await dialled(agent, number)
    assert await node.read() == b"\r"
    return call, node


async def test_bytes_pass_both_ways(admin: Client, agent: Agent, vm_id: int) -> None:
    call, node = await opened(admin, vm_id, agent)
    order = agent.tunnels[0]
    assert (order.kind, order.host_id, order.vm_id) == (node_pb.TUNNEL_KIND_CONSOLE, 1, vm_id)
    await node.write(b"login: ")
    assert (await call.read()).data == b"login: "
    await call.write(Request(data=b"root\r"))
    assert await node.read() == b"root\r"
    await node.done()
    assert await call.read() is grpc.aio.EOF
    assert await call.code() == grpc.StatusCode.OK
    await node.close()


async def test_who_types_no_more_still_reads(admin: Client, agent: Agent, vm_id: int) -> None:
    call, node = await opened(admin, vm_id, agent)
    await call.done_writing()
    for text in (b"one", b"two"):
        await node.write(text)
        assert (await call.read()).data == text
    await node.done()
    assert await call.read() is grpc.aio.EOF
    await node.close()


async def test_a_client_that_hangs_up_ends_the_nodes_end(admin: Client, agent: Agent, vm_id: int) -> None:
    call, node = await opened(admin, vm_id, agent)
    call.cancel()
    assert await node.read() == b""
    await node.close()


async def test_a_node_that_dies_ends_the_clients_end(admin: Client, agent: Agent, vm_id: int) -> None:
    call, node = await opened(admin, vm_id, agent)
    await node.close()
    assert await call.read() is grpc.aio.EOF


async def test_what_the_node_says_against_it_reaches_the_client(admin: Client, agent: Agent, vm_id: int) -> None:
    call: Any = admin.vms.ConsoleVm()
    await call.write(Request(id=vm_id))
    node = await dialled(agent)
    await node.write(reason="CAPABILITY", message="the driver has no console")
    with refused("CAPABILITY", words="the driver has no console"):
        await call.read()
    await node.close()


async def test_more_than_fits_waits_for_the_reader(admin: Client, agent: Agent, vm_id: int) -> None:
    call, node = await opened(admin, vm_id, agent)

    async def write() -> None:
        for number in range(500):
            await node.write(b"%04d" % number * 100)
        await node.done()

    writing = asyncio.create_task(write())
    found = b""
    while (answer := await call.read()) is not grpc.aio.EOF:
        found += answer.data
    await writing
    assert found == b"".join(b"%04d" % number * 100 for number in range(500))
    await node.close()


async def test_a_ticket_opens_one_tunnel_once(admin: Client, agent: Agent, vm_id: int) -> None:
    call, node = await opened(admin, vm_id, agent)
    order = agent.tunnels[0]
    again = await agent.open_tunnel(order)
    with refused("TICKET_INVALID"):
        await again.read()
    order.ticket = order.ticket[:-1] + ("A" if order.ticket[-1] != "A" else "B")
    forged = await agent.open_tunnel(order)
    with refused("TICKET_INVALID"):
        await forged.read()
    call.cancel()
    for each in (node, again, forged):
        await each.close()


async def test_the_log_is_the_newest_part_of_what_was_written(admin: Client, agent: Agent, vm_id: int) -> None:
    async def answer() -> None:
        node = await dialled(agent)
        assert agent.tunnels[0].max_bytes == 10
        for piece in (b"Linux version 6\n", b"login: "):
            await node.write(piece)
        await node.done()
        await node.read()
        await node.close()

    answering = asyncio.create_task(answer())
    log = await admin.vms.GetVmConsoleLog(vm_service_pb2.GetVmConsoleLogRequest(id=vm_id, max_bytes=10))
    assert log.data == b" 6\nlogin: "
    await answering
    with refused("FIELD_INVALID", "max_bytes"):
        await admin.vms.GetVmConsoleLog(vm_service_pb2.GetVmConsoleLogRequest(id=vm_id, max_bytes=(1 << 20) + 1))


async def test_a_vm_without_a_host_has_no_console(admin: Client, agent: Agent) -> None:
    shape = template_pb2.VmTemplate(memory_mib=64)
    vm = await admin.vms.CreateVm(vm_service_pb2.CreateVmRequest(template=shape))
    call: Any = admin.vms.ConsoleVm()
    await call.write(Request(id=vm.id))
    with refused("STATE_FORBIDS", words="allowed in POWERING_OFF, RUNNING, STARTING"):
        await call.read()
    with refused("STATE_FORBIDS"):
        await admin.vms.GetVmConsoleLog(vm_service_pb2.GetVmConsoleLogRequest(id=vm.id))


async def test_of_a_guest_that_is_still_being_made_it_is_said_that_it_starts(
    admin: Client, agent: Agent, world: World
) -> None:
    vm = await admin.vms.CreateVm(
        vm_service_pb2.CreateVmRequest(name="young", template=template_pb2.VmTemplate(memory_mib=64))
    )
    await world.place(vm.id, 1)
    await admin.vms.WaitVm(vm_service_pb2.WaitVmRequest(id=vm.id, state=vm_pb2.VM_STATE_STARTING))
    call, node = await opened(admin, vm.id, agent)
    await node.write(reason="STATE_FORBIDS", message="the guest does not run; start it first: moln vm resume")
    with refused("STATE_FORBIDS", words="it is STARTING: its console opens once the guest runs"):
        await call.read()
    await node.close()


async def test_a_console_is_its_owners(clients: Clients, agent: Agent, vm_id: int) -> None:
    anna = await clients.user("anna")
    call: Any = anna.vms.ConsoleVm()
    await call.write(Request(id=vm_id))
    with refused("VM_NOT_FOUND"):
        await call.read()
    nothing: Any = anna.vms.ConsoleVm()
    await nothing.write(Request(data=b"x"))
    with refused("FIELD_REQUIRED", "id"):
        await nothing.read()


async def test_a_host_that_does_not_answer_is_said_to_be_silent(
    admin: Client, agent: Agent, vm_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tunnels, "DIAL_S", 0.2)
    with refused("HOST_SILENT", words="node-1 did not answer"):
        await admin.vms.GetVmConsoleLog(vm_service_pb2.GetVmConsoleLogRequest(id=vm_id))
    late = await agent.open_tunnel(agent.tunnels[0])
    with refused("TICKET_INVALID"):
        await late.read()
    await late.close()


async def test_a_host_that_is_not_connected_is_said_to_be_so(admin: Client, nodes: Nodes, world: World) -> None:
    hello = await nodes.hello("node-1")
    shape = template_pb2.VmTemplate(memory_mib=64)
    vm = await admin.vms.CreateVm(vm_service_pb2.CreateVmRequest(template=shape))
    await world.place(vm.id, hello.host_id)
    await admin.vms.WaitVm(vm_service_pb2.WaitVmRequest(id=vm.id, state=vm_pb2.VM_STATE_STARTING))
    with refused("HOST_SILENT", words="not connected"):
        await admin.vms.GetVmConsoleLog(vm_service_pb2.GetVmConsoleLogRequest(id=vm.id))
