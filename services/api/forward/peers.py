"""Asks the other processes of the api, as the caller would: his credentials go along, so that they judge themselves."""

from __future__ import annotations

import asyncio
from typing import TypeVar

import grpc
from google.protobuf.message import Message

from services.api.index.cloud import CloudIndex
from services.common.domain.errors import MolnError
from services.common.domain.reasons import Reason
from services.common.rpc.call import current_call
from services.common.rpc.channel import ClientTls, connect
from services.common.store import Store

PATIENCE_S = 2.0
R = TypeVar("R", bound=Message)


class Peers:
    """The other processes of the api; channels are kept while their processes are there."""

    def __init__(self, store: Store, cloud: CloudIndex, tls: ClientTls | None) -> None:
        self._store, self._cloud, self._tls = store, cloud, tls
        self._channels: dict[str, grpc.aio.Channel] = {}

    async def close(self) -> None:
        """Closes the channels."""
        for channel in self._channels.values():
            await channel.close()
        self._channels.clear()

    def addresses(self) -> list[str]:
        """Where the others are."""
        records = (entry.value for entry in self._cloud.catalog.of_kind("process").values())
        own = self._store.process.uuid
        return sorted(record.address for record in records if record.kind == "api" and record.uuid != own)

    async def ask_all(self, method: str, request: Message, reply: type[R]) -> tuple[list[R], list[str]]:
        """What the others answer, and in words which of them did not."""
        addresses = self.addresses()
        await self._forget_others(set(addresses))
        answers = await asyncio.gather(
            *(self.ask(address, method, request, reply) for address in addresses), return_exceptions=True
        )
        found: list[R] = []
        missing: list[str] = []
        for answer in answers:
            if isinstance(answer, MolnError):
                missing.append(answer.message)
            elif isinstance(answer, BaseException):
                raise answer
            else:
                found.append(answer)
        return found, missing

    async def ask(self, address: str, method: str, request: Message, reply: type[R]) -> R:
        """What one of them answers. Raises MolnError SERVICE_UNAVAILABLE."""
        channel = self._channels.get(address)
        if channel is None:
            channel = self._channels[address] = connect(address, tls=self._tls)
        call = channel.unary_unary(
            method, request_serializer=type(request).SerializeToString, response_deserializer=reply.FromString
        )
        metadata = [("authorization", current_call().header("authorization"))]
        try:
            return await call(request, timeout=PATIENCE_S, metadata=metadata)
        except grpc.aio.AioRpcError as err:
            raise MolnError(
                Reason.SERVICE_UNAVAILABLE, f"the api at {address} does not answer ({err.code().name}): {err.details()}"
            ) from err

    async def _forget_others(self, living: set[str]) -> None:
        for address in self._channels.keys() - living:
            await self._channels.pop(address).close()
