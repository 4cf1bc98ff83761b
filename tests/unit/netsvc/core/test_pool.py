"""The free addresses of a network, against a plain set."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from services.netsvc.core import macs
from services.netsvc.core.pool import Pool
from services.netsvc.core.ranges import Span

FIRST = 0x0A2C0001
SPANS = [Span(FIRST, FIRST + 5, None), Span(FIRST + 10, FIRST + 12, 0x020000AA0000)]
ADDRESS = st.integers(FIRST - 2, FIRST + 20)


class PoolMachine(RuleBasedStateMachine):
    """Whatever is done to a pool, it gives the lowest address that is free, and never one or a MAC address twice."""

    def __init__(self) -> None:
        super().__init__()
        self.spans = list(SPANS)
        self.pool = Pool(self.spans)
        self.taken: dict[int, int] = {}

    def inside(self) -> set[int]:
        return {address for span in self.spans for address in range(span.first, span.last + 1)}

    @rule()
    def take(self) -> None:
        natural = {each: self.pool.mac_of(each) for each in sorted(self.inside() - set(self.taken))}
        expected = next((each for each, mac in natural.items() if mac not in self.taken.values()), None)
        grant = self.pool.take()
        assert (grant.address if grant else None) == expected
        if grant:
            self.taken[grant.address] = grant.mac

    @rule(address=ADDRESS, mac=st.none() | st.integers(0x0200_0A2C_0000, 0x0200_0A2C_0010))
    def take_wished(self, address: int, mac: int | None) -> None:
        own = self.pool.mac_of(address) if mac is None else mac
        is_free = address in self.inside() and address not in self.taken and own not in self.taken.values()
        grant = self.pool.take_wished(address, mac)
        assert (grant is not None) == is_free
        if grant:
            self.taken[address] = own

    @rule(address=ADDRESS)
    def give_back(self, address: int) -> None:
        assert self.pool.give_back(address) == (address in self.taken)
        self.taken.pop(address, None)

    @rule(address=ADDRESS)
    def mark(self, address: int) -> None:
        mac = self.taken.get(address, self.pool.mac_of(address))
        if mac not in self.taken.values() or self.taken.get(address) == mac:
            self.pool.mark(address, mac)
            self.taken[address] = mac

    @rule()
    def grow(self) -> None:
        if len(self.spans) < 4:
            self.spans.append(Span(FIRST + 14 + 2 * len(self.spans), FIRST + 14 + 2 * len(self.spans), None))
            self.pool.change_spans(self.spans)

    @invariant()
    def counts_what_is_free(self) -> None:
        assert self.pool.free == len(self.inside() - set(self.taken))
        assert self.pool.total == len(self.inside())


TestPool = PoolMachine.TestCase
TestPool.settings = settings(max_examples=60, stateful_step_count=60)


def test_a_pool_of_millions_costs_nothing_to_make() -> None:
    pool = Pool([Span(0x0A000001, 0x0AFFFFFE, None)])
    assert pool.free == 2**24 - 2
    grant = pool.take()
    assert grant is not None
    assert macs.to_text(grant.mac) == "02:00:0a:00:00:01"


def test_an_address_whose_mac_somebody_wished_for_is_passed_over() -> None:
    pool = Pool(SPANS)
    assert pool.take_wished(FIRST + 1, macs.of_ipv4(FIRST))
    grant = pool.take()
    assert grant is not None
    assert grant.address == FIRST + 2
    pool.give_back(FIRST + 1)
    again = pool.take()
    assert again is not None
    assert again.address == FIRST


@pytest.mark.parametrize("text", ["", "02:00:00:00:00", "01:00:00:00:00:01", "00:00:00:00:00:00", "02-00-00-00-00-01"])
def test_what_is_no_unicast_mac_does_not_parse(text: str) -> None:
    assert macs.parse(text) is None


def test_a_mac_comes_back_as_it_went() -> None:
    assert macs.to_text(macs.parse("02:00:0A:2c:00:02") or 0) == "02:00:0a:2c:00:02"
