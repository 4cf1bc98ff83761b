"""Where etcd is, in the form that gRPC wants: one target for all members, and the options of the channel. No I/O but
the resolving of names.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Sequence

MESSAGE_BYTES = 256 * 1024 * 1024
"""Most bytes in an answer: far above etcd's --max-request-bytes, which bounds what the fragments of a watch hold."""

BASE_OPTIONS: tuple[tuple[str, int | str], ...] = (
    ("grpc.max_receive_message_length", MESSAGE_BYTES),
    ("grpc.max_send_message_length", MESSAGE_BYTES),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 1000),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.service_config", '{"loadBalancingConfig":[{"round_robin":{}}]}'),
    ("grpc.enable_retries", 0),
)


def strip_scheme(endpoint: str) -> str:
    """`http://` and `https://` say nothing here: TLS is a setting of its own."""
    return endpoint.removeprefix("http://").removeprefix("https://").rstrip("/")


async def target_of(endpoints: Sequence[str]) -> tuple[str, list[tuple[str, int | str]]]:
    """(target, options) of a channel that goes to all `endpoints` in turn and leaves out those that are down.

    ValueError for none, for a socket among others, and for a name that cannot be resolved.
    """
    options: list[tuple[str, int | str]] = list(BASE_OPTIONS)
    places = [strip_scheme(endpoint) for endpoint in endpoints]
    if not places:
        raise ValueError("no endpoint of etcd is set")
    if places[0].startswith("unix:"):
        if len(places) > 1:
            raise ValueError(f"{places[0]} cannot be one of several endpoints of etcd")
        return places[0], [*options, ("grpc.default_authority", "localhost")]
    if len(places) == 1 and not _is_address(places[0]):
        return f"dns:///{places[0]}", options
    numbers = [await _resolve(place) for place in places]
    family = "ipv6" if numbers[0].startswith("[") else "ipv4"
    return f"{family}:{','.join(numbers)}", [*options, ("grpc.default_authority", places[0].rpartition(":")[0])]


def _is_address(place: str) -> bool:
    try:
        ipaddress.ip_address(place.rpartition(":")[0].strip("[]"))
    except ValueError:
        return False
    return True


async def _resolve(place: str) -> str:
    host, _, port = place.rpartition(":")
    if not host or not port.isdigit():
        raise ValueError(f"endpoint of etcd {place!r} is not of the form host:port")
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
    except OSError as err:
        raise ValueError(f"endpoint of etcd {place!r}: {err.strerror or err}") from err
    family, _, _, _, address = found[0]
    return f"[{address[0]}]:{port}" if family == socket.AF_INET6 else f"{address[0]}:{port}"
