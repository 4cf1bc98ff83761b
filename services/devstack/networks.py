"""Which addresses the default network of a stack takes: such as neither this machine nor another stack uses."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from pathlib import Path

from services.devstack.errors import StackError
from services.devstack.reservations import Reservations

POOL = ipaddress.IPv4Network("10.44.0.0/14")
PREFIX = 20
ROUTES = Path("/proc/net/route")


def choose_network(taken: Iterable[str], reserved: Reservations, routes: Path = ROUTES) -> str:
    """A free network in CIDR notation. `taken` are those of other stacks. Raises StackError where none is free."""
    used = [ipaddress.IPv4Network(text) for text in taken if text] + _routed(routes)
    for candidate in POOL.subnets(new_prefix=PREFIX):
        if not any(candidate.overlaps(network) for network in used) and reserve(str(candidate), reserved):
            return str(candidate)
    raise StackError(f"no network of {POOL} is free for guests: end another stack (`moln dev status` shows them)")


def reserve(network: str, reserved: Reservations) -> bool:
    """Whether no other stack that runs has chosen it."""
    return reserved.take(f"network {network}")


def _routed(routes: Path) -> list[ipaddress.IPv4Network]:
    """The networks that this machine has routes to, but the default one."""
    try:
        lines = routes.read_text().splitlines()[1:]
    except OSError:
        return []
    found = (_network(line.split()) for line in lines)
    return [network for network in found if network.prefixlen > 0]


def _network(words: list[str]) -> ipaddress.IPv4Network:
    destination, mask = (int.from_bytes(bytes.fromhex(words[place]), "little") for place in (1, 7))
    return ipaddress.IPv4Network((destination, mask.bit_count()))
