"""Fetches an image's bytes from the service that has them, by the ticket that came with the order. Writes nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import grpc

from moln.image.v1.image_data_service_pb2 import DownloadImageRequest
from moln.image.v1.image_data_service_pb2_grpc import ImageDataServiceStub
from moln.node.v1.node_service_pb2 import ImageTicket
from services.common.domain.reasons import Reason
from services.common.rpc import decode_error
from services.hostagent.storage.qemu_img import StorageError

TICKET_HEADER = "moln-ticket"

Dial = Callable[[str], grpc.aio.Channel]


class ImageSource:
    """Where images come from, for nodes that do not see the datastore."""

    def __init__(self, dial: Dial) -> None:
        self._dial = dial

    async def fetch(self, ticket: ImageTicket) -> AsyncIterator[bytes]:
        """The bytes, in order. Raises StorageError with the service's words."""
        try:
            async with self._dial(ticket.address) as channel:
                request = DownloadImageRequest(image_id=ticket.image_id)
                call = ImageDataServiceStub(channel).DownloadImage(request, metadata=((TICKET_HEADER, ticket.ticket),))
                async for piece in call:
                    yield piece.data
        except grpc.aio.AioRpcError as err:
            text = f"the image cannot be fetched from {ticket.address}: {decode_error(err).message}"
            raise StorageError(Reason.STAGING_FAILED, text) from err
