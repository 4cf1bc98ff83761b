"""The serial console of a guest: both ways through the hypervisor, and the file that holds all it ever said.

Works for remote hypervisors too, since the bytes travel over the connection. Must not interpret what the guest writes.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

from services.common.domain.reasons import Reason
from services.hostagent.drivers.libvirt.connection import (
    Flags,
    GuestMissing,
    HypervisorError,
    LibvirtConnection,
    Raw,
    StreamChannel,
    WrongState,
)

DEFAULT_LOG_BYTES = 256 * 1024
MAX_LOG_BYTES = 4 * 1024 * 1024
"""A console's log is cut to its newest half when it has grown beyond this."""
_PAUSE_AT, _GO_ON_AT = 64, 16
_WRITE_PAUSE_S = 0.02


class GuestConsole:
    """An open console. What arrives waits in a bounded queue: a guest that floods is held back, not stored."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._arrived: asyncio.Queue[bytes] = asyncio.Queue()
        self._channel: StreamChannel | None = None
        self._is_paused = False

    @classmethod
    async def open(cls, connection: LibvirtConnection, uid: str) -> GuestConsole:
        """Opens the guest's first console; an earlier reader loses it. Raises STATE_FORBIDS where it does not run."""
        console = cls()
        try:
            await connection.call(lambda raw: console._attach(raw, uid), what="opening the console")
        except (GuestMissing, WrongState) as err:
            message = "the guest does not run; start it first: moln vm resume"
            raise HypervisorError(Reason.STATE_FORBIDS, message) from err
        return console

    async def output(self) -> AsyncIterator[bytes]:
        """What the guest says, until the guest or the console ends."""
        while data := await self._arrived.get():
            if self._is_paused and self._arrived.qsize() <= _GO_ON_AT:
                self._pause(False)
            yield data

    async def write(self, data: bytes) -> None:
        """Types; waits while the guest does not read."""
        while data and self._channel is not None:
            taken = self._channel.send(data)
            data = data[taken:]
            if data and not taken:
                await asyncio.sleep(_WRITE_PAUSE_S)

    async def close(self) -> None:
        """Gives the console up; safe to call twice."""
        if self._channel is not None:
            await asyncio.to_thread(self._channel.close)

    def _attach(self, raw: Raw, uid: str) -> None:
        stream = StreamChannel.new_stream(raw)
        raw.lookupByUUIDString(uid).openConsole(None, stream, Flags.CONSOLE_FORCE)
        self._channel = StreamChannel(stream, self._received)
        self._channel.start()

    def _received(self, data: bytes) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._take, data)

    def _take(self, data: bytes) -> None:
        self._arrived.put_nowait(data)
        if not self._is_paused and self._arrived.qsize() >= _PAUSE_AT:
            self._pause(True)

    def _pause(self, is_paused: bool) -> None:
        self._is_paused = is_paused
        if self._channel is not None:
            self._channel.pause(is_paused)


def read_log(log: Path, max_bytes: int) -> bytes:
    """The newest `max_bytes` (0: a default) of a console's log; empty where there is none yet."""
    wanted = min(max_bytes or DEFAULT_LOG_BYTES, MAX_LOG_BYTES)
    try:
        with log.open("rb") as source:
            size = source.seek(0, os.SEEK_END)
            source.seek(max(0, size - wanted))
            return source.read(wanted)
    except FileNotFoundError:
        return b""


def trim_log(log: Path, limit: int = MAX_LOG_BYTES) -> bool:
    """Cuts a log that has passed `limit` to its newest half, in place: the hypervisor keeps it open and appends."""
    try:
        if log.stat().st_size <= limit:
            return False
    except FileNotFoundError:
        return False
    newest = read_log(log, limit // 2)
    with log.open("r+b") as target:
        target.truncate(0)
    with log.open("ab") as target:
        target.write(newest)
    return True
