"""Load of real guests by one bulk call; one that hangs holds up nobody."""

from __future__ import annotations

import os
import signal
import time
import uuid
from pathlib import Path

from services.hostagent.drivers.libvirt.driver import DriverOptions, LibvirtDriver
from services.hostagent.drivers.ports import Deed
from tests.integration.hostagent.libvirt.conftest import pieces_of
from tests.integration.hostagent.libvirt.test_driver_qemu import empty_vm, pid_of
from tests.support.deeds import Doer
from tests.support.eventually import eventually
from tests.support.hypervisor import CLOUD, order


async def test_the_test_hypervisor_tells_states_and_the_machine(folder: Path) -> None:
    async with LibvirtDriver(DriverOptions(1, CLOUD, folder, "test:///default"), pieces_of(folder)) as driver:
        doer, vm = Doer(driver), order(None)
        assert (await doer.do(Deed.START, vm)).is_done
        sweep = await driver.sweep(1)
        assert [(guest.vm_id, guest.is_active, guest.cpu_ns) for guest in sweep.guests] == [(7, True, None)]
        assert (sweep.host.cpus, sweep.host.memory_total) == (16, 3072 << 20)
        assert sweep.host.disk_total
        assert (await doer.do(Deed.ERASE, vm)).is_done, "the hypervisor lives as long as this process"


async def test_cpu_memory_disks_and_the_machine_are_told_of_a_running_guest(driver: LibvirtDriver) -> None:
    assert (await Doer(driver).do(Deed.START, empty_vm())).is_done
    (guest,) = (await driver.sweep(1)).guests
    assert guest.is_active
    assert guest.cpu_ns
    assert guest.vcpus == 1
    assert guest.memory_max == guest.memory_current
    assert guest.memory_rss
    host = (await driver.sweep(1)).host
    assert host.cpu_busy_s
    assert 0 < host.memory_used < host.memory_total
    assert host.load1 is not None


async def test_a_guest_that_hangs_holds_up_the_others_for_a_moment_once(driver: LibvirtDriver) -> None:
    """Its QEMU is stopped, so that its monitor never answers."""
    hung, well = empty_vm(), empty_vm()
    well.vm_id, well.uid = 8, str(uuid.uuid4())
    for vm in (hung, well):
        assert (await Doer(driver).do(Deed.START, vm)).is_done
    os.kill(pid_of(hung.uid), signal.SIGSTOP)
    try:
        seconds = []
        for _ in range(3):
            began = time.monotonic()
            guests = {guest.vm_id: guest for guest in (await driver.sweep(1)).guests}
            seconds.append(time.monotonic() - began)
            assert guests[well.vm_id].memory_rss
            assert guests[hung.vm_id].is_active
        assert seconds[2] < 1.0, seconds
    finally:
        os.kill(pid_of(hung.uid), signal.SIGCONT)

    async def is_told() -> bool:
        return all(guest.memory_rss for guest in (await driver.sweep(1)).guests)

    await eventually(is_told, what="the guest is told of again")
