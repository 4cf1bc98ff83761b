"""`moln net`: virtual networks and their leases."""

from __future__ import annotations

import ipaddress
import uuid
from collections.abc import Sequence
from typing import Any

import click

from moln.network.v1.network_pb2 import AddressRange, Lease, Network, NetworkKind, NetworkSpec
from moln.network.v1.network_service_pb2 import (
    CreateNetworkRequest,
    DeleteNetworkRequest,
    DeleteNetworkResponse,
    ListLeasesRequest,
    ListLeasesResponse,
)
from services.cli.client import Client
from services.cli.command_line import Group
from services.cli.documents import as_text, plain, yaml_text
from services.cli.exits import usage
from services.cli.options import KEY_VALUE, Name, confirm, filter_option, list_options, output_option, yes_option
from services.cli.printing import fields, list_objects, print_document, print_object, section
from services.cli.resources.networks import LEASE_COLUMNS, NETWORKS, kind_of
from services.cli.session import Session
from services.cli.sizes import clock
from services.cli.tables import plain_lines


@click.group("net", cls=Group)
def command() -> None:
    """Virtual networks and their leases."""


@command.command(
    "create",
    examples="""
    moln net create front --cidr 10.44.0.0/24 --gateway-on-node --nat
    moln net create back --cidr 10.45.0.0/16 --range 10.45.1.0,500 --range 10.45.9.10,20,02:00:0a:2d:09:0a
    moln net create office --cidr 192.168.7.0/24 --external-bridge br0 --gateway 192.168.7.1 --range 192.168.7.100,50
    """,
)
@click.argument("name")
@click.option("--cidr", required=True, help="The network, for example 10.44.0.0/24.")
@click.option(
    "--range", "ranges", multiple=True, metavar="FIRST,SIZE[,MAC]", help="Addresses to give out (default: all)."
)
@click.option("--gateway", help="Gateway that guests are told (default: the first address, where it is on the node).")
@click.option("--gateway-on-node", is_flag=True, help="Each node gives its bridge the gateway's address.")
@click.option("--nat", is_flag=True, help="Nodes translate addresses to the outside; implies --gateway-on-node.")
@click.option("--dns", multiple=True, help="Name server that guests are told; may be repeated.")
@click.option("--search-domain", default="", help="Domain that guests search names in.")
@click.option("--bridge", default="", help="Name of the bridge on nodes (default: made from the network's id).")
@click.option("--external-bridge", metavar="BRIDGE", help="A bridge of your own, which moln leaves as it is.")
@click.option("--mtu", type=click.IntRange(0, 65535), default=0, help="MTU in bytes (default: the kernel's).")
@click.option("--public", is_flag=True, help="Everyone may use it.")
@click.option("--label", type=KEY_VALUE, multiple=True, metavar="KEY=VALUE", help="Label of your own.")
@click.option("--dry-run", is_flag=True, help="Check everything, create nothing.")
@click.pass_obj
def create_network(
    session: Session, /, name: str, label: Sequence[tuple[str, str]], dry_run: bool, **flags: Any
) -> None:
    """Creates a network: a bridge that each node makes when a VM needs it, and addresses to give out."""
    spec = _spec(name, **flags)
    spec.labels.update(dict(label))
    request = CreateNetworkRequest(spec=spec, request_id=str(uuid.uuid4()), validate_only=dry_run)
    network = session.client.unary(NETWORKS.path("CreateNetwork"), request, Network)
    if dry_run:
        click.echo("# would be created; nothing was\n" + yaml_text(plain(network.spec, as_text)).rstrip())
        return
    total = network.view.addresses_total
    click.echo(
        f"created {NETWORKS.title(network)}, {network.spec.cidr}, {total} addresses, bridge {network.spec.bridge}"
    )


def _spec(
    name: str, *, cidr: str, ranges: Sequence[str], gateway: str | None, gateway_on_node: bool, nat: bool,
    dns: Sequence[str], search_domain: str, bridge: str, external_bridge: str | None, mtu: int, public: bool,
) -> NetworkSpec:  # fmt: skip
    if bridge and external_bridge:
        raise usage("--bridge and --external-bridge exclude each other")
    network = _network(cidr)
    on_node = gateway_on_node or nat
    if gateway is None:
        gateway = str(network.network_address + 1) if on_node else ""
    elif not _is_address(gateway):
        raise usage(f"--gateway {gateway}: is no IPv4 address")
    kind = NetworkKind.NETWORK_KIND_EXTERNAL_BRIDGE if external_bridge else NetworkKind.NETWORK_KIND_BRIDGE
    return NetworkSpec(
        name=name, kind=kind, bridge=external_bridge or bridge, cidr=cidr, gateway=gateway, dns=dns,
        ranges=[_range(text) for text in ranges] or _whole(network, gateway), is_gateway_on_node=on_node,
        has_nat=nat, mtu=mtu, is_public=public, search_domain=search_domain,
    )  # fmt: skip


