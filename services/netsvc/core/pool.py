"""The free addresses of one network: lowest first, in constant time, without listing them all. Pure.

A pool mirrors the lease keys; what it hands out is a proposal, and the store's comparison decides.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from typing import NamedTuple

from services.netsvc.core import macs
from services.netsvc.core.ranges import Span


class Grant(NamedTuple):
    """An address that a pool has set aside."""

    address: int
    mac: int


class Pool:
    """The addresses of one network's ranges: taken ones by number, free ones in order.

    Addresses below the cursor are taken or in the heap; those above have never been given out since the pool was made.
    """

    def __init__(self, spans: Iterable[Span]) -> None:
        self._spans: list[Span] = []
        self._taken: dict[int, int] = {}
        self._macs: dict[int, int] = {}
        self._returned: list[int] = []
        self._heaped: set[int] = set()
        self._cursor = 0
        self._place = 0
        self.total = 0
        self.change_spans(spans)

    @property
    def free(self) -> int:
        """Addresses of the ranges that nobody has."""
        return self.total - self._taken_inside

    def change_spans(self, spans: Iterable[Span]) -> None:
        """The network's ranges, which may have grown. Costs as much as there are taken addresses."""
        self._spans = sorted(spans, key=lambda one: one.first)
        self.total = sum(span.last - span.first + 1 for span in self._spans)
        self._taken_inside = sum(self._span_of(address) is not None for address in self._taken)
        self._returned, self._heaped = [], set()
        self._place = 0
        self._cursor = self._spans[0].first if self._spans else 0

    def holds(self, address: int) -> bool:
        """Whether the address is of the ranges."""
        return self._span_of(address) is not None

    def is_taken(self, address: int) -> bool:
        """Whether somebody has the address."""
        return address in self._taken

    def is_mac_taken(self, mac: int) -> bool:
        """Whether somebody has the MAC address."""
        return mac in self._macs

    def mark(self, address: int, mac: int) -> None:
        """Somebody has the address: as a lease key says. Repeating it changes nothing."""
        before = self._taken.get(address)
        if before is None and self._span_of(address) is not None:
            self._taken_inside += 1
        elif before is not None and before != mac:
            self._macs.pop(before, None)
        self._taken[address] = mac
        self._macs[mac] = address

    def take_wished(self, address: int, mac: int | None) -> Grant | None:
        """Sets this very address aside; None where it is taken or outside, or where the MAC address is taken."""
        span = self._span_of(address)
        if span is None or address in self._taken:
            return None
        return self._grant(address, span.mac(address) if mac is None else mac)

    def take(self, mac: int | None = None) -> Grant | None:
        """Sets the lowest free address aside; None where there is none, or where the MAC address is taken.

        An address whose own MAC address somebody has wished for is passed over.
        """
        if mac is not None and mac in self._macs:
            return None
        passed: list[int] = []
        grant: Grant | None = None
        while grant is None and (address := self._lowest()) is not None:
            grant = self._grant(address, self.mac_of(address) if mac is None else mac)
            if grant is None:
                passed.append(address)
        for address in passed:
            self._put_back(address)
        return grant

    def give_back(self, address: int) -> bool:
        """Nobody has the address any more; whether somebody had. Repeating it changes nothing."""
        mac = self._taken.pop(address, None)
        if mac is None:
            return False
        if self._macs.get(mac) == address:
            del self._macs[mac]
        if self._span_of(address) is not None:
            self._taken_inside -= 1
            self._put_back(address)
        return True

    def _grant(self, address: int, mac: int) -> Grant | None:
        if mac in self._macs:
            return None
        self.mark(address, mac)
        return Grant(address, mac)

    def _lowest(self) -> int | None:
        """Takes the lowest address that may be free out of heap or cursor."""
        while self._returned and self._returned[0] < self._cursor:
            address = heapq.heappop(self._returned)
            self._heaped.discard(address)
            if address not in self._taken:
                return address
        return self._advance()

    def _advance(self) -> int | None:
        while self._place < len(self._spans):
            span = self._spans[self._place]
            self._cursor = max(self._cursor, span.first)
            while self._cursor <= span.last:
                address = self._cursor
                self._cursor += 1
                if address not in self._taken:
                    return address
            self._place += 1
        return None

    def _put_back(self, address: int) -> None:
        if address < self._cursor and address not in self._heaped:
            heapq.heappush(self._returned, address)
            self._heaped.add(address)

    def mac_of(self, address: int) -> int:
        """The MAC address that goes with an address where none is wished for."""
        span = self._span_of(address)
        return macs.of_ipv4(address) if span is None else span.mac(address)

    def _span_of(self, address: int) -> Span | None:
        for span in self._spans:
            if span.first <= address <= span.last:
                return span
        return None
