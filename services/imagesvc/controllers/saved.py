"""Files of stopped VMs: taken over when a node has brought them, erased when the VM runs again or is no more.

Level-triggered: it compares intent, placement, status and volumes as the store has them. It drives `core.saved`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from moln.common.v1.common_pb2 import Cause
from moln.compute.v1.vm_pb2 import VmIntent, VmPlacement, VmSpec, VmStatus, VmVolumes
from services.common.domain.keys import SCHEMA_VERSION
from services.common.obs.logs import get_logger
from services.common.resources.stored import stored
from services.common.runtime import Clock
from services.common.store import Change, Conflict, Leadership, Store, StoreError, Txn, key
from services.imagesvc.catalog import Catalog
from services.imagesvc.core import saved
from services.imagesvc.core.saved import Due
from services.imagesvc.datastores.saved import SavedFiles, SavedFolder

ACTOR = "<imagesvc>"
AGAIN_SECONDS = 2.0
LEFT_OVER_SECONDS = 3600.0
"""Files that no VM counts as its own stay so long: they may be on their way."""


class SavedVolumes:
    """The saved files of one leadership."""

    def __init__(self, store: Store, catalog: Catalog, leadership: Leadership, clock: Clock) -> None:
        self._store, self._catalog, self._leadership, self._clock = store, catalog, leadership, clock
        self._dirty: dict[str, None] = {}
        self._is_first = True
        self._log = get_logger("saved")

    def changed(self, changes: Sequence[Change]) -> bool:
        """Notes which VMs to look at; whether there are any. Call it with all changes of the cache."""
        for change in changes:
            is_of_interest = change.part in ("intent", "volumes") or change.part.startswith("status/")
            if change.kind == "vm" and is_of_interest and self._concerns(change.id):
                self._dirty[change.id] = None
        return bool(self._dirty)

    def _concerns(self, vm: str) -> bool:
        parts = self._store.cache.object("vm", vm)
        intent, volumes = stored(parts.get("intent"), VmIntent), stored(parts.get("volumes"), VmVolumes)
        return (intent is not None and intent.desired in saved.STORED) or (
            volumes is not None and volumes.is_in_datastore
        )

    async def step(self) -> float | None:
        """Looks at what has changed; the seconds after which to look again, where something could not be done."""
        if self._is_first:
            self._is_first = False
            self._dirty.update({vm: None for vm in self._store.cache.ids("vm") if self._concerns(vm)})
        dirty, self._dirty = list(self._dirty), {}
        failed = []
        for vm in dirty:
            try:
                await self._look(vm)
            except Conflict:
                failed.append(vm)
            except (StoreError, OSError) as err:
                self._log.warning("saved files not settled", vm_id=int(vm), error=str(err))
                failed.append(vm)
        self._dirty.update(dict.fromkeys(failed))
        return AGAIN_SECONDS if failed else None

    async def _look(self, vm: str) -> None:
        parts = self._store.cache.object("vm", vm)
        intent, volumes = stored(parts.get("intent"), VmIntent), stored(parts.get("volumes"), VmVolumes)
        placed = await self._store.read(key("vm", vm, "placement"))
        placement = stored(placed, VmPlacement)
        if intent is None or placed is None or placement is None or not placement.host_id:
            return
        told = await self._store.read(key("vm", vm, f"status/{_padded(placement.host_id)}"))
        status = stored(told, VmStatus)
        match saved.due(intent, placement, status, volumes):
            case Due.NOTHING:
                return
            case Due.TAKE if status is not None:
                after = await self._taken(vm, status, volumes)
            case _:
                after = saved.dropped(volumes, intent.uid)
        if after is None or told is None:
            return
        after.cause.CopyFrom(self._cause())
        after.schema_version = SCHEMA_VERSION
        before = parts.get("volumes")
        txn = Txn(guard=self._leadership)
        for entry in (parts["intent"], placed, told):
            txn.unchanged(entry.key, entry.mod_revision)
        txn.unchanged(key("vm", vm, "volumes"), before.mod_revision if before is not None else 0)
        await self._store.commit(txn.put(key("vm", vm, "volumes"), after))
        self._log.info("files of a VM", vm_id=int(vm), are_in_datastore=after.is_in_datastore, epoch=after.saved_epoch)
        if not after.is_in_datastore and volumes is not None:
            await self._erase(volumes.saved_datastore_id, intent.uid)

    async def _taken(self, vm: str, status: VmStatus, volumes: VmVolumes | None) -> VmVolumes | None:
        """The volumes with what the node has brought; None where something of it is not here."""
        datastore_id = self._catalog.saved_datastore_id(vm)
        directory = self._catalog.directory_of(datastore_id)
        if status.driver not in saved.DRIVERS_WITHOUT_FILES:
            if directory is None:
                return None
            files = SavedFiles(directory)
            for file in status.saved:
                if await asyncio.to_thread(files.path, status.uid, status.epoch, file) is None:
                    self._log.warning("a saved file is not here", vm_id=int(vm), disk_id=file.disk_id)
                    return None
            await asyncio.to_thread(files.erase, status.uid, but=status.epoch)
        return saved.taken(volumes, status.uid, status.saved, status.epoch, datastore_id)

    async def _erase(self, datastore_id: int, uid: str) -> None:
        directory = self._catalog.directory_of(datastore_id)
        if directory is not None:
            await asyncio.to_thread(SavedFiles(directory).erase, uid)

    async def sweep(self) -> None:
        """Erases what is of no VM: of one that is gone, or that counts other files as its own and is not saved now."""
        living = self._living()
        for parts in list(self._catalog.datastores()):
            if not parts.status.is_ready:
                continue
            files = SavedFiles(self._catalog.directory(parts))
            try:
                for folder in await asyncio.to_thread(lambda: list(files.all())):  # noqa: B023  awaited at once
                    await self._judge(files, folder, living.get(folder.uid))
            except OSError as err:
                self._log.warning("could not sweep saved files", datastore=parts.spec.name, error=str(err))

    async def _judge(self, files: SavedFiles, folder: SavedFolder, vm: str | None) -> None:
        if vm is None:
            if folder.age_s > AGAIN_SECONDS:
                await asyncio.to_thread(files.erase, folder.uid)
                self._log.info("saved files of a VM that is gone were erased", uid=folder.uid)
            return
        parts = self._store.cache.object("vm", vm)
        intent, volumes = stored(parts.get("intent"), VmIntent), stored(parts.get("volumes"), VmVolumes)
        is_counted = volumes is not None and volumes.is_in_datastore and volumes.saved_epoch == folder.epoch
        is_coming = intent is not None and intent.desired in saved.STORED
        if is_counted or is_coming or folder.age_s < LEFT_OVER_SECONDS:
            return
        keep = volumes.saved_epoch if volumes is not None and volumes.is_in_datastore else 0
        await asyncio.to_thread(files.erase, folder.uid, but=keep)
        self._log.info("saved files that nobody uses were erased", uid=folder.uid, epoch=folder.epoch)

    def _living(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for vm in self._store.cache.ids("vm"):
            intent = stored(self._store.cache.get("vm", vm, "intent"), VmIntent)
            spec = stored(self._store.cache.get("vm", vm, "spec"), VmSpec)
            if intent is not None or spec is not None:
                found[intent.uid if intent is not None else spec.uid if spec is not None else ""] = vm
        return found

    def _cause(self) -> Cause:
        cause = Cause(actor=ACTOR)
        cause.time.FromDatetime(self._clock.now())
        return cause


def _padded(host_id: int) -> str:
    return str(host_id).zfill(10)
