"""Looks into guests through the node gateway: the screen, a picture of it, the agent in the guest."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

from google.protobuf.message import DecodeError

from moln.compute.v1 import vm_service_pb2 as pb
from moln.node.v1 import node_service_pb2 as node_pb
from services.api.core.looks import Look, check_look, exec_command, freeze_seconds
from services.api.index.vms import VmRecord
from services.api.nodes.tunnels import MAX_ANSWER_BYTES, Tunnel, Tunnels
from services.api.usecases.vms import Vms
from services.common.domain.caller import Caller, Capability
from services.common.domain.errors import MolnError, invalid
from services.common.domain.reasons import Reason
from services.common.runtime.background import Background

Answer = TypeVar("Answer", node_pb.Screenshot, node_pb.AgentAnswer)
SCREENSHOT_S = 30.0
AGENT_S = 15.0
"""Longest time that an agent's answer takes beside what the caller allows a command."""


class Insides:
    """Connects clients with what is inside of guests."""

    def __init__(self, vms: Vms, tunnels: Tunnels) -> None:
        self._vms = vms
        self._tunnels = tunnels

    async def connect_screen(
        self,
        incoming: AsyncIterator[pb.ConnectVmScreenRequest],
        caller: Caller,
        write: Callable[[pb.ConnectVmScreenResponse], Awaitable[None]],
    ) -> None:
        """Passes bytes between a viewer and the screen. Ends when the node's end does."""
        first = await anext(aiter(incoming), None)
        if first is None or not first.id:
            raise invalid("id", "must be in the first message of the stream", reason=Reason.FIELD_REQUIRED)
        record = self._checked(Look.VNC, first.id, caller)
        tunnel_id, tunnel = await self._tunnels.open(record, node_pb.TUNNEL_KIND_SCREEN)
        try:
            async with Background() as tasks:
                tasks.start(_send(tunnel, first.data, incoming), name="viewer")
                async for data in tunnel.received():
                    await write(pb.ConnectVmScreenResponse(data=data))
        finally:
            self._tunnels.close(tunnel_id)

    async def screenshot(self, vm_id: int, caller: Caller) -> pb.TakeVmScreenshotResponse:
        """A picture of the screen as it is now."""
        record = self._checked(Look.SCREENSHOT, vm_id, caller)
        data = await self._once(record, node_pb.TUNNEL_KIND_SCREENSHOT, SCREENSHOT_S)
        found = _decoded(node_pb.Screenshot(), data)
        return pb.TakeVmScreenshotResponse(png=found.png, width=found.width, height=found.height)

    async def ping(self, vm_id: int, caller: Caller) -> pb.PingVmAgentResponse:
        """Returns once the agent has answered."""
        await self._ask(Look.PING, vm_id, caller, node_pb.AgentCommand(ping=node_pb.AgentPing()))
        return pb.PingVmAgentResponse()

    async def freeze(self, request: pb.FreezeVmFilesystemsRequest, caller: Caller) -> pb.FreezeVmFilesystemsResponse:
        """Holds writes for a while."""
        command = node_pb.AgentCommand(freeze=node_pb.AgentFreeze(seconds=freeze_seconds(request)))
        answer = await self._ask(Look.FREEZE, request.id, caller, command)
        return pb.FreezeVmFilesystemsResponse(filesystems=answer.filesystems)

    async def thaw(self, vm_id: int, caller: Caller) -> pb.ThawVmFilesystemsResponse:
        """Lets writes go on."""
        answer = await self._ask(Look.THAW, vm_id, caller, node_pb.AgentCommand(thaw=node_pb.AgentThaw()))
        return pb.ThawVmFilesystemsResponse(filesystems=answer.filesystems)

    async def exec(self, request: pb.ExecVmRequest, caller: Caller) -> pb.ExecVmResponse:
        """Runs a command and answers with what it wrote."""
        caller.require(Capability.VM_EXEC, "ExecVm")
        command = exec_command(request)
        answer = await self._ask(
            Look.EXEC, request.id, caller, node_pb.AgentCommand(exec=command), AGENT_S + command.seconds
        )
        return pb.ExecVmResponse(
            exit_code=answer.exit_code, output=answer.output, error_output=answer.error_output,
            is_truncated=answer.is_truncated,
        )  # fmt: skip

    def _checked(self, look: Look, vm_id: int, caller: Caller) -> VmRecord:
        record = self._vms.visible(vm_id, caller)
        check_look(look, record.view.state, record.name)
        return record

    async def _ask(
        self, look: Look, vm_id: int, caller: Caller, command: node_pb.AgentCommand, seconds: float = AGENT_S
    ) -> node_pb.AgentAnswer:
        record = self._checked(look, vm_id, caller)
        data = await self._once(record, node_pb.TUNNEL_KIND_AGENT, seconds, command)
        return _decoded(node_pb.AgentAnswer(), data)

    async def _once(
        self,
        record: VmRecord,
        kind: node_pb.TunnelKind,
        seconds: float,
        command: node_pb.AgentCommand | None = None,
    ) -> bytes:
        """Everything that the node's end says, within a time and a size."""
        tunnel_id, tunnel = await self._tunnels.open(record, kind, MAX_ANSWER_BYTES, command)
        return await self._tunnels.read_all(tunnel_id, tunnel, seconds, f"VM {record.name}")


def _decoded(answer: Answer, data: bytes) -> Answer:
    try:
        answer.ParseFromString(data)
    except DecodeError as err:
        raise MolnError(Reason.INTERNAL, "the node's answer is not one that this api understands; update both") from err
    return answer


async def _send(tunnel: Tunnel, first: bytes, incoming: AsyncIterator[pb.ConnectVmScreenRequest]) -> None:
    if first:
        await tunnel.to_node.put(first)
    async for message in incoming:
        if message.data:
            await tunnel.to_node.put(message.data)
