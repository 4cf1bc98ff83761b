"""Files of VMs as nodes send and fetch them: those of stopped VMs, and disks that become images.

Whoever shows the VM's ticket speaks for the node that the VM is on; whether its files count is decided by the leader.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterable, AsyncIterator
from typing import NamedTuple, TypeVar

from moln.compute.v1.vm_pb2 import DesiredState, SavedFile, VmIntent, VmSpec, VmVolumes
from moln.image.v1.image_data_service_pb2 import DownloadVolumeRequest, UploadDiskRequest, UploadVolumeRequest
from moln.image.v1.image_pb2 import ImageSource, ImageSpec, ImageState, ImageStatus
from services.common.domain.caller import Caller
from services.common.domain.errors import MolnError, invalid
from services.common.domain.keys import SCHEMA_VERSION
from services.common.domain.reasons import Reason
from services.common.imageformat import info
from services.common.resources.records import Repeatable, cause_of
from services.common.resources.stored import stored
from services.common.store import Leadership, Store, StoreUnavailable
from services.imagesvc.catalog import Catalog, DatastoreParts
from services.imagesvc.datastores.directory import Directory, Unusable
from services.imagesvc.datastores.incoming import Incoming, to_its_end
from services.imagesvc.datastores.saved import SavedFiles, name_of
from services.imagesvc.metrics import ImagesvcMetrics
from services.imagesvc.usecases.images import Draft, Images
from services.imagesvc.usecases.uploads import MAX_PIECE_BYTES, SILENCE_SECONDS, Uploads

FORMATS = ("qcow2", "raw", "memory")
T = TypeVar("T", UploadVolumeRequest, UploadDiskRequest)


class KnownVm(NamedTuple):
    """A living VM. Messages are the cache's: never write them."""

    spec: VmSpec
    intent: VmIntent
    volumes: VmVolumes


class SavedUploads:
    """Receives and sends files of VMs. `max_bytes` of one file."""

    def __init__(
        self, store: Store, catalog: Catalog, images: Images, uploads: Uploads, max_bytes: int, metrics: ImagesvcMetrics
    ) -> None:
        self._store, self._catalog, self._images = store, catalog, images
        self._uploads, self._max_bytes, self._metrics = uploads, max_bytes, metrics

    async def receive(self, first: UploadVolumeRequest, stream: AsyncIterator[UploadVolumeRequest]) -> SavedFile:
        """Takes a file of a VM, whole and verified or not at all. Raises EXHAUSTED, INVALID, NOT_FOUND."""
        file = _checked(first.file)
        self._vm(first.vm_id, first.uid)
        saved = SavedFiles(self._directory(first.vm_id))
        what = f"{name_of(file)} of VM {first.vm_id}"
        directory = await self._opened(saved, first.uid, first.epoch)
        async with Incoming(directory, name_of(file), self._max_bytes, what=what) as incoming:
            incoming.check_size(file.size_bytes)
            sha256 = await _take(stream, incoming, what)
            file.sha256, file.size_bytes = await incoming.finish(sha256), incoming.size
            await incoming.place(file.sha256)
            incoming.keep()
        await asyncio.to_thread(saved.settle, first.uid, first.epoch, file)
        self._metrics.received("volume", file.size_bytes)
        return file

    async def _opened(self, saved: SavedFiles, uid: str, epoch: int) -> Directory:
        try:
            return await asyncio.to_thread(saved.opened, uid, epoch)
        except ValueError as err:
            raise invalid("uid", str(err)) from err
        except (Unusable, OSError) as err:
            raise MolnError(Reason.SERVICE_UNAVAILABLE, f"the datastore cannot be used now: {err}") from err

    def opened(self, request: DownloadVolumeRequest) -> int:
        """A handle at the offset of a file that the VM has in the datastore. Blocking. Raises NOT_FOUND, INVALID."""
        volumes = self._vm(request.vm_id, request.uid).volumes
        file = _wanted(volumes, request)
        directory = self._catalog.directory_of(volumes.saved_datastore_id)
        path = SavedFiles(directory).path(request.uid, volumes.saved_epoch, file) if directory and file else None
        if path is None or file is None:
            raise MolnError(Reason.VM_NOT_FOUND, f"VM {request.vm_id} has no such file in a datastore")
        if request.offset > file.size_bytes:
            raise invalid("offset", f"is beyond the file's {file.size_bytes} bytes")
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        os.lseek(handle, request.offset, os.SEEK_SET)
        return handle

    async def make_image(
        self, first: UploadDiskRequest, stream: AsyncIterator[UploadDiskRequest], leadership: Leadership
    ) -> int:
        """Makes an image of a disk, for the VM's owner; its id. The same operation makes it once.

        Raises EXISTS/NAME_TAKEN, EXHAUSTED, INVALID, NOT_FOUND.
        """
        vm = self._vm(first.vm_id, first.uid)
        caller = Caller(vm.spec.owner_id, vm.spec.owner)
        known = self._image_of(first.operation_id)
        if known:
            return known
        draft = self._draft(first, vm, caller)
        directory, what = self._catalog.directory(draft.datastore), f"image {draft.spec.name}"
        uid = draft.spec.uid
        self._uploads.active.add(uid)
        try:
            async with Incoming(directory, uid, self._max_bytes, what=what, is_pending=True) as incoming:
                sha256 = await _take(stream, incoming, what)
                status = await _placed(draft.spec, incoming, sha256, what)
                return await to_its_end(self._insert(draft, status, caller, leadership, incoming))
        finally:
            self._uploads.active.discard(uid)

    def _draft(self, first: UploadDiskRequest, vm: KnownVm, caller: Caller) -> Draft:
        if first.format not in ("qcow2", "raw"):
            raise invalid("format", "is `qcow2` or `raw`")
        if self._store.cache.get("name", "image", f"{caller.user_id}/{first.name}") is not None:
            problem = f"{caller.name} has an image {first.name} already; choose another name"
            raise invalid("name", problem, reason=Reason.NAME_TAKEN)
        spec = ImageSpec(
            uid=first.operation_id, name=first.name, owner_id=caller.user_id, owner=caller.name,
            source=ImageSource.IMAGE_SOURCE_UPLOAD, format=first.format, schema_version=SCHEMA_VERSION,
            description=f"saved from VM {first.vm_id} ({vm.spec.name})",
        )  # fmt: skip
        spec.cause.CopyFrom(cause_of(caller, "SAVE_DISK"))
        spec.create_time.CopyFrom(spec.cause.time)
        datastore = self._datastore(first.vm_id)
        spec.datastore_id = datastore.datastore_id
        return Draft(spec, datastore, Repeatable(self._store, caller, "image", "", spec))

    async def _insert(
        self, draft: Draft, status: ImageStatus, caller: Caller, leadership: Leadership, incoming: Incoming
    ) -> int:
        try:
            image = await self._images.insert(draft, status, caller, leadership)
        except StoreUnavailable as err:
            if err.may_have_happened:
                incoming.leave()
            raise
        incoming.keep()
        self._metrics.received("disk", incoming.size)
        return int(image.id)

    def _image_of(self, uid: str) -> int:
        return next((parts.image_id for parts in self._catalog.images() if parts.spec.uid == uid), 0)

    def _vm(self, vm_id: int, uid: str) -> KnownVm:
        parts = self._store.cache.object("vm", vm_id)
        spec, intent = stored(parts.get("spec"), VmSpec), stored(parts.get("intent"), VmIntent)
        is_living = intent is not None and intent.desired != DesiredState.DESIRED_STATE_TERMINATED
        if spec is None or intent is None or spec.uid != uid or not is_living:
            raise MolnError(Reason.VM_NOT_FOUND, f"there is no VM {vm_id} of that unique id, or it is terminated")
        return KnownVm(spec, intent, stored(parts.get("volumes"), VmVolumes) or VmVolumes())

    def _directory(self, vm_id: int) -> Directory:
        return self._catalog.directory(self._datastore(vm_id))

    def _datastore(self, vm_id: int) -> DatastoreParts:
        parts = self._catalog.datastore(self._catalog.saved_datastore_id(vm_id))
        if parts is None:
            problem = f"VM {vm_id} has no image whose datastore could take it, and the cloud has no default datastore"
            raise MolnError(Reason.DATASTORE_NOT_FOUND, problem)
        return parts


