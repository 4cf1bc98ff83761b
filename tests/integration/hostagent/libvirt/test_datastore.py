"""A guest goes to the datastore and comes back from it: a real QEMU on one side, a real imagesvc on the other."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from moln.compute.v1 import vm_pb2
from moln.compute.v1.vm_pb2 import DesiredState, OperationKind, VmIntent, VmPlacement, VmStatus, VmVolumes
from moln.node.v1.node_service_pb2 import VmOrder
from services.common.domain.reasons import Reason
from services.common.rpc import read_service_secret
from services.common.rpc.tickets import sign_ticket
from services.common.store import Txn, key
from services.hostagent.drivers.libvirt.driver import LibvirtDriver
from services.hostagent.drivers.ports import Deed, Outcome, Power
from tests.integration.hostagent.libvirt.guests_at_work import answer, count_reaches, counting, last_count, says
from tests.integration.imagesvc.conftest import (
    USER,
    Cloud,
    Images,
    _real,
    cloud,
    etcd,
    images,
    imagesvc,
    secret_file,
    shelves,
    start,
)
from tests.support.deeds import Doer, operation
from tests.support.eventually import eventually

__all__ = ["_real", "cloud", "etcd", "images", "imagesvc", "secret_file", "shelves", "start"]

pytestmark = pytest.mark.timeout(300)


class Stored:
    """A VM as the cloud has it, beside its node."""

    def __init__(self, cloud: Cloud, images: Images, secret_file: Path, vm: VmOrder) -> None:
        self.cloud, self.vm, self._images, self._secret_file = cloud, vm, images, secret_file

    async def begin(self) -> None:
        """The api's keys of the VM."""
        spec, intent = self.vm.spec, self.vm.intent
        spec.owner_id, spec.owner, spec.template.memory_mib = USER.user_id, USER.name, self.vm.spec.template.memory_mib
        txn = Txn().put(key("vm", self.vm.vm_id, "spec"), spec).put(key("vm", self.vm.vm_id, "intent"), intent)
        await self.cloud.store.commit(txn.put(key("vm", self.vm.vm_id, "volumes"), self.vm.volumes))
        expire_s = int(time.time()) + 600
        secret = read_service_secret(self._secret_file).encode()
        self.vm.datastore.ticket = sign_ticket(secret, "volume", self.vm.uid, 1, expire_s)
        self.vm.datastore.address = self._images.running.run.address

    async def report(self, phase: int, outcome: Outcome, desired: DesiredState) -> None:
        """What the gateway writes of a node's report."""
        status = VmStatus(uid=self.vm.uid, host_id=1, epoch=self.vm.epoch, phase=phase, driver="libvirt")  # type: ignore[arg-type]
        status.start_time.GetCurrentTime()
        if outcome.facts is not None:
            status.saved.extend(outcome.facts.saved)
        intent = VmIntent.FromString(self.vm.intent.SerializeToString())
        intent.desired = desired
        placement = VmPlacement(uid=self.vm.uid, host_id=1, epoch=self.vm.epoch)
        txn = Txn().put(key("vm", self.vm.vm_id, "intent"), intent)
        txn.put(key("vm", self.vm.vm_id, "placement"), placement)
        await self.cloud.store.commit(txn.put(key("vm", self.vm.vm_id, "status/0000000001"), status))

    def volumes(self) -> VmVolumes:
        return self.cloud.volumes(self.vm.vm_id) or VmVolumes()


@pytest.fixture
def shelf(folder: Path) -> Path:
    """Where imagesvc's own datastore is; the image's is another."""
    return folder / "shelf"


@pytest.fixture
async def stored(cloud: Cloud, images: Images, secret_file: Path, image: Path) -> AsyncIterator[Stored]:
    made = Stored(cloud, images, secret_file, counting(image))
    await made.begin()
    yield made


async def test_a_stopped_guest_counts_on_after_its_node_has_forgotten_it(
    driver: LibvirtDriver, stored: Stored, folder: Path, shelf: Path
) -> None:
    doer, vm = Doer(driver), stored.vm
    assert (await doer.do(Deed.START, vm)).is_done
    await says(driver, vm, " ready")
    await answer(driver, vm, "echo mine > /data/kept; sync; echo written-$((1+1))", "written-2")
    snapshot = operation(OperationKind.OPERATION_KIND_CREATE_SNAPSHOT, snapshot="before")
    assert (await doer.operate(vm, snapshot)).is_done
    of_disk = operation(OperationKind.OPERATION_KIND_CREATE_DISK_SNAPSHOT, disk_id=0, snapshot="own")
    assert (await doer.operate(vm, of_disk)).is_done
    assert (await doer.do(Deed.SUSPEND, vm)).is_done
    before = await last_count(driver, vm)
    uploaded = await doer.do(Deed.UPLOAD, vm)
    assert uploaded.is_done, uploaded
    assert await doer.power(vm) is Power.SAVED, "what is on the node stays until the datastore has it"
    await stored.report(vm_pb2.VM_PHASE_SAVED, uploaded, DesiredState.DESIRED_STATE_STOPPED)
    await eventually(lambda: stored.volumes().is_in_datastore, what="the datastore has it")
    assert (await doer.do(Deed.ERASE, vm)).is_done
    assert await doer.power(vm) is Power.ABSENT

    vm.epoch = 2
    vm.volumes.CopyFrom(stored.volumes())
    started = await doer.do(Deed.START, vm)
    assert started.is_done, started
    assert "restore_guest" in doer.steps
    assert started.facts is not None
    assert [(each.name, each.has_memory) for each in started.facts.snapshots] == [("before", False)]
    assert [(each.disk_id, each.name) for each in started.facts.disk_snapshots] == [(0, "own")]
    await count_reaches(driver, vm, before + 2)
    await answer(driver, vm, "cat /data/kept", "mine")
    await stored.report(vm_pb2.VM_PHASE_RUNNING, started, DesiredState.DESIRED_STATE_RUNNING)
    await eventually(lambda: not stored.volumes().is_in_datastore, what="the datastore forgets it")

    assert (await doer.do(Deed.PLUG, vm)).is_done
    assert (await doer.do(Deed.START, vm)).is_done, "the old order again: nothing is fetched a second time"
    assert doer.steps[-1] == "start_guest"
    await answer(driver, vm, "cat /data/kept", "mine")


