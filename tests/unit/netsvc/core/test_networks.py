"""Which networks may stand."""

from __future__ import annotations

from ipaddress import IPv4Network

import pytest

from moln.network.v1.network_pb2 import AddressRange, NetworkKind, NetworkSpec
from services.common.domain.caller import Caller
from services.common.domain.errors import MolnError
from services.common.domain.reasons import Reason
from services.netsvc.core import networks, ranges

ADMIN = Caller(1, "ada", is_admin=True)
USER = Caller(2, "bob")
CLOUD = "4f2a9c1e-0000-4000-8000-000000000000"


def spec(**fields: object) -> NetworkSpec:
    return NetworkSpec(**{"name": "front", "cidr": "10.44.0.0/24", **fields})  # type: ignore[arg-type]


def one(first: str, size: int, mac: str = "") -> AddressRange:
    return AddressRange(first_ipv4=first, size=size, first_mac=mac)


def refusal(wanted: NetworkSpec, caller: Caller = ADMIN) -> tuple[Reason, str, str]:
    with pytest.raises(MolnError) as caught:
        networks.check(wanted, caller)
    path, problem = caught.value.fields[0]
    return caught.value.reason, path, problem


def test_a_network_needs_no_more_than_a_name_and_a_cidr() -> None:
    networks.check(spec(), USER)
    full = networks.complete(spec(), 7, CLOUD)
    assert full.bridge == "mo4f2a7"
    assert full.kind == NetworkKind.NETWORK_KIND_BRIDGE
    assert [(each.first_ipv4, each.size) for each in full.ranges] == [("10.44.0.1", 254)]


def test_default_ranges_leave_the_gateway_out() -> None:
    full = networks.complete(spec(gateway="10.44.0.1"), 1, CLOUD)
    assert [(each.first_ipv4, each.size) for each in full.ranges] == [("10.44.0.2", 253)]
    middle = networks.complete(spec(gateway="10.44.0.100"), 1, CLOUD)
    assert [(each.first_ipv4, each.size) for each in middle.ranges] == [("10.44.0.1", 99), ("10.44.0.101", 154)]


def test_nat_gives_nodes_the_gateway_and_the_gateway_a_free_address() -> None:
    full = networks.complete(spec(has_nat=True, ranges=[one("10.44.0.1", 10)]), 1, CLOUD)
    assert full.is_gateway_on_node
    assert full.gateway == "10.44.0.11"


def test_ranges_that_leave_no_gateway_are_refused() -> None:
    with pytest.raises(MolnError, match="leave no address"):
        networks.complete(spec(has_nat=True, ranges=[one("10.44.0.1", 254)]), 1, CLOUD)


def test_the_default_bridge_fits_even_for_the_largest_id() -> None:
    assert len(networks.default_bridge(2**32 - 1, CLOUD)) == networks.BRIDGE_LENGTH


