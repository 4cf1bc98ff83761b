"""A small HTTP server for imports: what it answers at each path is the test's to say."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

Writer = asyncio.StreamWriter
Answer = Callable[[Writer], Awaitable[None]]


@dataclass
class Web:
    """Answers by path; counts what it was asked."""

    address: str = ""
    answers: dict[str, Answer] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def url(self, path: str) -> str:
        return f"http://{self.address}{path}"

    def file(self, path: str, data: bytes) -> str:
        """A file; its URL."""
        self.answers[path] = lambda writer: _send(writer, 200, data, len(data))
        return self.url(path)

    def broken(self, path: str, data: bytes, sizes: list[int]) -> str:
        """A file of which the first tries get only so many bytes."""
        left = list(sizes)

        async def answer(writer: Writer) -> None:
            await _send(writer, 200, data[: left.pop(0)] if left else data, len(data))

        self.answers[path] = answer
        return self.url(path)

    def slow(self, path: str, data: bytes) -> tuple[str, asyncio.Event]:
        """A file whose second half comes only when the event is set."""
        go = asyncio.Event()

        async def answer(writer: Writer) -> None:
            await _send(writer, 200, data[: len(data) // 2], len(data))
            await go.wait()
            writer.write(data[len(data) // 2 :])
            await writer.drain()

        self.answers[path] = answer
        return self.url(path), go

    def status(self, path: str, *statuses: int) -> str:
        """Answers these statuses, one after the other; the last for ever."""
        left = list(statuses)

        async def answer(writer: Writer) -> None:
            await _send(writer, left.pop(0) if len(left) > 1 else left[0], b"", 0)

        self.answers[path] = answer
        return self.url(path)

    def redirect(self, path: str, to: str) -> str:
        async def answer(writer: Writer) -> None:
            writer.write(
                f"HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode()
            )
            await writer.drain()

        self.answers[path] = answer
        return self.url(path)


async def _send(writer: Writer, status: int, data: bytes, length: int) -> None:
    head = f"HTTP/1.1 {status} Words\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    writer.write(head.encode() + data)
    await writer.drain()


@asynccontextmanager
async def web_server() -> AsyncIterator[Web]:
    """Serves on loopback until the context is left."""
    web = Web()
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: Writer) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            path = (await reader.readuntil(b"\r\n\r\n")).split(b" ")[1].decode()
            web.asked.append(path)
            await web.answers[path](writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            return
        finally:
            tasks.discard(task)
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    web.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield web
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
