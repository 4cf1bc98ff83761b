"""vCPUs: their number, weight, limit and pins, and what CPU the guest sees."""

from __future__ import annotations

from xml.etree.ElementTree import Element, SubElement

from services.hostagent.drivers.libvirt.spec import CpuSpec, CpuTune, DomainSpec, NumaCell
from services.hostagent.drivers.libvirt.xml.parts import text

SHARES_PER_CORE = 1024
"""libvirt's cputune/shares of one whole core."""
PERIOD_US = 100_000
"""A guest's limit is counted over this long; its quota is in the same unit."""

_MODES = ("host-passthrough", "host-model", "maximum")


def add_vcpus(domain: Element, spec: DomainSpec) -> None:
    """How many vCPUs there are, and how many there can be."""
    most = max(spec.vcpus, spec.max_vcpus)
    current = str(spec.vcpus) if most > spec.vcpus else ""
    text(domain, "vcpu", str(most), current=current)


def add_tune(domain: Element, tune: CpuTune) -> None:
    """What the guest gets of the host's CPUs."""
    if tune == CpuTune():
        return
    element = SubElement(domain, "cputune")
    if tune.weight_percent:
        text(element, "shares", str(max(2, tune.weight_percent * SHARES_PER_CORE // 100)))
    if tune.limit_percent:
        text(element, "global_period", str(PERIOD_US))
        text(element, "global_quota", str(tune.limit_percent * PERIOD_US // 100))
    for vcpu, cpus in enumerate(tune.pins):
        SubElement(element, "vcpupin", {"vcpu": str(vcpu), "cpuset": cpus})


def add_cpu(domain: Element, cpu: CpuSpec, cells: tuple[NumaCell, ...]) -> None:
    """Model, topology, features and NUMA nodes."""
    if cpu == CpuSpec() and not cells:
        return
    mode = cpu.model if cpu.model in _MODES else ""
    attributes = {"mode": mode} if mode else {"mode": "custom", "match": "exact"} if cpu.model else {}
    element = SubElement(domain, "cpu", attributes)
    if cpu.model and not mode:
        text(element, "model", cpu.model, fallback="forbid")
    if cpu.sockets:
        counts = {"sockets": cpu.sockets, "cores": cpu.cores, "threads": cpu.threads}
        SubElement(element, "topology", {name: str(count or 1) for name, count in counts.items()})
    for feature in cpu.features:
        policy = "disable" if feature.startswith("-") else "require"
        SubElement(element, "feature", {"policy": policy, "name": feature.lstrip("+-")})
    _cells(element, cells)


def _cells(cpu: Element, cells: tuple[NumaCell, ...]) -> None:
    if not cells:
        return
    numa = SubElement(cpu, "numa")
    for number, cell in enumerate(cells):
        values = {"id": str(number), "cpus": cell.cpus, "memory": str(cell.memory_mib), "unit": "MiB"}
        SubElement(numa, "cell", values)
