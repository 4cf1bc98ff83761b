"""Screens, pictures and agents of guests: a client's call and a node's stream, joined through the api."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from moln.compute.v1 import template_pb2, vm_pb2
from moln.compute.v1 import vm_service_pb2 as pb
from moln.node.v1 import node_service_pb2 as node_pb
from services.api.usecases import insides
from tests.integration.api.agent import Agent, NodeTunnel
from tests.integration.api.conftest import Nodes
from tests.integration.api.running import Client, Clients, refused
from tests.integration.api.world import World
from tests.support.eventually import eventually


@pytest.fixture
async def agent(nodes: Nodes) -> AsyncIterator[Agent]:
    """The agent of one host."""
    async with await nodes.agent() as connected:
        await connected.sync()
        yield connected


@pytest.fixture
async def anna(clients: Clients) -> Client:
    """A user without capabilities."""
    return await clients.user("anna")


@pytest.fixture
async def vm_id(agent: Agent, anna: Client, world: World) -> int:
    """Anna's VM, which runs there."""
    vm = await anna.vms.CreateVm(pb.CreateVmRequest(template=template_pb2.VmTemplate(memory_mib=64)))
    await world.place(vm.id, 1)
    await agent.start(await agent.order(vm.id))
    await anna.vms.WaitVm(pb.WaitVmRequest(id=vm.id, state=vm_pb2.VM_STATE_RUNNING))
    return int(vm.id)


async def dialled(agent: Agent, number: int = 0) -> NodeTunnel:
    await eventually(lambda: len(agent.tunnels) > number, what="a tunnel is asked for")
    return await agent.open_tunnel(agent.tunnels[number])


async def answering(agent: Agent, number: int, *pieces: bytes, reason: str = "", message: str = "") -> None:
    """The node's end of one question."""
    node = await dialled(agent, number)
    for piece in pieces:
        await node.write(piece)
    if reason:
        await node.write(reason=reason, message=message)
    await node.done()
    await node.read()
    await node.close()


async def answered(agent: Agent, call: Any, *pieces: bytes, **refusal: str) -> Any:
    """What a call answers when the node says this."""
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(answering(agent, len(agent.tunnels), *pieces, **refusal))
        result = await asyncio.gather(call, return_exceptions=True)
    return result[0]


async def test_a_viewer_and_the_screen_are_joined_both_ways(anna: Client, agent: Agent, vm_id: int) -> None:
    call: Any = anna.vms.ConnectVmScreen()
    await call.write(pb.ConnectVmScreenRequest(id=vm_id))
    node = await dialled(agent)
    assert agent.tunnels[0].kind == node_pb.TUNNEL_KIND_SCREEN
    await node.write(b"RFB 003.008\n")
    assert (await call.read()).data == b"RFB 003.008\n"
    await call.write(pb.ConnectVmScreenRequest(data=b"RFB 003.008\n"))
    assert await node.read() == b"RFB 003.008\n"
    await node.done()
    assert await call.read() is grpc.aio.EOF
    await node.close()


async def test_a_picture_arrives_whole(anna: Client, agent: Agent, vm_id: int) -> None:
    shot = node_pb.Screenshot(png=b"\x89PNG" + bytes(200_000), width=640, height=480).SerializeToString()
    pieces = [shot[start : start + 65536] for start in range(0, len(shot), 65536)]
    found = await answered(agent, anna.vms.TakeVmScreenshot(pb.TakeVmScreenshotRequest(id=vm_id)), *pieces)
    assert (len(found.png), found.width, found.height) == (200_004, 640, 480)


async def test_exec_needs_the_capability_and_nothing_reaches_the_node_without(
    anna: Client, agent: Agent, vm_id: int
) -> None:
    with refused("CAPABILITY_MISSING", words="vm.exec"):
        await anna.vms.ExecVm(pb.ExecVmRequest(id=vm_id, command=["id"]))
    assert agent.tunnels == []


async def test_a_command_and_its_answer_pass(admin: Client, agent: Agent, vm_id: int) -> None:
    request = pb.ExecVmRequest(id=vm_id, command=["sh", "-c", "exit 3"], input=b"x", timeout=Duration(seconds=7))
    answer = node_pb.AgentAnswer(exit_code=3, output=b"out", error_output=b"err", is_truncated=True)
    found = await answered(agent, admin.vms.ExecVm(request), answer.SerializeToString())
    assert (found.exit_code, found.output, found.error_output, found.is_truncated) == (3, b"out", b"err", True)
    asked = agent.tunnels[0].command.exec
    assert (list(asked.words), asked.input, asked.seconds, asked.max_bytes) == (["sh", "-c", "exit 3"], b"x", 7, 65536)


