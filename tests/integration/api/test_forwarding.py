"""What other services own is asked of their leader: bytes, callers and errors go through unchanged."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from moln.image.v1 import image_pb2, image_service_pb2, image_service_pb2_grpc
from moln.network.v1 import network_pb2, network_service_pb2, network_service_pb2_grpc
from moln.operations.v1 import records_pb2
from services.api.forward import forwarder
from services.common.domain.caller import Caller
from services.common.domain.errors import MolnError, invalid
from services.common.domain.reasons import Reason
from services.common.obs.metrics import Metrics
from services.common.rpc import RpcServer, current_call, read_service_secret, secret_gate
from services.common.store import Txn, key
from tests.integration.api.running import Client, Clients, refused
from tests.integration.api.world import World

Get = network_service_pb2.GetNetworkRequest


def caller() -> Caller:
    """The caller, as a service reads it."""
    return Caller.from_metadata({name: value for name, value in current_call().metadata if isinstance(value, str)})


class Networks:
    """Tells what it was asked, in the fields of a network."""

    def __init__(self) -> None:
        self.min_revisions: list[str] = []

    async def get(self, request: Get, context: Any) -> network_pb2.Network:
        who = caller()
        self.min_revisions.append(current_call().header("moln-min-revision"))
        if request.id == 404:
            raise MolnError(Reason.NETWORK_NOT_FOUND, "there is no network 404", metadata={"id": "404"})
        if request.id == 400:
            raise invalid("id", "is not liked here")
        spec = network_pb2.NetworkSpec(owner_id=who.user_id, owner=who.name, labels={"admin": str(who.is_admin)})
        return network_pb2.Network(id=request.id, spec=spec)


class Images:
    """Counts what is uploaded."""

    async def upload(
        self, request_iterator: AsyncIterator[image_service_pb2.UploadImageRequest], context: Any
    ) -> image_pb2.Image:
        size = 0
        async for piece in request_iterator:
            size += len(piece.data)
        return image_pb2.Image(id=1, status=image_pb2.ImageStatus(file_size_bytes=size))


class Backend:
    """A service that leads, as far as the api can tell."""

    def __init__(self, world: World, secret_file: Path) -> None:
        self.networks = Networks()
        self._world = world
        self._secret_file = secret_file
        self._server: RpcServer | None = None

    async def start(self, revision: Callable[[], int] | None = None) -> None:
        """Serves, and says so in the store."""
        server = RpcServer(Metrics("test"), gate=secret_gate(read_service_secret(self._secret_file)), revision=revision)
        get = grpc.unary_unary_rpc_method_handler(
            self.networks.get, Get.FromString, network_pb2.Network.SerializeToString
        )
        upload = grpc.stream_unary_rpc_method_handler(
            Images().upload, image_service_pb2.UploadImageRequest.FromString, image_pb2.Image.SerializeToString
        )
        server.add_handlers("moln.network.v1.NetworkService", {"GetNetwork": get})
        server.add_handlers("moln.image.v1.ImageService", {"UploadImage": upload})
        address = str(server.listen("127.0.0.1:0"))
        await server.__aenter__()
        self._server = server
        txn = Txn()
        for name in ("netsvc", "imagesvc"):
            txn.put(key("leader", name), records_pb2.LeaderRecord(uuid="x", address=address))
        await self._world.store.commit(txn)

    async def stop(self) -> None:
        """Serves no more; its record stays, as after kill -9."""
        if self._server is not None:
            await self._server.__aexit__(None, None, None)
            self._server = None


@pytest.fixture
async def backend(world: World, secret_file: Path) -> AsyncIterator[Backend]:
    """One that does not run yet."""
    made = Backend(world, secret_file)
    yield made
    await made.stop()


def networks(client: Client) -> Any:
    """The stub of networks."""
    return network_service_pb2_grpc.NetworkServiceStub(client.channel)


async def test_a_call_goes_to_the_leader_with_its_caller(backend: Backend, admin: Client, clients: Clients) -> None:
    await backend.start()
    anna = await clients.user("anna")
    of_admin = await networks(admin).GetNetwork(Get(id=3))
    of_anna = await networks(anna).GetNetwork(Get(id=4))
    assert (of_admin.id, of_admin.spec.owner, of_admin.spec.labels["admin"]) == (3, "admin", "True")
    assert (of_anna.spec.owner_id, of_anna.spec.owner, of_anna.spec.labels["admin"]) == (anna.user_id, "anna", "False")


async def test_an_error_comes_through_with_reason_fields_and_metadata(backend: Backend, admin: Client) -> None:
    await backend.start()
    with refused("NETWORK_NOT_FOUND", words="there is no network 404") as refusal:
        await networks(admin).GetNetwork(Get(id=404))
    assert refusal.error.code is grpc.StatusCode.NOT_FOUND
    assert refusal.error.metadata["id"] == "404"
    with refused("FIELD_INVALID", "id"):
        await networks(admin).GetNetwork(Get(id=400))


async def test_an_upload_streams_through(backend: Backend, admin: Client) -> None:
    await backend.start()
    pieces = [image_service_pb2.UploadImageRequest(data=b"x" * 100_000) for _ in range(30)]
    stub: Any = image_service_pb2_grpc.ImageServiceStub(admin.channel)
    image = await stub.UploadImage(iter(pieces))
    assert image.status.file_size_bytes == 3_000_000


async def test_without_a_leader_the_call_says_which_service_is_missing(
    admin: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forwarder, "_WAIT_FOR_LEADER_S", 0.0)
    with refused("SERVICE_UNAVAILABLE", words="netsvc does not run"):
        await networks(admin).GetNetwork(Get(id=1))


async def test_a_call_waits_for_a_leader_that_is_on_its_way(backend: Backend, admin: Client) -> None:
    call = networks(admin).GetNetwork(Get(id=1))
    await backend.start()
    assert (await call).id == 1


async def test_a_leader_that_has_died_is_unavailable_and_the_next_one_is_found(backend: Backend, admin: Client) -> None:
    await backend.start()
    await networks(admin).GetNetwork(Get(id=1))
    await backend.stop()
    with refused("SERVICE_UNAVAILABLE"):
        await networks(admin).GetNetwork(Get(id=1))
    await backend.start()
    assert (await networks(admin).GetNetwork(Get(id=1))).id == 1


async def test_revisions_go_both_ways(backend: Backend, world: World, clients: Clients) -> None:
    await backend.start(lambda: world.store.cache.revision)
    call = networks(clients.admin(("moln-min-revision", "5"))).GetNetwork(Get(id=1))
    await call
    trailers = dict(await call.trailing_metadata())
    assert int(trailers["moln-revision"]) >= 5
    await networks(clients.admin(("moln-min-revision", "STRONG"))).GetNetwork(Get(id=1))
    assert backend.networks.min_revisions[0] == "5"
    assert int(backend.networks.min_revisions[1]) >= 5


async def test_credentials_are_asked_for_before_anything_is_forwarded(backend: Backend, clients: Clients) -> None:
    await backend.start()
    with refused("TOKEN_INVALID"):
        await networks(clients.by_token("wrong")).GetNetwork(Get(id=1))
    assert backend.networks.min_revisions == []
