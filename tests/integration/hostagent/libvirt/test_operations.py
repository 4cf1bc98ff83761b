"""Operations on a guest of a real QEMU, seen inside the guest; each repeated, each refused where it cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest

from moln.compute.v1.vm_pb2 import Operation, OperationKind, VmSize
from moln.node.v1.node_service_pb2 import VmOrder
from services.common.domain.reasons import Reason
from services.hostagent.drivers.libvirt.driver import DriverOptions, LibvirtDriver
from services.hostagent.drivers.ports import Deed, Outcome, Power
from services.hostagent.storage import qemu_img
from tests.integration.hostagent.libvirt.conftest import pieces_of
from tests.integration.hostagent.libvirt.guests_at_work import answer, count_reaches, counting, last_count, says
from tests.support.deeds import Doer, operation
from tests.support.hypervisor import CLOUD, add_nic, order

pytestmark = pytest.mark.timeout(400)
K = OperationKind


async def test_disks_and_interfaces_come_and_go_in_a_guest_that_runs(
    driver: LibvirtDriver, image: Path, bridge: str, folder: Path
) -> None:
    doer, vm = Doer(driver), order(image)
    assert (await doer.do(Deed.START, vm)).is_done
    await says(driver, vm, " ready")

    vm.spec.template.disks.add(disk_id=1, size_mib=8)
    attach = operation(K.OPERATION_KIND_ATTACH_DISK, disk_id=1)
    assert (await doer.operate(vm, attach)).is_done
    assert doer.steps == ["stage_disks", "plug_in"]
    await answer(driver, vm, "cat /sys/block/vdb/size /sys/block/vdb/serial", "16384")
    assert (await doer.operate(vm, attach)).is_done, "repeated it is there already"

    add_nic(vm, "10.98.0.31", bridge=bridge)
    assert (await doer.operate(vm, operation(K.OPERATION_KIND_ATTACH_NIC, nic_id=0))).is_done
    mac = vm.addresses.nics[0].mac
    await answer(driver, vm, "cat /sys/class/net/*/address", mac)

    assert (await doer.operate(vm, operation(K.OPERATION_KIND_DETACH_NIC, nic_id=0))).is_done
    await answer(driver, vm, f"grep -c {mac} /sys/class/net/*/address; echo nics-$((1+1))", "nics-2")
    detach = operation(K.OPERATION_KIND_DETACH_DISK, disk_id=1)
    assert (await doer.operate(vm, detach)).is_done
    await answer(driver, vm, "[ -e /sys/block/vdb ] || echo disk-$((2+1))-gone", "disk-3-gone")
    assert not list((folder / "node" / "vms" / vm.uid).glob("disk-1.*")), "a disk that is detached is erased"
    assert (await doer.operate(vm, detach)).is_done


async def test_what_cannot_be_plugged_in_is_refused_in_the_hypervisors_words_and_leaves_nothing(
    driver: LibvirtDriver, folder: Path
) -> None:
    doer, vm = Doer(driver), small()
    assert (await doer.do(Deed.START, vm)).is_done
    vm.spec.template.disks.add(disk_id=1, size_mib=1, bus="ide")
    refused = await doer.operate(vm, operation(K.OPERATION_KIND_ATTACH_DISK, disk_id=1))
    assert (refused.reason, refused.step) == (Reason.OPERATION_FAILED, "plug_in")
    assert "ide" in refused.message
    assert not list((folder / "node" / "vms" / vm.uid).glob("disk-1.*"))
    absent = await doer.operate(vm, operation(K.OPERATION_KIND_ATTACH_DISK, disk_id=9))
    assert absent.reason is Reason.DISK_NOT_FOUND
    unready = small()
    unready.uid = vm.uid
    unready.spec.template.disks.add(disk_id=2, image_id=5)
    assert (await doer.operate(unready, operation(K.OPERATION_KIND_ATTACH_DISK, disk_id=2))).reason == "IMAGE_NOT_READY"


async def test_a_guest_is_rebooted_softly_and_hard(driver: LibvirtDriver, image: Path) -> None:
    doer, vm = Doer(driver), order(image)
    assert (await doer.do(Deed.START, vm)).is_done
    await says(driver, vm, " ready")
    assert (await doer.operate(vm, operation(K.OPERATION_KIND_REBOOT))).is_done
    await says(driver, vm, " ready", times=2)
    assert (await doer.operate(vm, operation(K.OPERATION_KIND_REBOOT, is_hard=True))).is_done
    await says(driver, vm, " ready", times=3)
    await doer.do(Deed.PLUG, vm)
    off = await doer.operate(vm, operation(K.OPERATION_KIND_REBOOT))
    assert off.reason is Reason.STATE_FORBIDS


async def test_memory_shrinks_and_grows_in_the_guest_and_more_than_it_has_waits_for_a_restart(
    driver: LibvirtDriver, image: Path
) -> None:
    doer, vm = Doer(driver), order(image)
    assert (await doer.do(Deed.START, vm)).is_done
    await says(driver, vm, " ready")
    smaller = await doer.operate(vm, resize(VmSize(memory_mib=80)))
    assert smaller.is_done
    assert smaller.facts is not None
    larger = await doer.operate(vm, resize(VmSize(memory_mib=4096, vcpus=64)))
    assert larger.is_done
    assert larger.facts is not None
    assert larger.facts.needs_restart
    assert list(larger.facts.restart_fields) == ["vcpus", "memory_mib"]
    again = await doer.operate(vm, resize(VmSize(vcpus=1)))
    assert again.facts is not None
    assert not again.facts.needs_restart
    assert "needs_restart" in again.cleared


async def test_a_disk_grows_under_the_guest_and_while_it_is_off(
    driver: LibvirtDriver, image: Path, folder: Path
) -> None:
    doer, vm = Doer(driver), order(image)
    vm.spec.template.disks.add(disk_id=1, size_mib=4)
    assert (await doer.do(Deed.START, vm)).is_done
    await says(driver, vm, " ready")
    grow = operation(K.OPERATION_KIND_RESIZE_DISK, disk_id=1, disk_size_mib=16)
    assert (await doer.operate(vm, grow)).is_done
    await answer(driver, vm, "cat /sys/block/vdb/size", "32768")
    assert (await doer.operate(vm, grow)).is_done
    await doer.do(Deed.PLUG, vm)
    assert (await doer.operate(vm, operation(K.OPERATION_KIND_RESIZE_DISK, disk_id=1, disk_size_mib=32))).is_done
    disk = folder / "node" / "vms" / vm.uid / "disk-1.qcow2"
    assert (await qemu_img.inspect(disk, "qcow2")).virtual_size_bytes == 32 * 2**20
    assert (await doer.operate(vm, grow)).is_done, "a disk never becomes smaller"
    assert (await qemu_img.inspect(disk, "qcow2")).virtual_size_bytes == 32 * 2**20


async def test_a_snapshot_takes_disk_and_memory_back(driver: LibvirtDriver, image: Path) -> None:
    doer, vm = Doer(driver), counting(image)
    assert (await doer.do(Deed.START, vm)).is_done
    await says(driver, vm, " ready")
    await answer(driver, vm, "echo one > /data/kept; sync; echo written-$((1+1))", "written-2")
    create = operation(K.OPERATION_KIND_CREATE_SNAPSHOT, snapshot="before")
    made = await doer.operate(vm, create)
    assert names(made) == ["before"]
    assert made.facts is not None
    assert (made.facts.snapshots[0].has_memory, made.facts.snapshots[0].is_current) == (True, True)
    assert names(await doer.operate(vm, create)) == ["before"], "repeated it is made already"
    twice = await doer.operate(vm, operation(K.OPERATION_KIND_CREATE_SNAPSHOT, snapshot="before"))
    assert twice.reason is Reason.OPERATION_FAILED
    at = await last_count(driver, vm)

    await answer(driver, vm, "echo two > /data/kept; sync; echo written-$((2+1))", "written-3")
    await count_reaches(driver, vm, at + 40)
    assert (await doer.operate(vm, operation(K.OPERATION_KIND_REVERT_SNAPSHOT, snapshot="before"))).is_done
    assert await doer.power(vm) is Power.RUNNING
    await answer(driver, vm, "echo now-$(cat /data/kept)", "now-one")
    assert await last_count(driver, vm) < at + 40, "it counts from where it was"

    second = await doer.operate(vm, operation(K.OPERATION_KIND_CREATE_SNAPSHOT, snapshot="after"))
    assert second.facts is not None
    assert [found.parent for found in second.facts.snapshots] == ["", "before"]
    assert names(await doer.operate(vm, operation(K.OPERATION_KIND_DELETE_SNAPSHOT, snapshot="before"))) == ["after"]
    absent = await doer.operate(vm, operation(K.OPERATION_KIND_REVERT_SNAPSHOT, snapshot="before"))
    assert absent.reason is Reason.SNAPSHOT_NOT_FOUND


@pytest.mark.long
async def test_snapshots_outlive_the_definition_of_the_guest(driver: LibvirtDriver, image: Path) -> None:
    doer, vm = Doer(driver), order(image)
    off = await doer.operate(vm, operation(K.OPERATION_KIND_REVERT_SNAPSHOT, snapshot="none"))
    assert off.reason is Reason.SNAPSHOT_NOT_FOUND
    assert (await doer.do(Deed.START, vm)).is_done
    await says(driver, vm, " ready")
    await answer(driver, vm, "echo one > /data/kept; sync; echo written-$((1+1))", "written-2")
    assert (await doer.operate(vm, operation(K.OPERATION_KIND_CREATE_SNAPSHOT, snapshot="live"))).is_done
    await answer(driver, vm, "echo two > /data/kept; sync; echo written-$((2+1))", "written-3")
    await doer.do(Deed.PLUG, vm)
    both = await doer.operate(vm, operation(K.OPERATION_KIND_CREATE_SNAPSHOT, snapshot="off"))
    assert names(both) == ["live", "off"]
    assert both.facts is not None
    assert [found.has_memory for found in both.facts.snapshots] == [True, False]

    vm.epoch = 2
    assert (await doer.do(Deed.START, vm)).is_done
    await says(driver, vm, " ready", times=2)
    dry = await doer.operate(vm, operation(K.OPERATION_KIND_REVERT_SNAPSHOT, snapshot="off"))
    assert (dry.is_done, "power the VM off" in dry.message) == (False, True)
    assert (await doer.operate(vm, operation(K.OPERATION_KIND_REVERT_SNAPSHOT, snapshot="live"))).is_done
    await answer(driver, vm, "echo now-$(cat /data/kept)", "now-one")
    assert names(await doer.operate(vm, operation(K.OPERATION_KIND_DELETE_SNAPSHOT, snapshot="off"))) == ["live"]

    await doer.do(Deed.PLUG, vm)
    assert (await doer.operate(vm, operation(K.OPERATION_KIND_REVERT_SNAPSHOT, snapshot="live"))).is_done
    assert await doer.power(vm) is Power.OFF
    gone = await doer.operate(vm, operation(K.OPERATION_KIND_DELETE_SNAPSHOT, snapshot="live"))
    assert names(gone) == []
    assert "snapshots" in gone.cleared


async def test_a_snapshot_of_another_shape_is_not_gone_back_to(driver: LibvirtDriver) -> None:
    doer, vm = Doer(driver), small()
    assert (await doer.do(Deed.START, vm)).is_done
    assert (await doer.operate(vm, operation(K.OPERATION_KIND_CREATE_SNAPSHOT, snapshot="thin"))).is_done
    vm.spec.template.disks.add(disk_id=1, size_mib=1)
    assert (await doer.operate(vm, operation(K.OPERATION_KIND_ATTACH_DISK, disk_id=1))).is_done
    refused = await doer.operate(vm, operation(K.OPERATION_KIND_REVERT_SNAPSHOT, snapshot="thin"))
    assert (refused.reason, "disk-1" in refused.message) == (Reason.OPERATION_FAILED, True)
    assert await doer.power(vm) is Power.RUNNING
    await doer.do(Deed.PLUG, vm)
    off = await doer.operate(vm, operation(K.OPERATION_KIND_REVERT_SNAPSHOT, snapshot="thin"))
    assert (off.reason, "came later" in off.message) == (Reason.OPERATION_FAILED, True)


async def test_a_disk_that_is_raw_has_no_snapshots_and_says_so(driver: LibvirtDriver) -> None:
    doer, vm = Doer(driver), small(format="raw")
    assert (await doer.do(Deed.START, vm)).is_done
    for _ in range(2):
        refused = await doer.operate(vm, operation(K.OPERATION_KIND_CREATE_SNAPSHOT, snapshot="raw"))
        assert (refused.reason, "no qcow2" in refused.message) == (Reason.OPERATION_FAILED, True)
        await doer.do(Deed.PLUG, vm)


async def test_a_new_context_is_seen_by_the_guest(driver: LibvirtDriver, image: Path) -> None:
    doer, vm = Doer(driver), order(image)
    assert (await doer.do(Deed.START, vm)).is_done
    await says(driver, vm, " ready")
    vm.spec.template.context.variables["COLOUR"] = "blue"
    assert (await doer.operate(vm, operation(K.OPERATION_KIND_UPDATE_CONTEXT))).is_done
    await answer(
        driver, vm, "mkdir -p /tmp/c; umount /tmp/c; mount -o ro /dev/sr0 /tmp/c; grep COLOUR /tmp/c/context.sh",
        "COLOUR='blue'",
    )  # fmt: skip


async def test_the_test_hypervisor_resizes_and_reboots_and_refuses_the_rest(folder: Path) -> None:
    options = DriverOptions(1, CLOUD, folder, "test:///default")
    async with LibvirtDriver(options, pieces_of(folder)) as driver:
        doer, vm = Doer(driver), order(None)
        assert (await doer.do(Deed.START, vm)).is_done
        assert (await doer.operate(vm, operation(K.OPERATION_KIND_REBOOT))).is_done
        smaller = await doer.operate(vm, resize(VmSize(memory_mib=64)))
        assert smaller.facts is not None
        assert smaller.facts.size.memory_mib == 64
        assert (await doer.operate(vm, operation(K.OPERATION_KIND_BACKUP))).reason is Reason.CAPABILITY
        assert (await doer.do(Deed.ERASE, vm)).is_done


def resize(size: VmSize) -> Operation:
    return operation(K.OPERATION_KIND_RESIZE, size=size)


def names(outcome: Outcome) -> list[str]:
    assert outcome.is_done, outcome
    assert outcome.facts is not None
    return [found.name for found in outcome.facts.snapshots]


def small(format: str = "qcow2") -> VmOrder:
    """A guest that never boots."""
    vm = order(None)
    vm.spec.template.disks.add(disk_id=0, size_mib=1, format=format)
    vm.spec.template.memory_mib = 32
    return vm


async def test_vcpus_are_plugged_in_and_snapshots_that_would_not_load_are_refused(
    driver: LibvirtDriver, image: Path
) -> None:
    doer, vm = Doer(driver), order(image)
    vm.spec.template.cpu.max_vcpus = 2
    assert (await doer.do(Deed.START, vm)).is_done
    await says(driver, vm, " ready")
    assert (await doer.operate(vm, operation(K.OPERATION_KIND_CREATE_SNAPSHOT, snapshot="one"))).is_done
    grown = await doer.operate(vm, resize(VmSize(vcpus=2)))
    assert grown.facts is not None
    assert (grown.facts.size.vcpus, grown.facts.needs_restart) == (2, False)
    online = "echo 1 > /sys/devices/system/cpu/cpu1/online"
    await answer(driver, vm, f"{online}; echo cpus-$(grep -c ^processor /proc/cpuinfo)", "cpus-2")
    refused = await doer.operate(vm, operation(K.OPERATION_KIND_REVERT_SNAPSHOT, snapshot="one"))
    assert (refused.reason, "vCPUs" in refused.message) == (Reason.OPERATION_FAILED, True)
    assert await doer.power(vm) is Power.RUNNING
    assert (await doer.operate(vm, operation(K.OPERATION_KIND_CREATE_SNAPSHOT, snapshot="two"))).is_done
    back = await doer.operate(vm, operation(K.OPERATION_KIND_REVERT_SNAPSHOT, snapshot="two"))
    assert (back.reason, "power the VM off" in back.message) == (Reason.OPERATION_FAILED, True)
    assert await doer.power(vm) is Power.RUNNING
