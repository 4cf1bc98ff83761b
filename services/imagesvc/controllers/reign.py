"""One leadership of imagesvc: its loops run until it is lost."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from services.common.resources.front import Front
from services.common.resources.vm_parts import VmParts
from services.common.runtime import Background, Clock, Loop
from services.common.runtime.loop import Step
from services.common.store import Change, Leadership, Store
from services.imagesvc.catalog import Catalog
from services.imagesvc.controllers.datastores import DatastoreWatch
from services.imagesvc.controllers.imports import Importer
from services.imagesvc.controllers.life import ImageLife
from services.imagesvc.controllers.saved import SavedVolumes
from services.imagesvc.controllers.volumes import Volumes
from services.imagesvc.metrics import ImagesvcMetrics
from services.imagesvc.settings import GIB, ImagesvcSettings
from services.imagesvc.usecases.uploads import Uploads

KINDS = frozenset({"vm", "image", "datastore"})
IDLE_SECONDS = 30.0
SWEEP_SECONDS = 600.0


class Reign:
    """What runs while this process leads. What it remembers ends with it."""

    def __init__(
        self,
        store: Store,
        catalog: Catalog,
        front: Front,
        uploads: Uploads,
        settings: ImagesvcSettings,
        clock: Clock,
        metrics: ImagesvcMetrics,
    ) -> None:
        self._store = store
        self._catalog = catalog
        self._front = front
        self._uploads = uploads
        self._settings = settings
        self._clock = clock
        self._metrics = metrics
        self._watch: DatastoreWatch | None = None

    async def look(self, datastore_id: int) -> None:
        """Looks at a datastore now, where this process leads."""
        if self._watch is not None:
            await self._watch.look(datastore_id)

    async def lead(self, leadership: Leadership) -> None:
        """To be given to `Store.lead`: runs until cancelled."""
        watch = DatastoreWatch(self._store, self._catalog, leadership, self._uploads.active, self._metrics)
        volumes = Volumes(self._store, self._catalog, leadership, self._clock, self._metrics)
        parts = VmParts(self._store, leadership, volumes, self._metrics.loops)
        volumes.wake = parts.look_at
        saved = SavedVolumes(self._store, self._catalog, leadership, self._clock)
        async with Background() as background:
            images = self._images(leadership, background)
            datastores = self._loop("datastores", lambda: _check(watch, volumes), self._settings.datastore_interval_s)
            files = self._loop("saved", saved.step, IDLE_SECONDS)
            sweep = self._loop("saved_sweep", saved.sweep, SWEEP_SECONDS)
            subscriber = _subscriber(volumes, parts, images, datastores, (saved, files))
            unsubscribe = self._store.cache.subscribe(subscriber, KINDS)
            try:
                await watch.step()
                self._watch, self._front.leadership = watch, leadership
                self._metrics.leads(True)
                for loop in (images, datastores, files, sweep):
                    background.start(loop.run(), name=loop.name)
                await parts.run()
            finally:
                self._watch, self._front.leadership = None, None
                self._metrics.leads(False)
                unsubscribe()

    def _images(self, leadership: Leadership, background: Background) -> Loop:
        importer = Importer(self._store, self._catalog, leadership, self._settings.max_image_gib * GIB, self._metrics)
        life = ImageLife(
            self._store, self._catalog, leadership, importer, self._settings.parallel_imports, self._metrics.loops
        )
        loop = self._loop("images", lambda: life.step(background), IDLE_SECONDS)
        life.wake = loop.wake
        return loop

    def _loop(self, name: str, step: Step, interval: float) -> Loop:
        return Loop(name, step, interval=interval, metrics=self._metrics.loops)


async def _check(watch: DatastoreWatch, volumes: Volumes) -> None:
    await watch.step()
    await volumes.recheck()


def _subscriber(
    volumes: Volumes, parts: VmParts, images: Loop, datastores: Loop, saved: tuple[SavedVolumes, Loop]
) -> Callable[[Sequence[Change], int], None]:
    def changed(changes: Sequence[Change], _revision: int) -> None:
        volumes.changed(changes)
        parts.changed(changes)
        if saved[0].changed(changes):
            saved[1].wake()
        if any(change.kind == "image" and change.part == "intent" for change in changes):
            images.wake()
        if any(change.kind == "datastore" and change.part == "spec" for change in changes):
            datastores.wake()

    return changed
