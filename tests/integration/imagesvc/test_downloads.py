"""Bytes of images for nodes, who show a ticket."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from moln.image.v1.image_data_service_pb2 import DownloadImageRequest
from moln.image.v1.image_data_service_pb2_grpc import ImageDataServiceStub
from moln.image.v1.image_service_pb2 import ListImagesRequest
from moln.image.v1.image_service_pb2_grpc import ImageServiceStub
from services.common.rpc import connect, decode_error, read_service_secret
from services.common.rpc.tickets import sign_ticket
from tests.integration.imagesvc.conftest import ADMIN, Images, raw_disk
from tests.support.reigns import as_caller, refusal

DATA = raw_disk(3 << 20)


@pytest.fixture
async def node(images: Images) -> AsyncIterator[grpc.aio.Channel]:
    """A channel as a node has it: without the services' secret."""
    channel = connect(images.running.run.address)
    yield channel
    await channel.close()


def ticket(secret_file: Path, image_id: int, *, seconds: int = 60, kind: str = "image") -> str:
    secret = read_service_secret(secret_file).encode()
    return sign_ticket(secret, kind, str(image_id), 1, int(time.time()) + seconds)


async def fetch(node: grpc.aio.Channel, image_id: int, words: str, offset: int = 0) -> bytes:
    request = DownloadImageRequest(image_id=image_id, offset=offset)
    call = ImageDataServiceStub(node).DownloadImage(request, metadata=(("moln-ticket", words),))
    return b"".join([piece.data async for piece in call])


async def test_a_ticket_fetches_the_whole_file(images: Images, node: grpc.aio.Channel, secret_file: Path) -> None:
    made = await images.upload("web", DATA)
    assert await fetch(node, made.id, ticket(secret_file, made.id)) == DATA
    assert images.running.metric("sent_bytes_total") == len(DATA)


async def test_a_fetch_may_begin_in_the_middle(images: Images, node: grpc.aio.Channel, secret_file: Path) -> None:
    made = await images.upload("web", DATA)
    words = ticket(secret_file, made.id)
    assert await fetch(node, made.id, words, 1_000_000) == DATA[1_000_000:]
    assert await fetch(node, made.id, words, len(DATA)) == b""
    assert (await refusal(fetch(node, made.id, words, len(DATA) + 1))).reason == "FIELD_INVALID"


async def test_no_other_ticket_will_do(images: Images, node: grpc.aio.Channel, secret_file: Path) -> None:
    made = await images.upload("web", DATA)
    wrong = [
        "", "x", "a:b:c:d:e", ticket(secret_file, made.id + 1), ticket(secret_file, made.id, seconds=-1),
        ticket(secret_file, made.id, kind="tunnel"), ticket(secret_file, made.id)[:-1],
    ]  # fmt: skip
    for words in wrong:
        error = await refusal(fetch(node, made.id, words))
        assert (error.code, error.reason) == (grpc.StatusCode.UNAUTHENTICATED, "TICKET_INVALID"), words


async def test_an_image_that_is_not_there_is_not_found(
    images: Images, node: grpc.aio.Channel, secret_file: Path, shelf: Path
) -> None:
    assert (await refusal(fetch(node, 9, ticket(secret_file, 9)))).reason == "IMAGE_NOT_FOUND"
    made = await images.upload("web", DATA)
    (shelf / made.status.path).unlink()
    assert (await refusal(fetch(node, made.id, ticket(secret_file, made.id)))).reason == "IMAGE_NOT_FOUND"


async def test_a_node_gets_nothing_else_without_the_secret(images: Images, node: grpc.aio.Channel) -> None:
    call = ImageServiceStub(node).ListImages(ListImagesRequest(), metadata=as_caller(ADMIN))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert decode_error(caught.value).reason == "SERVICE_SECRET_INVALID"
