"""ImageService. Authenticated and authorised by the api; answered on the leader, reads on a standby too."""

from __future__ import annotations

from collections.abc import AsyncIterator

from moln.image.v1 import image_service_pb2 as pb
from moln.image.v1 import image_service_pb2_grpc
from moln.image.v1.image_pb2 import Image
from services.common.resources.front import Front
from services.imagesvc.usecases.images import Images
from services.imagesvc.usecases.uploads import Uploads


class ImageServicer(image_service_pb2_grpc.ImageServiceServicer):
    """A line or two per RPC."""

    def __init__(self, front: Front, images: Images, uploads: Uploads) -> None:
        self._front = front
        self._images = images
        self._uploads = uploads

    async def CreateImage(self, request: pb.CreateImageRequest, context: object) -> Image:
        return await self._images.create(request, *await self._front.writer())

    async def UploadImage(self, request_iterator: AsyncIterator[pb.UploadImageRequest], context: object) -> Image:
        return await self._uploads.receive(request_iterator, *await self._front.writer())

    async def GetImage(self, request: pb.GetImageRequest, context: object) -> Image:
        return self._images.get(request.id, await self._front.reader())

    async def ListImages(self, request: pb.ListImagesRequest, context: object) -> pb.ListImagesResponse:
        return self._images.list(request, await self._front.reader())

    async def UpdateImage(self, request: pb.UpdateImageRequest, context: object) -> Image:
        return await self._images.update(request, *await self._front.writer())

    async def DeleteImage(self, request: pb.DeleteImageRequest, context: object) -> pb.DeleteImageResponse:
        await self._images.delete(request.id, *await self._front.writer())
        return pb.DeleteImageResponse()
