"""Watches datastores: makes new ones usable, measures their room, sweeps what uploads left. Writes their status."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from moln.image.v1.image_pb2 import DatastoreStatus
from services.common.domain.keys import SCHEMA_VERSION
from services.common.obs.logs import get_logger
from services.common.store import Conflict, Leadership, Store, Txn, key
from services.imagesvc.catalog import Catalog, DatastoreParts
from services.imagesvc.datastores.directory import MIB, Directory, Unusable
from services.imagesvc.metrics import ImagesvcMetrics

NOTABLE_MIB = 64
NOTABLE_SHARE = 0.01


class DatastoreWatch:
    """The datastores of one leadership. `active` are uids of uploads at work."""

    def __init__(
        self,
        store: Store,
        catalog: Catalog,
        leadership: Leadership,
        active: Collection[str],
        metrics: ImagesvcMetrics,
    ) -> None:
        self._store = store
        self._catalog = catalog
        self._leadership = leadership
        self._active = active
        self._metrics = metrics
        self._swept: set[str] = set()
        self._one_at_a_time = asyncio.Lock()
        self._log = get_logger("datastores")

    async def step(self) -> None:
        """Looks at all datastores once."""
        free: dict[str, int] = {}
        for datastore_id in [parts.datastore_id for parts in self._catalog.datastores()]:
            await self.look(datastore_id)
            if (parts := self._catalog.datastore(datastore_id)) is not None:
                free[parts.spec.name] = parts.status.free_mib * MIB if parts.status.is_ready else -1
        self._metrics.show_datastores(free)

    async def look(self, datastore_id: int) -> None:
        """Looks at one; nobody else does at the same time."""
        async with self._one_at_a_time:
            parts = self._catalog.datastore(datastore_id)
            if parts is not None:
                await self._look(parts)

    async def _look(self, parts: DatastoreParts) -> None:
        directory = self._catalog.directory(parts)
        status = await asyncio.to_thread(_measure, directory, parts)
        if status.is_ready and parts.spec.uid not in self._swept:
            await self._sweep(directory, parts)
        if _is_notable(parts.status, status):
            await self._write(parts, status)

    async def _sweep(self, directory: Directory, parts: DatastoreParts) -> None:
        """Once in a leadership: what a process that is no more has begun is taken away."""
        known = {image.spec.uid for image in self._catalog.images()}
        try:
            swept = await asyncio.to_thread(directory.sweep, known, set(self._active))
        except OSError as err:
            self._log.warning("could not sweep", datastore=parts.spec.name, error=str(err))
            return
        self._swept.add(parts.spec.uid)
        if swept:
            self._log.info("swept what unfinished uploads left", datastore=parts.spec.name, files=len(swept))

    async def _write(self, parts: DatastoreParts, status: DatastoreStatus) -> None:
        if status.is_ready != parts.status.is_ready:
            self._log.info(
                "datastore changed", datastore=parts.spec.name, is_ready=status.is_ready, message=status.message
            )
        txn = Txn(guard=self._leadership).present(parts.spec_entry.key)
        try:
            await self._store.commit(txn.put(key("datastore", parts.datastore_id, "status"), status))
        except Conflict:
            return  # it was deleted meanwhile


def _measure(directory: Directory, parts: DatastoreParts) -> DatastoreStatus:
    """The status of a datastore now. One that has been ready is never made anew: its disk may not be mounted."""
    status = DatastoreStatus(uid=parts.spec.uid, schema_version=SCHEMA_VERSION, mark=parts.spec.uid)
    try:
        if parts.status.mark and (parts.status.total_mib or parts.status.is_ready):
            directory.check()
        else:
            directory.prepare()
        total, free = directory.room()
    except (Unusable, OSError) as err:
        status.message = str(err)
        status.total_mib = parts.status.total_mib
        return status
    status.total_mib, status.free_mib, status.is_ready = total // MIB, free // MIB, True
    return status


def _is_notable(before: DatastoreStatus, after: DatastoreStatus) -> bool:
    """Whether a change is worth a write: of more than a little room."""
    same = (before.is_ready, before.message, before.mark, before.total_mib)
    if same != (after.is_ready, after.message, after.mark, after.total_mib):
        return True
    return abs(before.free_mib - after.free_mib) > max(NOTABLE_MIB, int(NOTABLE_SHARE * after.total_mib))
