"""Brings files of VMs to the service that keeps them, and fetches them from there or from another node.

Speaks ImageDataService and NodeDataService by tickets that came with the order. Decides nothing.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc

from moln.compute.v1.vm_pb2 import SavedFile
from moln.image.v1 import image_data_service_pb2 as image_data
from moln.image.v1.image_data_service_pb2_grpc import ImageDataServiceStub
from moln.node.v1.node_service_pb2 import DataTicket, FetchFileRequest
from moln.node.v1.node_service_pb2_grpc import NodeDataServiceStub
from services.common.domain.reasons import Reason
from services.common.rpc import decode_error
from services.hostagent.storage.copies import CutOff
from services.hostagent.storage.fetch import TICKET_HEADER, Dial
from services.hostagent.storage.qemu_img import StorageError

PIECE_BYTES = 1 << 20
SILENCE_SECONDS = 60.0
_PASSING = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.UNKNOWN})
Progress = Callable[[int], None]


class VolumeStore:
    """Where files of VMs go to and come from."""

    def __init__(self, dial: Dial) -> None:
        self._dial = dial

    async def upload(
        self, ticket: DataTicket, first: image_data.UploadVolumeRequest, path: Path, progress: Progress
    ) -> SavedFile:
        """Brings one file to the datastore; `first` says which. Raises StorageError with the service's words."""
        digest = hashlib.sha256()

        async def requests() -> AsyncIterator[image_data.UploadVolumeRequest]:
            yield first
            async for piece in _pieces(path, progress):
                digest.update(piece)
                yield image_data.UploadVolumeRequest(data=piece)
            yield image_data.UploadVolumeRequest(sha256=digest.hexdigest())

        try:
            async with self._dial(ticket.address) as channel:
                stub = ImageDataServiceStub(channel)
                answer = await stub.UploadVolume(requests(), metadata=((TICKET_HEADER, ticket.ticket),))
        except grpc.aio.AioRpcError as err:
            raise _upload_failed(path, ticket.address, err) from err
        return answer.file

    async def upload_disk(
        self, ticket: DataTicket, first: image_data.UploadDiskRequest, path: Path, progress: Progress
    ) -> int:
        """Makes an image of a file; its id. Raises StorageError with the service's words."""
        digest = hashlib.sha256()

        async def requests() -> AsyncIterator[image_data.UploadDiskRequest]:
            yield first
            async for piece in _pieces(path, progress):
                digest.update(piece)
                yield image_data.UploadDiskRequest(data=piece)
            yield image_data.UploadDiskRequest(sha256=digest.hexdigest())

        try:
            async with self._dial(ticket.address) as channel:
                stub = ImageDataServiceStub(channel)
                answer = await stub.UploadDisk(requests(), metadata=((TICKET_HEADER, ticket.ticket),))
        except grpc.aio.AioRpcError as err:
            raise _upload_failed(path, ticket.address, err) from err
        return int(answer.image_id)

    async def download(self, ticket: DataTicket, request: image_data.DownloadVolumeRequest) -> AsyncIterator[bytes]:
        """The bytes of a file in the datastore. Raises CutOff, or StorageError with the service's words."""
        async with self._dial(ticket.address) as channel:
            call = ImageDataServiceStub(channel).DownloadVolume(request, metadata=((TICKET_HEADER, ticket.ticket),))
            async for piece in _received(call, ticket.address):
                yield piece

    async def fetch(self, address: str, ticket: str, request: FetchFileRequest) -> AsyncIterator[bytes]:
        """The bytes of a file at another node. Raises CutOff, or StorageError with the node's words."""
        async with self._dial(address) as channel:
            call = NodeDataServiceStub(channel).FetchFile(request, metadata=((TICKET_HEADER, ticket),))
            async for piece in _received(call, address):
                yield piece


async def _received(call: Any, address: str) -> AsyncIterator[bytes]:
    try:
        while True:
            async with asyncio.timeout(SILENCE_SECONDS):
                answer = await call.read()
            if answer is grpc.aio.EOF:
                return
            yield answer.data
    except TimeoutError as err:
        call.cancel()
        raise CutOff(Reason.TRANSFER_FAILED, f"{address} has said nothing for {SILENCE_SECONDS:g} s") from err
    except grpc.aio.AioRpcError as err:
        kind = CutOff if err.code() in _PASSING else StorageError
        raise kind(Reason.TRANSFER_FAILED, f"{address}: {decode_error(err).message}") from err


async def _pieces(path: Path, progress: Progress) -> AsyncIterator[bytes]:
    done = 0
    with path.open("rb") as file:
        while piece := await asyncio.to_thread(file.read, PIECE_BYTES):
            yield piece
            done += len(piece)
            progress(done)


def _upload_failed(path: Path, address: str, err: grpc.aio.AioRpcError) -> StorageError:
    remote = decode_error(err)
    reason = Reason.DATASTORE_FULL if remote.reason == Reason.DATASTORE_FULL else Reason.UPLOAD_FAILED
    return StorageError(reason, f"{path.name} cannot be brought to {address}: {remote.message}")
