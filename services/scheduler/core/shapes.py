"""The class of a VM: everything about it that placement looks at. VMs of one shape are interchangeable."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from moln.compute.v1 import template_pb2, vm_pb2
from services.common.domain.errors import MolnError
from services.common.expressions import Expression, Kind, attribute_name, parse
from services.common.expressions.attributes import VM_LABEL_PREFIX
from services.scheduler.core.amounts import KIB_PER_MIB, Amounts
from services.scheduler.core.devices import Grant, Wish, wish_of
from services.scheduler.core.policies import Policies, Term, combined, policies_of, terms


class ShapeKey(NamedTuple):
    """A shape as plain values: cheap to make and to compare."""

    requirement: str
    rank: str
    cpu: int
    memory: int
    disk: int
    tolerations: tuple[str, ...]
    wanted_host_id: int
    priority: int
    wish: Wish | None = None
    avoided: tuple[int, ...] = ()
    of_vm: tuple[tuple[str, str], ...] = ()
    """Those attributes of the VM that its expressions name."""
    policies: Policies = ()


@dataclass(frozen=True, slots=True)
class Shape:
    """What a VM needs, with its expressions parsed. `wanted_host_id` 0: any host."""

    demand: Amounts
    requirement: Expression
    rank: Expression
    tolerations: frozenset[str] = frozenset()
    wanted_host_id: int = 0
    priority: int = 0
    wish: Wish | None = None
    avoided: tuple[int, ...] = ()
    terms: tuple[Term, ...] = ()
    """What the rank is made of, where the VM names policies."""


def shape_key(template: template_pb2.VmTemplate, wanted_host_id: int, avoided: tuple[int, ...] = ()) -> ShapeKey:
    """The key of a VM's shape. Disks count by the size that they are given."""
    disks = template.disks
    return ShapeKey(
        template.requirement,
        template.rank,
        template.cpu_percent,
        template.memory_mib * KIB_PER_MIB,
        sum([disk.size_mib for disk in disks]) if disks else 0,
        tuple(template.tolerations),
        wanted_host_id,
        template.priority,
        wish_of(template),
        avoided,
        _of_vm(template),
        policies_of(template.policies),
    )


def _of_vm(template: template_pb2.VmTemplate) -> tuple[tuple[str, str], ...]:
    """What the VM says of itself, as far as its expressions ask; those that cannot be read ask for nothing."""
    if "VM_" not in f"{template.requirement} {template.rank}".upper():
        return ()
    try:
        asked = parse(template.requirement, Kind.REQUIREMENT).of_vm | parse(template.rank, Kind.RANK).of_vm
    except MolnError:
        return ()
    amounts = demand(template)
    known = {
        "VM_CPU": str(amounts.cpu),
        "VM_VCPUS": str(template.vcpus),
        "VM_MEMORY": str(amounts.memory),
        "VM_DISK": str(amounts.disk),
        "VM_PRIORITY": str(template.priority),
    } | {attribute_name(VM_LABEL_PREFIX + raw): value for raw, value in template.labels.items()}
    return tuple(sorted((name, known[name]) for name in asked if name in known))


def demand(template: template_pb2.VmTemplate) -> Amounts:
    """What a VM of this template takes."""
    disk = sum(disk.size_mib for disk in template.disks)
    return Amounts.bounded(template.cpu_percent, template.memory_mib * KIB_PER_MIB, disk)


def shape(key: ShapeKey) -> Shape:
    """The shape. Raises EXPRESSION_INVALID where the requirement or the rank cannot be read."""
    texts = dict(key.of_vm)
    rank = parse(key.rank, Kind.RANK).bound(texts)
    return Shape(
        demand=Amounts.bounded(key.cpu, key.memory, key.disk),
        requirement=parse(key.requirement, Kind.REQUIREMENT).bound(texts),
        rank=combined(key.policies, rank),
        tolerations=frozenset(key.tolerations),
        wanted_host_id=key.wanted_host_id,
        priority=key.priority,
        wish=key.wish,
        avoided=key.avoided,
        terms=terms(key.policies, rank),
    )


def granted(template: template_pb2.VmTemplate, demand: Amounts, grant: Grant | None = None) -> vm_pb2.Granted:
    """What is written down as held for a VM."""
    return vm_pb2.Granted(
        vcpus=template.vcpus,
        cpu_percent=demand.cpu,
        memory_mib=demand.memory // KIB_PER_MIB,
        disk_mib=demand.disk,
        pci_addresses=grant.pci if grant is not None else (),
        numa_nodes=grant.nodes if grant is not None else (),
    )


def held(placement: vm_pb2.VmPlacement) -> Amounts:
    """What a placement holds on its host."""
    amounts = placement.granted
    return Amounts.bounded(amounts.cpu_percent, amounts.memory_mib * KIB_PER_MIB, amounts.disk_mib)
