"""Virtual networks and their leases."""

from __future__ import annotations

from moln.network.v1.network_pb2 import DESCRIPTOR, Lease, Network
from moln.network.v1.network_service_pb2 import GetNetworkRequest, ListNetworksRequest, ListNetworksResponse
from services.cli.documents import enum_word
from services.cli.objects import Resource
from services.cli.sizes import age
from services.cli.tables import Column

_KINDS = DESCRIPTOR.enum_types_by_name["NetworkKind"]


def kind_of(network: Network) -> str:
    """`BRIDGE`."""
    return enum_word(_KINDS, network.spec.kind)


NETWORKS: Resource[Network] = Resource(
    word="network",
    service="moln.network.v1.NetworkService",
    message=Network,
    get_request=GetNetworkRequest,
    list_request=ListNetworksRequest,
    list_reply=ListNetworksResponse,
    items="networks",
    name_of=lambda network: network.spec.name,
    columns=(
        Column("ID", lambda network: str(network.id), is_number=True),
        Column("NAME", lambda network: network.spec.name),
        Column("CIDR", lambda network: network.spec.cidr),
        Column("LEASES", lambda net: f"{net.view.addresses_used}/{net.view.addresses_total}", is_number=True),
        Column("BRIDGE", lambda network: network.spec.bridge),
        Column("KIND", kind_of, is_wide=True),
        Column("GATEWAY", lambda network: network.spec.gateway, is_wide=True),
        Column("NAT", lambda network: "yes" if network.spec.has_nat else "no"),
        Column("OWNER", lambda network: network.spec.owner),
        Column("PUBLIC", lambda network: "yes" if network.spec.is_public else "no", is_wide=True),
        Column("AGE", lambda network: age(network.spec.create_time)),
    ),
)

LEASE_COLUMNS: tuple[Column[Lease], ...] = (
    Column("ADDRESS", lambda lease: lease.ipv4),
    Column("MAC", lambda lease: lease.mac),
    Column("VM", lambda lease: str(lease.vm_id), is_number=True),
    Column("NIC", lambda lease: str(lease.nic_id), is_number=True),
    Column("SINCE", lambda lease: age(lease.time)),
)
