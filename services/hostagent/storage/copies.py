"""Fetches files of VMs from where they are kept: goes on where it was cut off, and puts in place only what is whole.

Knows neither services nor nodes: who opens the stream is handed in.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from moln.compute.v1.vm_pb2 import SavedFile
from services.common.domain.errors import MolnError
from services.common.domain.reasons import Reason
from services.common.runtime import Backoff
from services.hostagent.storage.checksums import sha256_of
from services.hostagent.storage.qemu_img import StorageError

Open = Callable[[int], AsyncIterator[bytes]]
"""The bytes of a file from an offset; raises CutOff where it makes sense to ask again."""
Progress = Callable[[int], None]
TRIES = 6
BACKOFF = Backoff(first=0.5, most=10.0)
SPARE_BYTES = 64 << 20


class CutOff(StorageError):
    """The stream ended before the file did, or could not be opened for now."""


async def fetch_file(target: Path, wanted: SavedFile, open: Open, progress: Progress) -> None:
    """The file is at `target`, as large and with the checksum as `wanted` says. `progress` hears bytes.

    Raises MolnError TRANSFER_FAILED or CHECKSUM_MISMATCH; what has come stays beside it and is used the next time.
    """
    part = part_of(target)
    _check_room(part, wanted.size_bytes)
    failures = 0
    while True:
        before = _size(part)
        try:
            await _append(part, open, progress)
            break
        except CutOff as err:
            failures = failures + 1 if _size(part) == before else 1
            if failures >= TRIES:
                raise StorageError(Reason.TRANSFER_FAILED, f"{target.name}: {err.message}") from err
            await asyncio.sleep(BACKOFF.pause(failures))
    await _place(part, target, wanted)


def part_of(target: Path) -> Path:
    """Where a file is while it comes in."""
    return target.with_name(f".{target.name}.part")


async def _append(part: Path, open: Open, progress: Progress) -> None:
    with part.open("ab") as out:
        done = out.tell()
        async for piece in open(done):
            await asyncio.to_thread(out.write, piece)
            done += len(piece)
            progress(done)
        out.flush()
        await asyncio.to_thread(os.fsync, out.fileno())


async def _place(part: Path, target: Path, wanted: SavedFile) -> None:
    found, size = await sha256_of(part)
    if (found, size) != (wanted.sha256, wanted.size_bytes):
        part.unlink(missing_ok=True)
        message = f"{target.name} came with {size} bytes and the SHA-256 {found}, not {wanted.size_bytes} bytes and "
        raise StorageError(Reason.CHECKSUM_MISMATCH, f"{message}{wanted.sha256}: it was damaged on its way")
    part.chmod(0o644)
    part.replace(target)


def _check_room(part: Path, size_bytes: int) -> None:
    free = shutil.disk_usage(part.parent).free
    missing = size_bytes - _size(part) + SPARE_BYTES
    if missing > free:
        message = f"{part.parent} has {free >> 20} MiB free, and {missing >> 20} MiB are needed"
        raise StorageError(Reason.TRANSFER_FAILED, message)


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def percents(total: int, percent: Callable[[int], None]) -> Progress:
    """Bytes as percent of a total; tells a number once."""
    told = -1

    def hear(done: int) -> None:
        nonlocal told
        now = min(100, done * 100 // total) if total else 100
        if now != told:
            told = now
            percent(now)

    return hear


__all__ = ["CutOff", "MolnError", "Open", "Progress", "fetch_file", "part_of", "percents"]
