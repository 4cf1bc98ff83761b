"""A real etcd, a cloud in it, and netsvc in this process (or several of them)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from moln.compute.v1.template_pb2 import NicTemplate, VmTemplate
from moln.compute.v1.vm_pb2 import DesiredState, VmAddresses, VmIntent, VmSpec, VmStatus
from moln.network.v1 import network_service_pb2 as pb
from moln.network.v1.network_pb2 import AddressRange, Lease, Network, NetworkSpec
from moln.network.v1.network_service_pb2_grpc import NetworkServiceStub
from moln.operations.v1.records_pb2 import CloudRecord
from services.common.domain.caller import Caller
from services.common.domain.keys import KEYS
from services.common.resources.stored import stored
from services.common.rpc import make_service_secret, read_service_secret
from services.common.store import ProcessInfo, Store, Txn, key
from services.netsvc.app import main
from services.netsvc.settings import NetsvcSettings
from tests.support.etcd import EtcdServer, etcd
from tests.support.eventually import eventually
from tests.support.reigns import Running, as_caller, serving

__all__ = ["etcd"]

ADMIN = Caller(1, "ada", is_admin=True)
USER = Caller(2, "bob")


def range_of(first: str, size: int) -> AddressRange:
    return AddressRange(first_ipv4=first, size=size)


@dataclass
class Cloud:
    """Keys in a real etcd: the api and the nodes are played by writing their parts."""

    store: Store
    last_vm: int = field(default=0)

    def vm_txn(self, vm_id: int, nics: Iterable[NicTemplate]) -> Txn:
        """What the api writes when a VM is created."""
        template = VmTemplate(vcpus=1, memory_mib=128)
        for number, nic in enumerate(nics):
            template.nics.add().CopyFrom(nic)
            template.nics[number].nic_id = number
        spec = VmSpec(uid=f"vm-{vm_id}", name=f"v{vm_id}", owner_id=USER.user_id, template=template)
        intent = VmIntent(
            uid=spec.uid, desired=DesiredState.DESIRED_STATE_RUNNING, generation=1, owner_id=USER.user_id,
            needs_addresses=bool(template.nics),
        )  # fmt: skip
        return Txn().put(key("vm", vm_id, "spec"), spec).put(key("vm", vm_id, "intent"), intent)

    async def vm(self, *networks: int, ipv4: str = "", mac: str = "") -> int:
        """A VM with an interface in each of these networks; its id."""
        self.last_vm += 1
        nics = [NicTemplate(network_id=network, ipv4=ipv4, mac=mac) for network in networks]
        await self.store.commit(self.vm_txn(self.last_vm, nics))
        return self.last_vm

    async def vms(self, count: int, network: int) -> list[int]:
        """Many VMs at once."""
        ids = list(range(self.last_vm + 1, self.last_vm + 1 + count))
        self.last_vm += count
        found = await self.store.commit_all([self.vm_txn(each, [NicTemplate(network_id=network)]) for each in ids])
        assert all(isinstance(each, int) for each in found), found
        return ids

    async def terminate(self, *vm_ids: int) -> None:
        """Users want VMs gone."""
        txns = []
        for vm_id in vm_ids:
            entry = self.store.cache.get("vm", vm_id, "intent")
            assert entry is not None
            intent = VmIntent.FromString(entry.raw)
            intent.desired = DesiredState.DESIRED_STATE_TERMINATED
            intent.generation += 1
            txns.append(Txn().put(entry.key, intent))
        await self.store.commit_all(txns)

    async def status(self, vm_id: int, *, is_there: bool) -> None:
        """A node has something of the VM, or nothing any more."""
        name = key("vm", vm_id, "status/0000000001")
        await self.store.commit(Txn().put(name, VmStatus(uid=f"vm-{vm_id}")) if is_there else Txn().delete(name))

    def addresses(self, vm_id: int) -> VmAddresses | None:
        return stored(self.store.cache.get("vm", vm_id, "addresses"), VmAddresses)

    def ips(self, vm_id: int) -> list[str]:
        """The VM's addresses; empty where it has none."""
        found = self.addresses(vm_id)
        return [nic.ipv4 for nic in found.nics] if found else []

    def reason(self, vm_id: int) -> str:
        """Why the VM has no addresses."""
        found = self.addresses(vm_id)
        return found.reason if found else ""

    def leases(self, network_id: int) -> dict[str, Lease]:
        entries = self.store.cache.object("lease", network_id)
        return {ip: lease for ip, entry in entries.items() if (lease := stored(entry, Lease))}


