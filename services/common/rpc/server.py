"""The gRPC server of a service: bounded, framed, with reflection, health, channelz. It knows no service's methods."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar, cast

import grpc
from grpc_channelz.v1 import channelz_pb2_grpc
from grpc_channelz.v1._async import ChannelzServicer
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from grpc_reflection.v1alpha import reflection_pb2_grpc

from services.common.obs.metrics import Metrics
from services.common.rpc.call import Gate
from services.common.rpc.frame import Frame, Handler
from services.common.rpc.metrics import RpcMetrics
from services.common.rpc.reflection import reflection
from services.common.runtime.listen import Address, TlsFiles, check_address

MIB = 1024 * 1024
T = TypeVar("T")


@dataclass(frozen=True)
class Limits:
    """Bounds of one server. A keep-alive ping finds dead peers of long streams: without it they stay for hours."""

    receive_bytes: int = 32 * MIB
    send_bytes: int = 64 * MIB
    keepalive_seconds: float = 20.0
    keepalive_timeout_seconds: float = 10.0
    concurrent_calls: int | None = None
    stop_seconds: float = 5.0

    def options(self) -> list[tuple[str, int]]:
        """As gRPC wants them. Without so_reuseport a second process on the same port is refused, not half served."""
        return [
            ("grpc.so_reuseport", 0),
            ("grpc.max_receive_message_length", self.receive_bytes),
            ("grpc.max_send_message_length", self.send_bytes),
            ("grpc.keepalive_time_ms", int(self.keepalive_seconds * 1000)),
            ("grpc.keepalive_timeout_ms", int(self.keepalive_timeout_seconds * 1000)),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.max_pings_without_data", 0),
            ("grpc.http2.min_recv_ping_interval_without_data_ms", 5000),
            ("grpc.http2.max_ping_strikes", 0),
        ]


class RpcServer:
    """One server. Add servicers, listen, then enter it; leaving it says NOT_SERVING, lets calls end, and stops.

    `gate` is asked before every call, also those of reflection, health and channelz: it decides what is open.
    Two servers of one process share one RpcMetrics. `revision` is the store's revision that replies reflect; they carry
    it as the trailer `moln-revision`.
    """

    def __init__(
        self,
        metrics: Metrics | RpcMetrics,
        *,
        gate: Gate | None = None,
        limits: Limits | None = None,
        revision: Callable[[], int] | None = None,
    ) -> None:
        self._limits = limits or Limits()
        self._server = grpc.aio.server(
            options=self._limits.options(), maximum_concurrent_rpcs=self._limits.concurrent_calls
        )
        self._frame = Frame(metrics if isinstance(metrics, RpcMetrics) else RpcMetrics(metrics), gate, revision)
        self._health = HealthServicer()
        self._names: list[str] = []

    def add(self, adder: Callable[[T, grpc.aio.Server], None], servicer: T) -> None:
        """Serves `servicer`; `adder` is the generated `add_XServicer_to_server`."""
        adder(servicer, cast(grpc.aio.Server, _Registry(self.add_handlers)))

    def add_handlers(self, service: str, handlers: Mapping[str, Handler]) -> None:
        """Serves methods by hand, for example with a serializer that passes bytes through."""
        framed = {name: self._frame.wrap(f"/{service}/{name}", handler) for name, handler in handlers.items()}
        self._server.add_registered_method_handlers(service, framed)
        self._names.append(service)

    def listen(self, address: str, *, tls: TlsFiles | None = None, what: str = "listen") -> Address:
        """Binds to `address` ("127.0.0.1:0", "unix:/run/moln/api.sock"); returns the real one.

        Raises SettingsError beyond loopback without TLS, and for an address that is in use or not this machine's.
        """
        where = check_address(address, tls, what=what)
        try:
            if tls is None:
                port = self._server.add_insecure_port(str(where))
            else:
                port = self._server.add_secure_port(str(where), _server_credentials(tls))
        except RuntimeError as err:
            raise where.refused(_why_not(where)) from err
        if where.path:
            os.chmod(where.path, 0o600)
            return where
        return Address(host=where.host, port=port)

    async def __aenter__(self) -> Self:
        self.add(health_pb2_grpc.add_HealthServicer_to_server, self._health)
        self.add(channelz_pb2_grpc.add_ChannelzServicer_to_server, ChannelzServicer())
        self.add(reflection_pb2_grpc.add_ServerReflectionServicer_to_server, reflection(self._names))
        await self.set_serving(False)
        await self._server.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._health.enter_graceful_shutdown()
        await self._server.stop(self._limits.stop_seconds)

    async def set_serving(self, is_serving: bool) -> None:
        """What the health service answers, for the server as a whole ("") and for each of its services."""
        states = health_pb2.HealthCheckResponse
        for name in ["", *self._names]:
            await self._health.set(name, states.SERVING if is_serving else states.NOT_SERVING)


class _Registry:
    """What generated code takes for a server: hands the handlers on to be framed."""

    def __init__(self, add: Callable[[str, Mapping[str, Handler]], None]) -> None:
        self._add = add

    def add_generic_rpc_handlers(self, _handlers: Any) -> None:
        """Generated code offers the same handlers both ways; the other one is used."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Handler]) -> None:
        self._add(service, handlers)


def _server_credentials(tls: TlsFiles) -> grpc.ServerCredentials:
    certificate, key, authority = tls.read()
    return grpc.ssl_server_credentials(
        [(key, certificate)], root_certificates=authority, require_client_auth=authority is not None
    )


def _why_not(address: Address) -> OSError:
    """gRPC does not say why it could not bind: ask the system again."""
    family = socket.AF_UNIX if address.path else socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address.path or (address.host, address.port))
            probe.listen(1)
    except OSError as err:
        return err
    return OSError(0, "the address was refused")
