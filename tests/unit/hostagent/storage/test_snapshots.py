"""The list of snapshots beside a VM's disks, and what is handed out to the target of a move."""

from __future__ import annotations

from pathlib import Path

from moln.compute.v1.vm_pb2 import SavedFile
from services.hostagent.storage.folders import VmFolder, VmRecord
from services.hostagent.storage.handover import Handover
from services.hostagent.storage.snapshots import Kept, SnapshotBook


def book(folder: Path) -> SnapshotBook:
    made = SnapshotBook(VmFolder(folder))
    for number, name in enumerate(("a", "b", "c")):
        made.add(Kept(name, number, has_memory=False))
    return made


def test_each_snapshot_grows_from_the_one_that_was_current(folder: Path) -> None:
    made = book(folder)
    made.go_to("a")
    made.add(Kept("d", 9, has_memory=True, operation_id="op"))
    assert [(kept.name, kept.parent, kept.is_current) for kept in made.all()] == [
        ("a", "", False), ("b", "a", False), ("c", "b", False), ("d", "a", True),
    ]  # fmt: skip
    assert made.find("d") == Kept("d", 9, True, True, "a", "op")


def test_what_grew_from_one_that_goes_grows_from_what_it_grew_from(folder: Path) -> None:
    made = book(folder)
    made.keep_xml("b", "<x/>")
    made.remove("b")
    made.remove("nothing")
    assert [(kept.name, kept.parent) for kept in made.all()] == [("a", ""), ("c", "a")]
    assert made.xml("b") is None
    made.remove("c")
    assert [kept.is_current for kept in made.all()] == [True]


def test_a_list_that_is_damaged_is_an_empty_one(folder: Path) -> None:
    made = book(folder)
    (folder / "snapshots.json").write_text("[{")
    assert made.all() == []


def test_files_are_handed_out_for_the_ticket_until_they_are_withdrawn(folder: Path) -> None:
    handed = Handover(VmFolder(folder))
    assert not handed.is_open_to("t")
    files = [SavedFile(disk_id=1, format="qcow2", size_bytes=5, sha256="0" * 64), SavedFile(is_memory=True)]
    handed.offer("t", files)
    assert handed.is_open_to("t") and not handed.is_open_to("") and not handed.is_open_to("u")
    assert "t" not in (folder / "handover.json").read_text().split('"ticket": ')[1][1:2]
    assert handed.files() == files
    assert handed.path(1, is_memory=False) == folder / "disk-1.qcow2"
    assert handed.path(2, is_memory=False) is None
    assert handed.path(7, is_memory=True) == folder / "memory"
    handed.withdraw()
    handed.withdraw()
    assert not handed.is_open_to("t") and handed.files() == []


def test_on_shared_storage_a_folder_is_its_owners_until_the_guest_has_arrived(folder: Path) -> None:
    vm = VmFolder(folder)
    owners, expected = VmRecord(7, "u", 1, "c", host_id=1), VmRecord(7, "u", 2, "c", ("br",), host_id=2)
    vm.make(owners)
    assert vm.record_of(2) is None
    vm.expect(expected)
    assert (vm.record(), vm.record_of(1), vm.record_of(2)) == (owners, owners, expected)
    vm.settle_arrival(2)
    vm.settle_arrival(2)
    assert (vm.record(), vm.record_of(1)) == (expected, None)


def test_the_record_of_an_earlier_release_is_the_nodes_own(folder: Path) -> None:
    (folder / "vm.json").write_text('{"vm_id": 7, "uid": "u", "epoch": 1, "cloud_uid": "c", "bridges": []}')
    record = VmFolder(folder).record_of(5)
    assert record is not None
    assert record.is_of(5)
