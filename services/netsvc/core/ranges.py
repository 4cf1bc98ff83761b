"""Ranges of addresses of a network, as numbers. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from moln.network.v1.network_pb2 import AddressRange, NetworkSpec
from services.netsvc.core import macs

_OCTETS = frozenset(map(str, range(256)))


@dataclass(frozen=True, slots=True)
class Span:
    """Consecutive IPv4 addresses and the MAC addresses that go with them."""

    first: int
    last: int
    first_mac: int | None
    """None: made from the IPv4 address."""

    def __contains__(self, address: int) -> bool:
        return self.first <= address <= self.last

    def mac(self, address: int) -> int:
        """The MAC address that belongs to one of the span's addresses."""
        return macs.of_ipv4(address) if self.first_mac is None else self.first_mac + address - self.first

    def overlaps(self, other: Span) -> bool:
        """Whether an address is in both."""
        return self.first <= other.last and other.first <= self.last

    def shares_macs(self, other: Span) -> bool:
        """Whether a MAC address is in both."""
        return self.mac(self.first) <= other.mac(other.last) and other.mac(other.first) <= self.mac(self.last)


def ipv4(text: str) -> int | None:
    """The number of an IPv4 address, or None where the text is none."""
    fields = text.split(".")
    if len(fields) != 4 or not _OCTETS.issuperset(fields):
        return None
    first, second, third, fourth = map(int, fields)
    return first << 24 | second << 16 | third << 8 | fourth


def text(address: int) -> str:
    """The usual form of an IPv4 address."""
    return f"{address >> 24}.{address >> 16 & 255}.{address >> 8 & 255}.{address & 255}"


def span(of: AddressRange) -> Span:
    """The span of a range that has been checked."""
    first = int(IPv4Address(of.first_ipv4))
    return Span(first, first + of.size - 1, macs.parse(of.first_mac))


def spans(spec: NetworkSpec) -> list[Span]:
    """The spans of a network's ranges, in order of addresses."""
    return sorted(map(span, spec.ranges), key=lambda one: one.first)


def usable(network: IPv4Network) -> tuple[int, int]:
    """First and last address that an interface can have: not the network's own, not the broadcast address."""
    return int(network.network_address) + 1, int(network.broadcast_address) - 1


def all_but(network: IPv4Network, gateway: str) -> Iterator[AddressRange]:
    """Ranges over all usable addresses but the gateway: the default of a network."""
    first, last = usable(network)
    hole = ipv4(gateway)
    pieces = [(first, last)] if hole is None else [(first, hole - 1), (hole + 1, last)]
    for low, high in pieces:
        if low <= high:
            yield AddressRange(first_ipv4=text(low), size=high - low + 1)


def total(ranges: Iterable[AddressRange]) -> int:
    """Addresses in all ranges together."""
    return sum(one.size for one in ranges)
