"""Serial consoles and their logs, through the node gateway."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

from moln.compute.v1 import vm_pb2, vm_service_pb2
from moln.node.v1 import node_service_pb2
from services.api.core.verbs import Verb, check_verb
from services.api.nodes.tunnels import Tunnel, Tunnels
from services.api.usecases.vms import Vms
from services.common.domain.caller import Caller
from services.common.domain.errors import MolnError, invalid
from services.common.domain.reasons import Reason
from services.common.runtime.background import Background

DEFAULT_LOG_BYTES = 64 << 10
MAX_LOG_BYTES = 1 << 20


class Consoles:
    """Connects clients with guests."""

    def __init__(self, vms: Vms, tunnels: Tunnels) -> None:
        self._vms = vms
        self._tunnels = tunnels

    async def connect(
        self,
        incoming: AsyncIterator[vm_service_pb2.ConsoleVmRequest],
        caller: Caller,
        write: Callable[[vm_service_pb2.ConsoleVmResponse], Awaitable[None]],
    ) -> None:
        """Writes what the guest writes, while what comes in is typed. Ends when the node's end does."""
        first = await anext(aiter(incoming), None)
        if first is None or not first.id:
            raise invalid("id", "must be in the first message of the stream", reason=Reason.FIELD_REQUIRED)
        record = self._vms.visible(first.id, caller)
        state = record.view.state
        check_verb(Verb.CONSOLE, state, record.name)
        tunnel_id, tunnel = await self._tunnels.open(record, node_service_pb2.TUNNEL_KIND_CONSOLE)
        try:
            async with Background() as tasks:
                tasks.start(_type(tunnel, first.data, incoming), name="typing")
                try:
                    async for data in tunnel.received():
                        await write(vm_service_pb2.ConsoleVmResponse(data=data))
                except MolnError as err:
                    raise _unopened(err, state, record.name) from err
        finally:
            self._tunnels.close(tunnel_id)

    async def log(self, vm_id: int, max_bytes: int, caller: Caller) -> bytes:
        """The newest part of what the guest has written."""
        if max_bytes > MAX_LOG_BYTES:
            raise invalid("max_bytes", f"must be at most {MAX_LOG_BYTES}")
        record = self._vms.visible(vm_id, caller)
        if not record.view.host_id:
            raise MolnError(Reason.STATE_FORBIDS, f"VM {record.name} has no host yet, and so no console log")
        wanted = max_bytes or DEFAULT_LOG_BYTES
        tunnel_id, tunnel = await self._tunnels.open(record, node_service_pb2.TUNNEL_KIND_CONSOLE_LOG, wanted)
        try:
            return b"".join([piece async for piece in tunnel.received()])[-wanted:]
        finally:
            self._tunnels.close(tunnel_id)


def _unopened(error: MolnError, state: int, name: str) -> MolnError:
    """A guest that is still being made has no console yet: then the node's advice, to start it, is of no use."""
    if error.reason != Reason.STATE_FORBIDS or state != vm_pb2.VM_STATE_STARTING:
        return error
    words = "it is STARTING: its console opens once the guest runs; wait for that"
    return MolnError(error.reason, f"console VM {name}: {words}: moln vm wait {name}", metadata=error.metadata)


async def _type(tunnel: Tunnel, first: bytes, incoming: AsyncIterator[vm_service_pb2.ConsoleVmRequest]) -> None:
    if first:
        await tunnel.to_node.put(first)
    async for message in incoming:
        if message.data:
            await tunnel.to_node.put(message.data)