def _network(cidr: str) -> ipaddress.IPv4Network:
    try:
        return ipaddress.IPv4Network(cidr)
    except ValueError as err:
        raise usage(f"--cidr {cidr}: {err}; for example 10.44.0.0/24") from err


def _is_address(text: str) -> bool:
    try:
        ipaddress.IPv4Address(text)
    except ValueError:
        return False
    return True


def _whole(network: ipaddress.IPv4Network, gateway: str) -> list[AddressRange]:
    """All addresses of the network but its first and last, and but the gateway."""
    first, last = int(network.network_address) + 1, int(network.broadcast_address) - 1
    middle = int(ipaddress.IPv4Address(gateway)) if gateway else last + 1
    parts = [
        (low, high) for low, high in ((first, min(middle - 1, last)), (max(middle + 1, first), last)) if low <= high
    ]
    if not parts:
        raise usage(f"--cidr {network}: leaves no address to give out; use a shorter prefix, for example /24")
    return [AddressRange(first_ipv4=str(ipaddress.IPv4Address(low)), size=high - low + 1) for low, high in parts]


def _range(text: str) -> AddressRange:
    first, _, rest = text.partition(",")
    size, _, mac = rest.partition(",")
    if not size.isdigit():
        raise usage(f"--range {text}: is FIRST,SIZE or FIRST,SIZE,MAC, for example 10.44.0.10,100")
    return AddressRange(first_ipv4=first, size=int(size), first_mac=mac)


@command.command(
    "list",
    examples="""
    moln net list
    moln net list --filter name=front* -o wide
    """,
)
@filter_option("name=front*")
@list_options
@click.pass_obj
def list_networks(session: Session, condition: str, output: str, watch: bool) -> None:
    """Shows the networks that you may use."""
    list_objects(session, NETWORKS, output=output, condition=condition, watch=watch)


@command.command(
    "show",
    examples="""
    moln net show front
    """,
)
@click.argument("network", type=Name("network"))
@output_option()
@click.pass_obj
def show_network(session: Session, network: str, output: str) -> None:
    """Shows one network and the addresses that are given out."""
    found = NETWORKS.find(session.client, network)
    leases = _leases(session.client, found.id) if output == "text" else []
    print_object(NETWORKS, found, output, _network_lines(found, leases))


@command.command(
    "leases",
    examples="""
    moln net leases front
    moln net leases front -o json
    """,
)
@click.argument("network", type=Name("network"))
@output_option(("table", "json", "yaml"))
@click.pass_obj
def list_leases(session: Session, network: str, output: str) -> None:
    """Shows the addresses that are given out."""
    leases = _leases(session.client, NETWORKS.id_of(session.client, network))
    if output != "table":
        print_document(leases, output)
        return
    for line in plain_lines(LEASE_COLUMNS, leases):
        click.echo(line)


def _leases(client: Client, number: int) -> list[Lease]:
    leases: list[Lease] = []
    token = ""
    while True:
        request = ListLeasesRequest(id=number, page_token=token)
        answer = client.unary(NETWORKS.path("ListLeases"), request, ListLeasesResponse)
        leases += answer.leases
        token = answer.next_page_token
        if not token:
            return leases


def _network_lines(network: Network, leases: Sequence[Lease]) -> list[str]:
    spec = network.spec
    head = fields(
        (
            ("network", f"{spec.name} ({network.id})"),
            ("owner", spec.owner + (", public" if spec.is_public else "")),
            ("kind", kind_of(network)),
            ("bridge", spec.bridge),
            ("cidr", spec.cidr),
            ("gateway", spec.gateway + (" (on each node)" if spec.is_gateway_on_node else "")),
            ("nat", "yes" if spec.has_nat else "no"),
            ("dns", " ".join(spec.dns)),
            ("search domain", spec.search_domain),
            ("mtu", spec.mtu),
            ("addresses", f"{network.view.addresses_used} given out of {network.view.addresses_total}"),
            ("created", clock(spec.create_time)),
            ("labels", " ".join(f"{key}={value}" for key, value in sorted(spec.labels.items()))),
        )
    )
    ranges = [f"{item.size} from {item.first_ipv4} {item.first_mac}".rstrip() for item in spec.ranges]
    return [*head, *section("Ranges", ranges), *section("Leases", plain_lines(LEASE_COLUMNS, leases) if leases else [])]


@command.command(
    "delete",
    examples="""
    moln net delete front
    """,
)
@click.argument("networks", type=Name("network"), nargs=-1, required=True)
@yes_option
@click.pass_obj
def delete_networks(session: Session, networks: Sequence[str], yes: bool) -> None:
    """Deletes networks of which no address is given out."""
    found = NETWORKS.find_all(session.client, networks)
    confirm(f"Delete {', '.join(map(NETWORKS.title, found))}?", yes=yes)
    for network in found:
        session.client.unary(NETWORKS.path("DeleteNetwork"), DeleteNetworkRequest(id=network.id), DeleteNetworkResponse)
        click.echo(f"deleted {NETWORKS.title(network)}")
