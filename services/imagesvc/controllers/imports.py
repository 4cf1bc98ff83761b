"""One import: bytes from a source into a datastore, then the status. Begun anew after a crash, ended by deletion."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

from moln.common.v1.common_pb2 import Cause
from moln.image.v1.image_pb2 import ImageSource, ImageState, ImageStatus
from services.common.domain.errors import MolnError
from services.common.domain.keys import SCHEMA_VERSION
from services.common.domain.reasons import Reason
from services.common.imageformat import info
from services.common.obs.logs import get_logger
from services.common.runtime import Backoff
from services.common.store import Conflict, Leadership, NotLeader, Store, StoreError, StoreUnavailable, Txn, key
from services.imagesvc.catalog import Catalog, ImageParts
from services.imagesvc.datastores.incoming import Incoming, to_its_end
from services.imagesvc.metrics import ImagesvcMetrics
from services.imagesvc.sources import path, url
from services.imagesvc.sources.empty import make_empty
from services.imagesvc.sources.failure import SourceFailed

ACTOR = "<imagesvc>"
TRIES = 4
BACKOFF = Backoff(first=1.0, most=10.0)
PROGRESS_SECONDS = 1.0


class Importer:
    """Imports under one leadership."""

    def __init__(
        self, store: Store, catalog: Catalog, leadership: Leadership, max_bytes: int, metrics: ImagesvcMetrics
    ) -> None:
        self._store = store
        self._catalog = catalog
        self._leadership = leadership
        self._max_bytes = max_bytes
        self._metrics = metrics
        self._log = get_logger("imports")

    async def run(self, image_id: int) -> None:
        """Imports one image to its end: READY, or ERROR with the reason. Does nothing for one that is not IMPORTING.

        Raises StoreError where the end could not be written: the image is IMPORTING still, and is to be begun anew.
        """
        parts = self._catalog.image(image_id)
        if parts is None or parts.state != ImageState.IMAGE_STATE_IMPORTING:
            return
        try:
            await self._to_end(parts)
        except (Conflict, NotLeader):
            return  # it was deleted, or is another leader's to import now

    async def _to_end(self, parts: ImageParts) -> None:
        try:
            await self._import(parts)
        except (SourceFailed, MolnError) as err:
            await self._fail(parts, err.reason, err.message)

    async def _import(self, parts: ImageParts) -> None:
        failures = 0
        while True:
            try:
                await self._try(parts)
            except SourceFailed as err:
                failures += 1
                if err.is_final or failures >= TRIES:
                    raise
                self._log.info("import is tried again", image=parts.spec.name, error=err.message, failures=failures)
                await asyncio.sleep(BACKOFF.pause(failures))
            else:
                return

    async def _try(self, parts: ImageParts) -> None:
        directory = self._catalog.directory_of(parts.spec.datastore_id)
        if directory is None:
            raise MolnError(Reason.DATASTORE_NOT_FOUND, f"the datastore of image {parts.spec.name} is gone")
        progress = Progress(self, parts)
        what = f"image {parts.spec.name}"
        async with Incoming(directory, parts.spec.uid, self._max_bytes, what=what) as incoming:
            status = await self._fetch(parts, incoming, progress, what)
            await to_its_end(self._write_ready(parts, status, incoming))
        self._metrics.imported("ready")
        self._log.info("image is ready", image=parts.spec.name, bytes=status.file_size_bytes, format=status.format)

    async def _fetch(self, parts: ImageParts, incoming: Incoming, progress: Progress, what: str) -> ImageStatus:
        sha256 = ""
        if parts.spec.source == ImageSource.IMAGE_SOURCE_EMPTY:
            await make_empty(incoming.path, parts.spec.format or "qcow2", parts.spec.size_mib)
        else:
            sha256 = await self._receive(parts, incoming, progress)
        stated = parts.spec.format or ("qcow2" if parts.spec.source == ImageSource.IMAGE_SOURCE_EMPTY else "")
        facts = await info(incoming.path, stated=stated, what=what)
        return ImageStatus(
            uid=parts.spec.uid,
            state=ImageState.IMAGE_STATE_READY,
            format=facts.format,
            virtual_size_bytes=facts.virtual_size_bytes,
            file_size_bytes=facts.file_size_bytes,
            sha256=sha256,
            path=await incoming.place(facts.format),
            progress_percent=100,
            cause=_cause(),
            schema_version=SCHEMA_VERSION,
        )

    async def _receive(self, parts: ImageParts, incoming: Incoming, progress: Progress) -> str:
        spec = parts.spec
        if spec.source == ImageSource.IMAGE_SOURCE_URL:
            is_admin = self._catalog.is_admin(spec.owner_id)
            async with url.fetched(spec.location, is_admin=is_admin) as response:
                await _take(response.size, response.pieces, incoming, progress)
            self._metrics.received("url", incoming.size)
        else:
            async with path.opened(spec.location) as (size, pieces):
                await _take(size, pieces, incoming, progress)
            self._metrics.received("path", incoming.size)
        return await incoming.finish(spec.expected_sha256)

    async def _fail(self, parts: ImageParts, reason: Reason, message: str) -> None:
        status = ImageStatus(
            uid=parts.spec.uid, state=ImageState.IMAGE_STATE_ERROR, reason=reason, message=message,
            cause=_cause(reason), schema_version=SCHEMA_VERSION,
        )  # fmt: skip
        await self._write(parts, status)
        self._metrics.imported("error")
        self._log.info("import failed", image=parts.spec.name, reason=str(reason), error=message)

    async def _write_ready(self, parts: ImageParts, status: ImageStatus, incoming: Incoming) -> None:
        try:
            await self._write(parts, status)
        except StoreUnavailable as err:
            if err.may_have_happened:
                incoming.leave()  # it is READY, or IMPORTING still and begun anew
            raise
        incoming.keep()

    async def _write(self, parts: ImageParts, status: ImageStatus) -> None:
        await self._store.commit(self._txn(parts, status))

    async def report(self, parts: ImageParts, percent: int) -> None:
        """Writes how far an import is. What cannot be written is left out."""
        status = ImageStatus(
            uid=parts.spec.uid, state=ImageState.IMAGE_STATE_IMPORTING, progress_percent=percent, cause=_cause(),
            schema_version=SCHEMA_VERSION,
        )  # fmt: skip
        try:
            await self._store.commit(self._txn(parts, status))
        except StoreError as err:
            self._log.debug("progress could not be written", image=parts.spec.name, error=str(err))

    def _txn(self, parts: ImageParts, status: ImageStatus) -> Txn:
        """Compares that the image is wanted still."""
        txn = Txn(guard=self._leadership).unchanged(parts.intent_entry.key, parts.intent_entry.mod_revision)
        return txn.put(key("image", parts.image_id, "status"), status)


class Progress:
    """How far one import is; written once a second at most, and only where it changed."""

    def __init__(self, importer: Importer, parts: ImageParts) -> None:
        self.total = 0
        self._importer = importer
        self._parts = parts
        self._said = 0
        self._next = time.monotonic() + PROGRESS_SECONDS

    async def at(self, size: int) -> None:
        """So many bytes are there."""
        now = time.monotonic()
        percent = min(99, size * 100 // self.total) if self.total else 0
        if percent == self._said or now < self._next:
            return
        self._said, self._next = percent, now + PROGRESS_SECONDS
        await self._importer.report(self._parts, percent)


async def _take(size: int, pieces: AsyncIterator[bytes], incoming: Incoming, progress: Progress) -> None:
    progress.total = size
    incoming.check_size(size)
    async for piece in pieces:
        await incoming.write(piece)
        await progress.at(incoming.size)


def _cause(reason: str = "") -> Cause:
    cause = Cause(actor=ACTOR, reason=reason)
    cause.time.FromNanoseconds(time.time_ns())
    return cause
