"""Snapshots of a single disk, within the qcow2 file: by qemu-img while the guest is off, by QEMU itself while it runs.

libvirt makes snapshots of one disk of a guest that runs only outside of its file; so QEMU's monitor is asked for these.
Whatever was begun is written down first: what an agent that was killed has left in a disk is found again.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from moln.compute.v1.vm_pb2 import VmStatus
from services.common.domain.errors import MolnError
from services.common.domain.reasons import Reason
from services.hostagent.drivers.libvirt import shape
from services.hostagent.drivers.libvirt.live import LiveGuests
from services.hostagent.drivers.libvirt.operations.base import Op, failed
from services.hostagent.drivers.libvirt.operations.size import disk_bytes
from services.hostagent.drivers.ports import Outcome
from services.hostagent.storage import qemu_img
from services.hostagent.storage.disk_snapshots import DiskSnapshotBook, KeptOfDisk


class Holder(Protocol):
    """A disk that holds snapshots, by their names in it. All raise MolnError."""

    async def names(self) -> set[str]:
        """Those that it holds, of whatever kind."""
        ...

    async def make(self, name: str) -> None:
        """Makes one; there must be none of the name."""
        ...

    async def drop(self, name: str) -> None:
        """Deletes one that is there."""
        ...


@dataclass(frozen=True, slots=True)
class DiskAtRest:
    """A disk that no guest uses."""

    path: Path

    async def names(self) -> set[str]:
        """Read out of the file."""
        return {each.name for each in await qemu_img.inner_snapshots(self.path, "qcow2")}

    async def make(self, name: str) -> None:
        """By qemu-img."""
        await qemu_img.change_snapshot(self.path, "-c", name)

    async def drop(self, name: str) -> None:
        """By qemu-img."""
        await qemu_img.change_snapshot(self.path, "-d", name)


@dataclass(frozen=True, slots=True)
class DiskInUse:
    """A disk of a guest that runs, by the name that the hypervisor gives its device."""

    live: LiveGuests
    uid: str
    alias: str

    async def names(self) -> set[str]:
        """As QEMU has them."""
        image = (await self._found()).get("image", {})
        return {str(each["name"]) for each in image.get("snapshots", [])}

    async def make(self, name: str) -> None:
        """As after a power cut, unless the guest holds its writes back."""
        await self._do("blockdev-snapshot-internal-sync", name)

    async def drop(self, name: str) -> None:
        """The guest's disk stays as it is."""
        await self._do("blockdev-snapshot-delete-internal-sync", name)

    async def _do(self, command: str, name: str) -> None:
        node = str((await self._found())["node-name"])
        await self.live.monitor(self.uid, command, {"device": node, "name": name})

    async def _found(self) -> dict[str, Any]:
        for drive in await self.live.monitor(self.uid, "query-block"):
            if self.alias and self.alias in str(drive.get("qdev", "")).split("/") and "inserted" in drive:
                return dict(drive["inserted"])
        raise failed(f"the hypervisor does not know the disk {self.alias} that the guest has")


async def create(op: Op) -> Outcome:
    """A snapshot of that name. Repeated by the same operation it is not made twice; a failure leaves nothing."""
    book, disk_id, name = _asked(op)
    before = book.find(disk_id, name)
    if before is not None:
        if before.operation_id == op.operation.id:
            return told(book)
        raise failed(f"disk {disk_id} has a snapshot {name} already")
    op.work.progress(op.work, "make_snapshot", 0)
    holder = await _holder(op)
    await _clear_up(op, book, holder)
    made = KeptOfDisk(disk_id, name, time.time_ns(), operation_id=op.operation.id)
    is_again = any(kept.name == name for kept in book.begun(disk_id))  # what is left of these is of this operation
    if made.inner_name not in await holder.names():
        await _make(book, holder, made)
    elif not is_again:
        raise failed(f"disk {disk_id} holds a snapshot {name} that is not in the VM's list; choose another name")
    book.add(made)
    return told(book)


async def _make(book: DiskSnapshotBook, holder: Holder, made: KeptOfDisk) -> None:
    book.begin(made)
    try:
        await holder.make(made.inner_name)
    except MolnError as err:
        with contextlib.suppress(MolnError):  # what cannot be cleared up now is before the next one is made
            await _drop(holder, made.inner_name)
            book.remove(made.disk_id, made.name)
        raise failed(err.message) from err


async def revert(op: Op) -> Outcome:
    """The disk is as it was then, and as large as it is now. Refused while the guest runs."""
    book, disk_id, name = _asked(op)
    kept = book.find(disk_id, name)
    if kept is None:
        raise MolnError(Reason.SNAPSHOT_NOT_FOUND, f"disk {disk_id} has no snapshot {name} on this node")
    if await op.live.runs(op.uid):
        raise failed("the guest runs, and would not see its disk change: power the VM off first")
    path = _path(op)
    op.work.progress(op.work, "revert", 0)
    if kept.inner_name not in await DiskAtRest(path).names():
        raise MolnError(Reason.SNAPSHOT_NOT_FOUND, f"{path.name} does not hold snapshot {name} any more; delete it")
    await qemu_img.go_back(path, kept.inner_name, disk_bytes(op, disk_id))
    op.folder.drop_memory()
    return told(book)


async def delete(op: Op) -> Outcome:
    """The snapshot is gone; the disk stays as it is. One that is not there is gone."""
    book, disk_id, name = _asked(op)
    kept = book.find(disk_id, name)
    if kept is None:
        return told(book)
    op.work.progress(op.work, "delete_snapshot", 0)
    holder = await _holder(op)
    await _clear_up(op, book, holder)
    await _drop(holder, kept.inner_name)
    book.remove(disk_id, name)
    return told(book)


def told(book: DiskSnapshotBook) -> Outcome:
    """Done; with the whole list as it is now."""
    found = [kept.message() for kept in book.all()]
    return Outcome(True, facts=VmStatus(disk_snapshots=found), cleared=() if found else ("disk_snapshots",))


async def _clear_up(op: Op, book: DiskSnapshotBook, holder: Holder) -> None:
    """What earlier operations have begun, and nobody has heard of, goes."""
    for kept in book.begun(op.parameters.disk_id):
        if kept.operation_id != op.operation.id:
            await _drop(holder, kept.inner_name)
            book.remove(kept.disk_id, kept.name)


async def _drop(holder: Holder, inner_name: str) -> None:
    if inner_name not in await holder.names():
        return
    try:
        await holder.drop(inner_name)
    except MolnError as err:
        raise failed(err.message) from err


def _asked(op: Op) -> tuple[DiskSnapshotBook, int, str]:
    return DiskSnapshotBook(op.folder), op.parameters.disk_id, op.parameters.snapshot


async def _holder(op: Op) -> Holder:
    path = _path(op)
    if not await op.live.runs(op.uid):
        return DiskAtRest(path)
    disk = shape.find_disk(await op.live.describe(op.uid), op.parameters.disk_id)
    if disk is None:
        raise MolnError(Reason.DISK_NOT_FOUND, f"the guest has no disk {op.parameters.disk_id}")
    return DiskInUse(op.live, op.uid, shape.alias_of(disk))


def _path(op: Op) -> Path:
    """The disk's file. Raises MolnError for one that is not made yet, or holds no snapshots."""
    disk_id = op.parameters.disk_id
    paths = op.folder.disk_files(disk_id)
    if not paths:
        raise failed(f"disk {disk_id} is not on this node yet: it is made when the VM is started the next time")
    if paths[0].suffix != ".qcow2":
        raise failed(f"{paths[0].name} is no qcow2 disk: it can hold no snapshots")
    return paths[0]
