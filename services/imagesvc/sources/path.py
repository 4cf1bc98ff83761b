"""Reads a plain file of the server in pieces: never a device, a pipe or a folder."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from services.common.domain.reasons import Reason
from services.imagesvc.sources.failure import SourceFailed

PIECE_BYTES = 1 << 20


@asynccontextmanager
async def opened(location: str) -> AsyncIterator[tuple[int, AsyncIterator[bytes]]]:
    """(size, pieces) of a file. Raises SourceFailed; so do the pieces."""
    try:
        handle = await asyncio.to_thread(os.open, Path(location), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as err:
        raise _failed(location, err.strerror or str(err)) from err
    try:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            raise _failed(location, "it is not a plain file")
        yield found.st_size, _pieces(handle, location)
    finally:
        os.close(handle)


async def _pieces(handle: int, location: str) -> AsyncIterator[bytes]:
    try:
        while piece := await asyncio.to_thread(os.read, handle, PIECE_BYTES):
            yield piece
    except OSError as err:
        raise _failed(location, err.strerror or str(err)) from err


def _failed(location: str, problem: str) -> SourceFailed:
    return SourceFailed(Reason.IMAGE_INVALID, f"{location} cannot be read: {problem}", is_final=True)
