"""ImageDataService: the bytes of images for nodes, who show a ticket instead of the services' secret."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator

from moln.image.v1 import image_data_service_pb2 as pb
from moln.image.v1 import image_data_service_pb2_grpc
from moln.image.v1.image_pb2 import ImageState
from services.common.domain.errors import MolnError, invalid
from services.common.domain.reasons import Reason
from services.common.resources.front import Front
from services.common.rpc import Call, Gate, current_call, secret_gate
from services.common.rpc.tickets import verify_ticket
from services.common.runtime import Clock
from services.imagesvc.catalog import Catalog, ImageParts
from services.imagesvc.metrics import ImagesvcMetrics
from services.imagesvc.usecases.saved import SavedUploads, first_of

TICKET_HEADER = "moln-ticket"
PREFIX = "/moln.image.v1.ImageDataService/"
PIECE_BYTES = 1 << 20


def gate(secret: str) -> Gate:
    """Lets calls of nodes pass, who must show a ticket; all others must carry the services' secret."""
    inner = secret_gate(secret)

    def decide(call: Call) -> None:
        if not call.method.startswith(PREFIX):
            inner(call)

    return decide


class ImageDataServicer(image_data_service_pb2_grpc.ImageDataServiceServicer):
    """Sends files in pieces. Any imagesvc process that sees the datastore may answer."""

    def __init__(
        self, catalog: Catalog, saved: SavedUploads, front: Front, secret: str, clock: Clock, metrics: ImagesvcMetrics
    ) -> None:
        self._catalog, self._saved, self._front = catalog, saved, front
        self._secret = secret.encode()
        self._clock = clock
        self._metrics = metrics

    async def DownloadImage(
        self, request: pb.DownloadImageRequest, context: object
    ) -> AsyncIterator[pb.DownloadImageResponse]:
        self._verify("image", str(request.image_id))
        handle = await asyncio.to_thread(self._open, self._ready(request.image_id), request.offset)
        try:
            while data := await asyncio.to_thread(os.read, handle, PIECE_BYTES):
                yield pb.DownloadImageResponse(data=data)
                self._metrics.sent(len(data))
        finally:
            os.close(handle)

    async def UploadVolume(
        self, request_iterator: AsyncIterator[pb.UploadVolumeRequest], context: object
    ) -> pb.UploadVolumeResponse:
        first, stream = await first_of(request_iterator)
        self._verify("volume", first.uid)
        return pb.UploadVolumeResponse(file=await self._saved.receive(first, stream))

    async def DownloadVolume(
        self, request: pb.DownloadVolumeRequest, context: object
    ) -> AsyncIterator[pb.DownloadVolumeResponse]:
        self._verify("volume", request.uid)
        handle = await asyncio.to_thread(self._saved.opened, request)
        try:
            while data := await asyncio.to_thread(os.read, handle, PIECE_BYTES):
                yield pb.DownloadVolumeResponse(data=data)
                self._metrics.sent(len(data))
        finally:
            os.close(handle)

    async def UploadDisk(
        self, request_iterator: AsyncIterator[pb.UploadDiskRequest], context: object
    ) -> pb.UploadDiskResponse:
        first, stream = await first_of(request_iterator)
        self._verify("volume", first.uid)
        image_id = await self._saved.make_image(first, stream, await self._front.lead())
        return pb.UploadDiskResponse(image_id=image_id)

    def _verify(self, kind: str, subject: str) -> None:
        ticket = current_call().header(TICKET_HEADER)
        verify_ticket(self._secret, ticket, kind, subject, self._clock.now().timestamp())

    def _ready(self, image_id: int) -> ImageParts:
        parts = self._catalog.image(image_id)
        if parts is None or parts.state != ImageState.IMAGE_STATE_READY:
            raise MolnError(Reason.IMAGE_NOT_FOUND, f"image {image_id} is gone, or is not ready")
        return parts

    def _open(self, parts: ImageParts, offset: int) -> int:
        directory = self._catalog.directory_of(parts.spec.datastore_id)
        if directory is None:
            raise MolnError(Reason.DATASTORE_NOT_FOUND, f"the datastore of image {parts.spec.name} is gone")
        if offset > parts.status.file_size_bytes:
            raise invalid("offset", f"is beyond the image's {parts.status.file_size_bytes} bytes")
        try:
            handle = os.open(directory.file(parts.status.path), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError as err:
            problem = f"the file of image {parts.spec.name} cannot be read: {err.strerror or err}"
            raise MolnError(Reason.IMAGE_NOT_FOUND, problem) from err
        os.lseek(handle, offset, os.SEEK_SET)
        return handle
