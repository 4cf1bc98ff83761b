"""A proxy before etcd's socket that can hold what etcd says, lose it, and cut connections at a chosen byte."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

CHUNK = 16 * 1024


class Proxy:
    """One proxy; `endpoint` is where clients go."""

    def __init__(self, upstream: Path, listen: Path) -> None:
        self._upstream = upstream
        self._listen = listen
        self._answers_pass = asyncio.Event()
        self._answers_pass.set()
        self._connections: set[asyncio.StreamWriter] = set()
        self._cut_in = -1
        self.accepts = True
        self.cuts = 0
        self.requested = 0

    @property
    def endpoint(self) -> str:
        """For `StoreSettings.endpoints`."""
        return f"unix:{self._listen}"

    def hold_answers(self) -> None:
        """From now on requests still reach etcd, and its answers wait."""
        self._answers_pass.clear()

    def release_answers(self) -> None:
        """Held answers go on."""
        self._answers_pass.set()

    def cut(self) -> None:
        """Ends all connections; held answers are lost. New ones are accepted."""
        self.cuts += 1
        for writer in list(self._connections):
            writer.transport.abort()
        self._connections.clear()

    def cut_in(self, answered: int) -> None:
        """Cuts after that many more bytes of answers have passed."""
        self._cut_in = answered

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        if not self.accepts:
            writer.transport.abort()
            return
        up_reader, up_writer = await asyncio.open_unix_connection(str(self._upstream))
        self._connections |= {writer, up_writer}
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._requests(reader, up_writer))
                group.create_task(self._answers(up_reader, writer))
        except* (OSError, EOFError):
            pass
        finally:
            for end in (writer, up_writer):
                self._connections.discard(end)
                end.transport.abort()

    async def _requests(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(CHUNK):
            self.requested += len(data)
            writer.write(data)
            await writer.drain()
        raise EOFError

    async def _answers(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(CHUNK):
            await self._answers_pass.wait()
            writer.write(data)
            await writer.drain()
            if 0 <= self._cut_in <= len(data):
                self._cut_in = -1
                self.cut()
            elif self._cut_in > 0:
                self._cut_in -= len(data)
        raise EOFError


@asynccontextmanager
async def proxied(upstream: Path, folder: Path) -> AsyncIterator[Proxy]:
    """A proxy that runs until the block ends."""
    proxy = Proxy(upstream, folder / "proxy")
    server = await asyncio.start_unix_server(proxy.serve, str(folder / "proxy"))
    try:
        yield proxy
    finally:
        proxy.release_answers()
        server.close()
        proxy.cut()
        await asyncio.sleep(0)
