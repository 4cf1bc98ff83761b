"""The steps that bring a VM's files here: each file whole and verified, then on the base that this node has.

Run by drivers/plans.py. Must not know where the files come from.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from moln.compute.v1.vm_pb2 import SavedFile
from services.common.domain.reasons import Reason
from services.hostagent.drivers.libvirt.steps import Percent, as_reason
from services.hostagent.storage import qemu_img
from services.hostagent.storage.copies import Open, fetch_file, part_of, percents
from services.hostagent.storage.disk_snapshots import DiskSnapshotBook, found_in
from services.hostagent.storage.disks import DiskMaker, DiskPlan
from services.hostagent.storage.folders import VmFolder
from services.hostagent.storage.qemu_img import StorageError
from services.hostagent.storage.snapshots import PREFIX, Kept, SnapshotBook


@dataclass(slots=True)
class FetchFile:
    """One file of the VM."""

    target: Path
    wanted: SavedFile
    open: Open
    percent: Percent
    name: str = "fetch"

    async def needed(self) -> bool:
        """A file in its place is whole and verified."""
        return not self.target.exists()

    async def do(self) -> None:
        """Fetches it; goes on where an agent that was killed has left it."""
        with as_reason(Reason.TRANSFER_FAILED):
            heard = percents(self.wanted.size_bytes, lambda percent: self.percent(self.name, percent))
            await fetch_file(self.target, self.wanted, self.open, heard)

    async def verify(self) -> bool:
        """The file is there."""
        return self.target.exists()

    async def undo(self) -> None:
        """Removes it, also what has come of it."""
        self.target.unlink(missing_ok=True)
        part_of(self.target).unlink(missing_ok=True)


@dataclass(slots=True)
class RebaseDisk:
    """A disk that came from elsewhere reads from the image as this node has it."""

    plan: DiskPlan
    path: Path
    maker: DiskMaker
    name: str = "rebase"

    async def needed(self) -> bool:
        """A disk that stands by itself has no base. Raises StorageError for what it must not refer to."""
        if self.path.suffix != ".qcow2":
            return False
        facts = await qemu_img.inspect(self.path, "qcow2")
        if facts.data_file or (facts.backing_file and not self.plan.volume.image_id):
            other = facts.data_file or facts.backing_file
            raise StorageError(Reason.IMAGE_INVALID, f"{self.path.name} refers to {other}, which is not the VM's image")
        return bool(facts.backing_file) and facts.backing_file != str(await self._base())

    async def do(self) -> None:
        """Fetches the image where the node lacks it, and changes the reference."""
        await qemu_img.rebase(self.path, await self._base(), self.plan.volume.source_format)

    async def verify(self) -> bool:
        """The reference is the right one."""
        return not await self.needed()

    async def undo(self) -> None:
        """Nothing: the file goes with the step that has fetched it."""

    async def _base(self) -> Path:
        return (await self.maker.base(self.plan, lambda _percent: None)).absolute()


@dataclass(slots=True)
class NoteStaged:
    """All that was in the datastore is here: from now on what is here is newer, and nothing is fetched again."""

    folder: VmFolder
    epoch: int
    name: str = "note_staged"

    async def needed(self) -> bool:
        """Whether the note is missing, or of an earlier time."""
        return not is_staged(self.folder, self.epoch)

    async def do(self) -> None:
        """Writes it."""
        self.folder.staged_file.write_text(str(self.epoch))

    async def verify(self) -> bool:
        """It stands."""
        return is_staged(self.folder, self.epoch)

    async def undo(self) -> None:
        """Takes it back, so that it is fetched again."""
        self.folder.staged_file.unlink(missing_ok=True)


@dataclass(slots=True)
class FindSnapshots:
    """The list of snapshots, read out of the disks where it did not come along: without the memory of the guest."""

    folder: VmFolder
    paths: list[Path]
    name: str = "find_snapshots"

    async def needed(self) -> bool:
        """Where there is a list, it is the VM's."""
        return bool(self.paths) and not self.folder.snapshots_file.exists()

    async def do(self) -> None:
        """A snapshot counts where all disks have it."""
        found = [await qemu_img.inner_snapshots(path, path.suffix.lstrip(".")) for path in self.paths]
        everywhere = set[str].intersection(*({each.name for each in one} for one in found))
        names = [each for each in found[0] if each.name in everywhere and each.name.startswith(PREFIX)]
        SnapshotBook(self.folder).write(
            [Kept(each.name.removeprefix(PREFIX), each.time_ns, has_memory=False, is_current=False) for each in names]
        )

    async def verify(self) -> bool:
        """It is there."""
        return self.folder.snapshots_file.exists()

    async def undo(self) -> None:
        """Removes it."""
        self.folder.snapshots_file.unlink(missing_ok=True)


@dataclass(slots=True)
class FindDiskSnapshots:
    """The list of snapshots of single disks, read out of the disks where it did not come along."""

    folder: VmFolder
    paths: list[Path]
    name: str = "find_snapshots"

    async def needed(self) -> bool:
        """Where there is a list, it is the VM's."""
        return bool(self.paths) and not self.folder.disk_snapshots_file.exists()

    async def do(self) -> None:
        """Each counts for its own disk."""
        DiskSnapshotBook(self.folder).write(await found_in(self.paths))

    async def verify(self) -> bool:
        """It is there."""
        return self.folder.disk_snapshots_file.exists()

    async def undo(self) -> None:
        """Removes it."""
        self.folder.disk_snapshots_file.unlink(missing_ok=True)


def is_staged(folder: VmFolder, epoch: int) -> bool:
    """Whether everything that was brought to the datastore at that epoch has been fetched from there."""
    try:
        return folder.staged_file.read_text() == str(epoch)
    except OSError:
        return False
