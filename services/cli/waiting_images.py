"""Waits until an image is usable, or says why it never will be."""

from __future__ import annotations

import time

from moln.image.v1.image_pb2 import Image, ImageState
from services.cli.client import Client
from services.cli.exits import CliError, Exit
from services.cli.progress import Progress
from services.cli.resources.images import IMAGES

POLL_SECONDS = 0.2


def wait_until_ready(client: Client, image: Image, seconds: float) -> Image:
    """Returns the image when it is READY. Raises CliError when it fails, or when time is up."""
    deadline = time.monotonic() + seconds
    with Progress(f"importing {image.spec.name}", 100) as progress:
        while image.view.state == ImageState.IMAGE_STATE_IMPORTING:
            if time.monotonic() > deadline:
                raise CliError(f"{IMAGES.title(image)} is still IMPORTING; see `moln image show`", Exit.NOT_REACHED)
            time.sleep(POLL_SECONDS)
            image = IMAGES.get(client, image.id)
            progress.at(image.status.progress_percent)
    if image.view.state == ImageState.IMAGE_STATE_ERROR:
        why = ": ".join(filter(None, (image.status.reason, image.status.message)))
        remedy = f"`moln image delete {image.id} --yes` removes it"
        raise CliError(f"{IMAGES.title(image)} cannot be used: {why}; {remedy}", reason=image.status.reason)
    return image
