"""Channels to services: every call has a deadline from a named class, and carries the request id and given headers.

The generated stubs take what `connect` returns for a plain channel. No interceptors: those of grpc.aio cost a task per
call, a default argument costs nothing.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.descriptor import ServiceDescriptor

from services.common.obs.logs import REQUEST_ID
from services.common.rpc.call import REQUEST_ID_HEADER
from services.common.rpc.server import MIB
from services.common.runtime.listen import Address, parse_address
from services.common.runtime.settings import SettingsError


class Deadline(enum.Enum):
    """How long a call may take, in seconds, by what it does. Every outgoing call belongs to one of these."""

    READ = 10.0
    """Answered from a cache."""
    COMMIT = 30.0
    """One or a few transactions, also under load."""
    NODE = 120.0
    """Something has to happen on a node first."""
    BULK = 6 * 3600.0
    """Bytes of images."""


Headers = Callable[[], Sequence[tuple[str, str]]]
"""Gives the metadata to send with a call; asked for each one."""

READ_PREFIXES = ("Get", "List", "BatchGet", "Explain")


@dataclass(frozen=True)
class ClientTls:
    """How a client knows the server, and how it shows itself where the server wants that (mutual TLS)."""

    authority: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    server_name: str = ""

    def credentials(self) -> grpc.ChannelCredentials:
        """Raises SettingsError for a file that cannot be read."""
        authority, key, certificate = (_read(path) for path in (self.authority, self.key, self.certificate))
        return grpc.ssl_channel_credentials(authority, key, certificate)


def connect(
    target: str,
    *,
    tls: ClientTls | None = None,
    headers: Headers | None = None,
    deadline: Deadline = Deadline.COMMIT,
    retried: Iterable[ServiceDescriptor] = (),
    creates_are_repeatable: bool = False,
    receive_bytes: int = 64 * MIB,
) -> grpc.aio.Channel:
    """A channel to `target`: "host:port", "unix:/path", or several addresses "10.0.0.1:2632,10.0.0.2:2632".

    Unary calls without a timeout of their own get `deadline`; streams get none. Reads of the services in `retried` are
    repeated when the server cannot be reached; creates too where the caller always sets their `request_id`
    (`creates_are_repeatable`). Raises SettingsError for another machine without TLS: tokens would travel in the clear.
    """
    addresses = [parse_address(part.strip()) for part in target.split(",")]
    options = _options(receive_bytes, service_config(retried, creates_are_repeatable), tls)
    if tls is not None:
        inner = grpc.aio.secure_channel(_target(addresses), tls.credentials(), options=options)
    else:
        _check_local(addresses)
        inner = grpc.aio.insecure_channel(_target(addresses), options=options)
    return CallingChannel(inner, headers or (lambda: ()), deadline.value)


def service_config(services: Iterable[ServiceDescriptor], creates_are_repeatable: bool) -> str:
    """gRPC's service config: several addresses are used in turn, and which methods are repeated on UNAVAILABLE."""
    names = [
        {"service": service.full_name, "method": method.name}
        for service in services
        for method in service.methods
        if method.name.startswith(READ_PREFIXES)
        or (creates_are_repeatable and "request_id" in method.input_type.fields_by_name)
    ]
    policy = {
        "maxAttempts": 4, "initialBackoff": "0.1s", "maxBackoff": "2s", "backoffMultiplier": 3,
        "retryableStatusCodes": ["UNAVAILABLE"],
    }  # fmt: skip
    methods = [{"name": names, "retryPolicy": policy}] if names else []
    return json.dumps({"loadBalancingConfig": [{"round_robin": {}}], "methodConfig": methods})


def _options(receive_bytes: int, config: str, tls: ClientTls | None) -> list[tuple[str, Any]]:
    options: list[tuple[str, Any]] = [
        ("grpc.service_config", config),
        ("grpc.max_receive_message_length", receive_bytes),
        ("grpc.max_send_message_length", receive_bytes),
        ("grpc.enable_http_proxy", 0),
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.keepalive_time_ms", 20_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.max_reconnect_backoff_ms", 3_000),
    ]
    if tls is not None and tls.server_name:
        options.append(("grpc.ssl_target_name_override", tls.server_name))
    return options


def _target(addresses: Sequence[Address]) -> str:
    if len(addresses) == 1:
        return str(addresses[0])
    kinds = {"unix" if address.path else "ipv6" if ":" in address.host else "ipv4" for address in addresses}
    if len(kinds) != 1 or kinds == {"unix"}:
        raise SettingsError("several addresses must all be IPv4 addresses with ports, or all IPv6")
    return f"{kinds.pop()}:{','.join(str(address) for address in addresses)}"


def _check_local(addresses: Sequence[Address]) -> None:
    for address in addresses:
        if not address.is_local:
            raise SettingsError(f"{address} is on another machine: give the TLS authority file that vouches for it")


def _read(path: Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        return path.read_bytes()
    except OSError as err:
        raise SettingsError(f"{path}: cannot be read: {err.strerror or err}") from err


class CallingChannel(grpc.aio.Channel):
    """A channel whose calls have a default deadline and headers."""

    def __init__(self, inner: grpc.aio.Channel, headers: Headers, deadline: float) -> None:
        self._inner = inner
        self._headers = headers
        self._deadline = deadline

    async def __aenter__(self) -> CallingChannel:
        await self._inner.__aenter__()
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self._inner.__aexit__(*error)

    async def close(self, grace: float | None = None) -> None:
        """Ends the channel; calls in progress get `grace` seconds."""
        await self._inner.close(grace)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """The state of the connection now."""
        return self._inner.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """Returns when the state is another than `last_observed_state`."""
        await self._inner.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        """Returns when the channel is connected."""
        await self._inner.channel_ready()

    def unary_unary(self, method: str, *arguments: Any, **options: Any) -> Any:
        """A callable of the generated stubs, with the defaults."""
        return self._with_defaults(self._inner.unary_unary(method, *arguments, **options), self._deadline)

    def unary_stream(self, method: str, *arguments: Any, **options: Any) -> Any:
        """A callable of the generated stubs, with the default headers."""
        return self._with_defaults(self._inner.unary_stream(method, *arguments, **options), None)

    def stream_unary(self, method: str, *arguments: Any, **options: Any) -> Any:
        """A callable of the generated stubs, with the default headers."""
        return self._with_defaults(self._inner.stream_unary(method, *arguments, **options), None)

    def stream_stream(self, method: str, *arguments: Any, **options: Any) -> Any:
        """A callable of the generated stubs, with the default headers."""
        return self._with_defaults(self._inner.stream_stream(method, *arguments, **options), None)

    def _with_defaults(self, call: Callable[..., Any], deadline: float | None) -> Callable[..., Any]:
        headers = self._headers

        def with_defaults(
            request: Any = None, *, timeout: float | None = deadline, metadata: Sequence[Any] = (), **options: Any
        ) -> Any:
            sent = (*headers(), *metadata)
            if request_id := REQUEST_ID.get():
                sent = (*sent, (REQUEST_ID_HEADER, request_id))
            return call(request, timeout=timeout, metadata=sent, **options)

        return with_defaults
