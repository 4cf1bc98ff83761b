"""Services with a leader, run inside a test: their main function in a task, their RPCs through a real channel."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc

from services.common.domain.caller import Caller
from services.common.rpc import RemoteError, connect, decode_error, secret_headers
from services.common.runtime import Run

S = TypeVar("S")


class HeldRun(Run):
    """A run that remembers what the service announced."""

    def __init__(self, service: str) -> None:
        super().__init__(service, environ={})
        self.is_ready = asyncio.Event()
        self.address = ""

    def ready(self, addresses: object = None) -> None:
        assert isinstance(addresses, dict)
        self.address = addresses["grpc"]
        self.is_ready.set()


@dataclass
class Running:
    """A service that runs in this process."""

    run: HeldRun
    channel: grpc.aio.Channel

    def metric(self, name: str, **labels: str) -> float:
        """The value of one of its metrics."""
        return self.run.metrics.registry.get_sample_value(f"moln_{self.run.service}_{name}", labels) or 0.0

    @property
    def is_leader(self) -> bool:
        """Whether it leads."""
        return self.metric("is_leader") == 1.0


@asynccontextmanager
async def serving(
    service: str, main: Callable[[S, Run], Awaitable[None]], settings: S, secret: str
) -> AsyncIterator[Running]:
    """Runs a service's main function until the context is left."""
    run = HeldRun(service)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(_main(main, settings, run))
        ready = group.create_task(run.is_ready.wait())
        await asyncio.wait({task, ready}, return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        channel = connect(run.address, headers=secret_headers(secret))
        try:
            yield Running(run, channel)
        finally:
            await channel.close()
            run.stop("the test has ended")


async def _main(main: Callable[[S, Run], Awaitable[None]], settings: S, run: Run) -> None:
    await main(settings, run)


def as_caller(caller: Caller, **more: str) -> tuple[tuple[str, str], ...]:
    """The metadata by which the api says who calls."""
    return (*caller.to_metadata(), *((name.replace("_", "-"), value) for name, value in more.items()))


async def refusal(call: Awaitable[Any]) -> RemoteError:
    """The error that a call ends with; AssertionError where it does not."""
    try:
        answer = await call
    except grpc.RpcError as err:
        return decode_error(err)
    raise AssertionError(f"was not refused: {answer}")
