"""A real etcd, a world in it, and schedulers that run in this process (`scheduler`) or as processes of their own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from services.common.rpc import make_service_secret
from services.common.runtime import Run
from services.scheduler.app import main
from services.scheduler.settings import SchedulerSettings
from tests.integration.scheduler.world import World
from tests.support.etcd import EtcdServer, etcd
from tests.support.eventually import eventually

__all__ = ["etcd"]


@dataclass
class Running:
    """A scheduler that runs in this process."""

    address: str
    run: Run

    def metric(self, name: str, **labels: str) -> float:
        """The value of one of its metrics."""
        return self.run.metrics.registry.get_sample_value(f"moln_scheduler_{name}", labels) or 0.0


Start = Callable[..., AbstractAsyncContextManager[Running]]
"""Settings by name may be handed in."""


class TestRun(Run):
    """Remembers what the service announced."""

    __test__ = False

    def __init__(self) -> None:
        super().__init__("scheduler", environ={})
        self.is_ready = asyncio.Event()
        self.address = ""

    def ready(self, addresses: object = None) -> None:
        assert isinstance(addresses, dict)
        self.address = addresses["grpc"]
        self.is_ready.set()


@pytest.fixture
def secret_file(folder: Path) -> Path:
    """The secret that the services share."""
    make_service_secret(folder / "service.secret")
    return folder / "service.secret"


@pytest.fixture
async def world(etcd: EtcdServer) -> AsyncIterator[World]:
    """The world, empty."""
    opened = await World.open(etcd.settings)
    yield opened
    await opened.store.close()


@pytest.fixture
def start(etcd: EtcdServer, secret_file: Path) -> Start:
    """Starts schedulers in this process."""
    settings = SchedulerSettings(
        etcd_endpoints=(etcd.endpoint,), listen="127.0.0.1:0", service_secret_file=secret_file, metrics_address=""
    )

    @asynccontextmanager
    async def started(**options: Any) -> AsyncIterator[Running]:
        run = TestRun()
        async with asyncio.TaskGroup() as group:
            task = group.create_task(main(replace(settings, **options), run))
            ready = group.create_task(run.is_ready.wait())
            await asyncio.wait({task, ready}, return_when=asyncio.FIRST_COMPLETED)
            ready.cancel()
            try:
                yield Running(run.address, run)
            finally:
                run.stop("the test has ended")

    return started


@pytest.fixture
async def scheduler(world: World, start: Start) -> AsyncIterator[Running]:
    """One scheduler, which leads."""
    async with start() as running:
        await eventually(lambda: running.metric("is_leader") == 1.0)
        yield running
