"""When files of a VM count as its own in the datastore, and when not any more."""

from __future__ import annotations

import pytest

from moln.compute.v1 import vm_pb2
from moln.compute.v1.vm_pb2 import SavedFile, VmIntent, VmPlacement, VmStatus, VmVolumes, Volume
from services.imagesvc.core.saved import Due, dropped, due, taken

STOPPED, RUNNING = vm_pb2.DESIRED_STATE_STOPPED, vm_pb2.DESIRED_STATE_RUNNING
SAVED, RUNS, STARTS = vm_pb2.VM_PHASE_SAVED, vm_pb2.VM_PHASE_RUNNING, vm_pb2.VM_PHASE_STARTING


def judged(desired: int, phase: int, *, epoch: int = 2, told: int = 2, saved: int = 0, has_run: bool = True) -> Due:
    status = VmStatus(epoch=told, phase=phase)  # type: ignore[arg-type]
    if has_run:
        status.start_time.seconds = 1
    volumes = VmVolumes(is_in_datastore=bool(saved), saved_epoch=saved)
    return due(VmIntent(desired=desired), VmPlacement(epoch=epoch, host_id=1), status, volumes)  # type: ignore[arg-type]


def test_files_are_taken_when_the_node_of_the_placement_says_that_all_is_there() -> None:
    assert judged(STOPPED, SAVED) is Due.TAKE
    assert judged(vm_pb2.DESIRED_STATE_UNDEPLOYED, SAVED) is Due.TAKE
    assert judged(STOPPED, SAVED, told=1) is Due.NOTHING, "the word of an earlier placement"
    assert judged(STOPPED, vm_pb2.VM_PHASE_SAVING) is Due.NOTHING
    assert judged(RUNNING, SAVED) is Due.NOTHING, "nobody wants that any more"
    assert judged(STOPPED, SAVED, saved=2) is Due.NOTHING, "they are taken already"
    assert judged(STOPPED, SAVED, saved=1) is Due.TAKE, "what is there is of an earlier time"


@pytest.mark.parametrize("phase", [RUNS, vm_pb2.VM_PHASE_POWERED_OFF, vm_pb2.VM_PHASE_SUSPENDED])
def test_files_go_once_the_vm_has_run_from_them(phase: int) -> None:
    assert judged(RUNNING, phase, saved=1) is Due.DROP
    assert judged(RUNNING, phase, saved=1, has_run=False) is Due.NOTHING


def test_files_stay_while_the_vm_is_only_on_its_way() -> None:
    assert judged(RUNNING, STARTS, saved=1) is Due.NOTHING
    assert judged(RUNNING, vm_pb2.VM_PHASE_FAILED, saved=1) is Due.NOTHING
    assert judged(RUNNING, SAVED, saved=2) is Due.NOTHING, "it rests where it was stopped"
    assert judged(RUNNING, RUNS, saved=2) is Due.DROP, "it goes on there"
    assert due(VmIntent(desired=RUNNING), VmPlacement(epoch=2), None, VmVolumes(is_in_datastore=True)) is Due.NOTHING


def test_what_is_written_names_each_file_and_can_be_taken_back() -> None:
    before = VmVolumes(uid="u", disks=[Volume(disk_id=0, image_id=3, format="qcow2"), Volume(disk_id=1)])
    files = [SavedFile(disk_id=0, sha256="a", size_bytes=5, format="qcow2"), SavedFile(is_memory=True, sha256="m")]
    after = taken(before, "u", files, 4, 9)
    assert (after.is_in_datastore, after.saved_epoch, after.saved_datastore_id, after.memory.sha256) == (
        True,
        4,
        9,
        "m",
    )
    assert [(disk.is_in_datastore, disk.saved_sha256) for disk in after.disks] == [(True, "a"), (False, "")]
    assert dropped(after, "u") == before
