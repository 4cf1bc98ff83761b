"""An api that runs in the test's own process, and clients of it: what is refused is told by its reason."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest

from moln.compute.v1 import (
    cluster_service_pb2_grpc,
    host_service_pb2_grpc,
    template_service_pb2_grpc,
    vm_service_pb2_grpc,
)
from moln.iam.v1 import user_service_pb2, user_service_pb2_grpc
from moln.operations.v1 import operations_service_pb2_grpc
from services.api.app import TOKEN_FILE, main
from services.api.settings import Settings
from services.common.rpc import RemoteError, connect, decode_error
from services.common.runtime import Run


class TestRun(Run):
    """Remembers what the service announced."""

    __test__ = False

    def __init__(self) -> None:
        super().__init__("api", environ={})
        self.is_ready = asyncio.Event()
        self.told: dict[str, str] = {}

    def ready(self, addresses: object = None) -> None:
        assert isinstance(addresses, dict)
        self.told = dict(addresses)
        self.is_ready.set()


@dataclass
class Running:
    """An api that runs."""

    run: TestRun
    settings: Settings

    @property
    def address(self) -> str:
        """Where clients find it."""
        return self.run.told["grpc"]

    @property
    def nodes(self) -> str:
        """Where nodes find it."""
        return self.run.told["nodes"]

    @property
    def admin_token(self) -> str:
        """The first administrator's token."""
        return (self.settings.state_dir / TOKEN_FILE).read_text().strip()

    def metric(self, name: str, **labels: str) -> float:
        """The value of one of its metrics, 0 where there is none."""
        return self.run.metrics.registry.get_sample_value(name, labels) or 0.0


@asynccontextmanager
async def running_api(settings: Settings) -> AsyncIterator[Running]:
    """Runs until the context is left, and has ended then."""
    run = TestRun()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(main(settings, run))
        ready = group.create_task(run.is_ready.wait())
        await asyncio.wait({task, ready}, return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        try:
            yield Running(run, settings)
        finally:
            run.stop("the test has ended")


class Client:
    """A user's stubs."""

    def __init__(self, address: str, authorization: str, metadata: Sequence[tuple[str, str]] = ()) -> None:
        sent = (("authorization", authorization), *metadata) if authorization else tuple(metadata)
        self.channel = connect(address, headers=lambda: sent)
        self.vms = vm_service_pb2_grpc.VmServiceStub(self.channel)
        self.templates = template_service_pb2_grpc.TemplateServiceStub(self.channel)
        self.hosts = host_service_pb2_grpc.HostServiceStub(self.channel)
        self.clusters = cluster_service_pb2_grpc.ClusterServiceStub(self.channel)
        self.users = user_service_pb2_grpc.UserServiceStub(self.channel)
        self.operations = operations_service_pb2_grpc.OperationsServiceStub(self.channel)
        self.user_id = 0


@dataclass
class Clients:
    """Makes clients, and closes them in the end."""

    api: Running
    made: list[Client] = field(default_factory=list)

    def by_token(self, token: str, *metadata: tuple[str, str]) -> Client:
        """A client with a token; an empty one sends none."""
        return self.by_header(f"Bearer {token}" if token else "", *metadata)

    def by_password(self, name: str, password: str) -> Client:
        """A client with name and password."""
        return self.by_header("Basic " + base64.b64encode(f"{name}:{password}".encode()).decode())

    def by_header(self, authorization: str, *metadata: tuple[str, str]) -> Client:
        """A client with any header."""
        client = Client(self.api.address, authorization, metadata)
        self.made.append(client)
        return client

    def admin(self, *metadata: tuple[str, str]) -> Client:
        """The first administrator."""
        return self.by_token(self.api.admin_token, *metadata)

    async def user(self, name: str, **fields: Any) -> Client:
        """A new user."""
        created = await self.admin().users.CreateUser(user_service_pb2.CreateUserRequest(name=name, **fields))
        client = self.by_token(created.token)
        client.user_id = created.user.id
        return client

    async def close(self) -> None:
        """Closes all."""
        for client in self.made:
            await client.channel.close()


class Refusal:
    """What the server said; there once the context is left."""

    error: RemoteError

    @property
    def message(self) -> str:
        """In words."""
        return self.error.message


@contextmanager
def refused(reason: str, field_path: str = "", words: str = "") -> Iterator[Refusal]:
    """The call inside is refused with that reason, naming that field, saying those words."""
    refusal = Refusal()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        yield refusal
    refusal.error = decode_error(caught.value)
    assert refusal.error.reason == reason, refusal.error
    if field_path:
        assert [path for path, _ in refusal.error.fields] == [field_path], refusal.error
    assert words in refusal.error.message
