"""Bytes of an image on their way into a datastore: written beside their place, summed up, bounded, made durable.

Nothing is left where the block is not left by `keep`: a crash in between is what `Directory.sweep` is for.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Callable, Coroutine
from contextlib import suppress
from types import TracebackType
from typing import Any, BinaryIO, Self, TypeVar

from services.common.domain.errors import MolnError
from services.common.domain.reasons import Reason
from services.imagesvc.datastores.directory import Directory, full, is_full

LOOK_AT_ROOM_BYTES = 64 << 20
_R = TypeVar("_R")


class Incoming:
    """One image's bytes. Enter it, `write` them in order, `finish`, `place`; `keep` where the keys stand.

    `is_pending`: there are no keys yet, so a note of what to remove after a crash goes before.
    """

    def __init__(
        self,
        directory: Directory,
        uid: str,
        max_bytes: int,
        *,
        what: str,
        is_pending: bool = False,
    ) -> None:
        self.path = directory.path
        """The file that the bytes go to, once entered."""
        self.size = 0
        self._directory = directory
        self._uid = uid
        self._max = max_bytes
        self._what = what
        self._digest = hashlib.sha256()
        self._file: BinaryIO | None = None
        self._looked = 0
        self._is_kept = False
        self._is_pending = is_pending

    async def __aenter__(self) -> Self:
        try:
            await self._thread(self._open)
        except BaseException:
            self._abandon()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._abandon()

    def _abandon(self) -> None:
        """Closes the file, and removes it where it is not kept; also one that was opened for a cancelled task."""
        if self._file is not None:
            self._file.close()
        if not self._is_kept:
            # Without an await: it must be done even where the task is being cancelled. It is a few unlinks.
            with suppress(OSError):  # what stays is found by the sweep
                self._directory.erase(self._uid)

    def check_size(self, total: int) -> None:
        """Refuses at once what will be too large: INVALID/IMAGE_INVALID, EXHAUSTED/DATASTORE_FULL."""
        if total > self._max:
            raise MolnError(Reason.IMAGE_INVALID, f"{self._what} has {total} bytes; at most {self._max} are taken")
        self._directory.check_room(total - self.size)

    async def write(self, data: bytes) -> None:
        """The next bytes."""
        self.size += len(data)
        if self.size > self._max:
            raise MolnError(Reason.IMAGE_INVALID, f"{self._what} has more than the {self._max} bytes that are taken")
        await self._thread(self._append, data)

    async def finish(self, expected_sha256: str) -> str:
        """Makes the file durable; its SHA-256. Raises INVALID/CHECKSUM_MISMATCH."""
        await self._thread(self._flush)
        found = self._digest.hexdigest()
        if expected_sha256 and found != expected_sha256:
            problem = f"{self._what} has the SHA-256 {found}, not {expected_sha256}: it is another file, or was damaged"
            raise MolnError(Reason.CHECKSUM_MISMATCH, problem)
        return found

    async def place(self, form: str) -> str:
        """Puts the file where it belongs; its name in the datastore."""
        return await self._thread(self._directory.place, self.path, self._uid, form)

    def keep(self) -> None:
        """The file is an image's from now on."""
        self._is_kept = True
        with suppress(OSError):  # a note that stays is taken back by the sweep
            self._directory.settle(self._uid)

    def leave(self) -> None:
        """Leaves everything as it is for the sweep, which will know whether the keys stand."""
        self._is_kept = True

    def _open(self) -> None:
        if self._is_pending:
            self._directory.note_pending(self._uid)
        self.path = self._directory.new_part(self._uid)
        handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        self._file = os.fdopen(handle, "wb", buffering=0)

    def _append(self, data: bytes) -> None:
        assert self._file is not None  # noqa: S101  for the type checker: entered before
        if self.size - self._looked >= LOOK_AT_ROOM_BYTES:
            self._looked = self.size
            self._directory.check_room(1)
        self._digest.update(data)
        if data.count(0) == len(data):
            self._file.seek(len(data), os.SEEK_CUR)  # zeros take no room
            return
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) :]

    def _flush(self) -> None:
        assert self._file is not None  # noqa: S101  for the type checker: entered before
        self._file.truncate(self.size)
        os.fsync(self._file.fileno())

    async def _thread(self, work: Callable[..., _R], *arguments: object) -> _R:
        try:
            return await to_its_end(asyncio.to_thread(work, *arguments))
        except OSError as err:
            if is_full(err):
                raise full(self._directory.name, "it is full") from err
            problem = f"{self._what} cannot be written into datastore {self._directory.name}: {err.strerror or err}"
            raise MolnError(Reason.SERVICE_UNAVAILABLE, problem) from err


async def to_its_end(work: Coroutine[Any, Any, _R]) -> _R:
    """Runs work that must not be left half-way: where the task is cancelled, it is waited for before that goes on."""
    running = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        raise
