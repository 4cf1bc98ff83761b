"""Refusals that the cache shows at once: a full network, an address that is given out. netsvc alone gives addresses."""

from __future__ import annotations

from ipaddress import IPv4Address

from moln.compute.v1 import template_pb2
from moln.network.v1 import network_pb2
from services.api.index.catalog import Catalog
from services.common.domain.errors import MolnError, invalid
from services.common.domain.reasons import Reason


def check_room(template: template_pb2.VmTemplate, catalog: Catalog, demand: dict[int, int]) -> None:
    """Raises ADDRESSES_EXHAUSTED or ADDRESS_TAKEN. `demand`: what earlier requests of the batch want, by network."""
    for number, nic in enumerate(template.nics):
        network = catalog.networks.spec(nic.network_id)
        if network is None or not network.value.ranges:
            continue
        given = catalog.leases.get(nic.network_id, set())
        field = f"template.nics[{number}]"
        if nic.ipv4 and not _is_in_ranges(nic.ipv4, network.value):
            raise invalid(f"{field}.ipv4", f"{nic.ipv4} is in no range of network {network.value.name}")
        if nic.ipv4 and nic.ipv4 in given:
            problem = f"{nic.ipv4} of network {network.value.name} is given out; wish for another, or for none"
            raise MolnError(Reason.ADDRESS_TAKEN, f"{field}.ipv4: {problem}", fields=[(f"{field}.ipv4", problem)])
        total = sum(each.size for each in network.value.ranges)
        wanted = demand.get(nic.network_id, 0) + 1
        if len(given) + wanted > total:
            problem = (
                f"network {network.value.name} is full: {len(given)} of {total} addresses are given out"
                f"{f', {wanted - 1} more are wanted by this batch' if wanted > 1 else ''}; "
                "add a range, or terminate VMs"
            )
            raise MolnError(
                Reason.ADDRESSES_EXHAUSTED, f"{field}.network: {problem}", fields=[(f"{field}.network", problem)]
            )
        demand[nic.network_id] = wanted


def _is_in_ranges(text: str, network: network_pb2.NetworkSpec) -> bool:
    address = int(IPv4Address(text))
    firsts = [(int(IPv4Address(each.first_ipv4)), each.size) for each in network.ranges]
    return any(first <= address < first + size for first, size in firsts)
