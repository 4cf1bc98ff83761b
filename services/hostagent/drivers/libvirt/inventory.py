"""What a host is and how busy it is, as the hypervisor tells. Reads; must not decide what is enough."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from moln.compute.v1.host_pb2 import NumaNode
from services.hostagent.drivers.libvirt.connection import Flags, Raw, or_none, version_text
from services.hostagent.drivers.libvirt.xml import parse

HYPERVISORS = {"test": "test", "xen": "xen", "lxc": "lxc", "esx": "vmware", "vmware": "vmware"}
"""libvirt's names of hypervisors and the one domain type that each runs; QEMU's two are told apart by trying."""
_NANOSECONDS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class HostFacts:
    """A host's hardware and hypervisor. Memory in MiB."""

    cpus: int
    memory_mib: int
    architecture: str
    cpu_model: str
    hypervisor: str
    hypervisor_version: str
    hostname: str
    domain_types: frozenset[str]
    numa_nodes: tuple[NumaNode, ...]


@dataclass(frozen=True, slots=True)
class CpuTime:
    """CPU time that all processors together have spent since boot, in seconds."""

    busy_s: float
    total_s: float


def read_facts(raw: Raw) -> HostFacts:
    """Asks a connection; runs in its thread."""
    model, memory_mib, cpus = raw.getInfo()[:3]
    capabilities = parse(raw.getCapabilities())
    memory = or_none(lambda: raw.getMemoryStats(Flags.ALL_CELLS)) or {}
    return HostFacts(
        cpus=cpus,
        memory_mib=memory["total"] // 1024 if memory.get("total") else memory_mib,
        architecture=capabilities.findtext("host/cpu/arch", model),
        cpu_model=capabilities.findtext("host/cpu/model", ""),
        hypervisor=raw.getType().lower(),
        hypervisor_version=version_text(or_none(raw.getVersion) or 0),
        hostname=raw.getHostname(),
        domain_types=frozenset(found.get("type", "") for found in capabilities.iterfind("guest/arch/domain")),
        numa_nodes=tuple(_numa_node(cell) for cell in capabilities.iterfind("host/topology/cells/cell")),
    )


def read_used_memory_mib(raw: Raw) -> int:
    """Memory that is neither free nor given back at once when needed; 0 where the hypervisor does not tell."""
    memory = or_none(lambda: raw.getMemoryStats(Flags.ALL_CELLS))
    if not memory:
        return 0
    idle: int = memory.get("free", 0) + memory.get("buffers", 0) + memory.get("cached", 0)
    return max(0, int(memory.get("total", 0)) - idle) // 1024


def read_cpu_time(raw: Raw) -> CpuTime | None:
    """None where the hypervisor does not tell."""
    times = or_none(lambda: raw.getCPUStats(Flags.ALL_CPUS))
    if not times:
        return None
    busy = times.get("kernel", 0) + times.get("user", 0)
    total = busy + times.get("idle", 0) + times.get("iowait", 0)
    return CpuTime(busy / _NANOSECONDS, total / _NANOSECONDS)


def _numa_node(cell: Element) -> NumaNode:
    kib = int(cell.findtext("memory", "0"))
    cpus = [int(cpu.get("id", "0")) for cpu in cell.iterfind("cpus/cpu")]
    return NumaNode(node_id=int(cell.get("id", "0")), memory_mib=kib // 1024, cpus=cpus)


def cpu_set(cpus: Iterable[int]) -> str:
    """Numbers of CPUs as libvirt writes them: `0-3,8`."""
    runs: list[list[int]] = []
    for cpu in sorted(cpus):
        if runs and cpu == runs[-1][-1] + 1:
            runs[-1][1:] = [cpu]
        else:
            runs.append([cpu])
    return ",".join("-".join(map(str, run)) for run in runs)
