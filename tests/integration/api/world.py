"""What the other services write, written by hand: placements, addresses, volumes, images, networks."""

from __future__ import annotations

from typing import Any

from moln.compute.v1 import vm_pb2
from moln.image.v1 import image_pb2
from moln.network.v1 import network_pb2
from services.common.domain.keys import KEYS
from services.common.store import ProcessInfo, Store, StoreSettings, Txn, key

MIB = 1 << 20


class World:
    """A store of its own, as scheduler, netsvc and imagesvc have."""

    def __init__(self, store: Store) -> None:
        self.store = store

    @classmethod
    async def open(cls, settings: StoreSettings) -> World:
        """Connects."""
        return cls(await Store.open(settings, keys=KEYS, process=ProcessInfo("test")))

    def value(self, kind: str, object_id: int | str, part: str = "") -> Any:
        """A stored value, or None."""
        entry = self.store.cache.get(kind, object_id, part)
        return entry.value if entry is not None else None

    async def settle(self) -> None:
        """Waits until this cache has all that is stored now."""
        await self.store.cache.wait(await self.store.current_revision(), 10)

    async def place(self, vm_id: int, host_id: int, **fields: Any) -> int:
        """What the scheduler does; every host is a new epoch."""
        await self.settle()
        old, intent = self.value("vm", vm_id, "placement"), self.value("vm", vm_id, "intent")
        placement = vm_pb2.VmPlacement(uid=intent.uid, host_id=host_id, epoch=(old.epoch if old else 0) + 1)
        placement.granted.cpu_percent, placement.granted.memory_mib = 100, 128
        placement.time.GetCurrentTime()
        placement.cause.actor = "<scheduler>"
        placement.MergeFrom(vm_pb2.VmPlacement(**fields))
        return await self.store.commit(Txn().put(key("vm", vm_id, "placement"), placement))

    async def pend(self, vm_id: int, reason: str, message: str) -> None:
        """The scheduler says why there is no host."""
        placement = vm_pb2.VmPlacement(pending=vm_pb2.Pending(reason=reason, message=message))
        await self.store.commit(Txn().put(key("vm", vm_id, "placement"), placement))

    async def address(self, vm_id: int, ipv4: str = "10.0.0.5", network_id: int = 1, reason: str = "") -> None:
        """What netsvc does."""
        await self.settle()
        nics = [] if reason else [vm_pb2.NicAddress(network_id=network_id, ipv4=ipv4, mac="02:00:0a:00:00:05")]
        value = vm_pb2.VmAddresses(uid=self.value("vm", vm_id, "intent").uid, nics=nics, reason=reason)
        await self.store.commit(Txn().put(key("vm", vm_id, "addresses"), value))

    async def volumes(self, vm_id: int, image_id: int = 1, reason: str = "") -> None:
        """What imagesvc does."""
        await self.settle()
        disks = [] if reason else [vm_pb2.Volume(image_id=image_id, source="/images/1", source_format="qcow2")]
        value = vm_pb2.VmVolumes(uid=self.value("vm", vm_id, "intent").uid, disks=disks, reason=reason)
        await self.store.commit(Txn().put(key("vm", vm_id, "volumes"), value))

    async def release(self, vm_id: int) -> None:
        """What the others give back once nothing of a terminated VM is on a node."""
        txn = Txn()
        for part in ("placement", "addresses", "volumes"):
            txn.delete(key("vm", vm_id, part))
        await self.store.commit(txn)

    async def image(self, image_id: int, name: str, owner_id: int = 1, size_mib: int = 100, **fields: Any) -> int:
        """An image that is ready."""
        spec = image_pb2.ImageSpec(uid=f"image-{image_id}", name=name, owner_id=owner_id, **fields)
        intent = image_pb2.ImageIntent(uid=spec.uid, desired=image_pb2.IMAGE_DESIRED_READY)
        status = image_pb2.ImageStatus(
            uid=spec.uid, state=image_pb2.IMAGE_STATE_READY, virtual_size_bytes=size_mib * MIB
        )
        txn = Txn().put(key("image", image_id, "spec"), spec).put(key("image", image_id, "intent"), intent)
        return await self.store.commit(txn.put(key("image", image_id, "status"), status))

    async def doom_image(self, image_id: int) -> int:
        """The owner of an image deletes it."""
        intent = image_pb2.ImageIntent(uid=f"image-{image_id}", desired=image_pb2.IMAGE_DESIRED_DELETED)
        return await self.store.commit(Txn().put(key("image", image_id, "intent"), intent))

    async def network(self, network_id: int, name: str, owner_id: int = 1, size: int = 4, **fields: Any) -> int:
        """A network with one range of addresses from 10.0.0.1 on."""
        ranges = [network_pb2.AddressRange(first_ipv4="10.0.0.1", size=size)] if size else []
        spec = network_pb2.NetworkSpec(
            uid=f"net-{network_id}", name=name, owner_id=owner_id, cidr="10.0.0.0/24", ranges=ranges, **fields
        )
        return await self.store.commit(Txn().put(key("network", network_id, "spec"), spec))

    async def lease(self, network_id: int, ipv4: str) -> int:
        """An address that is given out."""
        return await self.store.commit(Txn().put(key("lease", network_id, ipv4), network_pb2.Lease()))

    async def gone_from(self, vm_id: int, host_id: int) -> int:
        """A status that goes."""
        return await self.store.commit(Txn().delete(key("vm", vm_id, f"status/{host_id:010d}")))
