"""Forwards what other services own: bytes pass through undecoded, the caller goes along in metadata.

Only the leader of a service answers; its record says where it is. A call that cannot be placed is UNAVAILABLE.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.descriptor import ServiceDescriptor

from services.api.access.gate import STRONG, caller_of_call
from services.common.domain.errors import MolnError
from services.common.domain.reasons import Reason
from services.common.resources.front import MIN_REVISION_HEADER
from services.common.rpc.call import Context, current_call
from services.common.rpc.channel import ClientTls, Deadline, connect
from services.common.rpc.frame import REVISION_HEADER
from services.common.rpc.secret import secret_headers
from services.common.rpc.server import RpcServer
from services.common.store import Store, StoreStale

_WAIT_FOR_CACHE_S = 2.0
_WAIT_FOR_LEADER_S = 5.0
_RETRY_S = 0.1


class Forwarder:
    """One channel to each leader; made anew when the leader is another."""

    def __init__(self, store: Store, secret: str, tls: ClientTls | None) -> None:
        self._store = store
        self._secret = secret
        self._tls = tls
        self._channels: dict[str, tuple[str, grpc.aio.Channel]] = {}

    async def close(self) -> None:
        """Closes the channels."""
        for _, channel in self._channels.values():
            await channel.close()

    def serve(self, server: RpcServer, service: ServiceDescriptor, owner: str) -> None:
        """Serves all methods of a service that `owner` leads."""
        handlers = {method.name: self._handler(service, method, owner) for method in service.methods}
        server.add_handlers(service.full_name, handlers)

    def _handler(self, service: ServiceDescriptor, method: Any, owner: str) -> Any:
        path = f"/{service.full_name}/{method.name}"
        is_bulk = method.client_streaming or method.server_streaming
        timeout = Deadline.BULK.value if is_bulk else Deadline.COMMIT.value
        if not method.client_streaming and not method.server_streaming:
            return grpc.unary_unary_rpc_method_handler(self._unary(owner, path, "unary_unary", timeout))
        if not method.server_streaming:
            return grpc.stream_unary_rpc_method_handler(self._unary(owner, path, "stream_unary", timeout))
        kind = "stream_stream" if method.client_streaming else "unary_stream"
        make = (
            grpc.stream_stream_rpc_method_handler if method.client_streaming else grpc.unary_stream_rpc_method_handler
        )
        return make(self._stream(owner, path, kind, timeout))

    def _unary(self, owner: str, path: str, kind: str, timeout: float) -> Callable[[Any, Context], Awaitable[bytes]]:
        async def forward(request: Any, context: Context) -> bytes:
            channel = await self._channel(owner)
            call = getattr(channel, kind)(path)(request, timeout=timeout, metadata=self._metadata())
            answer: bytes = await call
            await self._pass_revision(call)
            return answer

        return forward

    def _stream(
        self, owner: str, path: str, kind: str, timeout: float
    ) -> Callable[[Any, Context], AsyncIterator[bytes]]:
        async def forward(request: Any, context: Context) -> AsyncIterator[bytes]:
            channel = await self._channel(owner)
            call = getattr(channel, kind)(path)(request, timeout=timeout, metadata=self._metadata())
            async for answer in call:
                yield answer
            await self._pass_revision(call)

        return forward

    def _metadata(self) -> list[tuple[str, str]]:
        """Who calls, and how new the answer must be: STRONG was waited for here, so this process's revision will do."""
        wanted = current_call().header(MIN_REVISION_HEADER)
        if wanted == STRONG:
            wanted = str(self._store.cache.revision)
        return [*caller_of_call().to_metadata(), *([(MIN_REVISION_HEADER, wanted)] if wanted else [])]

    async def _pass_revision(self, call: Any) -> None:
        """Hands the revision on; and waits for it, so that the caller's next request here finds what he has made."""
        for name, value in await call.trailing_metadata() or ():
            if name == REVISION_HEADER and str(value).isdigit():
                current_call().add_trailer(REVISION_HEADER, str(value))
                with contextlib.suppress(StoreStale):
                    await self._store.cache.wait(int(value), _WAIT_FOR_CACHE_S)

    async def _channel(self, owner: str) -> grpc.aio.Channel:
        """The channel to the leader; waits a little for one, as after a leader's end."""
        deadline = asyncio.get_running_loop().time() + _WAIT_FOR_LEADER_S
        while not (address := self._store.leader_address(owner)):
            if asyncio.get_running_loop().time() > deadline:
                raise MolnError(
                    Reason.SERVICE_UNAVAILABLE,
                    f"{owner} does not run, so this cannot be answered now; see: moln status",
                )
            await asyncio.sleep(_RETRY_S)
        known = self._channels.get(owner)
        if known is not None and known[0] == address:
            return known[1]
        channel = connect(address, tls=self._tls, headers=secret_headers(self._secret))
        self._channels[owner] = (address, channel)
        if known is not None:
            await known[1].close()
        return channel
