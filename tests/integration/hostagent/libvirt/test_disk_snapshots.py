"""Snapshots of single disks on a real QEMU: read back off the disk; beside those of the whole VM, never mixed up."""

from __future__ import annotations

from pathlib import Path

import pytest

from moln.compute.v1.vm_pb2 import Operation, OperationKind
from moln.node.v1.node_service_pb2 import VmOrder
from services.common.domain.reasons import Reason
from services.hostagent.drivers.libvirt.driver import LibvirtDriver
from services.hostagent.drivers.ports import Deed, Outcome, Power
from services.hostagent.storage import qemu_img
from services.hostagent.storage.disk_snapshots import DiskSnapshotBook, KeptOfDisk
from services.hostagent.storage.folders import VmFolder
from tests.integration.hostagent.libvirt.guests_at_work import answer, says
from tests.support.deeds import Doer, operation
from tests.support.hypervisor import order

pytestmark = pytest.mark.timeout(300)
K = OperationKind
MIB = 1024 * 1024


async def test_a_disk_of_a_guest_that_runs_goes_back_alone_and_stays_as_large(
    driver: LibvirtDriver, image: Path, folder: Path
) -> None:
    doer, vm = Doer(driver), order(image)
    vm.spec.template.disks.add(disk_id=1, size_mib=4)
    vm_folder = VmFolder(folder / "node" / "vms" / vm.uid)
    first, second = vm_folder.disk(0, "qcow2"), vm_folder.disk(1, "qcow2")
    assert (await doer.do(Deed.START, vm)).is_done
    await says(driver, vm, " ready")
    await answer(driver, vm, "echo one > /dev/vdb; sync; echo written-$((1+1))", "written-2")
    made = create(1, "old")
    assert names(await doer.operate(vm, made)) == [(1, "old")]
    assert names(await doer.operate(vm, made)) == [(1, "old")], "repeated it is made already"
    assert (await doer.operate(vm, create(1, "old"))).reason is Reason.OPERATION_FAILED
    whole = await doer.operate(vm, operation(K.OPERATION_KIND_CREATE_SNAPSHOT, snapshot="old"))
    assert whole.facts is not None
    assert ([each.name for each in whole.facts.snapshots], len(whole.facts.disk_snapshots)) == (["old"], 0)
    assert await inner(first) == ["moln-old"]
    assert await inner(second) == ["moln_disk-old", "moln-old"]

    await answer(driver, vm, "echo two > /dev/vdb; sync; echo written-$((2+1))", "written-3")
    assert names(await doer.operate(vm, create(1, "new"))) == [(1, "old"), (1, "new")]
    running = await doer.operate(vm, revert(1, "old"))
    assert (running.reason, "power the VM off" in running.message) == (Reason.OPERATION_FAILED, True)
    assert names(await doer.operate(vm, delete(1, "new"))) == [(1, "old")]
    vm.spec.template.disks[1].size_mib = 16
    grow = operation(K.OPERATION_KIND_RESIZE_DISK, disk_id=1, disk_size_mib=16)
    assert (await doer.operate(vm, grow)).is_done

    await doer.do(Deed.PLUG, vm)
    assert await content(second) == b"two\n"
    assert names(await doer.operate(vm, revert(1, "old"))) == [(1, "old")]
    assert await content(second) == b"one\n"
    assert (await qemu_img.inspect(second, "qcow2")).virtual_size_bytes == 16 * MIB
    back = await doer.operate(vm, operation(K.OPERATION_KIND_REVERT_SNAPSHOT, snapshot="old"))
    assert back.is_done, "the whole VM goes back as well"
    assert await inner(second) == ["moln_disk-old", "moln-old"], "neither kind takes the other away"
    assert (await qemu_img.inspect(second, "qcow2")).virtual_size_bytes == 16 * MIB
    gone = await doer.operate(vm, operation(K.OPERATION_KIND_DETACH_DISK, disk_id=1))
    assert (gone.is_done, gone.cleared) == (True, ("disk_snapshots",)), "with a disk go its snapshots"