async def test_ping_freeze_and_thaw_are_the_owners_and_asked_of_the_agent(
    anna: Client, agent: Agent, vm_id: int
) -> None:
    two = node_pb.AgentAnswer(filesystems=2).SerializeToString()
    await answered(agent, anna.vms.PingVmAgent(pb.PingVmAgentRequest(id=vm_id)))
    frozen = await answered(agent, anna.vms.FreezeVmFilesystems(pb.FreezeVmFilesystemsRequest(id=vm_id)), two)
    thawed = await answered(agent, anna.vms.ThawVmFilesystems(pb.ThawVmFilesystemsRequest(id=vm_id)), two)
    assert (frozen.filesystems, thawed.filesystems) == (2, 2)
    kinds = [order.command.WhichOneof("kind") for order in agent.tunnels]
    assert kinds == ["ping", "freeze", "thaw"]
    assert agent.tunnels[1].command.freeze.seconds == 60


async def test_a_guest_without_an_agent_is_said_to_be_so(anna: Client, agent: Agent, vm_id: int) -> None:
    call = anna.vms.PingVmAgent(pb.PingVmAgentRequest(id=vm_id))
    with refused("AGENT_SILENT", words="no agent in it"):
        raise await answered(agent, call, reason="AGENT_SILENT", message="no agent in it")


async def test_a_node_that_dials_and_says_nothing_is_given_up(
    anna: Client, agent: Agent, vm_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(insides, "SCREENSHOT_S", 0.3)
    asking = asyncio.ensure_future(anna.vms.TakeVmScreenshot(pb.TakeVmScreenshotRequest(id=vm_id)))
    node = await dialled(agent)
    with refused("HOST_SILENT", words="did not answer"):
        await asking
    await node.close()


async def test_an_answer_that_is_none_is_not_believed(anna: Client, agent: Agent, vm_id: int) -> None:
    with refused("INTERNAL", words="update both"):
        raise await answered(agent, anna.vms.PingVmAgent(pb.PingVmAgentRequest(id=vm_id)), b"\xff\xff\xff")


@pytest.mark.parametrize(
    ("field", "fields", "reason"),
    [
        ("command", {}, "FIELD_REQUIRED"),
        ("command", {"command": ["a\0b"]}, "FIELD_INVALID"),
        ("command", {"command": ["x" * 40_000]}, "FIELD_INVALID"),
        ("input", {"command": ["a"], "input": bytes(70_000)}, "FIELD_INVALID"),
        ("timeout", {"command": ["a"], "timeout": Duration(seconds=601)}, "FIELD_INVALID"),
        ("timeout", {"command": ["a"], "timeout": Duration(seconds=-1)}, "FIELD_INVALID"),
        ("max_bytes", {"command": ["a"], "max_bytes": 2 << 20}, "FIELD_INVALID"),
    ],
)
async def test_a_bad_command_is_refused_by_its_field(
    admin: Client, agent: Agent, vm_id: int, field: str, fields: dict[str, Any], reason: str
) -> None:
    with refused(reason, field):
        await admin.vms.ExecVm(pb.ExecVmRequest(id=vm_id, **fields))


async def test_a_vm_that_does_not_run_or_is_anothers_cannot_be_looked_into(
    clients: Clients, admin: Client, agent: Agent, vm_id: int
) -> None:
    vm = await admin.vms.CreateVm(pb.CreateVmRequest(template=template_pb2.VmTemplate(memory_mib=64)))
    with refused("STATE_FORBIDS", words="allowed in RUNNING"):
        await admin.vms.PingVmAgent(pb.PingVmAgentRequest(id=vm.id))
    with refused("STATE_FORBIDS", words="screenshot is allowed in"):
        await admin.vms.TakeVmScreenshot(pb.TakeVmScreenshotRequest(id=vm.id))
    ben = await clients.user("ben", capabilities=["vm.exec"])
    with refused("VM_NOT_FOUND"):
        await ben.vms.ExecVm(pb.ExecVmRequest(id=vm_id, command=["id"]))
    call: Any = ben.vms.ConnectVmScreen()
    await call.write(pb.ConnectVmScreenRequest(id=vm_id))
    with refused("VM_NOT_FOUND"):
        await call.read()
