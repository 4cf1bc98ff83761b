"""Which networks may be created and changed: defaults, and checks that name the field. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, ip_address

from moln.network.v1.network_pb2 import AddressRange, NetworkKind, NetworkSpec
from services.common.domain.caller import Caller
from services.common.domain.errors import MolnError, invalid
from services.common.domain.ids import check_name
from services.common.domain.reasons import Reason
from services.common.resources.labels import check_labels
from services.netsvc.core import macs, ranges
from services.netsvc.core.ranges import Span

FIELD = "spec"
BRIDGE_LENGTH = 15
MAX_RANGES = 64
MAX_DNS = 8
MIN_MTU, MAX_MTU = 576, 65535
MIN_PREFIX, MAX_PREFIX = 8, 30

_BRIDGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_DOMAIN = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63})*\.?")
_KINDS = (NetworkKind.NETWORK_KIND_BRIDGE, NetworkKind.NETWORK_KIND_EXTERNAL_BRIDGE)

CHANGEABLE = ("labels", "dns", "search_domain", "is_public", "ranges")
"""Fields of `spec` that UpdateNetwork may change."""


def complete(wanted: NetworkSpec, network_id: int, cloud_uid: str) -> NetworkSpec:
    """The spec with defaults filled in: kind, bridge, gateway where nodes need one, ranges. Check it before."""
    spec = NetworkSpec()
    spec.CopyFrom(wanted)
    spec.kind = spec.kind or NetworkKind.NETWORK_KIND_BRIDGE
    spec.bridge = spec.bridge or default_bridge(network_id, cloud_uid)
    spec.is_gateway_on_node = spec.is_gateway_on_node or spec.has_nat
    network = IPv4Network(spec.cidr)
    if spec.is_gateway_on_node and not spec.gateway:
        spec.gateway = _free_gateway(network, spec.ranges)
    if not spec.ranges:
        spec.ranges.extend(ranges.all_but(network, spec.gateway))
    return spec


def default_bridge(network_id: int, cloud_uid: str) -> str:
    """`mo`, four letters of the cloud, the id: distinct on a machine that is a node of two clouds; ≤ 15 characters."""
    number = str(network_id)
    letters = min(4, BRIDGE_LENGTH - len("mo") - len(number))
    return f"mo{cloud_uid.replace('-', '')[:letters]}{number}"


def check(spec: NetworkSpec, caller: Caller) -> None:
    """Raises INVALID naming the first field that is wrong, or DENIED where only an administrator may say it."""
    check_name(f"{FIELD}.name", spec.name)
    _check_kind(spec)
    _check_rights(spec, caller)
    _check_bridge(spec)
    network = _check_cidr(spec.cidr)
    _check_gateway(spec, network)
    check_ranges(spec, network)
    _check_guest_settings(spec)
    check_labels(f"{FIELD}.labels", spec.labels)


def check_change(old: NetworkSpec, new: NetworkSpec, caller: Caller) -> None:
    """The same for a changed spec: ranges may only grow, since addresses of them are given out."""
    _check_rights(new, caller)
    check_ranges(new, IPv4Network(new.cidr))
    _check_guest_settings(new)
    check_labels(f"{FIELD}.labels", new.labels)
    after = ranges.spans(new)
    for before in ranges.spans(old):
        if not any(_includes(span, before) for span in after):
            raise invalid(
                f"{FIELD}.ranges", f"may only grow: {_shown(before)} would no longer be given out with the same MACs"
            )


def check_beside(spec: NetworkSpec, others: Iterable[NetworkSpec]) -> None:
    """Raises EXISTS/BRIDGE_TAKEN or EXISTS/NETWORK_OVERLAPS where the network cannot stand beside the others.

    Networks on one bridge of the administrator's own may share a CIDR; their ranges must still differ.
    """
    for other in others:
        is_shared = spec.bridge == other.bridge and spec.kind == other.kind == NetworkKind.NETWORK_KIND_EXTERNAL_BRIDGE
        if spec.bridge == other.bridge and not is_shared:
            problem = f"network {other.name} uses the bridge {spec.bridge}; choose another name, or none for a default"
            raise invalid(f"{FIELD}.bridge", problem, reason=Reason.BRIDGE_TAKEN)
        if is_shared:
            _check_ranges_apart(spec, other)
        elif IPv4Network(spec.cidr).overlaps(IPv4Network(other.cidr)):
            problem = f"{spec.cidr} overlaps {other.cidr} of network {other.name}; choose another range of addresses"
            raise invalid(f"{FIELD}.cidr", problem, reason=Reason.NETWORK_OVERLAPS)


def _check_ranges_apart(spec: NetworkSpec, other: NetworkSpec) -> None:
    for place, mine in enumerate(map(ranges.span, spec.ranges)):
        for theirs in ranges.spans(other):
            if mine.overlaps(theirs) or mine.shares_macs(theirs):
                problem = f"{_shown(mine)} overlaps {_shown(theirs)} of network {other.name} on the same bridge"
                raise invalid(f"{FIELD}.ranges[{place}]", problem, reason=Reason.NETWORK_OVERLAPS)


def _check_kind(spec: NetworkSpec) -> None:
    if spec.kind and spec.kind not in _KINDS:
        raise invalid(f"{FIELD}.kind", "is not supported yet; use BRIDGE or EXTERNAL_BRIDGE")
    if spec.vlan_id:
        raise invalid(f"{FIELD}.vlan_id", "needs a network of kind VLAN or VXLAN, which are not supported yet")
    if spec.kind != NetworkKind.NETWORK_KIND_EXTERNAL_BRIDGE:
        return
    if not spec.bridge:
        raise invalid(f"{FIELD}.bridge", "is required: the name of the administrator's bridge", reason=_REQUIRED)
    for name in ("is_gateway_on_node", "has_nat"):
        if getattr(spec, name):
            raise invalid(f"{FIELD}.{name}", "nothing is changed on a bridge that is the administrator's own")


def _check_rights(spec: NetworkSpec, caller: Caller) -> None:
    if caller.is_admin:
        return
    if spec.is_public:
        raise _admins_only("is_public", "makes a network everyone's")
    if spec.kind == NetworkKind.NETWORK_KIND_EXTERNAL_BRIDGE:
        raise _admins_only("kind", "connects guests to the nodes' own networks")


def _admins_only(name: str, effect: str) -> MolnError:
    problem = f"{effect}, which only administrators may do"
    return invalid(f"{FIELD}.{name}", problem, reason=Reason.ROLE_MISSING)


def _check_bridge(spec: NetworkSpec) -> None:
    field = f"{FIELD}.bridge"
    if len(spec.bridge) > BRIDGE_LENGTH:
        raise invalid(field, f"'{spec.bridge}' has {len(spec.bridge)} characters; Linux takes at most {BRIDGE_LENGTH}")
    if spec.bridge and (not _BRIDGE.fullmatch(spec.bridge) or spec.bridge == "lo"):
        raise invalid(field, f"'{spec.bridge}' takes letters, digits, '.', '_' or '-', starts with a letter or digit")


def _check_cidr(cidr: str) -> IPv4Network:
    field = f"{FIELD}.cidr"
    if not cidr:
        raise invalid(field, "is required, for example 10.44.0.0/24", reason=_REQUIRED)
    try:
        network = IPv4Network(cidr, strict=False)
    except ValueError as err:
        raise invalid(field, f"'{cidr}' is not an IPv4 network, for example 10.44.0.0/24") from err
    if str(network) != cidr:
        raise invalid(field, f"'{cidr}' is not written as a network; write {network}")
    if not MIN_PREFIX <= network.prefixlen <= MAX_PREFIX:
        raise invalid(field, f"takes prefixes from /{MIN_PREFIX} to /{MAX_PREFIX}")
    if network.is_loopback or network.is_multicast or network.is_unspecified or network.is_link_local:
        raise invalid(field, f"{cidr} is set aside for another purpose; 10.0.0.0/8 and 192.168.0.0/16 are for such use")
    return network


def _check_gateway(spec: NetworkSpec, network: IPv4Network) -> None:
    if not spec.gateway:
        return
    _check_inside(f"{FIELD}.gateway", spec.gateway, network)


def _check_inside(field: str, value: str, network: IPv4Network) -> int:
    address = ranges.ipv4(value)
    if address is None:
        raise invalid(field, f"'{value}' is not an IPv4 address")
    if IPv4Address(address) not in network:
        raise invalid(field, f"{value} is outside {network}")
    first, last = ranges.usable(network)
    if not first <= address <= last:
        raise invalid(field, f"{value} is the network's own or its broadcast address")
    return address


def check_ranges(spec: NetworkSpec, network: IPv4Network) -> None:
    """Raises INVALID naming the range that is malformed, lies outside, holds the gateway or overlaps another."""
    if len(spec.ranges) > MAX_RANGES:
        raise invalid(f"{FIELD}.ranges", f"takes at most {MAX_RANGES} ranges")
    seen: list[Span] = []
    for place, one in enumerate(spec.ranges):
        field = f"{FIELD}.ranges[{place}]"
        span = _check_range(field, one, network)
        _check_range_beside(field, span, seen, spec.gateway)
        seen.append(span)


def _check_range(field: str, one: AddressRange, network: IPv4Network) -> Span:
    first = _check_inside(f"{field}.first_ipv4", one.first_ipv4, network)
    room = ranges.usable(network)[1] - first + 1
    if not 1 <= one.size <= room:
        raise invalid(f"{field}.size", f"must be 1 to {room}: {network} ends there")
    if one.first_mac:
        _check_macs(f"{field}.first_mac", one)
    return ranges.span(one)


def _check_macs(field: str, one: AddressRange) -> None:
    first = macs.parse(one.first_mac)
    if first is None:
        raise invalid(field, f"'{one.first_mac}' is not a unicast MAC address, for example 02:00:0a:2c:00:02")
    last = first + one.size - 1
    if last > macs.LARGEST or macs.parse(macs.to_text(last)) is None or first >> 40 != last >> 40:
        raise invalid(field, f"{one.size} addresses from {one.first_mac} leave the unicast MAC addresses")


def _check_range_beside(field: str, span: Span, seen: Sequence[Span], gateway: str) -> None:
    hole = ranges.ipv4(gateway) if gateway else None
    if hole is not None and hole in span:
        raise invalid(field, f"{_shown(span)} holds the gateway {gateway}; leave it out of the ranges")
    for place, other in enumerate(seen):
        if span.overlaps(other):
            raise invalid(field, f"{_shown(span)} overlaps {FIELD}.ranges[{place}], {_shown(other)}")
        if span.shares_macs(other):
            raise invalid(f"{field}.first_mac", f"MAC addresses overlap those of {FIELD}.ranges[{place}]")


def _check_guest_settings(spec: NetworkSpec) -> None:
    if len(spec.dns) > MAX_DNS:
        raise invalid(f"{FIELD}.dns", f"takes at most {MAX_DNS} name servers")
    for place, server in enumerate(spec.dns):
        try:
            ip_address(server)
        except ValueError as err:
            raise invalid(f"{FIELD}.dns[{place}]", f"'{server}' is not an IP address") from err
    if spec.mtu and not MIN_MTU <= spec.mtu <= MAX_MTU:
        raise invalid(f"{FIELD}.mtu", f"must be {MIN_MTU} to {MAX_MTU} bytes, or 0 for the default")
    domain = spec.search_domain
    if domain and (len(domain) > 253 or not _DOMAIN.fullmatch(domain)):
        raise invalid(f"{FIELD}.search_domain", f"'{domain}' is not a domain name")


def _free_gateway(network: IPv4Network, taken: Iterable[AddressRange]) -> str:
    """The first usable address that no range holds."""
    address, last = ranges.usable(network)
    for span in sorted(map(ranges.span, taken), key=lambda one: one.first):
        if address in span:
            address = span.last + 1
    if address > last:
        raise invalid(f"{FIELD}.gateway", "is required: the ranges leave no address for one")
    return ranges.text(address)


def _includes(span: Span, part: Span) -> bool:
    return part.first in span and part.last in span and span.mac(part.first) == part.mac(part.first)


def _shown(span: Span) -> str:
    return f"{ranges.text(span.first)}–{ranges.text(span.last)}"


_REQUIRED = Reason.FIELD_REQUIRED
