"""Tunnels that the gateway asks for: the agent dials, and bytes pass between the gateway and a guest's inside."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

import grpc

from moln.node.v1.node_service_pb2 import (
    TUNNEL_KIND_AGENT,
    TUNNEL_KIND_CONSOLE,
    TUNNEL_KIND_CONSOLE_LOG,
    TUNNEL_KIND_GUESTS,
    TUNNEL_KIND_SCREEN,
    TUNNEL_KIND_SCREENSHOT,
    OpenTunnelRequest,
    OpenTunnelResponse,
    TunnelOrder,
)
from moln.node.v1.node_service_pb2_grpc import NodeServiceStub
from services.common.domain.errors import MolnError
from services.common.domain.reasons import Reason
from services.common.obs.logs import get_logger
from services.common.runtime import Background
from services.hostagent.controllers.racing import until_one_ends
from services.hostagent.drivers.ports import ConsoleChannel, ConsoleDriver, ForeignDriver, InsideDriver

PIECE_BYTES = 64 * 1024
TICKET_HEADER = "moln-ticket"

Dial = Callable[[str], grpc.aio.Channel]
if TYPE_CHECKING:  # the class takes no parameters at run time
    Stream = grpc.aio.StreamStreamCall[OpenTunnelRequest, OpenTunnelResponse]


class Tunnels:
    """Opens each tunnel as a task of its own in `background`."""

    def __init__(
        self,
        driver: ConsoleDriver,
        inside: InsideDriver | None,
        foreign: ForeignDriver | None,
        dial: Dial,
        background: Background,
    ) -> None:
        self._driver, self._inside, self._foreign = driver, inside, foreign
        self._dial, self._background = dial, background
        self._log = get_logger("tunnels")

    def open(self, order: TunnelOrder) -> None:
        """Returns at once."""
        self._background.start(self._serve(order), name=f"tunnel {order.vm_id}")

    async def _serve(self, order: TunnelOrder) -> None:
        try:
            async with self._dial(order.address) as channel:
                stream = NodeServiceStub(channel).OpenTunnel(metadata=((TICKET_HEADER, order.ticket),))
                try:
                    await self._carry(order, stream)
                finally:
                    stream.cancel()
        except grpc.aio.AioRpcError as err:
            self._log.info("tunnel ended", vm_id=order.vm_id, code=err.code().name, error=err.details())
        except asyncio.InvalidStateError:
            return  # the gateway has ended the call while something was being said
        except Exception as err:  # noqa: BLE001  the loop runner's counterpart: a tunnel must not take the agent along
            self._log.error("tunnel failed", vm_id=order.vm_id, error=repr(err), exc_info=err)

    async def _carry(self, order: TunnelOrder, stream: Stream) -> None:
        try:
            if order.kind == TUNNEL_KIND_CONSOLE_LOG:
                await _send(await self._driver.console_log(order.host_id, order.uid, order.max_bytes), stream)
            elif order.kind == TUNNEL_KIND_CONSOLE:
                await self._both_ways(await self._driver.open_console(order.host_id, order.uid), stream)
            elif order.kind == TUNNEL_KIND_GUESTS:
                await self._list(order, stream)
            elif self._inside is None:
                raise MolnError(Reason.CAPABILITY, "the driver of the VM's host cannot look into guests")
            else:
                await self._look(order, self._inside, stream)
        except MolnError as err:
            await stream.write(OpenTunnelRequest(reason=err.reason, message=err.message))
        await stream.done_writing()
        while await stream.read() is not grpc.aio.EOF:  # the gateway ends the call once it has everything
            continue

    async def _list(self, order: TunnelOrder, stream: Stream) -> None:
        if self._foreign is None:
            raise MolnError(Reason.CAPABILITY, "the driver of the host has no guests but moln's own")
        await _send((await self._foreign.list_guests(order.host_id)).SerializeToString(), stream)

    async def _look(self, order: TunnelOrder, inside: InsideDriver, stream: Stream) -> None:
        if order.kind == TUNNEL_KIND_SCREEN:
            await self._both_ways(await inside.open_screen(order.host_id, order.uid), stream)
        elif order.kind == TUNNEL_KIND_SCREENSHOT:
            await _send((await inside.take_screenshot(order.host_id, order.uid)).SerializeToString(), stream)
        elif order.kind == TUNNEL_KIND_AGENT:
            answer = await inside.ask_agent(order.host_id, order.uid, order.command)
            await _send(answer.SerializeToString(), stream)
        else:
            raise MolnError(Reason.CAPABILITY, "this agent does not know that kind of tunnel; update it")

    async def _both_ways(self, console: ConsoleChannel, stream: Stream) -> None:
        """Until either end ends."""
        expected = (MolnError, grpc.aio.AioRpcError, asyncio.InvalidStateError)
        try:
            await until_one_ends(_type(console, stream), _show(console, stream), expected=expected)
        finally:
            await console.close()


async def _send(data: bytes, stream: Stream) -> None:
    for start in range(0, len(data), PIECE_BYTES):
        await stream.write(OpenTunnelRequest(data=data[start : start + PIECE_BYTES]))


async def _type(console: ConsoleChannel, stream: Stream) -> None:
    while isinstance(piece := await stream.read(), OpenTunnelResponse):
        await console.write(piece.data)


async def _show(console: ConsoleChannel, stream: Stream) -> None:
    async for data in console.output():
        await stream.write(OpenTunnelRequest(data=data))
