"""Images that the node fetched because it does not see their datastore: whole, checked, and fetched once.

Must not know where the bytes come from: they are handed in.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from services.common.domain.reasons import Reason
from services.hostagent.storage.qemu_img import StorageError

Chunks = AsyncIterator[bytes]


class ImageCache:
    """A folder of images by uid. Two that want the same image at once fetch it once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._locks: dict[str, asyncio.Lock] = {}

    def path(self, image_uid: str, format: str) -> Path:
        """Where an image is, or would be."""
        return self._folder / f"{image_uid}.{format}"

    async def get(
        self, image_uid: str, format: str, sha256: str, fetch: Callable[[], Chunks], progress: Callable[[int], None]
    ) -> Path:
        """The image's file; fetched where it is missing. `progress` hears how many bytes are there.

        Raises StorageError CHECKSUM_MISMATCH; nothing is left of a download that failed.
        """
        target = self.path(image_uid, format)
        lock = self._locks.setdefault(image_uid, asyncio.Lock())
        async with lock:
            if not target.exists():
                await download(target, fetch(), sha256, progress)
        return target


async def download(target: Path, chunks: Chunks, sha256: str, progress: Callable[[int], None]) -> None:
    """Writes the bytes beside `target`, checks them, and puts them in place in one step."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.{uuid.uuid4().hex}.part")
    try:
        found = await _write(part, chunks, progress)
        if sha256 and found != sha256:
            message = f"the image {target.stem} has the checksum {found}, not {sha256}: it was damaged on its way"
            raise StorageError(Reason.CHECKSUM_MISMATCH, message)
        part.replace(target)
    except OSError as err:
        raise StorageError(Reason.STAGING_FAILED, f"{target.name} cannot be written: {err.strerror or err}") from err
    finally:
        part.unlink(missing_ok=True)


async def _write(part: Path, chunks: Chunks, progress: Callable[[int], None]) -> str:
    digest = hashlib.sha256()
    total = 0
    with part.open("xb") as out:
        async for chunk in chunks:
            await asyncio.to_thread(_take, out.write, digest.update, chunk)
            total += len(chunk)
            progress(total)
        out.flush()
        await asyncio.to_thread(os.fsync, out.fileno())
    part.chmod(0o644)
    return digest.hexdigest()


def _take(write: Callable[[bytes], object], update: Callable[[bytes], object], chunk: bytes) -> None:
    write(chunk)
    update(chunk)
