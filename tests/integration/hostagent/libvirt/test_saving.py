"""Suspend and resume on a real QEMU: a guest that counts goes on counting, and what a crash leaves is settled."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from moln.node.v1.node_service_pb2 import VmOrder
from services.common.domain.reasons import Reason
from services.hostagent.drivers.libvirt.driver import DriverOptions, LibvirtDriver
from services.hostagent.drivers.ports import Deed, Power
from tests.integration.hostagent.libvirt.conftest import pieces_of
from tests.integration.hostagent.libvirt.guests_at_work import count_reaches, counting, last_count, says
from tests.support.deeds import Doer
from tests.support.hypervisor import CLOUD, add_nic, order

pytestmark = pytest.mark.timeout(300)


async def test_a_suspended_guest_goes_on_where_it_was(driver: LibvirtDriver, image: Path, bridge: str) -> None:
    doer, vm = Doer(driver), counting(image)
    add_nic(vm, "10.98.0.21", bridge=bridge)
    assert (await doer.do(Deed.START, vm)).is_done
    await count_reaches(driver, vm, 3)

    assert (await doer.do(Deed.SUSPEND, vm)).is_done
    assert await doer.power(vm) is Power.SAVED
    before = await last_count(driver, vm)
    assert (await doer.do(Deed.SUSPEND, vm)).is_done, "repeated it is saved already"
    assert await last_count(driver, vm) == before

    vm.epoch = 2
    assert (await doer.do(Deed.START, vm)).is_done
    assert doer.steps[-1] == "restore_guest"
    assert await doer.power(vm) is Power.RUNNING
    await count_reaches(driver, vm, before + 3)
    assert (await says(driver, vm, "count")).count(" ready") == 1, "it was not booted again"
    assert not memory_of(folder_of(image) / "node", vm)


async def test_a_restore_that_fails_keeps_the_memory_and_says_why(driver: LibvirtDriver, image: Path) -> None:
    doer, vm = Doer(driver), counting(image)
    assert (await doer.do(Deed.START, vm)).is_done
    await count_reaches(driver, vm, 2)
    assert (await doer.do(Deed.SUSPEND, vm)).is_done
    disk = folder_of(image) / "node" / "vms" / vm.uid / "disk-0.qcow2"
    aside = disk.rename(disk.with_name("aside"))
    disk.write_bytes(b"no disk at all")
    outcome = await doer.do(Deed.START, vm)
    assert (outcome.is_done, outcome.reason, outcome.step) == (False, Reason.START_FAILED, "restore_guest")
    assert "not in qcow2 format" in outcome.message
    assert await doer.power(vm) is Power.SAVED
    aside.replace(disk)
    before = await last_count(driver, vm)
    assert (await doer.do(Deed.START, vm)).is_done
    await count_reaches(driver, vm, before + 1)


async def test_the_plug_drops_memory_that_was_saved(driver: LibvirtDriver, image: Path) -> None:
    doer, vm = Doer(driver), counting(image)
    await doer.do(Deed.START, vm)
    await count_reaches(driver, vm, 1)
    await doer.do(Deed.SUSPEND, vm)
    assert (await doer.do(Deed.PLUG, vm)).is_done
    assert await doer.power(vm) is Power.OFF
    assert (await doer.do(Deed.START, vm)).is_done
    assert doer.steps[-1] == "start_guest"


async def test_a_save_that_outlived_its_agent_is_found_by_the_next(driver: LibvirtDriver, image: Path) -> None:
    """The hypervisor ends what it has begun; the agent that asked for it is no more, and the file has not its name."""
    doer, vm = Doer(driver), counting(image)
    await doer.do(Deed.START, vm)
    await count_reaches(driver, vm, 2)
    await doer.do(Deed.SUSPEND, vm)
    folder = folder_of(image) / "node" / "vms" / vm.uid
    await doer.do(Deed.START, vm)
    await count_reaches(driver, vm, 4)
    await driver._guests.live.save(vm.uid, folder / "memory.part", lambda _percent: None)
    assert await doer.power(vm) is Power.SAVED
    assert (await doer.do(Deed.SUSPEND, vm)).is_done
    before = await last_count(driver, vm)
    assert (await doer.do(Deed.START, vm)).is_done
    await count_reaches(driver, vm, before + 2)


async def test_an_interrupted_save_leaves_the_guest_running_or_saved(driver: LibvirtDriver, image: Path) -> None:
    doer, vm = Doer(driver), counting(image)
    await doer.do(Deed.START, vm)
    await count_reaches(driver, vm, 2)
    ended = doer.begin(Deed.SUSPEND, vm)
    await asyncio.sleep(0)
    driver.interrupt(1, vm.vm_id)
    assert (await ended).was_interrupted
    power = await doer.power(vm)
    assert power in (Power.RUNNING, Power.SAVED)
    if power is Power.SAVED:
        assert (await doer.do(Deed.START, vm)).is_done
    before = await last_count(driver, vm)
    await count_reaches(driver, vm, before + 2)


async def test_a_guest_that_is_off_cannot_be_suspended(driver: LibvirtDriver) -> None:
    outcome = await Doer(driver).do(Deed.SUSPEND, order(None))
    assert (outcome.is_done, outcome.reason) == (False, Reason.SAVE_FAILED)


async def test_the_test_hypervisor_suspends_and_resumes(folder: Path) -> None:
    options = DriverOptions(1, CLOUD, folder, "test:///default")
    async with LibvirtDriver(options, pieces_of(folder)) as driver:
        doer, vm = Doer(driver), order(None)
        assert (await doer.do(Deed.START, vm)).is_done
        assert (await doer.do(Deed.SUSPEND, vm)).is_done
        assert await doer.power(vm) is Power.SAVED
        assert (await doer.do(Deed.START, vm)).is_done
        assert await doer.power(vm) is Power.RUNNING
        assert (await doer.do(Deed.SUSPEND, vm)).is_done
        assert (await doer.do(Deed.ERASE, vm)).is_done
        assert await doer.power(vm) is Power.ABSENT


def folder_of(image: Path) -> Path:
    return image.parent.parent


def memory_of(state: Path, vm: VmOrder) -> list[Path]:
    return list((state / "vms" / vm.uid).glob("memory*"))
