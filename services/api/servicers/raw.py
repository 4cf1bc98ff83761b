"""Registers servicers whose methods may answer with bytes that are serialised already."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

import grpc

from services.common.rpc.server import RpcServer

T = TypeVar("T")


def add_raw(server: RpcServer, adder: Callable[[T, grpc.aio.Server], None], servicer: T) -> None:
    """As `server.add`, but an answer that is bytes goes out as it is: stored parts are not decoded first."""
    adder(servicer, cast(grpc.aio.Server, _Collector(server)))


class _Collector:
    def __init__(self, server: RpcServer) -> None:
        self._server = server

    def add_generic_rpc_handlers(self, _handlers: Any) -> None:
        """Generated code offers the same handlers both ways; the other one is used."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """Takes the handlers of one service."""
        self._server.add_handlers(service, {name: _passing(handler) for name, handler in handlers.items()})


def _passing(handler: Any) -> Any:
    coders = (handler.request_deserializer, _serializer(handler.response_serializer))
    if handler.unary_unary is not None:
        return grpc.unary_unary_rpc_method_handler(handler.unary_unary, *coders)
    if handler.stream_unary is not None:
        return grpc.stream_unary_rpc_method_handler(handler.stream_unary, *coders)
    if handler.unary_stream is not None:
        return grpc.unary_stream_rpc_method_handler(handler.unary_stream, *coders)
    return grpc.stream_stream_rpc_method_handler(handler.stream_stream, *coders)


def _serializer(serialize: Callable[[Any], bytes]) -> Callable[[Any], bytes]:
    def pass_bytes(answer: Any) -> bytes:
        return answer if isinstance(answer, bytes) else serialize(answer)

    return pass_bytes
