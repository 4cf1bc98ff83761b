"""Volumes of VMs: given once their images are ready, taken back when nothing of the VM is left.

It drives `core.volumes`, and looks whether the files of images are there when they are asked for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from moln.common.v1.common_pb2 import Cause
from moln.compute.v1.template_pb2 import VmTemplate
from moln.compute.v1.vm_pb2 import VmIntent, VmSpec, VmVolumes
from moln.image.v1.image_pb2 import ImageState, ImageStatus
from services.common.domain.keys import SCHEMA_VERSION
from services.common.domain.reasons import Reason
from services.common.domain.template_images import image_ids
from services.common.obs.logs import get_logger
from services.common.resources.vm_parts import Wish
from services.common.resources.waiting import Waiting
from services.common.runtime import Clock
from services.common.store import Change, Leadership, Store, StoreError, Txn, key
from services.imagesvc.catalog import Catalog, ImageParts
from services.imagesvc.core.volumes import Known, Refused, volumes
from services.imagesvc.metrics import ImagesvcMetrics

ACTOR = "<imagesvc>"
LOOK_SECONDS = 1.0
"""A file that was there is believed to be there for so long: a thousand VMs of one image look once."""


class Volumes:
    """The volumes of one leadership, and who waits; a `Work` for `VmParts`."""

    part = "volumes"

    def __init__(
        self, store: Store, catalog: Catalog, leadership: Leadership, clock: Clock, metrics: ImagesvcMetrics
    ) -> None:
        self.wake: Callable[[Iterable[str]], None] = lambda vms: None
        """Called with the VMs for which another try is worth it now."""
        self._store = store
        self._catalog = catalog
        self._leadership = leadership
        self._clock = clock
        self._metrics = metrics
        self._waiting = Waiting()
        self._seen: dict[int, float] = {}
        self._given: dict[str, int] = {}
        self._time = Timestamp()
        self._log = get_logger("volumes")

    def changed(self, changes: Sequence[Change]) -> None:
        """Wakes who waits for an image that changed."""
        for change in changes:
            if change.kind == "image":
                self._seen.pop(int(change.id), None)
                self._waiting.signal(int(change.id))
                self.wake(self._waiting.due(int(change.id)))

    def is_needed(self, intent: VmIntent) -> bool:
        """Whether the VM has disks."""
        return intent.needs_volumes

    async def look(self, wishes: Sequence[Wish]) -> None:
        """Looks for the files of all images that these VMs want; writes down which are gone."""
        self._time.FromDatetime(self._clock.now())
        now = self._clock.monotonic()
        wanted = {image_id for wish in wishes for image_id in image_ids(wish.spec.template)}
        for image_id in wanted:
            if now - self._seen.get(image_id, -LOOK_SECONDS) >= LOOK_SECONDS and await self._is_there(image_id):
                self._seen[image_id] = now

    async def recheck(self) -> None:
        """Looks whether files that had vanished are back: a disk that was mounted again."""
        vanished = [parts for parts in self._catalog.images() if parts.status.reason == Reason.IMAGE_VANISHED]
        for parts in vanished:
            if await asyncio.to_thread(self._problem, parts) == "":
                await self._write(parts, ImageState.IMAGE_STATE_READY, "", "")

    async def _is_there(self, image_id: int) -> bool:
        parts = self._catalog.image(image_id)
        if parts is None or parts.state != ImageState.IMAGE_STATE_READY:
            return False
        problem = await asyncio.to_thread(self._problem, parts)
        if problem:
            self._log.warning("the file of an image is gone", image=parts.spec.name, problem=problem)
            await self._write(parts, ImageState.IMAGE_STATE_ERROR, Reason.IMAGE_VANISHED, problem)
        return not problem

    def _problem(self, parts: ImageParts) -> str:
        """Why an image's file cannot be used; empty where it can."""
        directory = self._catalog.directory_of(parts.spec.datastore_id)
        if directory is None:
            return "its datastore is gone"
        path, size = directory.file(parts.status.path), directory.size_of(parts.status.path)
        if size is None:
            return f"its file {path} is gone; put it back, or delete the image and create it anew"
        if size != parts.status.file_size_bytes:
            return f"its file {path} has {size} bytes instead of {parts.status.file_size_bytes}: it was changed"
        return ""

    async def _write(self, parts: ImageParts, state: ImageState, reason: str, message: str) -> None:
        status = ImageStatus()
        status.CopyFrom(parts.status)
        status.state, status.reason, status.message = state, reason, message
        status.cause.CopyFrom(self._cause(reason))
        txn = Txn(guard=self._leadership).unchanged(key("image", parts.image_id, "status"), parts.status_revision)
        try:
            await self._store.commit(txn.put(key("image", parts.image_id, "status"), status))
        except StoreError as err:
            self._log.info("what became of a file could not be written", image=parts.spec.name, error=str(err))

    def give(self, wish: Wish, txn: Txn) -> Message | None:
        """Volumes for all disks and a kernel, or why there are none. Compares that the images stand as read."""
        outcome = volumes(wish.spec.template, self._find)
        if isinstance(outcome, Refused):
            return self._refused(wish, outcome)
        self._compare_images(image_ids(wish.spec.template), txn)
        self._given[wish.vm] = len(outcome.disks)
        outcome.uid, outcome.schema_version = wish.spec.uid, SCHEMA_VERSION
        outcome.cause.CopyFrom(self._cause())
        return outcome

    def lacks(self, spec: VmSpec, part: Message) -> bool:
        """Whether a disk was attached or detached since."""
        assert isinstance(part, VmVolumes)  # noqa: S101  for the type checker: it is this work's part
        return [volume.disk_id for volume in part.disks] != [disk.disk_id for disk in spec.template.disks]

    def amend(self, wish: Wish, txn: Txn) -> Message | None:
        """Volumes of the disks that are new; those of disks that are gone go. Nothing else changes."""
        assert isinstance(wish.before, VmVolumes)  # noqa: S101  for the type checker: there is a part to amend
        kept = {volume.disk_id: volume for volume in wish.before.disks}
        added = VmTemplate(disks=[disk for disk in wish.spec.template.disks if disk.disk_id not in kept])
        outcome = volumes(added, self._find)
        if isinstance(outcome, Refused):
            self._waiting.add(wish.vm, outcome.image_id)
            return None
        self._compare_images(image_ids(added), txn)
        kept.update({volume.disk_id: volume for volume in outcome.disks})
        self._given[wish.vm] = len(outcome.disks)
        amended = VmVolumes()
        amended.CopyFrom(wish.before)
        del amended.disks[:]
        amended.disks.extend(kept[disk.disk_id] for disk in wish.spec.template.disks)
        amended.cause.CopyFrom(self._cause())
        return amended

    def _compare_images(self, image_ids: Iterable[int], txn: Txn) -> None:
        for image_id in image_ids:
            parts = self._catalog.image(image_id)
            if parts is not None:
                txn.unchanged(parts.intent_entry.key, parts.intent_entry.mod_revision)

    def settle(self, vm: str, *, is_written: bool) -> None:
        """Counts what was given."""
        given = self._given.pop(vm, 0)
        if given and is_written:
            self._waiting.forget(vm)
            self._metrics.given(given)

    def take_back(self, vm: str, part: Message, txn: Txn) -> None:
        """Nothing goes with it: references to images are the api's."""

    def forget(self, vm: str) -> None:
        """The VM waits for nothing any more."""
        self._waiting.forget(vm)
        self._metrics.show_waiting(len(self._waiting))

    def _find(self, image_id: int) -> Known | None:
        parts = self._catalog.image(image_id)
        datastore = self._catalog.datastore(parts.spec.datastore_id) if parts else None
        if parts is None or datastore is None:
            return None
        return Known(parts.spec, parts.status, parts.state, datastore.spec.path)

    def _refused(self, wish: Wish, refused: Refused) -> VmVolumes | None:
        self._waiting.add(wish.vm, refused.image_id)
        self._metrics.show_waiting(len(self._waiting))
        before = wish.before
        if isinstance(before, VmVolumes) and (before.reason, before.message) == (refused.reason, refused.message):
            return None
        return VmVolumes(
            uid=wish.spec.uid, reason=refused.reason, message=refused.message,
            cause=self._cause(refused.reason), schema_version=SCHEMA_VERSION,
        )  # fmt: skip

    def _cause(self, reason: str = "") -> Cause:
        return Cause(actor=ACTOR, reason=reason, time=self._time)
