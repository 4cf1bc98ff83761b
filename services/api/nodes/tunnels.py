"""Tunnels: a client's stream and the stream that an agent dials for it, joined. Bytes pass; nothing is kept."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator

from moln.node.v1 import node_service_pb2
from services.api.index.vms import VmRecord
from services.api.nodes.gateway import NodeGateway
from services.common.domain.errors import MolnError
from services.common.domain.reasons import Reason
from services.common.rpc.tickets import sign_ticket, verify_ticket

DIAL_S = 10.0
_DEPTH = 64


class Tunnel:
    """Both directions of one tunnel. None ends a direction."""

    def __init__(self) -> None:
        self.to_node: asyncio.Queue[bytes | None] = asyncio.Queue(_DEPTH)
        self.from_node: asyncio.Queue[bytes | MolnError | None] = asyncio.Queue(_DEPTH)
        self.dialled = asyncio.Event()
        self.ended = asyncio.Event()

    async def received(self) -> AsyncIterator[bytes]:
        """What the node's end sends, until it ends; raises the error that it ended with."""
        while True:
            piece = await self.from_node.get()
            if piece is None:
                return
            if isinstance(piece, MolnError):
                raise piece
            yield piece


class Tunnels:
    """Opens tunnels over the gateway, and joins the agents' streams to them."""

    def __init__(self, gateway: NodeGateway, secret: bytes, node_address: str) -> None:
        self._gateway = gateway
        self._secret = secret
        self._node_address = node_address
        self._open: dict[str, Tunnel] = {}

    async def open(self, record: VmRecord, kind: node_service_pb2.TunnelKind, max_bytes: int = 0) -> tuple[str, Tunnel]:
        """Asks the VM's node to dial. Returns the tunnel's id (for `close`) and the tunnel, once dialled.

        Raises UNAVAILABLE/HOST_SILENT when the host is not connected here or does not dial within 10 s.
        """
        host_id = record.view.host_id
        link = self._gateway.links.get(host_id)
        if link is None:
            raise MolnError(Reason.HOST_SILENT, f"VM {record.id}: its host is not connected; see: moln host list")
        tunnel_id, tunnel = uuid.uuid4().hex, Tunnel()
        self._open[tunnel_id] = tunnel
        expire_s = int(time.time() + DIAL_S)
        link.connection.open_tunnel(
            node_service_pb2.TunnelOrder(
                host_id=host_id,
                vm_id=record.id,
                uid=record.uid,
                address=self._node_address,
                ticket=sign_ticket(self._secret, "tunnel", tunnel_id, host_id, expire_s),
                kind=kind,
                max_bytes=max_bytes,
            )
        )
        try:
            async with asyncio.timeout(DIAL_S):
                await tunnel.dialled.wait()
        except TimeoutError as err:
            self.close(tunnel_id)
            raise MolnError(
                Reason.HOST_SILENT, f"VM {record.id}: host {link.name} did not answer in {DIAL_S:g} s"
            ) from err
        return tunnel_id, tunnel

    def close(self, tunnel_id: str) -> None:
        """Ends a tunnel. Idempotent."""
        tunnel = self._open.pop(tunnel_id, None)
        if tunnel is not None:
            tunnel.ended.set()

    async def join(
        self, ticket: str, incoming: AsyncIterator[node_service_pb2.OpenTunnelRequest]
    ) -> AsyncIterator[node_service_pb2.OpenTunnelResponse]:
        """The agent's stream: what it yields goes to the node. Raises TICKET_INVALID."""
        tunnel_id = ticket.split(":")[1] if ticket.count(":") >= 2 else ""
        verify_ticket(self._secret, ticket, "tunnel", tunnel_id, time.time())
        tunnel = self._open.get(tunnel_id)
        if tunnel is None or tunnel.dialled.is_set():
            raise MolnError(Reason.TICKET_INVALID, "the tunnel is closed, or was dialled before")
        tunnel.dialled.set()
        reader = asyncio.create_task(self._read(tunnel, incoming))
        ended = asyncio.create_task(tunnel.ended.wait())
        try:
            while True:
                taking = asyncio.create_task(tunnel.to_node.get())
                await asyncio.wait({taking, ended, reader}, return_when=asyncio.FIRST_COMPLETED)
                if not taking.done():
                    taking.cancel()
                    return
                data = taking.result()
                if data is None:
                    return
                yield node_service_pb2.OpenTunnelResponse(data=data)
        finally:
            self.close(tunnel_id)
            for task in (reader, ended):
                task.cancel()
            await asyncio.gather(reader, ended, return_exceptions=True)

    async def _read(self, tunnel: Tunnel, incoming: AsyncIterator[node_service_pb2.OpenTunnelRequest]) -> None:
        try:
            async for piece in incoming:
                if piece.data:
                    await tunnel.from_node.put(piece.data)
                if piece.reason:
                    await tunnel.from_node.put(_error(piece))
                    return
        finally:
            if not tunnel.from_node.full():
                tunnel.from_node.put_nowait(None)


def _error(piece: node_service_pb2.OpenTunnelRequest) -> MolnError:
    reason = Reason(piece.reason) if piece.reason in Reason.__members__ else Reason.INTERNAL
    return MolnError(reason, piece.message)
