"""Which addresses the interfaces of one VM get: all of them or none. Pure over the pools it is given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from ipaddress import IPv4Network
from typing import NamedTuple

from moln.compute.v1.template_pb2 import NicTemplate
from moln.compute.v1.vm_pb2 import NicAddress
from moln.network.v1.network_pb2 import NetworkKind, NetworkSpec
from services.common.domain.reasons import Reason
from services.netsvc.core import macs, ranges
from services.netsvc.core.pool import Grant, Pool


class Known(NamedTuple):
    """A network that stands, with its free addresses."""

    network_id: int
    spec: NetworkSpec
    pool: Pool
    common: NicAddress
    """What the addresses of all interfaces in it have in common; copied for each."""


class Assigned(NamedTuple):
    """An address for each interface. They are set aside in the pools until given back."""

    nics: list[NicAddress]
    addresses: list[tuple[int, int]]
    """(network id, address), in the order of `nics`."""


Lack = tuple[str, int, int]
"""(`room`, network, 0), (`address`, network, address), (`mac`, network, MAC address)."""


def room(network_id: int) -> Lack:
    """Any address of a network, or the network itself."""
    return ("room", network_id, 0)


class Refused(NamedTuple):
    """Why there is none; nothing is set aside."""

    reason: Reason
    message: str
    lack: Lack
    """What may change, and then it is worth another try."""


def know(network_id: int, spec: NetworkSpec) -> Known:
    """A network and an empty pool for it."""
    return Known(network_id, spec, Pool(ranges.spans(spec)), _common(network_id, spec))


def renewed(known: Known, spec: NetworkSpec) -> Known:
    """The network with a new spec; what is taken stays taken."""
    known.pool.change_spans(ranges.spans(spec))
    return Known(known.network_id, spec, known.pool, _common(known.network_id, spec))


def assign(nics: Sequence[NicTemplate], find: Callable[[int], Known | None]) -> Assigned | Refused:
    """Sets an address aside for every interface; where one lacks, gives the others back and says why."""
    assigned = Assigned([], [])
    for nic in nics:
        outcome = _assign_one(nic, find(nic.network_id))
        if isinstance(outcome, Refused):
            give_back(assigned, find)
            return outcome
        assigned.nics.append(outcome[0])
        assigned.addresses.append((nic.network_id, outcome[1]))
    return assigned


def give_back(assigned: Assigned, find: Callable[[int], Known | None]) -> None:
    """Returns what was set aside."""
    for network_id, address in assigned.addresses:
        if known := find(network_id):
            known.pool.give_back(address)


def _assign_one(nic: NicTemplate, known: Known | None) -> tuple[NicAddress, int] | Refused:
    if known is None:
        message = f"network {nic.network or nic.network_id} of interface {nic.nic_id} does not exist any more"
        return Refused(Reason.NETWORK_NOT_FOUND, message, room(nic.network_id))
    mac = macs.parse(nic.mac) if nic.mac else None
    if nic.ipv4:
        wished = ranges.ipv4(nic.ipv4) or 0
        grant = known.pool.take_wished(wished, mac)
        return _address(nic, known, grant) if grant else _refuse_wished(nic, known, wished, mac)
    grant = known.pool.take(mac)
    return _address(nic, known, grant) if grant else _refuse_any(nic, known, mac)


def _address(nic: NicTemplate, known: Known, grant: Grant) -> tuple[NicAddress, int]:
    address = NicAddress()
    address.CopyFrom(known.common)
    address.nic_id = nic.nic_id
    address.mac = macs.to_text(grant.mac)
    address.ipv4 = ranges.text(grant.address)
    return address, grant.address


def _common(network_id: int, spec: NetworkSpec) -> NicAddress:
    return NicAddress(
        network_id=network_id,
        network_uid=spec.uid,
        prefix_length=IPv4Network(spec.cidr).prefixlen,
        gateway=spec.gateway,
        dns=spec.dns,
        bridge=spec.bridge,
        mtu=spec.mtu,
        vlan_id=spec.vlan_id,
        is_gateway_on_node=spec.is_gateway_on_node,
        has_nat=spec.has_nat,
        search_domain=spec.search_domain,
        is_bridge_external=spec.kind == NetworkKind.NETWORK_KIND_EXTERNAL_BRIDGE,
    )


def _refuse_wished(nic: NicTemplate, known: Known, wished: int, mac: int | None) -> Refused:
    name, network_id = known.spec.name, known.network_id
    if not known.pool.holds(wished):
        return Refused(Reason.FIELD_INVALID, f"{nic.ipv4} is in no range of network {name}", room(network_id))
    if known.pool.is_taken(wished):
        return _taken(nic.ipv4, name, ("address", network_id, wished))
    mac = known.pool.mac_of(wished) if mac is None else mac
    return _taken(f"MAC address {macs.to_text(mac)}", name, ("mac", network_id, mac))


def _refuse_any(nic: NicTemplate, known: Known, mac: int | None) -> Refused:
    name, network_id = known.spec.name, known.network_id
    if mac is not None and known.pool.is_mac_taken(mac):
        return _taken(f"MAC address {nic.mac}", name, ("mac", network_id, mac))
    message = f"network {name} has no free address: all {known.pool.total} are given out; add a range, or remove VMs"
    return Refused(Reason.ADDRESSES_EXHAUSTED, message, room(network_id))


def _taken(what: str, name: str, lack: Lack) -> Refused:
    message = f"{what} is given out in network {name} already; wish for another, or for none"
    return Refused(Reason.ADDRESS_TAKEN, message, lack)
