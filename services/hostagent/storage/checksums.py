"""SHA-256 of whole files, in a thread, in pieces: cancelled, it waits for one piece only. Writes nothing."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

PIECE_BYTES = 8 << 20
Progress = Callable[[int], None]


async def sha256_of(path: Path, progress: Progress = lambda _done: None) -> tuple[str, int]:
    """The checksum in hexadecimal and the size in bytes. `progress` hears how many bytes are read. Raises OSError."""
    digest, done = hashlib.sha256(), 0
    with path.open("rb") as file:
        while count := await asyncio.to_thread(_take, file, digest.update):
            done += count
            progress(done)
    return digest.hexdigest(), done


def _take(file: BinaryIO, update: Callable[[bytes], object]) -> int:
    piece = file.read(PIECE_BYTES)
    update(piece)
    return len(piece)
