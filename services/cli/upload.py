"""Sends a file of the caller up as an image, piece by piece."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from moln.image.v1.image_pb2 import Image
from moln.image.v1.image_service_pb2 import CreateImageRequest, UploadImageRequest
from services.cli.client import Client
from services.cli.exits import CliError, usage
from services.cli.progress import Progress
from services.cli.resources.images import IMAGES

PIECE = 2**20


def upload(client: Client, request: CreateImageRequest, path: str) -> Image:
    """Sends the file and returns the image when it is ready. Raises CliError naming the file when it cannot be read."""
    file = Path(path).expanduser()
    try:
        with file.open("rb") as source:
            if not stat.S_ISREG(file.stat().st_mode):
                raise usage(f"the image {path} is not a file")
            return _send(client, request, source, file)
    except OSError as err:
        raise usage(f"the image {path} cannot be read: {err.strerror or err}") from err


def _send(client: Client, request: CreateImageRequest, source: BinaryIO, file: Path) -> Image:
    total = file.stat().st_size
    failures: list[OSError] = []
    with Progress(f"sending {file.name}", total) as progress:
        try:
            return client.upload(IMAGES.path("UploadImage"), _pieces(request, source, total, progress, failures), Image)
        except CliError:
            if failures:
                raise failures[0] from None
            raise


def _pieces(
    request: CreateImageRequest, source: BinaryIO, total: int, progress: Progress, failures: list[OSError]
) -> Iterator[UploadImageRequest]:
    """The messages. A file that fails under the reader ends the stream without its last message: nothing stays."""
    yield UploadImageRequest(image=request, total_bytes=total)
    sent = 0
    try:
        while data := source.read(PIECE):
            yield UploadImageRequest(data=data)
            sent += len(data)
            progress.at(sent)
    except OSError as err:
        failures.append(err)
        return
    yield UploadImageRequest(is_last=True)
