"""A running echo server and a client of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from services.common.obs.metrics import Metrics
from services.common.rpc import RpcServer, connect
from tests.unit.common.rpc.echo import NAME, Echo, EchoStub


@dataclass
class Served:
    """What a test needs of the running server."""

    address: str
    stub: EchoStub
    echo: Echo
    metrics: Metrics
    server: RpcServer

    def count(self, method: str, code: str) -> float:
        """How many calls of a method ended with a code."""
        labels = {"method": f"{NAME}/{method}", "code": code}
        return self.metrics.registry.get_sample_value("moln_test_rpc_calls_total", labels) or 0.0


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    """An echo server on a free port, without a gate."""
    metrics = Metrics("test")
    server = RpcServer(metrics)
    echo = Echo()
    server.add_handlers(NAME, echo.handlers())
    address = str(server.listen("127.0.0.1:0"))
    async with server, connect(address) as channel:
        await server.set_serving(True)
        yield Served(address, EchoStub(channel), echo, metrics, server)
