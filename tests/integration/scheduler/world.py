"""A cloud as the scheduler sees it: keys in a real etcd. Nodes and the api are played by writing their parts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import cast

from google.protobuf.timestamp_pb2 import Timestamp

from moln.compute.v1 import cluster_pb2, host_pb2, placement_pb2, template_pb2, vm_pb2
from services.common.domain.keys import KEYS
from services.common.store import ProcessInfo, Store, StoreSettings, Txn, key


def template(memory_mib: int = 128, **fields: object) -> template_pb2.VmTemplate:
    """A VM of one CPU; further fields by name."""
    shape = template_pb2.VmTemplate(vcpus=1, cpu_percent=100, memory_mib=memory_mib)
    shape.MergeFrom(template_pb2.VmTemplate(**fields))  # type: ignore[arg-type]
    return shape


@dataclass
class World:
    """Writes and reads keys. Ids are the test's to choose."""

    store: Store
    created: int = field(default=0)

    @classmethod
    async def open(cls, settings: StoreSettings) -> World:
        return cls(await Store.open(settings, keys=KEYS, process=ProcessInfo("api")))

    async def host(
        self,
        host_id: int,
        *,
        cpus: int = 8,
        memory_mib: int = 8192,
        disk_mib: int = 100_000,
        labels: Mapping[str, str] | None = None,
        taints: Iterable[str] = (),
        pci_devices: Iterable[host_pb2.PciDevice] = (),
        numa_nodes: Iterable[host_pb2.NumaNode] = (),
    ) -> None:
        """A host that is enabled and connected."""
        spec = host_pb2.HostSpec(
            uid=f"host-{host_id}", name=f"h{host_id}", labels=dict(labels or {}), taints=list(taints)
        )
        inventory = host_pb2.HostInventory(
            uid=spec.uid, cpus=cpus, memory_mib=memory_mib, disk_mib=disk_mib, architecture="x86_64", hypervisor="sim",
            pci_devices=pci_devices, numa_nodes=numa_nodes,
        )  # fmt: skip
        txn = Txn().put(key("host", host_id, "spec"), spec).put(key("host", host_id, "inventory"), inventory)
        await self.store.commit(txn)
        await self.liveness(host_id, host_pb2.LIVENESS_STATE_CONNECTED)

    async def liveness(self, host_id: int, state: host_pb2.LivenessState) -> None:
        """What the host controller finds out about a host."""
        value = host_pb2.HostLiveness(uid=f"host-{host_id}", state=state, boot_id="boot")
        await self.store.commit(Txn().put(key("host", host_id, "liveness"), value))

    async def cluster(self, cluster_id: int, *host_ids: int, policies: str = "", **labels: str) -> None:
        """A cluster with hosts and at most one policy, by its name in the contract."""
        spec = cluster_pb2.ClusterSpec(uid=f"cluster-{cluster_id}", name=f"c{cluster_id}", labels=labels)
        if policies:
            spec.policies.add(policy=placement_pb2.PlacementPolicy.Value(f"PLACEMENT_POLICY_{policies}"))
        txn = Txn().put(key("cluster", cluster_id, "spec"), spec)
        for host_id in host_ids:
            entry = self.store.cache.get("host", host_id, "spec")
            assert entry is not None
            host = host_pb2.HostSpec.FromString(entry.raw)
            host.cluster_id = cluster_id
            txn.put(key("host", host_id, "spec"), host)
        await self.store.commit(txn)

    async def load(self, host_id: int, percent: float) -> None:
        """What the api writes of a host's load."""
        load = placement_pb2.HostLoad(uid=f"host-{host_id}", cpu_percent=percent, memory_percent=percent)
        await self.store.commit(Txn().put(key("hostload", host_id), load))

    async def mode(self, host_id: int, mode: host_pb2.HostMode) -> None:
        """What the administrator wants of a host."""
        entry = self.store.cache.get("host", host_id, "spec")
        assert entry is not None
        spec = host_pb2.HostSpec.FromString(entry.raw)
        spec.mode = mode
        await self.store.commit(Txn().put(key("host", host_id, "spec"), spec))

    def vm_txn(
        self,
        vm_id: int,
        shape: template_pb2.VmTemplate | None = None,
        wanted_host_id: int = 0,
        desired: vm_pb2.DesiredState = vm_pb2.DESIRED_STATE_RUNNING,
    ) -> Txn:
        """What the api writes when a VM is created."""
        self.created += 1
        now = Timestamp(seconds=1_700_000_000 + self.created)
        spec = vm_pb2.VmSpec(uid=f"vm-{vm_id}", name=f"v{vm_id}", owner_id=7, owner="ada")
        spec.template.CopyFrom(shape or template())
        intent = vm_pb2.VmIntent(
            uid=spec.uid, desired=desired, generation=1, create_time=now, owner_id=7, wanted_host_id=wanted_host_id
        )
        return Txn().put(key("vm", vm_id, "spec"), spec).put(key("vm", vm_id, "intent"), intent)

    async def vm(
        self,
        vm_id: int,
        shape: template_pb2.VmTemplate | None = None,
        wanted_host_id: int = 0,
        desired: vm_pb2.DesiredState = vm_pb2.DESIRED_STATE_RUNNING,
    ) -> None:
        """A VM that shall run, or what else is desired."""
        await self.store.commit(self.vm_txn(vm_id, shape, wanted_host_id, desired))

    async def vms(self, ids: Iterable[int], shape: template_pb2.VmTemplate | None = None) -> None:
        """Many of them at once."""
        found = await self.store.commit_all([self.vm_txn(vm_id, shape) for vm_id in ids])
        assert all(isinstance(each, int) for each in found), found

    async def desire(self, vm_id: int, desired: vm_pb2.DesiredState) -> None:
        """A user wants something else of a VM."""
        entry = self.store.cache.get("vm", vm_id, "intent")
        assert entry is not None
        intent = vm_pb2.VmIntent.FromString(entry.raw)
        intent.desired = desired
        intent.generation += 1
        await self.store.commit(Txn().put(key("vm", vm_id, "intent"), intent))

    async def status(self, vm_id: int, host_id: int, phase: vm_pb2.VmPhase) -> None:
        """What a node reports of a VM."""
        value = vm_pb2.VmStatus(uid=f"vm-{vm_id}", host_id=host_id, phase=phase)
        await self.store.commit(Txn().put(key("vm", vm_id, f"status/{host_id:010d}"), value))

    async def gone(self, vm_id: int, host_id: int) -> None:
        """A node reports that nothing of a VM is left."""
        await self.store.commit(Txn().delete(key("vm", vm_id, f"status/{host_id:010d}")))

    def placement(self, vm_id: int) -> vm_pb2.VmPlacement | None:
        """The placement as it is now."""
        entry = self.store.cache.get("vm", vm_id, "placement")
        return cast("vm_pb2.VmPlacement", entry.value) if entry is not None else None

    def host_of(self, vm_id: int) -> int:
        """The VM's host, or 0."""
        placement = self.placement(vm_id)
        return placement.host_id if placement is not None else 0

    def pending(self, vm_id: int) -> tuple[str, str]:
        """(reason, message) of a VM that waits."""
        placement = self.placement(vm_id)
        return (placement.pending.reason, placement.pending.message) if placement is not None else ("", "")

    def placed(self) -> dict[int, int]:
        """Host by VM, of those that have one."""
        found = {int(vm_id): self.host_of(int(vm_id)) for vm_id in self.store.cache.ids("vm")}
        return {vm_id: host_id for vm_id, host_id in found.items() if host_id}
