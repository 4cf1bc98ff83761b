"""The folders of a node."""

from __future__ import annotations

from pathlib import Path

import pytest

from moln.compute.v1.vm_pb2 import VmStatus
from services.hostagent.storage.folders import NodeFolders, VmRecord

RECORD = VmRecord(7, "uid-7", 2, "cloud", ("moln1",))


def test_what_is_here_is_found_again(folder: Path) -> None:
    node = NodeFolders(folder)
    node.make()
    node.vm("uid-7").make(RECORD)
    node.vm("uid-7").remember(VmStatus(uid="uid-7", epoch=2))
    assert node.records() == [RECORD]
    status = node.vm("uid-7").status()
    assert status is not None
    assert status.epoch == 2


def test_a_status_is_kept_only_where_something_of_the_vm_is(folder: Path) -> None:
    NodeFolders(folder).vm("uid-7").remember(VmStatus(uid="uid-7"))
    assert NodeFolders(folder).vm("uid-7").status() is None
    assert not (folder / "vms").exists()


def test_an_erase_that_was_interrupted_is_finished_and_never_seen_as_a_vm(folder: Path) -> None:
    node = NodeFolders(folder)
    node.vm("uid-7").make(RECORD)
    node.vm("uid-7").path.rename(folder / "vms" / "uid-7.gone")
    assert node.records() == []
    node.make()
    assert list(node.vms.iterdir()) == []


def test_erasing_twice_is_erasing(folder: Path) -> None:
    vm = NodeFolders(folder).vm("uid-7")
    vm.make(RECORD)
    (vm.path / "disk-0.qcow2").touch()
    vm.erase()
    vm.erase()
    assert list((folder / "vms").glob("[!.]*")) == []


def test_a_record_that_does_not_read_is_none(folder: Path) -> None:
    vm = NodeFolders(folder).vm("uid-7")
    vm.make(RECORD)
    vm.record_file.write_text("{}")
    assert vm.record() is None


@pytest.mark.parametrize("uid", ["", "../x", "a/b", "."])
def test_a_uid_that_would_leave_the_folder_is_refused(folder: Path, uid: str) -> None:
    with pytest.raises(ValueError, match="is not a uid"):
        NodeFolders(folder).vm(uid)


def test_used_room_is_what_the_files_take(folder: Path) -> None:
    node = NodeFolders(folder)
    node.make()
    (node.cache / "image.qcow2").write_bytes(bytes(100_000))
    assert node.used_bytes() >= 100_000
