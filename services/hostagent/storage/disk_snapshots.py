"""The list of snapshots of single disks, beside a VM's disks. Knows no hypervisor.

In the disk such a snapshot has the name `moln_disk-<name>`, which is not that of a snapshot of the whole VM.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from moln.compute.v1.vm_pb2 import DiskSnapshot, VmStatus
from services.hostagent.storage.folders import VmFolder, replace_file
from services.hostagent.storage.qemu_img import inner_snapshots
from services.hostagent.storage.snapshots import SnapshotBook

PREFIX = "moln_disk-"
_DISK_FILE = re.compile(r"disk-(\d+)\.qcow2")


@dataclass(frozen=True, slots=True)
class KeptOfDisk:
    """One snapshot. `operation_id` is that of the operation that makes it; not `is_made`: it has only begun."""

    disk_id: int
    name: str
    time_ns: int
    operation_id: str = ""
    is_made: bool = True

    @property
    def inner_name(self) -> str:
        """What it is called in the disk."""
        return PREFIX + self.name

    def message(self) -> DiskSnapshot:
        """As it is reported."""
        made = DiskSnapshot(disk_id=self.disk_id, name=self.name)
        made.time.FromNanoseconds(self.time_ns)
        return made


class DiskSnapshotBook:
    """The snapshots of the single disks of the VM in a folder, oldest first. Each change is one write."""

    def __init__(self, folder: VmFolder) -> None:
        self._folder = folder

    def all(self) -> list[KeptOfDisk]:
        """Those that are made."""
        return [kept for kept in self._read() if kept.is_made]

    def find(self, disk_id: int, name: str) -> KeptOfDisk | None:
        """One that is made."""
        return next((kept for kept in self.all() if (kept.disk_id, kept.name) == (disk_id, name)), None)

    def begun(self, disk_id: int) -> list[KeptOfDisk]:
        """Those of a disk that were begun, and of which it is not known whether they are in the disk."""
        return [kept for kept in self._read() if kept.disk_id == disk_id and not kept.is_made]

    def begin(self, kept: KeptOfDisk) -> None:
        """It is about to be made: whatever happens, what is then in the disk is known for what it is."""
        self._replace(replace(kept, is_made=False))

    def add(self, kept: KeptOfDisk) -> None:
        """It is made."""
        self._replace(replace(kept, is_made=True))

    def remove(self, disk_id: int, name: str) -> None:
        """It is gone; not there: no effect."""
        self.write(kept for kept in self._read() if (kept.disk_id, kept.name) != (disk_id, name))

    def remove_disk(self, disk_id: int) -> None:
        """The disk is gone, with all that was in it."""
        self.write(kept for kept in self._read() if kept.disk_id != disk_id)

    def write(self, snapshots: Iterable[KeptOfDisk]) -> None:
        """The whole list."""
        text = json.dumps([asdict(kept) for kept in snapshots])
        replace_file(self._folder.disk_snapshots_file, text.encode())

    def _replace(self, kept: KeptOfDisk) -> None:
        others = [each for each in self._read() if (each.disk_id, each.name) != (kept.disk_id, kept.name)]
        self.write([*others, kept])

    def _read(self) -> list[KeptOfDisk]:
        """Nothing where the list cannot be read."""
        try:
            return [KeptOfDisk(**values) for values in json.loads(self._folder.disk_snapshots_file.read_text())]
        except (OSError, ValueError, TypeError):
            return []


def snapshots_told(folder: VmFolder) -> VmStatus:
    """All snapshots of a VM as they are reported: those of the whole, and those of single disks."""
    return VmStatus(
        snapshots=[kept.message() for kept in SnapshotBook(folder).all()],
        disk_snapshots=[kept.message() for kept in DiskSnapshotBook(folder).all()],
    )


async def found_in(paths: Iterable[Path]) -> list[KeptOfDisk]:
    """What disks hold that came here without the list, oldest first. Raises StorageError for one that is none."""
    found: list[KeptOfDisk] = []
    for path in paths:
        file = _DISK_FILE.fullmatch(path.name)
        inner = await inner_snapshots(path, "qcow2") if file is not None else []
        number = int(file[1]) if file is not None else 0
        names = [each for each in inner if each.name.startswith(PREFIX)]
        found += [KeptOfDisk(number, each.name.removeprefix(PREFIX), each.time_ns) for each in names]
    return sorted(found, key=lambda each: each.time_ns)
