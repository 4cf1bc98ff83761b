"""A service with one method of each kind, for tests of the frame: what it does is in the text it is sent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
from google.protobuf.wrappers_pb2 import StringValue

from services.common.domain.errors import MolnError, invalid
from services.common.domain.reasons import Reason
from services.common.rpc import Call, current_call

NAME = "test.Echo"


class Echo:
    """Answers with what it was sent, or fails in the way that it names."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.cancelled = asyncio.Event()

    async def one(self, request: StringValue, context: grpc.aio.ServicerContext[Any, Any]) -> StringValue:
        self.calls.append(current_call())
        await self._obey(request.value, context)
        return StringValue(value=request.value)

    async def many(
        self, request: StringValue, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[StringValue]:
        try:
            for number in range(3):
                yield StringValue(value=f"{request.value}{number}")
            await self._obey(request.value, context)
        finally:
            self.cancelled.set()

    async def collect(
        self, requests: AsyncIterator[StringValue], context: grpc.aio.ServicerContext[Any, Any]
    ) -> StringValue:
        texts = list[str]()
        async for request in requests:
            if request.value == "refuse at once":
                raise MolnError(Reason.QUOTA_EXCEEDED, "no more")
            texts.append(request.value)
        await self._obey(texts[-1], context)
        return StringValue(value="".join(texts))

    async def chat(
        self, requests: AsyncIterator[StringValue], context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[StringValue]:
        async for request in requests:
            await self._obey(request.value, context)
            yield request

    async def written(self, request: StringValue, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        await context.write(request)

    async def _obey(self, text: str, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        if text == "refuse":
            raise MolnError(Reason.QUOTA_EXCEEDED, "no more", metadata={"limit": "3"})
        if text == "field":
            raise invalid("vm.name", "must not be empty")
        if text == "defect":
            raise KeyError("the token is hunter2")
        if text == "abort":
            await context.abort(grpc.StatusCode.DATA_LOSS, "by hand")
        if text == "hang":
            await asyncio.Event().wait()
        if text == "trailer":
            current_call().add_trailer("moln-revision", "42")

    def handlers(self) -> dict[str, Any]:
        """For RpcServer.add_handlers."""
        coders = (StringValue.FromString, StringValue.SerializeToString)
        return {
            "One": grpc.unary_unary_rpc_method_handler(self.one, *coders),
            "Many": grpc.unary_stream_rpc_method_handler(self.many, *coders),
            "Collect": grpc.stream_unary_rpc_method_handler(self.collect, *coders),
            "Chat": grpc.stream_stream_rpc_method_handler(self.chat, *coders),
            "Written": grpc.unary_stream_rpc_method_handler(self.written, *coders),
        }


class EchoStub:
    """The client's side."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        coders: dict[str, Any] = {
            "request_serializer": StringValue.SerializeToString, "response_deserializer": StringValue.FromString,
        }  # fmt: skip
        self.one: Any = channel.unary_unary(f"/{NAME}/One", **coders)
        self.many: Any = channel.unary_stream(f"/{NAME}/Many", **coders)
        self.collect: Any = channel.stream_unary(f"/{NAME}/Collect", **coders)
        self.chat: Any = channel.stream_stream(f"/{NAME}/Chat", **coders)
        self.written: Any = channel.unary_stream(f"/{NAME}/Written", **coders)


def text(value: str) -> StringValue:
    """A message."""
    return StringValue(value=value)
