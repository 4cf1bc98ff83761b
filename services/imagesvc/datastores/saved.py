"""Files of stopped VMs in a directory datastore: `saved/<uid>/<epoch>/<what>.<sha256>`. Blocking calls but `receiving`.

A file's name holds its checksum: what stands under it was whole and verified when it was put there. Folders are the
image service's alone: nobody else can open what is in them.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from moln.compute.v1.vm_pb2 import SavedFile
from services.imagesvc.datastores.directory import Directory

FOLDER = "saved"
_UID = re.compile(r"[0-9A-Za-z-]{1,64}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class SavedFolder(NamedTuple):
    """What a datastore holds of one VM, from one epoch."""

    uid: str
    epoch: int
    path: Path
    age_s: float


class SavedFiles:
    """The files of stopped VMs in one datastore."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory

    def folder(self, uid: str, epoch: int) -> Path:
        """Where the files of a VM from an epoch are. Raises ValueError for what is no uid."""
        if not _UID.fullmatch(uid):
            raise ValueError(f"{uid!r} is not a unique id")
        return self._directory.path / FOLDER / uid / str(epoch)

    def opened(self, uid: str, epoch: int) -> Directory:
        """The folder as a directory to receive files in; made where it is missing. Raises Unusable, OSError."""
        self._directory.check()
        path = self.folder(uid, epoch)
        for each in (path.parent.parent, path.parent, path):
            each.mkdir(mode=0o700, exist_ok=True)
        self._directory.sync()
        return self._directory.within(path)

    def path(self, uid: str, epoch: int, file: SavedFile) -> Path | None:
        """A file, by what it is and its checksum; None where it is not there, or not as large as it says."""
        if not _SHA256.fullmatch(file.sha256):
            return None
        path = self.folder(uid, epoch) / f"{name_of(file)}.{file.sha256}"
        try:
            return path if path.stat().st_size == file.size_bytes else None
        except OSError:
            return None

    def settle(self, uid: str, epoch: int, file: SavedFile) -> None:
        """The file has taken the place of former ones of the same disk: those go."""
        keep = f"{name_of(file)}.{file.sha256}"
        for other in self.folder(uid, epoch).glob(f"{name_of(file)}.*"):
            if other.name != keep:
                other.unlink(missing_ok=True)

    def erase(self, uid: str, *, but: int = 0) -> None:
        """Removes everything of a VM, but for that of one epoch. Idempotent. Raises OSError."""
        top = self.folder(uid, 0).parent
        for found in list(top.iterdir()) if top.is_dir() else []:
            if found.name != str(but):
                shutil.rmtree(found)
        if top.is_dir() and not any(top.iterdir()):
            top.rmdir()

    def all(self) -> Iterator[SavedFolder]:
        """What there is of VMs."""
        top = self._directory.path / FOLDER
        for of_vm in sorted(top.iterdir()) if top.is_dir() else []:
            for folder in sorted(of_vm.iterdir()) if of_vm.is_dir() else []:
                if folder.name.isdecimal():
                    yield SavedFolder(of_vm.name, int(folder.name), folder, time.time() - folder.stat().st_mtime)


def name_of(file: SavedFile) -> str:
    """What a file is called, without its checksum."""
    return "memory" if file.is_memory else f"disk-{file.disk_id}"
