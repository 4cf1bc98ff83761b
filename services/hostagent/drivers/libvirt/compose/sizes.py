"""CPU and memory of a domain: what is granted, what can be added, and where it lies on the host."""

from __future__ import annotations

from moln.compute.v1.template_pb2 import VmTemplate
from moln.node.v1.node_service_pb2 import VmOrder
from services.common.domain.errors import MolnError
from services.common.domain.reasons import Reason
from services.hostagent.drivers.libvirt.compose.endpoint import Endpoint, Kind, default_cpu
from services.hostagent.drivers.libvirt.spec import CpuSpec, CpuTune, MemorySpec, NumaCell


def vcpus_of(order: VmOrder) -> tuple[int, int]:
    """vCPUs that the guest starts with, and the most it can have."""
    template = order.spec.template
    vcpus = order.placement.granted.vcpus or template.vcpus or 1
    return vcpus, max(vcpus, template.cpu.max_vcpus)


def cpu_of(template: VmTemplate, most: int, domain_type: str) -> CpuSpec:
    """Model and topology; where parts of a topology are stated the sockets are what is left of the vCPUs."""
    stated = template.cpu
    cores, threads = stated.cores or 1, stated.threads or 1
    has_topology = bool(stated.sockets or stated.cores or stated.threads)
    return CpuSpec(
        model=stated.model or default_cpu(domain_type).model,
        sockets=max(1, most // (cores * threads)) if has_topology else 0,
        cores=cores if has_topology else 0,
        threads=threads if has_topology else 0,
        features=tuple(stated.features),
    )


def tune_of(order: VmOrder, endpoint: Endpoint, most: int) -> CpuTune:
    """Weight, limit, and the pins of each vCPU to the NUMA node of its cell."""
    template = order.spec.template
    percent = order.placement.granted.cpu_percent or template.cpu_percent
    pins = _pins(order, endpoint, most) if template.cpu.pinning else ()
    return CpuTune(
        weight_percent=percent if endpoint.has_cpu_shares else 0,
        limit_percent=percent if template.cpu.is_capped else 0,
        pins=pins,
    )


def memory_of(order: VmOrder, kind: Kind, most_vcpus: int) -> MemorySpec:
    """Sizes, pages and NUMA cells. A guest with slots for more memory has a cell that it is added to."""
    template = order.spec.template
    mib = order.placement.granted.memory_mib or template.memory_mib
    max_mib = max(mib, template.memory.max_memory_mib)
    has_slots = kind.has_memory_slots and max_mib > mib
    needs_cells = kind.has_cells and (has_slots or needs_nodes(template))
    cells = _cells(order, mib, most_vcpus) if needs_cells else ()
    return MemorySpec(mib, max_mib, has_slots, template.memory.hugepage_kib, cells)


def needs_nodes(template: VmTemplate) -> bool:
    """The VM asks for a place on NUMA nodes of its host."""
    return template.memory.numa_nodes > 1 or bool(template.cpu.pinning)


def _cells(order: VmOrder, mib: int, most_vcpus: int) -> tuple[NumaCell, ...]:
    template = order.spec.template
    count = max(1, template.memory.numa_nodes)
    hosts = _granted(order, count) if needs_nodes(template) else [-1] * count
    page = max(1, template.memory.hugepage_kib // 1024)
    share = mib // count // page * page
    sizes = [mib - share * (count - 1), *([share] * (count - 1))]
    ranges = _ranges(most_vcpus, count)
    return tuple(NumaCell(*cell) for cell in zip(map(_span, ranges), sizes, hosts, strict=True))


def _pins(order: VmOrder, endpoint: Endpoint, most: int) -> tuple[str, ...]:
    count = max(1, order.spec.template.memory.numa_nodes)
    pins: list[str] = []
    for vcpus, node in zip(_ranges(most, count), _granted(order, count), strict=True):
        if node not in endpoint.numa_cpus:
            raise MolnError(Reason.CAPABILITY, f"NUMA node {node} was granted, and this host has none of that number")
        pins += [endpoint.numa_cpus[node]] * len(vcpus)
    return tuple(pins)


def _granted(order: VmOrder, count: int) -> list[int]:
    nodes = list(order.placement.granted.numa_nodes)
    if len(nodes) != count:
        message = f"the VM asks for {count} NUMA node(s) of its host and was granted {len(nodes)}"
        raise MolnError(Reason.CAPABILITY, message)
    return nodes


def _ranges(vcpus: int, count: int) -> list[range]:
    """vCPUs in as many runs as there are cells, the first ones longer by one where it does not come out even."""
    size, rest = divmod(vcpus, count)
    starts = [index * size + min(index, rest) for index in range(count + 1)]
    return [range(starts[index], starts[index + 1]) for index in range(count)]


def _span(numbers: range) -> str:
    return str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]}-{numbers[-1]}"
