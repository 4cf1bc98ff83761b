"""The list of a VM's snapshots, beside its disks: it outlives agents, hypervisors and definitions. Knows no hypervisor.

In the disks a snapshot has the name `moln-<name>`: so it is never taken for one of another's, nor for a number.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from moln.compute.v1.vm_pb2 import Snapshot
from services.hostagent.storage.folders import VmFolder, replace_file

PREFIX = "moln-"


@dataclass(frozen=True, slots=True)
class Kept:
    """One snapshot. Fields as in moln.compute.v1.Snapshot; `operation_id` is that of the operation that made it."""

    name: str
    time_ns: int
    has_memory: bool
    is_current: bool = True
    parent: str = ""
    operation_id: str = ""

    @property
    def inner_name(self) -> str:
        """What it is called in the disks."""
        return PREFIX + self.name

    def message(self) -> Snapshot:
        """As it is reported."""
        made = Snapshot(name=self.name, has_memory=self.has_memory, is_current=self.is_current, parent=self.parent)
        made.time.FromNanoseconds(self.time_ns)
        return made


class SnapshotBook:
    """The snapshots of the VM in a folder, oldest first. Each change is one write."""

    def __init__(self, folder: VmFolder) -> None:
        self._folder = folder

    def all(self) -> list[Kept]:
        """What is there; nothing where the list cannot be read."""
        try:
            return [Kept(**values) for values in json.loads(self._folder.snapshots_file.read_text())]
        except (OSError, ValueError, TypeError):
            return []

    def find(self, name: str) -> Kept | None:
        """One by its name."""
        return next((kept for kept in self.all() if kept.name == name), None)

    def add(self, made: Kept) -> None:
        """The newest, and the current one."""
        before = self.all()
        parent = next((kept.name for kept in before if kept.is_current), "")
        others = [replace(kept, is_current=False) for kept in before if kept.name != made.name]
        self.write([*others, replace(made, parent=parent, is_current=True)])

    def go_to(self, name: str) -> None:
        """The VM is at that snapshot."""
        self.write([replace(kept, is_current=kept.name == name) for kept in self.all()])

    def remove(self, name: str) -> None:
        """It is gone: what grew from it grows from what it grew from."""
        gone = self.find(name)
        if gone is None:
            return
        rest = [kept for kept in self.all() if kept.name != name]
        moved = [replace(kept, parent=gone.parent) if kept.parent == name else kept for kept in rest]
        if gone.is_current:
            moved = [replace(kept, is_current=kept.name == gone.parent) for kept in moved]
        self.write(moved)
        self._folder.snapshot_xml(name).unlink(missing_ok=True)

    def write(self, snapshots: Iterable[Kept]) -> None:
        """The whole list."""
        text = json.dumps([asdict(kept) for kept in snapshots])
        replace_file(self._folder.snapshots_file, text.encode())

    def keep_xml(self, name: str, xml: str) -> None:
        """What the hypervisor must be told when the VM is to go back to it; it may hold secrets."""
        path = self._folder.snapshot_xml(name)
        replace_file(path, xml.encode(), mode=0o600)

    def xml(self, name: str) -> str | None:
        """The same; None where nothing is kept."""
        path: Path = self._folder.snapshot_xml(name)
        return path.read_text() if path.exists() else None
