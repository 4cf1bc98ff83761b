"""Bridges in a real kernel, in a network namespace of the test's own."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from services.hostagent.network import netlink
from services.hostagent.network.bridges import Bridges
from services.hostagent.network.netlink import MarkedBridge
from services.hostagent.network.spec import BridgeSpec, NetworkError
from tests.support import namespaces
from tests.support.real import programs, real_part

SPEC = BridgeSpec("moln-t1", "net-uid-1", ipaddress.IPv4Interface("10.99.0.1/24"), mtu=1400, has_nat=True)


@pytest.fixture(autouse=True)
def own_network() -> Iterator[None]:
    real_part("network namespaces", namespaces.probe)
    real_part("nftables", programs("nft", "ip"))
    with namespaces.private_network():
        yield


@asynccontextmanager
async def used(bridges: Bridges, spec: BridgeSpec) -> AsyncIterator[None]:
    async with bridges.held([spec.name]):
        await bridges.ensure([spec])
        yield


async def test_a_bridge_carries_its_mark_gateway_and_mtu_and_making_it_again_changes_nothing() -> None:
    bridges = Bridges()
    async with used(bridges, SPEC), used(bridges, SPEC):
        assert await bridges.marked() == [MarkedBridge("moln-t1", "net-uid-1", 0)]
        found = shown("moln-t1")
    assert found["mtu"] == 1400
    assert [address["local"] for address in found["addr_info"] if address["family"] == "inet"] == ["10.99.0.1"]


async def test_addresses_are_translated_only_for_what_leaves_the_network() -> None:
    async with used(Bridges(), SPEC):
        rules = run("nft", "list", "ruleset")
    assert "ip saddr 10.99.0.0/24 ip daddr != 10.99.0.0/24 masquerade" in rules
    assert "moln:net-uid-1" in rules
    assert Path("/proc/sys/net/ipv4/ip_forward").read_text().strip() == "1"


async def test_a_firewall_that_forwards_nothing_lets_the_bridge_through_and_is_left_as_it_was() -> None:
    real_part("iptables", programs("iptables"))
    run("iptables", "-P", "FORWARD", "DROP")
    before = run("iptables", "-S")
    bridges = Bridges()
    async with used(bridges, SPEC):
        assert run("iptables", "-S").count("moln:net-uid-1") == 2
    assert run("iptables", "-S") == before


async def test_the_last_one_removes_bridge_and_rules_and_one_with_a_guest_on_it_stays() -> None:
    bridges = Bridges()
    async with used(bridges, SPEC):
        run("ip", "link", "add", "tap0", "type", "veth", "peer", "name", "tap1")
        run("ip", "link", "set", "tap0", "master", "moln-t1")
    await bridges.release(["moln-t1"])
    assert [bridge.ports for bridge in await bridges.marked()] == [1]
    run("ip", "link", "del", "tap0")
    await bridges.release(["moln-t1"])
    assert await bridges.marked() == []
    assert "moln" not in run("nft", "list", "ruleset")


async def test_a_bridge_that_a_start_still_needs_is_not_removed() -> None:
    bridges = Bridges()
    async with used(bridges, SPEC):
        await bridges.release(["moln-t1"])
        assert len(await bridges.marked()) == 1


async def test_a_start_that_fails_leaves_no_bridge() -> None:
    bridges = Bridges()
    with pytest.raises(RuntimeError):
        async with used(bridges, SPEC):
            raise RuntimeError
    assert await bridges.marked() == []


async def test_a_bridge_of_somebody_else_is_neither_used_nor_removed() -> None:
    run("ip", "link", "add", "moln-t1", "type", "bridge")
    bridges = Bridges()
    with pytest.raises(NetworkError, match="moln-t1 is not moln's"):
        async with used(bridges, SPEC):
            pytest.fail("it was used")
    await bridges.release(["moln-t1"])
    assert "moln-t1" in run("ip", "link")


async def test_the_administrators_bridge_is_used_as_it_is() -> None:
    run("ip", "link", "add", "br-admin", "type", "bridge")
    before = shown("br-admin")
    external = replace(SPEC, name="br-admin", is_external=True)
    async with used(Bridges(), external):
        assert shown("br-admin") == before
    with pytest.raises(NetworkError, match="br-none is not on this node"):
        await asyncio.to_thread(netlink.ensure, replace(external, name="br-none"))


def shown(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run("ip", "-j", "addr", "show", name))[0]
    return found


def run(*words: str) -> str:
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout
