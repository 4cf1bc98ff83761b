"""A datastore that is a directory: its mark, its room, its files. Blocking calls; run them in threads.

Files: `<uid>.<format>` an image; `.<uid>.<nonce>.part` bytes coming in; `.<uid>.pending` stands from before the first
byte of an upload until its keys are written, so that what a crash in between leaves can be told from an image.
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path

from services.common.domain.errors import MolnError
from services.common.domain.reasons import Reason

MARK_FILE = ".moln-datastore"
PART, PENDING = ".part", ".pending"
FORMATS = ("qcow2", "raw")
MIB = 1 << 20
# Files can be opened by who knows their name, which nobody can guess; the folder shows it to its owner only. So
# hypervisors that run as another user can read an image, and other users of the machine find none.
FOLDER_MODE, FILE_MODE = 0o711, 0o644


class Unusable(Exception):
    """The datastore cannot be used now; the text says why and what to do."""


class Directory:
    """One directory datastore. `mark` is what its mark file holds; `reserve_mib` stays free."""

    def __init__(self, name: str, path: Path, mark: str, reserve_mib: int) -> None:
        self.name = name
        self.path = path
        self._mark = mark
        self._reserve = reserve_mib * MIB

    # ------------------------------------------------------------------------------------------------ the folder

    def prepare(self) -> None:
        """Makes folder and mark where the datastore is new. Idempotent. Raises Unusable."""
        try:
            if not self.path.exists():
                self.path.mkdir(parents=True, mode=FOLDER_MODE)
                self.path.chmod(FOLDER_MODE)
            if self.path.is_dir() and self._found_mark() is None:
                self._write_mark()
        except OSError as err:
            raise Unusable(f"{self.path} cannot be made a datastore: {err.strerror or err}") from err
        self.check()

    def check(self) -> None:
        """Raises Unusable where the folder is gone (its disk not mounted?), another's, or cannot be written."""
        if not self.path.is_dir():
            raise Unusable(f"{self.path} is not a directory, or its disk is not mounted")
        try:
            found = self._found_mark()
        except OSError as err:
            raise Unusable(f"{self.path / MARK_FILE} cannot be read: {err.strerror or err}") from err
        if found is None:
            raise Unusable(f"{self.path / MARK_FILE} is gone: the disk that held the datastore is not mounted?")
        if found != self._mark:
            raise Unusable(
                f"{self.path} is marked as another datastore ({found}); choose another folder, or remove {MARK_FILE} "
                "from it where nothing uses it any more"
            )
        if not os.access(self.path, os.W_OK | os.X_OK):
            raise Unusable(f"{self.path} cannot be written by the image service")

    def room(self) -> tuple[int, int]:
        """(total, free) in bytes; what is free beyond the reserve."""
        found = os.statvfs(self.path)
        return found.f_blocks * found.f_frsize, max(0, found.f_bavail * found.f_frsize - self._reserve)

    def check_room(self, wanted: int) -> None:
        """Raises EXHAUSTED/DATASTORE_FULL where `wanted` bytes more do not fit."""
        _, free = self.room()
        if wanted > free:
            raise full(self.name, f"{_size(wanted)} are needed and {_size(free)} free")

    def disown(self) -> None:
        """Takes the mark away: the folder is a datastore no more. Idempotent; files stay."""
        with suppress(OSError):
            if self._found_mark() == self._mark:
                (self.path / MARK_FILE).unlink(missing_ok=True)

    def within(self, path: Path) -> Directory:
        """A folder in it, with the same room."""
        return Directory(self.name, path, self._mark, self._reserve // MIB)

    # ------------------------------------------------------------------------------------------------ its files

    def file(self, name: str) -> Path:
        """Where a file of an image is, by its name in the datastore."""
        return self.path / name

    def new_part(self, uid: str) -> Path:
        """A place for bytes of an image to come in. What earlier attempts left is removed: who still writes to one of
        them (a process that led before, and was paused) can put it nowhere.
        """
        self._remove_parts(uid)
        return self.path / f".{uid}.{secrets.token_hex(4)}{PART}"

    def note_pending(self, uid: str) -> None:
        """Notes, durably, that files of this uid are to be removed unless its keys come to be."""
        (self.path / f".{uid}{PENDING}").touch(mode=0o600)
        self.sync()

    def settle(self, uid: str) -> None:
        """Takes the note back."""
        (self.path / f".{uid}{PENDING}").unlink(missing_ok=True)

    def place(self, part: Path, uid: str, form: str) -> str:
        """Puts what came in where it belongs, durably; its name there. What stood there is replaced."""
        name = f"{uid}.{form}"
        part.chmod(FILE_MODE)
        part.replace(self.path / name)
        self.sync()
        return name

    def erase(self, uid: str) -> None:
        """Removes everything of an image. Idempotent. Raises OSError."""
        self._remove_parts(uid)
        for form in FORMATS:
            (self.path / f"{uid}.{form}").unlink(missing_ok=True)
        self.sync()
        self.settle(uid)

    def size_of(self, name: str) -> int | None:
        """Size of a file in bytes; None where it is not there."""
        try:
            return (self.path / name).stat().st_size
        except OSError:
            return None

    def sweep(self, known: Collection[str], active: Collection[str]) -> list[str]:
        """Removes what uploads left that never came to their end; their uids. `known` have keys, `active` are at work.

        Only names that the image service gives to unfinished work are touched: an image without keys is left alone.
        """
        swept: list[str] = []
        for uid, ending in list(self._unfinished()):
            if uid in active:
                continue
            if uid in known:
                if ending == PENDING:
                    self.settle(uid)
                continue
            if ending == PENDING:
                self.erase(uid)
            else:
                self._remove_parts(uid)
            swept.append(uid)
        return swept

    def _unfinished(self) -> Iterator[tuple[str, str]]:
        for entry in os.scandir(self.path):
            for ending in (PART, PENDING):
                if entry.name.startswith(".") and entry.name.endswith(ending):
                    yield entry.name.split(".")[1], ending

    def _remove_parts(self, uid: str) -> None:
        for entry in list(os.scandir(self.path)):
            if entry.name.startswith(f".{uid}.") and entry.name.endswith(PART):
                Path(entry.path).unlink(missing_ok=True)

    def sync(self) -> None:
        """What was renamed or removed in the folder survives a crash."""
        handle = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def _found_mark(self) -> str | None:
        try:
            return (self.path / MARK_FILE).read_text(errors="replace").strip()
        except FileNotFoundError:
            return None

    def _write_mark(self) -> None:
        fresh = self.path / f"{MARK_FILE}.{secrets.token_hex(4)}.new"  # two may find it missing at the same time
        with fresh.open("w") as file:
            file.write(self._mark + "\n")
            file.flush()
            os.fsync(file.fileno())
        fresh.chmod(FILE_MODE)
        fresh.replace(self.path / MARK_FILE)
        self.sync()


def full(name: str, problem: str) -> MolnError:
    """EXHAUSTED/DATASTORE_FULL, with the remedy."""
    return MolnError(
        Reason.DATASTORE_FULL,
        f"datastore {name} has no room: {problem}; delete images, or make room where its folder is",
        metadata={"datastore": name},
    )


def is_full(err: OSError) -> bool:
    """Whether a write failed for lack of room."""
    return err.errno in (errno.ENOSPC, errno.EDQUOT)


def _size(count: int) -> str:
    return f"{count / (1 << 30):.1f} GiB" if count >= 1 << 30 else f"{-(-count // MIB)} MiB"
