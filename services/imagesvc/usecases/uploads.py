"""Uploads: bytes beside their place, looked at, put in place, and then the keys in one transaction. Or nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator
from typing import TypeVar

from moln.image.v1.image_pb2 import Image, ImageState, ImageStatus
from moln.image.v1.image_service_pb2 import UploadImageRequest
from services.common.domain.caller import Caller
from services.common.domain.errors import MolnError, invalid
from services.common.domain.keys import SCHEMA_VERSION
from services.common.domain.reasons import Reason
from services.common.imageformat import info
from services.common.store import Leadership, StoreUnavailable
from services.imagesvc.catalog import Catalog
from services.imagesvc.datastores.incoming import Incoming, to_its_end
from services.imagesvc.metrics import ImagesvcMetrics
from services.imagesvc.usecases.images import Draft, Images

SILENCE_SECONDS = 120.0
MAX_PIECE_BYTES = 4 << 20
T = TypeVar("T")


class Uploads:
    """Receives uploads. `active` are the uids at work, which no sweep touches."""

    def __init__(self, images: Images, catalog: Catalog, max_bytes: int, metrics: ImagesvcMetrics) -> None:
        self.active: set[str] = set()
        self._images = images
        self._catalog = catalog
        self._max_bytes = max_bytes
        self._metrics = metrics

    async def receive(
        self, messages: AsyncIterable[UploadImageRequest], caller: Caller, leadership: Leadership
    ) -> Image:
        """Creates an image from a stream. Raises as `Images.create`, and INVALID: UPLOAD_INCOMPLETE, IMAGE_INVALID,
        CHECKSUM_MISMATCH. Nothing stays where it raises or is cancelled.
        """
        stream = aiter(messages)
        first = await _next(stream)
        if first is None or not first.HasField("image"):
            raise invalid("image", "is required in the first message", reason=Reason.FIELD_REQUIRED)
        draft = await self._images.draft(first.image, caller, is_upload=True)
        if isinstance(draft, Image):
            return draft
        self.active.add(draft.spec.uid)
        try:
            return await self._receive(draft, first, stream, caller, leadership)
        finally:
            self.active.discard(draft.spec.uid)

    async def _receive(
        self,
        draft: Draft,
        first: UploadImageRequest,
        stream: AsyncIterator[UploadImageRequest],
        caller: Caller,
        leadership: Leadership,
    ) -> Image:
        directory, uid, what = self._catalog.directory(draft.datastore), draft.spec.uid, f"image {draft.spec.name}"
        async with Incoming(directory, uid, self._max_bytes, what=what, is_pending=True) as incoming:
            incoming.check_size(first.total_bytes)
            await _take_all(first, stream, incoming)
            if first.total_bytes and incoming.size != first.total_bytes:
                raise _incomplete(f"{incoming.size} of {first.total_bytes} bytes came")
            status = await self._placed(draft, incoming, what)
            image = await to_its_end(self._insert(draft, status, caller, leadership, incoming))
        self._metrics.received("upload", incoming.size)
        return image

    async def _insert(
        self, draft: Draft, status: ImageStatus, caller: Caller, leadership: Leadership, incoming: Incoming
    ) -> Image:
        try:
            image = await self._images.insert(draft, status, caller, leadership)
        except StoreUnavailable as err:
            if err.may_have_happened:
                incoming.leave()  # nobody knows whether the keys stand: the sweep will
            raise
        incoming.keep()
        return image

    async def _placed(self, draft: Draft, incoming: Incoming, what: str) -> ImageStatus:
        sha256 = await incoming.finish(draft.spec.expected_sha256)
        facts = await info(incoming.path, stated=draft.spec.format, what=what)
        name = await incoming.place(facts.format)
        return ImageStatus(
            uid=draft.spec.uid,
            state=ImageState.IMAGE_STATE_READY,
            format=facts.format,
            virtual_size_bytes=facts.virtual_size_bytes,
            file_size_bytes=facts.file_size_bytes,
            sha256=sha256,
            path=name,
            progress_percent=100,
            cause=draft.spec.cause,
            schema_version=SCHEMA_VERSION,
        )


async def _take_all(first: UploadImageRequest, stream: AsyncIterator[UploadImageRequest], incoming: Incoming) -> None:
    message: UploadImageRequest | None = first
    while message is not None:
        if len(message.data) > MAX_PIECE_BYTES:
            raise invalid("data", f"takes at most {MAX_PIECE_BYTES} bytes at a time")
        if message.data:
            await incoming.write(message.data)
        if message.is_last:
            return
        message = await _next(stream)
    raise _incomplete(f"the stream ended after {incoming.size} bytes, before its last message")


async def _next(stream: AsyncIterator[T]) -> T | None:
    """The next message; None at the end."""
    try:
        async with asyncio.timeout(SILENCE_SECONDS):
            return await anext(stream, None)
    except TimeoutError as err:
        raise _incomplete(f"nothing came for {SILENCE_SECONDS:g} s") from err


def _incomplete(problem: str) -> MolnError:
    return MolnError(Reason.UPLOAD_INCOMPLETE, f"upload image: {problem}; nothing was kept, send it again")