async def test_a_disk_of_a_guest_that_is_suspended_or_off_has_snapshots_too(driver: LibvirtDriver) -> None:
    doer, vm = Doer(driver), small()
    assert (await doer.do(Deed.START, vm)).is_done
    assert (await doer.do(Deed.SUSPEND, vm)).is_done
    assert names(await doer.operate(vm, create(0, "saved"))) == [(0, "saved")]
    again = await doer.do(Deed.START, vm)
    assert (doer.steps[-1], names(again)) == ("restore_guest", [(0, "saved")])
    await doer.do(Deed.PLUG, vm)
    assert names(await doer.operate(vm, create(0, "off"))) == [(0, "saved"), (0, "off")]
    assert names(await doer.operate(vm, delete(0, "saved"))) == [(0, "off")]
    assert names(await doer.operate(vm, delete(0, "saved"))) == [(0, "off")], "repeated it is gone already"
    assert (await doer.operate(vm, revert(0, "saved"))).reason is Reason.SNAPSHOT_NOT_FOUND
    vm.spec.template.disks.add(disk_id=1, size_mib=1)
    later = await doer.operate(vm, create(1, "early"))
    assert (later.reason, "is made when the VM is started" in later.message) == (Reason.OPERATION_FAILED, True)
    assert await doer.power(vm) is Power.OFF


async def test_what_a_killed_agent_has_begun_is_taken_up_or_cleared_away(driver: LibvirtDriver, folder: Path) -> None:
    doer, vm = Doer(driver), small()
    assert (await doer.do(Deed.START, vm)).is_done
    await doer.do(Deed.PLUG, vm)
    vm_folder = VmFolder(folder / "node" / "vms" / vm.uid)
    book, disk = DiskSnapshotBook(vm_folder), vm_folder.disk(0, "qcow2")
    mine, unmade = create(0, "mine"), create(0, "unmade")
    for name, known in (("mine", mine.id), ("lost", "an operation that nobody asks for any more")):
        book.begin(KeptOfDisk(0, name, 1, known))
        await qemu_img.change_snapshot(disk, "-c", f"moln_disk-{name}")
    assert names(await doer.operate(vm, mine)) == [(0, "mine")]
    assert await inner(disk) == ["moln_disk-mine"], "the one that was begun is taken up, the other is gone"
    book.begin(KeptOfDisk(0, "unmade", 1, unmade.id))
    assert names(await doer.operate(vm, unmade)) == [(0, "mine"), (0, "unmade")]
    await qemu_img.change_snapshot(disk, "-c", "moln_disk-foreign")
    foreign = await doer.operate(vm, create(0, "foreign"))
    assert (foreign.reason, "not in the VM's list" in foreign.message) == (Reason.OPERATION_FAILED, True)


async def test_a_disk_that_is_raw_or_cannot_be_written_fails_and_nothing_is_kept(
    driver: LibvirtDriver, folder: Path
) -> None:
    doer, vm = Doer(driver), small(format="raw")
    assert (await doer.do(Deed.START, vm)).is_done
    for _ in range(2):
        refused = await doer.operate(vm, create(0, "raw"))
        assert (refused.reason, "no qcow2" in refused.message) == (Reason.OPERATION_FAILED, True)
        await doer.do(Deed.PLUG, vm)
    vm_folder = VmFolder(folder / "node" / "vms" / vm.uid)
    vm_folder.disk(0, "raw").rename(vm_folder.disk(0, "qcow2"))  # no image of that format
    broken = await doer.operate(vm, create(0, "broken"))
    assert (broken.is_done, broken.reason) == (False, Reason.OPERATION_FAILED)
    assert DiskSnapshotBook(vm_folder).all() == []


def create(disk_id: int, name: str) -> Operation:
    return operation(K.OPERATION_KIND_CREATE_DISK_SNAPSHOT, disk_id=disk_id, snapshot=name)


def revert(disk_id: int, name: str) -> Operation:
    return operation(K.OPERATION_KIND_REVERT_DISK_SNAPSHOT, disk_id=disk_id, snapshot=name)


def delete(disk_id: int, name: str) -> Operation:
    return operation(K.OPERATION_KIND_DELETE_DISK_SNAPSHOT, disk_id=disk_id, snapshot=name)


def names(outcome: Outcome) -> list[tuple[int, str]]:
    assert outcome.is_done, outcome
    assert outcome.facts is not None
    return [(found.disk_id, found.name) for found in outcome.facts.disk_snapshots]


async def inner(path: Path) -> list[str]:
    """Names as they are in a disk, oldest first."""
    return [each.name for each in await qemu_img.inner_snapshots(path, "qcow2")]


async def content(path: Path) -> bytes:
    """The first bytes that a guest would read."""
    copy = path.with_suffix(".read")
    await qemu_img.convert(path, "qcow2", copy, "raw")
    found = copy.read_bytes()[:4]
    copy.unlink()
    return found


def small(format: str = "qcow2") -> VmOrder:
    """A guest that never boots."""
    vm = order(None)
    vm.spec.template.disks.add(disk_id=0, size_mib=1, format=format)
    vm.spec.template.memory_mib = 32
    return vm
