"""From wish to bytes and back: starts the imports that are due, ends those of deleted images, erases what is unwanted.

Level-triggered: it compares intents and statuses with the imports that run in this process, which die with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from moln.image.v1.image_pb2 import ImageSource, ImageState
from services.common.obs.logs import get_logger
from services.common.obs.loops import LoopCounts
from services.common.resources.records import name_key
from services.common.runtime import Background, Loop
from services.common.store import Conflict, Leadership, Store, StoreError, Txn, key, prefix
from services.imagesvc.catalog import Catalog, ImageParts
from services.imagesvc.controllers.imports import Importer
from services.imagesvc.datastores.directory import Unusable

AGAIN_SECONDS = 1.0


class ImageLife:
    """The images of one leadership. `parallel` imports run at a time."""

    def __init__(
        self,
        store: Store,
        catalog: Catalog,
        leadership: Leadership,
        importer: Importer,
        parallel: int,
        loops: LoopCounts,
    ) -> None:
        self._store = store
        self._catalog = catalog
        self._leadership = leadership
        self._importer = importer
        self._loops = loops
        self._room = asyncio.Semaphore(parallel)
        self._running: dict[int, asyncio.Task[None]] = {}
        self.wake: Callable[[], None] = lambda: None
        """Called when an import has ended."""
        self._log = get_logger("images")

    async def step(self, background: Background) -> float | None:
        """Does what is due; the seconds after which to look again, where something could not be done."""
        is_open = False
        for parts in list(self._catalog.images()):
            if parts.state == ImageState.IMAGE_STATE_DELETING:
                is_open |= not await self._erase(parts)
            elif _is_due(parts) and parts.image_id not in self._running:
                work = background.start(self._import(parts.image_id), name=f"import {parts.image_id}")
                self._running[parts.image_id] = work
        return AGAIN_SECONDS if is_open else None

    async def _import(self, image_id: int) -> None:
        """Runs an import to its end; where that could not be written the image stays IMPORTING and is begun anew."""
        try:
            async with self._room:
                once = Loop("import", lambda: self._importer.run(image_id), interval=0.0, metrics=self._loops)
                await once.once()
                if once.failures:
                    await asyncio.sleep(AGAIN_SECONDS)
        finally:
            self._running.pop(image_id, None)
            self.wake()

    async def _erase(self, parts: ImageParts) -> bool:
        """Erases an image's file and then its keys. False where that has to be tried again."""
        if (running := self._running.get(parts.image_id)) is not None:
            running.cancel()
            await asyncio.wait([running])
        directory = self._catalog.directory_of(parts.spec.datastore_id)
        try:
            if directory is not None:
                await asyncio.to_thread(directory.check)
                await asyncio.to_thread(directory.erase, parts.spec.uid)
            await self._store.commit(self._forget(parts))
        except Conflict:
            return True  # the keys were written by another leader, or are gone
        except (Unusable, OSError, StoreError) as err:
            self._log.warning("image cannot be erased yet", image=parts.spec.name, error=str(err))
            return False
        self._log.info("image is erased", image=parts.spec.name, image_id=parts.image_id)
        return True

    def _forget(self, parts: ImageParts) -> Txn:
        image_id = parts.image_id
        txn = Txn(guard=self._leadership).unchanged(parts.intent_entry.key, parts.intent_entry.mod_revision)
        txn.none_under(prefix("imageref", image_id))
        for part in ("spec", "intent", "status"):
            txn.delete(key("image", image_id, part))
        return txn.delete(name_key("image", parts.spec.owner_id, parts.spec.name))


def _is_due(parts: ImageParts) -> bool:
    return parts.state == ImageState.IMAGE_STATE_IMPORTING and parts.spec.source != ImageSource.IMAGE_SOURCE_UPLOAD
