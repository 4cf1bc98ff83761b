"""What a network amounts to, and how networks are filtered. Pure."""

from __future__ import annotations

from moln.network.v1.network_pb2 import DESCRIPTOR, Network, NetworkIntent, NetworkSpec
from services.common.filters import Vocabulary
from services.netsvc.core import ranges

_PREFIX = "NETWORK_KIND_"
_KINDS = {
    value.number: value.name.removeprefix(_PREFIX) for value in DESCRIPTOR.enum_types_by_name["NetworkKind"].values
}

NETWORKS: Vocabulary[Network] = Vocabulary(
    keys={
        "id": lambda network: network.id,
        "name": lambda network: network.spec.name,
        "owner": lambda network: network.spec.owner,
        "kind": lambda network: _KINDS.get(network.spec.kind, ""),
        "bridge": lambda network: network.spec.bridge,
        "cidr": lambda network: network.spec.cidr,
        "public": lambda network: str(network.spec.is_public).lower(),
    },
    words={"kind": frozenset(_KINDS.values())},
    labels=lambda network: network.spec.labels,
)
"""What lists of networks can be filtered by."""


def compose(
    network_id: int, spec: NetworkSpec, intent: NetworkIntent, revisions: tuple[int, int], used: int
) -> Network:
    """The network as clients see it. `revisions` are those of spec and intent; `used` counts its leases."""
    network = Network(id=network_id, spec=spec, intent=intent)
    network.view.addresses_total = ranges.total(spec.ranges)
    network.view.addresses_used = used
    network.view.etag = str(revisions[0])
    network.view.resource_version = max(revisions)
    return network
