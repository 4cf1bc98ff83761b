"""Tunnels: a client's stream and the stream that an agent dials for it, joined. Bytes pass; nothing is kept."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable

from moln.node.v1 import node_service_pb2
from services.api.index.vms import VmRecord
from services.api.nodes.connection import HostLink
from services.api.nodes.gateway import NodeGateway
from services.common.domain.errors import MolnError
from services.common.domain.reasons import Reason
from services.common.rpc.tickets import sign_ticket, verify_ticket
from services.common.runtime.background import Background

DIAL_S = 10.0
MAX_ANSWER_BYTES = 32 << 20
"""Of a tunnel that is read to its end."""
_DEPTH = 64

Incoming = AsyncIterator[node_service_pb2.OpenTunnelRequest]
Write = Callable[[node_service_pb2.OpenTunnelResponse], Awaitable[None]]


class Tunnel:
    """Both directions of one tunnel."""

    def __init__(self) -> None:
        self.to_node: asyncio.Queue[bytes] = asyncio.Queue(_DEPTH)
        self.dialled = asyncio.Event()
        self.ended = asyncio.Event()
        self._from_node: asyncio.Queue[bytes | MolnError | None] = asyncio.Queue()
        self._room = asyncio.Semaphore(_DEPTH)

    async def received(self) -> AsyncIterator[bytes]:
        """What the node's end sends, until it ends; raises the error that it ended with."""
        while (piece := await self._from_node.get()) is not None:
            if isinstance(piece, MolnError):
                raise piece
            self._room.release()
            yield piece

    async def take(self, incoming: Incoming) -> None:
        """Takes in what the node's end sends, until it ends, orderly or not; then the tunnel has ended."""
        try:
            async for piece in incoming:
                if piece.data:
                    await self._room.acquire()
                    self._from_node.put_nowait(piece.data)
                if piece.reason:
                    self._from_node.put_nowait(_error(piece))
                    break
        finally:
            self.end()

    def end(self) -> None:
        """Ends both directions, for whoever waits. Idempotent."""
        self._from_node.put_nowait(None)
        self.ended.set()

    async def give(self, write: Write) -> None:
        """Writes what the client's end sends, until cancelled: a client that sends no more may still be listening."""
        while True:
            await write(node_service_pb2.OpenTunnelResponse(data=await self.to_node.get()))


class Tunnels:
    """Opens tunnels over the gateway, and joins the agents' streams to them."""

    def __init__(self, gateway: NodeGateway, secret: bytes, node_address: str) -> None:
        self._gateway = gateway
        self._secret = secret
        self._node_address = node_address
        self._open: dict[str, Tunnel] = {}

    async def open(
        self,
        record: VmRecord,
        kind: node_service_pb2.TunnelKind,
        max_bytes: int = 0,
        command: node_service_pb2.AgentCommand | None = None,
    ) -> tuple[str, Tunnel]:
        """Asks the VM's node to dial. Returns the tunnel's id (for `close`) and the tunnel, once dialled.

        Raises UNAVAILABLE/HOST_SILENT when the host is not connected here or does not dial within 10 s.
        """
        link = self._gateway.links.get(record.view.host_id)
        if link is None:
            raise MolnError(Reason.HOST_SILENT, self._gateway.where_else(record))
        order = node_service_pb2.TunnelOrder(
            vm_id=record.id, uid=record.uid, kind=kind, max_bytes=max_bytes, command=command
        )
        return await self._dialled_back(link, order, f"VM {record.id}")

    async def open_host(
        self, host_id: int, name: str, kind: node_service_pb2.TunnelKind, max_bytes: int
    ) -> tuple[str, Tunnel]:
        """The same for a host as a whole. Raises UNAVAILABLE/HOST_SILENT."""
        link = self._gateway.links.get(host_id)
        if link is None:
            problem = f"host {name} is not connected to this api; see: moln host show {name}"
            raise MolnError(Reason.HOST_SILENT, problem)
        order = node_service_pb2.TunnelOrder(kind=kind, max_bytes=max_bytes)
        return await self._dialled_back(link, order, f"host {name}")

    async def read_all(self, tunnel_id: str, tunnel: Tunnel, seconds: float, what: str) -> bytes:
        """Everything that the node's end says, within a time and a size; closes the tunnel. Raises HOST_SILENT."""
        pieces: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(seconds):
                async for piece in tunnel.received():
                    pieces.append(piece)
                    size += len(piece)
                    if size > MAX_ANSWER_BYTES:
                        raise MolnError(Reason.INTERNAL, f"{what}: the node's answer is too large")
        except TimeoutError as err:
            raise MolnError(Reason.HOST_SILENT, f"{what}: the host did not answer within {seconds:g} s") from err
        finally:
            self.close(tunnel_id)
        return b"".join(pieces)

    async def _dialled_back(self, link: HostLink, order: node_service_pb2.TunnelOrder, what: str) -> tuple[str, Tunnel]:
        tunnel_id, tunnel = uuid.uuid4().hex, Tunnel()
        self._open[tunnel_id] = tunnel
        self._complete(order, tunnel_id, link)
        try:
            link.connection.open_tunnel(order)
            async with asyncio.timeout(DIAL_S):
                await tunnel.dialled.wait()
        except TimeoutError as err:
            problem = f"{what}: host {link.name} did not answer in {DIAL_S:g} s; see: moln host show {link.name}"
            raise MolnError(Reason.HOST_SILENT, problem) from err
        finally:
            if not tunnel.dialled.is_set():
                self.close(tunnel_id)
        return tunnel_id, tunnel

    def _complete(self, order: node_service_pb2.TunnelOrder, tunnel_id: str, link: HostLink) -> None:
        expire_s = int(time.time() + DIAL_S)
        order.host_id, order.address = link.host_id, self._node_address
        order.ticket = sign_ticket(self._secret, "tunnel", tunnel_id, link.host_id, expire_s)

    def close(self, tunnel_id: str) -> None:
        """Ends a tunnel. Idempotent."""
        tunnel = self._open.pop(tunnel_id, None)
        if tunnel is not None:
            tunnel.end()

    def close_all(self) -> None:
        """Ends all tunnels."""
        for tunnel_id in list(self._open):
            self.close(tunnel_id)

    async def join(self, ticket: str, incoming: Incoming, write: Write) -> None:
        """Serves the agent's stream until either end has ended. Raises TICKET_INVALID."""
        tunnel_id, tunnel = self._dialled(ticket)
        try:
            async with Background() as tasks:
                tasks.start(tunnel.take(incoming), name="from node")
                tasks.start(tunnel.give(write), name="to node")
                await tunnel.ended.wait()
        finally:
            self.close(tunnel_id)

    def _dialled(self, ticket: str) -> tuple[str, Tunnel]:
        tunnel_id = ticket.split(":")[1] if ticket.count(":") >= 2 else ""
        verify_ticket(self._secret, ticket, "tunnel", tunnel_id, time.time())
        tunnel = self._open.get(tunnel_id)
        if tunnel is None or tunnel.dialled.is_set():
            raise MolnError(Reason.TICKET_INVALID, "the tunnel is closed, or was dialled before")
        tunnel.dialled.set()
        return tunnel_id, tunnel


def _error(piece: node_service_pb2.OpenTunnelRequest) -> MolnError:
    reason = Reason(piece.reason) if piece.reason in Reason.__members__ else Reason.INTERNAL
    return MolnError(reason, piece.message)
