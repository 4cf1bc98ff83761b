"""The screen of a guest: a viewer's connection by way of the hypervisor, and a picture taken once.

Nothing listens on the node: the hypervisor hands one end of a socket to the guest's VNC server and the other to us, for
each viewer anew, and lets it in without a password, because the api knows who asks.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

from services.common.domain.reasons import Reason
from services.hostagent.drivers.libvirt.connection import (
    Flags,
    GuestMissing,
    HypervisorError,
    LibvirtConnection,
    Raw,
    WrongState,
    receive_all,
)
from services.hostagent.drivers.libvirt.picture import Picture, as_png
from services.hostagent.drivers.libvirt.xml import parse

PIECE_BYTES = 64 * 1024
MAX_PICTURE_BYTES = 256 * 1024 * 1024
PICTURE_SECONDS = 20.0
NOT_RUNNING = "the guest does not run; start it first: moln vm resume"


class GuestScreen:
    """One viewer's connection to a guest's VNC server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def open(cls, connection: LibvirtConnection, uid: str) -> GuestScreen:
        """Others may be connected at the same time. Raises SCREEN_MISSING, STATE_FORBIDS, HYPERVISOR_FAILED."""
        try:
            end = await connection.call(lambda raw: _open(raw, uid), what="connecting to the screen")
        except (GuestMissing, WrongState) as err:
            raise HypervisorError(Reason.STATE_FORBIDS, NOT_RUNNING) from err
        return cls(*await asyncio.open_unix_connection(sock=end))

    async def output(self) -> AsyncIterator[bytes]:
        """What the server sends, until it ends the connection."""
        try:
            while data := await self._reader.read(PIECE_BYTES):
                yield data
        except ConnectionError:
            return

    async def write(self, data: bytes) -> None:
        """What the viewer sends; waits while the server does not read."""
        try:
            self._writer.write(data)
            await self._writer.drain()
        except ConnectionError as err:
            raise HypervisorError(Reason.STATE_FORBIDS, "the guest's screen is closed") from err

    async def close(self) -> None:
        """Ends the connection; safe to call twice."""
        self._writer.close()


async def take_picture(connection: LibvirtConnection, uid: str) -> Picture:
    """The screen as it is now. Raises SCREEN_MISSING, STATE_FORBIDS, HYPERVISOR_FAILED."""
    try:
        data = await connection.call(
            lambda raw: _take(raw, uid), what="taking a picture of the screen", seconds=PICTURE_SECONDS
        )
    except (GuestMissing, WrongState) as err:
        raise HypervisorError(Reason.STATE_FORBIDS, NOT_RUNNING) from err
    try:
        return await asyncio.to_thread(as_png, data)
    except ValueError as err:
        raise HypervisorError(Reason.HYPERVISOR_FAILED, str(err)) from err


def _open(raw: Raw, uid: str) -> socket.socket:
    domain = raw.lookupByUUIDString(uid)
    _check_screen(domain, ("vnc",))
    return socket.socket(fileno=domain.openGraphicsFD(0, Flags.GRAPHICS_SKIP_PASSWORD))


def _take(raw: Raw, uid: str) -> bytes:
    domain = raw.lookupByUUIDString(uid)
    _check_screen(domain, ("vnc", "spice"))
    stream = raw.newStream(0)
    domain.screenshot(stream, 0, 0)
    return receive_all(stream, MAX_PICTURE_BYTES)


def _check_screen(domain: Raw, kinds: tuple[str, ...]) -> None:
    found = [element.get("type", "") for element in parse(domain.XMLDesc()).iterfind("devices/graphics")]
    if not found or found[0] not in kinds:
        has = f"has a screen by {found[0]} only" if found else "has no screen"
        message = f"the VM {has}: create it with graphics: {{type: vnc}}"
        raise HypervisorError(Reason.SCREEN_MISSING, message)