@dataclass
class Nets:
    """NetworkService as one caller sees it."""

    running: Running
    caller: Caller = ADMIN

    @property
    def stub(self) -> NetworkServiceStub:
        return NetworkServiceStub(self.running.channel)

    def by(self, caller: Caller) -> Nets:
        return Nets(self.running, caller)

    async def create(
        self, name: str, cidr: str, *ranges: AddressRange, request_id: str = "", **more: object
    ) -> Network:
        spec = NetworkSpec(name=name, cidr=cidr, ranges=ranges, **more)  # type: ignore[arg-type]
        return await self.send(pb.CreateNetworkRequest(spec=spec, request_id=request_id))

    async def send(self, request: pb.CreateNetworkRequest) -> Network:
        return await self.stub.CreateNetwork(request, metadata=as_caller(self.caller), timeout=20)

    async def get(self, network_id: int) -> Network:
        return await self.stub.GetNetwork(pb.GetNetworkRequest(id=network_id), metadata=as_caller(self.caller))

    async def list(self, **fields: object) -> pb.ListNetworksResponse:
        request = pb.ListNetworksRequest(**fields)  # type: ignore[arg-type]
        return await self.stub.ListNetworks(request, metadata=as_caller(self.caller))

    async def update(self, network_id: int, spec: NetworkSpec, *paths: str, etag: str = "") -> Network:
        request = pb.UpdateNetworkRequest(id=network_id, spec=spec, etag=etag)
        request.update_mask.paths.extend(paths)
        return await self.stub.UpdateNetwork(request, metadata=as_caller(self.caller))

    async def delete(self, network_id: int) -> None:
        await self.stub.DeleteNetwork(pb.DeleteNetworkRequest(id=network_id), metadata=as_caller(self.caller))

    async def leases(self, network_id: int, **fields: object) -> pb.ListLeasesResponse:
        request = pb.ListLeasesRequest(id=network_id, **fields)  # type: ignore[arg-type]
        return await self.stub.ListLeases(request, metadata=as_caller(self.caller))


Start = Callable[[], AbstractAsyncContextManager[Running]]


@pytest.fixture
async def cloud(etcd: EtcdServer) -> AsyncIterator[Cloud]:
    """A cloud without networks."""
    store = await Store.open(etcd.settings, keys=KEYS, process=ProcessInfo("api"))
    await store.commit(Txn().put(key("cloud", "settings"), CloudRecord(uid="4f2a9c1e-1111")))
    yield Cloud(store)
    await store.close()


@pytest.fixture
def start(etcd: EtcdServer, folder: Path) -> Start:
    """Starts netsvc in this process."""
    secret = folder / "service.secret"
    make_service_secret(secret)
    settings = NetsvcSettings(
        etcd_endpoints=(etcd.endpoint,), listen="127.0.0.1:0", service_secret_file=secret, metrics_address=""
    )
    return lambda: serving("netsvc", main, settings, read_service_secret(secret))


@pytest.fixture
async def netsvc(cloud: Cloud, start: Start) -> AsyncIterator[Running]:
    """One netsvc, which leads."""
    async with start() as running:
        await eventually(lambda: running.is_leader)
        yield running


@pytest.fixture
def nets(netsvc: Running) -> Nets:
    """NetworkService, called by an administrator."""
    return Nets(netsvc)
