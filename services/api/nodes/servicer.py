"""NodeService: what nodes dial. Translates streams to calls of the gateway; decides nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

from moln.compute.v1 import host_pb2
from moln.image.v1 import image_pb2
from moln.node.v1 import node_service_pb2, node_service_pb2_grpc
from services.api.access.credentials import new_token, token_hash
from services.api.core import compose
from services.api.index.cloud import CloudIndex
from services.api.nodes.connection import AgentConnection
from services.api.nodes.gateway import HEARTBEAT_S, NodeGateway
from services.api.nodes.tunnels import Tunnels
from services.common.domain.errors import MolnError, invalid
from services.common.domain.keys import SCHEMA_VERSION
from services.common.domain.reasons import Reason
from services.common.rpc.call import Context, current_call
from services.common.runtime.background import Background
from services.common.store import Conflict, Store, Txn

_INBOX = 64


class NodeServicer(node_service_pb2_grpc.NodeServiceServicer):
    """Join, Connect, OpenTunnel."""

    def __init__(self, store: Store, cloud: CloudIndex, gateway: NodeGateway, tunnels: Tunnels) -> None:
        self._store = store
        self._cloud = cloud
        self._gateway = gateway
        self._tunnels = tunnels

    async def Join(  # noqa: N802  the contract's name
        self, request: node_service_pb2.JoinRequest, context: Context
    ) -> node_service_pb2.JoinResponse:
        """Exchanges a one-time token for the node's secret; the token is spent in the same transaction."""
        refused = MolnError(
            Reason.JOIN_TOKEN_INVALID,
            "the join token is wrong, spent or has expired; make a new one: moln host token HOST",
        )
        host_id = self._cloud.hosts.by_join_token.get(token_hash(request.join_token), 0)
        record = self._cloud.hosts.get(host_id)
        if record is None or record.secret is None or record.spec is None:
            raise refused
        stored: host_pb2.HostSecret = record.secret.value
        if stored.join_token_expire_time.seconds < time.time():
            raise refused
        secret = new_token("molnnode")
        txn = Txn()
        txn.unchanged(record.secret.key, record.secret.mod_revision)
        spent = host_pb2.HostSecret(uid=stored.uid, secret_sha256=token_hash(secret), schema_version=SCHEMA_VERSION)
        txn.put(record.secret.key, spent)
        try:
            await self._store.commit(txn)
        except Conflict as err:
            raise refused from err
        cloud = self._cloud.catalog.cloud()
        return node_service_pb2.JoinResponse(
            host_id=host_id,
            host_uid=stored.uid,
            name=record.name,
            secret=secret,
            cloud_uid=cloud.value.uid if cloud is not None else "",
        )

    async def Connect(  # type: ignore[override]  # noqa: N802  the contract's name; it writes to its context
        self, request_iterator: AsyncIterator[node_service_pb2.ConnectRequest], context: Context
    ) -> None:
        """The stream of one agent. What comes in is taken in bunches, so that much at once costs few commits."""
        first = await anext(aiter(request_iterator), None)
        if first is None or not first.HasField("hello"):
            raise invalid("hello", "must be in the first message of the stream", reason=Reason.FIELD_REQUIRED)
        connection = AgentConnection(first.hello.agent_id)
        try:
            refused = await self._gateway.register(connection, first.hello)
            await context.write(compose.frame(1, self._welcome(refused).SerializeToString()))
            if not connection.links:
                return
            inbox: asyncio.Queue[node_service_pb2.ConnectRequest] = asyncio.Queue(_INBOX)
            async with Background() as tasks:
                tasks.start(self._read(connection, request_iterator, inbox), name="from agent")
                tasks.start(self._take(connection, inbox), name="reports")
                await self._gateway.send(connection, context.write)
        finally:
            connection.close()
            await self._gateway.unregister(connection)

    async def OpenTunnel(  # type: ignore[override]  # noqa: N802  as above
        self, request_iterator: AsyncIterator[node_service_pb2.OpenTunnelRequest], context: Context
    ) -> None:
        """The node's end of a console."""
        await self._tunnels.join(current_call().header("moln-ticket"), request_iterator, context.write)

    async def _read(
        self,
        connection: AgentConnection,
        incoming: AsyncIterator[node_service_pb2.ConnectRequest],
        inbox: asyncio.Queue[node_service_pb2.ConnectRequest],
    ) -> None:
        async for message in incoming:
            connection.heard = time.monotonic()
            if message.heartbeat:
                connection.heartbeat_seen(message.heartbeat)
            if message.samples:
                self._gateway.sampled(connection, message.samples)
            if message.reports or message.hosts or message.synced_host_ids:
                await inbox.put(message)
        connection.close()

    async def _take(self, connection: AgentConnection, inbox: asyncio.Queue[node_service_pb2.ConnectRequest]) -> None:
        while True:
            messages = [await inbox.get()]
            while not inbox.empty():
                messages.append(inbox.get_nowait())
            await self._gateway.receive(connection, messages)

    def _welcome(self, refused: dict[int, str]) -> node_service_pb2.Welcome:
        cloud = self._cloud.catalog.cloud()
        datastores = []
        for (key_id, part), entry in self._cloud.catalog.of_kind("datastore").items():
            if part != "spec":
                continue
            status = self._cloud.catalog.get("datastore", int(key_id), "status")
            datastores.append(
                image_pb2.Datastore(
                    id=int(key_id), spec=entry.value, status=status.value if status is not None else None
                )
            )
        return node_service_pb2.Welcome(
            cloud_uid=cloud.value.uid if cloud is not None else "",
            heartbeat_interval_s=HEARTBEAT_S,
            refused_hosts=refused,
            datastores=datastores,
        )
