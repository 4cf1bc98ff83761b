"""The HTTP endpoint that Prometheus scrapes: GET /metrics, /healthz for load balancers, and what a service adds.

It runs on the service's own event loop, so that it stops answering when the service does.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import MappingProxyType

from prometheus_client.exposition import choose_encoder

from services.common.obs.metrics import Metrics

REQUEST_BYTES = 16 * 1024
REQUEST_SECONDS = 10.0
_END = b"# EOF\n"
"""The last line of OpenMetrics; the older format has none."""


@dataclass(frozen=True)
class Page:
    """One answer."""

    status: str
    content_type: str
    body: bytes


_NOT_ALLOWED = Page("405 Method Not Allowed", "text/plain", b"")


@asynccontextmanager
async def metrics_endpoint(
    metrics: Metrics,
    host: str,
    port: int,
    *,
    tls: ssl.SSLContext | None = None,
    is_healthy: Callable[[], bool] = lambda: True,
    pages: Mapping[str, Callable[[], bytes]] = MappingProxyType({}),
) -> AsyncIterator[int]:
    """Serves while the context lasts; yields the real port, also where port 0 was asked for.

    Raises OSError for an address that cannot be listened at. Whether it may be is the caller's to check.
    """
    connections: set[asyncio.Task[object]] = set()

    def answer(path: str, accept: str) -> Page:
        document = pages.get(path)
        if document is not None:
            return Page("200 OK", "application/json", document())
        return _page(metrics, is_healthy, path, accept)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  for the type checker: a coroutine runs in a task
        connections.add(task)
        try:
            await _connection(reader, writer, answer)
        finally:
            connections.discard(task)

    server = await asyncio.start_server(serve, host, port, ssl=tls, limit=REQUEST_BYTES)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in connections:
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)


async def _connection(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: Callable[[str, str], Page]
) -> None:
    """Answers one request and closes: scrapers come every few seconds, keeping connections gains nothing."""
    try:
        async with asyncio.timeout(REQUEST_SECONDS):
            head = await reader.readuntil(b"\r\n\r\n")
            method, path, accept = _parse(head)
            page = answer(path, accept) if method in {"GET", "HEAD"} else _NOT_ALLOWED
            writer.write(_encode(page, with_body=method != "HEAD"))
            await writer.drain()
    except (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError, ValueError):
        return  # a scraper that hangs up or talks nonsense is its own problem
    finally:
        writer.close()


def _parse(head: bytes) -> tuple[str, str, str]:
    lines = head.decode("latin-1").split("\r\n")
    method, target, _version = lines[0].split(" ")
    headers = dict(line.lower().split(":", 1) for line in lines[1:] if ":" in line)
    return method, target.split("?", 1)[0], headers.get("accept", "").strip()


def _page(metrics: Metrics, is_healthy: Callable[[], bool], path: str, accept: str) -> Page:
    if path == "/metrics":
        encode, content_type = choose_encoder(accept)
        body = encode(metrics.registry)
        is_openmetrics = body.endswith(_END)
        added = "".join(text.render(is_openmetrics=is_openmetrics) for text in metrics.texts).encode()
        whole = body.removesuffix(_END) + added + _END if is_openmetrics else body + added
        return Page("200 OK", content_type, whole)
    if path == "/healthz":
        return Page("200 OK", "text/plain", b"ok\n") if is_healthy() else Page("503 Unavailable", "text/plain", b"no\n")
    return Page("404 Not Found", "text/plain", b"there is /metrics and /healthz\n")


def _encode(page: Page, *, with_body: bool) -> bytes:
    head = (
        f"HTTP/1.1 {page.status}\r\nContent-Type: {page.content_type}\r\n"
        f"Content-Length: {len(page.body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + (page.body if with_body else b"")