async def test_a_start_from_a_datastore_that_fails_leaves_nothing_and_can_be_repeated(
    driver: LibvirtDriver, stored: Stored, folder: Path, shelf: Path
) -> None:
    doer, vm = Doer(driver), stored.vm
    assert (await doer.do(Deed.START, vm)).is_done
    assert (await doer.do(Deed.PLUG, vm)).is_done
    uploaded = await doer.do(Deed.UPLOAD, vm)
    await stored.report(vm_pb2.VM_PHASE_SAVED, uploaded, DesiredState.DESIRED_STATE_UNDEPLOYED)
    await eventually(lambda: stored.volumes().is_in_datastore)
    assert (await doer.do(Deed.ERASE, vm)).is_done
    vm.epoch = 2
    vm.volumes.CopyFrom(stored.volumes())
    file = next((shelf / "saved" / vm.uid / "1").iterdir())
    aside = file.rename(file.with_name("aside"))
    failed = await doer.do(Deed.START, vm)
    assert (failed.is_done, failed.reason) == (False, Reason.TRANSFER_FAILED)
    assert list((folder / "node" / "vms").glob(vm.uid)) == []
    aside.rename(file)
    assert (await doer.do(Deed.START, vm)).is_done


async def test_an_upload_without_a_way_or_without_room_fails_and_keeps_all(
    driver: LibvirtDriver, stored: Stored
) -> None:
    doer, vm = Doer(driver), stored.vm
    assert (await doer.do(Deed.START, vm)).is_done
    running = await doer.do(Deed.UPLOAD, vm)
    assert running.reason is Reason.STATE_FORBIDS
    assert (await doer.do(Deed.PLUG, vm)).is_done
    vm.datastore.address, address = "127.0.0.1:1", vm.datastore.address
    failed = await doer.do(Deed.UPLOAD, vm)
    assert (failed.is_done, failed.reason) == (False, Reason.UPLOAD_FAILED)
    vm.datastore.address = address
    assert (await doer.do(Deed.UPLOAD, vm)).is_done


async def test_a_disk_is_saved_as_an_image_while_the_guest_runs_and_while_it_is_off(
    driver: LibvirtDriver, stored: Stored, images: Images, folder: Path, shelf: Path
) -> None:
    doer, vm = Doer(driver), stored.vm
    assert (await doer.do(Deed.START, vm)).is_done
    await says(driver, vm, " ready")
    await answer(driver, vm, "echo mine > /data/kept; sync; echo written-$((1+1))", "written-2")
    save = operation(OperationKind.OPERATION_KIND_SAVE_DISK, disk_id=0, image_name="golden")
    before = await last_count(driver, vm)
    made = await doer.operate(vm, save)
    assert made.is_done, made
    found = await images.by(USER).get(int(made.results["image_id"]))
    assert (found.spec.name, found.spec.owner_id) == ("golden", USER.user_id)
    await count_reaches(driver, vm, before + 3)
    assert not list((folder / "node" / "vms" / vm.uid).glob("export*"))
    twice = operation(OperationKind.OPERATION_KIND_SAVE_DISK, disk_id=0, image_name="golden")
    refused = await doer.operate(vm, twice)
    assert (refused.is_done, "golden" in refused.message) == (False, True)

    assert (await doer.do(Deed.PLUG, vm)).is_done
    off = await doer.operate(vm, operation(OperationKind.OPERATION_KIND_SAVE_DISK, disk_id=0, image_name="cold"))
    assert off.is_done, off
    copy = counting(shelf / found.status.path, vm_id=8)
    copy.volumes.disks[0].image_uid, copy.volumes.disks[0].image_id = found.spec.uid, found.id
    copy.volumes.disks[0].datastore_id = 1
    assert (await doer.do(Deed.START, copy)).is_done
    await answer(driver, copy, "cat /data/kept", "mine")
