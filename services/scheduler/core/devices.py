"""What of a host a VM has for itself: PCI devices, and room on NUMA nodes. Finds and counts; decides no host.

VMs that ask for neither have no wish and no grant, and cost nothing here.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from moln.compute.v1 import host_pb2, template_pb2, vm_pb2
from services.scheduler.core.amounts import KIB_PER_MIB


class Pci(NamedTuple):
    """A device of a host. Numbers in lower-case hexadecimal."""

    address: str
    vendor: str
    device: str
    kind: str


class Node(NamedTuple):
    """A NUMA node of a host; memory in KiB."""

    number: int
    memory: int


class PciWish(NamedTuple):
    """A device as a VM asks for it; what is empty matches anything."""

    vendor: str
    device: str
    kind: str

    def is_met_by(self, found: Pci) -> bool:
        """Whether the device will do."""
        pairs = zip(self, found[1:], strict=True)
        return all(not wanted or wanted == there for wanted, there in pairs)


class Wish(NamedTuple):
    """What a VM wants of its host: devices, and so many different NUMA nodes with so much free memory (KiB) each."""

    pci: tuple[PciWish, ...] = ()
    nodes: int = 0
    node_memory: int = 0


class Grant(NamedTuple):
    """What a VM holds of its host: addresses in the order of the wishes, nodes in that of the guest's."""

    pci: tuple[str, ...] = ()
    nodes: tuple[int, ...] = ()
    node_memory: int = 0


class Devices:
    """Who holds what, by host."""

    def __init__(self) -> None:
        self._pci: defaultdict[int, Counter[str]] = defaultdict(Counter)
        self._memory: defaultdict[int, Counter[int]] = defaultdict(Counter)

    def find(self, host_id: int, pci: Sequence[Pci], nodes: Sequence[Node], wish: Wish) -> Grant | None:
        """What the host would give: the first devices that fit all wishes together, the nodes with most room."""
        addresses = _matched(wish.pci, [each for each in pci if not self._pci[host_id][each.address]])
        held = self._memory[host_id]
        free = {node.number: node.memory - held[node.number] for node in nodes}
        roomy = [number for number in free if free[number] >= wish.node_memory]
        roomy.sort(key=lambda number: -free[number])
        if addresses is None or len(roomy) < wish.nodes:
            return None
        return Grant(addresses, tuple(sorted(roomy[: wish.nodes])), wish.node_memory)

    def hold(self, host_id: int, grant: Grant) -> None:
        """A VM takes what it was granted; the host may be unknown."""
        self._count(host_id, grant, 1)

    def release(self, host_id: int, grant: Grant) -> None:
        """A VM gives it back."""
        self._count(host_id, grant, -1)

    @contextmanager
    def without(self, host_id: int, grant: Grant | None) -> Iterator[None]:
        """For a moment as if a VM had given back what it holds."""
        if grant is None:
            yield
            return
        self.release(host_id, grant)
        try:
            yield
        finally:
            self.hold(host_id, grant)

    def _count(self, host_id: int, grant: Grant, sign: int) -> None:
        for address in grant.pci:
            self._pci[host_id][address] += sign
        for node in grant.nodes:
            self._memory[host_id][node] += sign * grant.node_memory


def wish_of(template: template_pb2.VmTemplate) -> Wish | None:
    """What a template asks for beside room; None for nearly all."""
    if not template.pci_devices and not template.HasField("cpu") and not template.HasField("memory"):
        return None
    nodes = template.memory.numa_nodes if template.memory.numa_nodes > 1 else bool(template.cpu.pinning)
    if not template.pci_devices and not nodes:
        return None
    pci = [
        PciWish(each.vendor.lower(), each.device.lower(), getattr(each, "class").lower())
        for each in template.pci_devices
    ]
    return Wish(tuple(pci), int(nodes), template.memory_mib * KIB_PER_MIB // nodes if nodes else 0)


def grant_of(granted: vm_pb2.Granted) -> Grant | None:
    """What a placement holds beside room; None for nearly all."""
    if not granted.pci_addresses and not granted.numa_nodes:
        return None
    count = len(granted.numa_nodes)
    memory = granted.memory_mib * KIB_PER_MIB // count if count else 0
    return Grant(tuple(granted.pci_addresses), tuple(granted.numa_nodes), memory)


def pci_of(inventory: host_pb2.HostInventory) -> tuple[Pci, ...]:
    """A host's devices, by address."""
    return tuple(
        sorted(
            Pci(each.address, each.vendor.lower(), each.device.lower(), getattr(each, "class").lower())
            for each in inventory.pci_devices
        )
    )


def nodes_of(inventory: host_pb2.HostInventory) -> tuple[Node, ...]:
    """A host's NUMA nodes."""
    return tuple(Node(node.node_id, node.memory_mib * KIB_PER_MIB) for node in inventory.numa_nodes)


def _matched(wishes: Sequence[PciWish], free: Sequence[Pci]) -> tuple[str, ...] | None:
    """An address for every wish, all different; None where there is no such choice (augmenting paths)."""
    owner: dict[int, int] = {}
    for wish in range(len(wishes)):
        if not _take(wish, wishes, free, owner, set()):
            return None
    return tuple(free[device].address for device, _ in sorted(owner.items(), key=lambda item: item[1]))


def _take(wish: int, wishes: Sequence[PciWish], free: Sequence[Pci], owner: dict[int, int], seen: set[int]) -> bool:
    for device, each in enumerate(free):
        if device in seen or not wishes[wish].is_met_by(each):
            continue
        seen.add(device)
        if device not in owner or _take(owner[device], wishes, free, owner, seen):
            owner[device] = wish
            return True
    return False