@pytest.mark.parametrize(
    ("wanted", "path", "words"),
    [
        (spec(name="7"), "spec.name", "digits"),
        (spec(cidr=""), "spec.cidr", "required"),
        (spec(cidr="10.44.0/24"), "spec.cidr", "not an IPv4 network"),
        (spec(cidr="10.44.0.5/24"), "spec.cidr", "write 10.44.0.0/24"),
        (spec(cidr="10.44.0.0/31"), "spec.cidr", "/30"),
        (spec(cidr="127.0.0.0/24"), "spec.cidr", "set aside"),
        (spec(bridge="much-too-long-name"), "spec.bridge", "at most 15"),
        (spec(bridge="br 0"), "spec.bridge", "letters"),
        (spec(bridge="../x"), "spec.bridge", "letters"),
        (spec(bridge="lo"), "spec.bridge", "letters"),
        (spec(gateway="10.45.0.1"), "spec.gateway", "outside 10.44.0.0/24"),
        (spec(gateway="10.44.0.0"), "spec.gateway", "network's own"),
        (spec(gateway="10.44.0.255"), "spec.gateway", "broadcast"),
        (spec(gateway="x"), "spec.gateway", "not an IPv4"),
        (spec(ranges=[one("10.45.0.1", 5)]), "spec.ranges[0].first_ipv4", "outside"),
        (spec(ranges=[one("10.44.0.250", 10)]), "spec.ranges[0].size", "1 to 5"),
        (spec(ranges=[one("10.44.0.9", 0)]), "spec.ranges[0].size", "1 to"),
        (spec(ranges=[one("10.44.0.1", 5), one("10.44.0.5", 5)]), "spec.ranges[1]", "overlaps spec.ranges[0]"),
        (spec(gateway="10.44.0.3", ranges=[one("10.44.0.1", 5)]), "spec.ranges[0]", "holds the gateway"),
        (spec(ranges=[one("10.44.0.1", 5, "zz")]), "spec.ranges[0].first_mac", "unicast MAC"),
        (spec(ranges=[one("10.44.0.1", 5, "01:00:00:00:00:01")]), "spec.ranges[0].first_mac", "unicast MAC"),
        (spec(ranges=[one("10.44.0.1", 5, "02:ff:ff:ff:ff:fe")]), "spec.ranges[0].first_mac", "leave the unicast"),
        (
            spec(ranges=[one("10.44.0.1", 5, "02:00:00:00:00:01"), one("10.44.0.9", 5, "02:00:00:00:00:05")]),
            "spec.ranges[1].first_mac",
            "MAC addresses overlap",
        ),
        (spec(mtu=100), "spec.mtu", "576"),
        (spec(dns=["10.0.0.1", "dns"]), "spec.dns[1]", "not an IP"),
        (spec(search_domain="a b"), "spec.search_domain", "domain name"),
        (spec(kind=NetworkKind.NETWORK_KIND_VXLAN), "spec.kind", "not supported yet"),
        (spec(vlan_id=5), "spec.vlan_id", "VLAN"),
        (spec(labels={"": "x"}), "spec.labels", "no key"),
        (spec(kind=NetworkKind.NETWORK_KIND_EXTERNAL_BRIDGE), "spec.bridge", "required"),
        (
            spec(kind=NetworkKind.NETWORK_KIND_EXTERNAL_BRIDGE, bridge="br0", has_nat=True),
            "spec.has_nat",
            "administrator's own",
        ),
    ],
)
def test_what_cannot_be_is_refused_by_field(wanted: NetworkSpec, path: str, words: str) -> None:
    reason, at, problem = refusal(wanted)
    assert (at, words in problem) == (path, True), problem
    assert reason in (Reason.FIELD_INVALID, Reason.FIELD_REQUIRED)


def test_only_administrators_make_networks_public_or_use_bridges_of_the_nodes() -> None:
    assert refusal(spec(is_public=True), USER)[:2] == (Reason.ROLE_MISSING, "spec.is_public")
    external = spec(kind=NetworkKind.NETWORK_KIND_EXTERNAL_BRIDGE, bridge="br0")
    assert refusal(external, USER)[:2] == (Reason.ROLE_MISSING, "spec.kind")
    networks.check(external, ADMIN)


def beside(mine: NetworkSpec, other: NetworkSpec) -> Reason | None:
    try:
        networks.check_beside(networks.complete(mine, 1, CLOUD), [networks.complete(other, 2, CLOUD)])
    except MolnError as err:
        assert "other" in err.message
        return err.reason
    return None


def test_two_networks_may_not_overlap_or_share_a_bridge() -> None:
    other = spec(name="other", cidr="10.44.0.0/16", bridge="br7")
    assert beside(spec(), other) == Reason.NETWORK_OVERLAPS
    assert beside(spec(cidr="10.45.0.0/24", bridge="br7"), other) == Reason.BRIDGE_TAKEN
    assert beside(spec(cidr="10.45.0.0/24"), other) is None


def test_networks_on_one_bridge_of_the_administrators_may_share_a_cidr_but_no_address() -> None:
    def external(name: str, first: str) -> NetworkSpec:
        kind = NetworkKind.NETWORK_KIND_EXTERNAL_BRIDGE
        return spec(name=name, kind=kind, bridge="br0", ranges=[one(first, 10)])

    assert beside(external("front", "10.44.0.1"), external("other", "10.44.0.20")) is None
    assert beside(external("front", "10.44.0.1"), external("other", "10.44.0.10")) == Reason.NETWORK_OVERLAPS


def test_ranges_may_only_grow() -> None:
    old = networks.complete(spec(ranges=[one("10.44.0.10", 10)]), 1, CLOUD)

    def change(*wanted: AddressRange) -> None:
        new = NetworkSpec()
        new.CopyFrom(old)
        del new.ranges[:]
        new.ranges.extend(wanted)
        networks.check_change(old, new, ADMIN)

    change(one("10.44.0.5", 40))
    change(one("10.44.0.10", 10), one("10.44.0.100", 5))
    for shrunk in ([one("10.44.0.10", 9)], [one("10.44.0.11", 20)], [one("10.44.0.10", 10, "02:00:00:00:00:01")], []):
        with pytest.raises(MolnError, match="may only grow"):
            change(*shrunk)


def test_usable_addresses_are_all_but_the_first_and_the_last() -> None:
    first, last = ranges.usable(IPv4Network("10.44.0.0/30"))
    assert (ranges.text(first), ranges.text(last)) == ("10.44.0.1", "10.44.0.2")
