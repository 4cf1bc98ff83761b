"""The list of snapshots of single disks: what is made, what has only begun, what goes with its disk."""

from __future__ import annotations

from pathlib import Path

from services.hostagent.storage.disk_snapshots import DiskSnapshotBook, KeptOfDisk, snapshots_told
from services.hostagent.storage.folders import VmFolder
from services.hostagent.storage.snapshots import PREFIX as WHOLE
from services.hostagent.storage.snapshots import Kept, SnapshotBook


def kept(disk_id: int, name: str, operation_id: str = "op") -> KeptOfDisk:
    return KeptOfDisk(disk_id, name, 7, operation_id)


def test_one_that_has_begun_is_not_told_until_it_is_made(folder: Path) -> None:
    book = DiskSnapshotBook(VmFolder(folder))
    book.begin(kept(0, "a"))
    assert (book.all(), [each.name for each in book.begun(0)], book.begun(1)) == ([], ["a"], [])
    book.add(kept(0, "a"))
    assert (book.find(0, "a"), book.begun(0)) == (kept(0, "a"), [])
    assert (book.find(1, "a"), book.find(0, "b")) == (None, None)


def test_disks_have_names_of_their_own_and_lose_them_together(folder: Path) -> None:
    book = DiskSnapshotBook(VmFolder(folder))
    for disk_id, name in ((0, "a"), (1, "a"), (1, "b")):
        book.add(kept(disk_id, name))
    book.remove(1, "a")
    book.remove(1, "nothing")
    assert [(each.disk_id, each.name) for each in book.all()] == [(0, "a"), (1, "b")]
    book.remove_disk(0)
    assert [(each.disk_id, each.name) for each in book.all()] == [(1, "b")]


def test_a_list_that_is_damaged_is_an_empty_one(folder: Path) -> None:
    book = DiskSnapshotBook(VmFolder(folder))
    book.add(kept(0, "a"))
    (folder / "disk-snapshots.json").write_text('[{"disk_id": 0, "surprise": 1}]')
    assert book.all() == []


def test_both_kinds_are_told_and_are_never_named_alike_in_a_disk(folder: Path) -> None:
    vm = VmFolder(folder)
    SnapshotBook(vm).add(Kept("a", 1, has_memory=False))
    DiskSnapshotBook(vm).add(kept(2, "a"))
    told = snapshots_told(vm)
    assert [each.name for each in told.snapshots] == ["a"]
    assert [(each.disk_id, each.name, each.time.ToNanoseconds()) for each in told.disk_snapshots] == [(2, "a", 7)]
    assert not kept(2, "a").inner_name.startswith(WHOLE)
