"""What the parts of a host amount to for placement. Reads messages; keeps nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from moln.compute.v1 import host_pb2
from services.common.expressions import attribute_name, is_given
from services.common.expressions.attributes import CLUSTER_LABEL_PREFIX, LABEL_PREFIX
from services.scheduler.core.amounts import KIB_PER_MIB, NOTHING, Amounts
from services.scheduler.core.devices import Node, Pci, nodes_of, pci_of

DEFAULT_CLUSTER = "default"
CPU_PERCENT = 100
_PREFERENCE = "preference"
_ENABLED = frozenset({host_pb2.HOST_MODE_UNSPECIFIED, host_pb2.HOST_MODE_ENABLED})


@dataclass(frozen=True, slots=True)
class HostFacts:
    """A host as the scheduler sees it. `is_connected`: its agent is heard and has said what the host has."""

    host_id: int
    name: str
    is_enabled: bool = True
    is_connected: bool = True
    is_fenced: bool = False
    total: Amounts = NOTHING
    taints: frozenset[str] = frozenset()
    attributes: Mapping[str, str] = field(default_factory=dict)
    mode: host_pb2.HostMode = host_pb2.HOST_MODE_ENABLED
    capabilities: frozenset[str] = frozenset()
    pci: tuple[Pci, ...] = ()
    nodes: tuple[Node, ...] = ()


def facts(
    host_id: int,
    spec: host_pb2.HostSpec,
    inventory: host_pb2.HostInventory | None,
    liveness: host_pb2.HostLiveness | None,
    cluster: str,
    cluster_labels: Mapping[str, str] = MappingProxyType({}),
) -> HostFacts:
    """The facts from the parts; a part that is not there yet is None. `cluster` is the name of the host's cluster."""
    state = liveness.state if liveness is not None else host_pb2.LIVENESS_STATE_UNSPECIFIED
    return HostFacts(
        host_id=host_id,
        name=spec.name,
        is_enabled=spec.mode in _ENABLED,
        is_connected=state == host_pb2.LIVENESS_STATE_CONNECTED and inventory is not None,
        is_fenced=state == host_pb2.LIVENESS_STATE_FENCED,
        total=_total(spec, inventory) if inventory is not None else NOTHING,
        taints=frozenset(spec.taints),
        attributes=dict(_attributes(spec, inventory, cluster, cluster_labels)),
        mode=spec.mode,
        capabilities=frozenset(inventory.capabilities) if inventory is not None else frozenset(),
        pci=pci_of(inventory) if inventory is not None else (),
        nodes=nodes_of(inventory) if inventory is not None else (),
    )


def _total(spec: host_pb2.HostSpec, inventory: host_pb2.HostInventory) -> Amounts:
    """What may be given out: with overcommitment, without what is reserved."""
    cpu = inventory.cpus * CPU_PERCENT * (spec.cpu_overcommit_percent or 100) // 100
    memory = inventory.memory_mib * (spec.memory_overcommit_percent or 100) // 100 - spec.reserved_memory_mib
    return Amounts.bounded(cpu, memory * KIB_PER_MIB, inventory.disk_mib)


def _attributes(
    spec: host_pb2.HostSpec, inventory: host_pb2.HostInventory | None, cluster: str, cluster_labels: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    """Later ones win: what an agent says must not pass for a label, nor a label for what every host has."""
    if inventory is not None:
        for raw, value in inventory.attributes.items():
            name = attribute_name(raw)
            if name and not is_given(name):
                yield name, value
        yield from _inventory_texts(inventory)
    for prefix, labels in ((CLUSTER_LABEL_PREFIX, cluster_labels), (LABEL_PREFIX, spec.labels)):
        for raw, value in labels.items():
            if name := attribute_name(prefix + raw):
                yield name, value
    if preference := spec.labels.get(_PREFERENCE) or cluster_labels.get(_PREFERENCE, ""):
        yield "PREFERENCE", preference
    yield from (("NAME", spec.name), ("HOSTNAME", spec.name))
    yield from (("CLUSTER", cluster), ("CLUSTER_ID", str(spec.cluster_id)))


def _inventory_texts(inventory: host_pb2.HostInventory) -> Iterator[tuple[str, str]]:
    found = {
        "ARCH": inventory.architecture,
        "HYPERVISOR": inventory.hypervisor,
        "CPU_MODEL": inventory.cpu_model,
        "MODELNAME": inventory.cpu_model,
        "DRIVER": inventory.driver,
    }
    return ((name, value) for name, value in found.items() if value)
