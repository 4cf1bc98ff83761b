"""A real etcd, an api in this process, its clients, agents played by hand, and the parts that other services write."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from moln.compute.v1 import host_service_pb2
from moln.node.v1 import node_service_pb2
from services.api import app
from services.api.core.liveness import Times
from services.api.settings import Settings
from services.common.rpc import make_service_secret
from services.common.store import StoreSettings
from tests.integration.api.agent import Agent, join
from tests.integration.api.running import Client, Clients, Running, running_api
from tests.integration.api.world import World
from tests.support.etcd import EtcdServer, etcd

__all__ = ["etcd"]

Start = Callable[..., AbstractAsyncContextManager[Running]]


@pytest.fixture
def secret_file(folder: Path) -> Path:
    """The secret that the services share."""
    make_service_secret(folder / "service.secret")
    return folder / "service.secret"


@pytest.fixture
def settings_of(etcd: EtcdServer, secret_file: Path, folder: Path) -> Callable[[str], Settings]:
    """Settings of an api whose state is kept under a name."""

    def made(name: str) -> Settings:
        return Settings(
            etcd_endpoints=(etcd.endpoint,), listen="127.0.0.1:0", node_listen="127.0.0.1:0", metrics_address="",
            service_secret_file=secret_file, state_dir=folder / name,
        )  # fmt: skip

    return made


@pytest.fixture
def start(settings_of: Callable[[str], Settings]) -> Start:
    """Starts apis in this process: `async with start() as api`; each name has a state folder of its own."""

    def started(name: str = "api") -> AbstractAsyncContextManager[Running]:
        return running_api(settings_of(name))

    return started


@pytest.fixture
def impatient_ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes write their record often; a store is stale after a second, and nobody waits long for it."""
    patched = functools.partial(StoreSettings, stale_after=1.0, tick=0.2, call_timeout=1.0, commit_timeout=1.0)
    monkeypatch.setattr(app, "StoreSettings", patched)


@pytest.fixture
def quickly_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hosts are silent a moment after their streams end. Name it before `api`."""
    monkeypatch.setattr(app, "Times", functools.partial(Times, grace=0.1, start_grace=0.1, boot_grace=0.3))


@pytest.fixture
async def api(start: Start) -> AsyncIterator[Running]:
    """One api."""
    async with start() as running:
        yield running


@pytest.fixture
async def clients(api: Running) -> AsyncIterator[Clients]:
    """Makes clients of that api."""
    made = Clients(api)
    yield made
    await made.close()


@pytest.fixture
def admin(clients: Clients) -> Client:
    """The first administrator."""
    return clients.admin()


@pytest.fixture
async def world(etcd: EtcdServer, api: Running) -> AsyncIterator[World]:
    """The other services' hand."""
    opened = await World.open(etcd.settings)
    yield opened
    await opened.store.close()


class Nodes:
    """Makes hosts, and agents for them."""

    def __init__(self, api: Running, admin: Client) -> None:
        self._api = api
        self._admin = admin

    async def hello(self, name: str, boot_id: str = "boot-1") -> node_service_pb2.HostHello:
        """A new host that has joined: what its agent says."""
        created = await self._admin.hosts.CreateHost(host_service_pb2.CreateHostRequest(name=name))
        joined = await join(self._api.nodes, created.join_token)
        return node_service_pb2.HostHello(host_id=joined.host_id, secret=joined.secret, boot_id=boot_id)

    async def agent(self, *names: str) -> Agent:
        """An agent, not yet connected, of new hosts."""
        return Agent(self._api.nodes, *[await self.hello(name) for name in names or ("node-1",)])

    def again(self, *hosts: node_service_pb2.HostHello) -> Agent:
        """An agent, not yet connected, of hosts that have joined before."""
        return Agent(self._api.nodes, *hosts)


@pytest.fixture
def nodes(api: Running, admin: Client) -> Nodes:
    """Hosts and agents."""
    return Nodes(api, admin)