def _checked(file: SavedFile) -> SavedFile:
    if file.format not in FORMATS or (file.format == "memory") != file.is_memory:
        raise invalid("file.format", f"is one of {', '.join(FORMATS)}; `memory` for memory only")
    return SavedFile.FromString(file.SerializeToString())


def _wanted(volumes: VmVolumes, request: DownloadVolumeRequest) -> SavedFile | None:
    if not volumes.is_in_datastore:
        return None
    if request.is_memory:
        return volumes.memory if volumes.HasField("memory") else None
    for volume in volumes.disks:
        if volume.disk_id == request.disk_id and volume.saved_sha256:
            return SavedFile(
                disk_id=volume.disk_id, sha256=volume.saved_sha256, size_bytes=volume.saved_size_bytes,
                format=volume.format,
            )  # fmt: skip
    return None


async def _placed(spec: ImageSpec, incoming: Incoming, sha256: str, what: str) -> ImageStatus:
    found = await incoming.finish(sha256)
    facts = await info(incoming.path, stated=spec.format, what=what)
    return ImageStatus(
        uid=spec.uid, state=ImageState.IMAGE_STATE_READY, format=facts.format,
        virtual_size_bytes=facts.virtual_size_bytes, file_size_bytes=facts.file_size_bytes, sha256=found,
        path=await incoming.place(facts.format), progress_percent=100, cause=spec.cause, schema_version=SCHEMA_VERSION,
    )  # fmt: skip


async def first_of(messages: AsyncIterable[T]) -> tuple[T, AsyncIterator[T]]:
    """The first message of a stream, and the rest. Raises INVALID/UPLOAD_INCOMPLETE where there is none."""
    stream = aiter(messages)
    first = await _next(stream)
    if first is None:
        raise _incomplete("nothing came")
    return first, stream


async def _take(stream: AsyncIterator[T], incoming: Incoming, what: str) -> str:
    """Writes what comes; the checksum that the last message states."""
    while (message := await _next(stream)) is not None:
        if len(message.data) > MAX_PIECE_BYTES:
            raise invalid("data", f"takes at most {MAX_PIECE_BYTES} bytes at a time")
        if message.data:
            await incoming.write(message.data)
        if message.sha256:
            return str(message.sha256)
    raise _incomplete(f"{what} ended after {incoming.size} bytes, before its last message")


async def _next(stream: AsyncIterator[T]) -> T | None:
    try:
        async with asyncio.timeout(SILENCE_SECONDS):
            return await anext(stream, None)
    except TimeoutError as err:
        raise _incomplete(f"nothing came for {SILENCE_SECONDS:g} s") from err


def _incomplete(problem: str) -> MolnError:
    return MolnError(Reason.UPLOAD_INCOMPLETE, f"upload: {problem}; nothing was kept, send it again")
