"""The libvirt driver on libvirt's own test hypervisor: no disks, no console, but the same deeds and looks."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.common.domain.errors import MolnError
from services.common.domain.reasons import Reason
from services.hostagent.drivers.libvirt.driver import DriverOptions, LibvirtDriver
from services.hostagent.drivers.ports import Deed, Power, Seen
from tests.integration.hostagent.libvirt.conftest import pieces_of
from tests.support.deeds import Doer
from tests.support.eventually import eventually
from tests.support.hypervisor import CLOUD, add_nic, order

URI = "test:///default"


def options(folder: Path, cloud_uid: str = CLOUD, uri: str = URI) -> DriverOptions:
    return DriverOptions(1, cloud_uid, folder, uri)


async def test_a_guest_lives_from_start_to_erase_and_its_changes_are_heard(folder: Path) -> None:
    async with LibvirtDriver(options(folder), pieces_of(folder)) as driver:
        doer, heard, vm = Doer(driver), list[Seen](), order(Path("/nowhere"))
        driver.listen(heard.append)
        add_nic(vm, "10.98.0.7", bridge="moln1")
        assert (await doer.do(Deed.START, vm)).is_done
        assert (await doer.do(Deed.START, vm)).is_done
        assert await doer.power(vm) is Power.RUNNING
        await eventually(lambda: heard and heard[-1].power is Power.RUNNING, what="the start is heard")
        assert (await doer.do(Deed.SHUT_DOWN, vm)).is_done
        assert await doer.power(vm) is Power.OFF
        assert (await doer.do(Deed.START, vm)).is_done
        assert (await doer.do(Deed.ERASE, vm)).is_done
        assert (await doer.do(Deed.ERASE, vm)).is_done
        assert await doer.power(vm) is Power.ABSENT


async def test_guests_of_others_are_never_seen(folder: Path) -> None:
    """The test hypervisor comes with a guest of its own; and another cloud may use the same one."""
    (folder / "a").mkdir()
    (folder / "b").mkdir()
    async with LibvirtDriver(options(folder / "a"), pieces_of(folder)) as driver:
        doer, vm = Doer(driver), order(None)
        await doer.do(Deed.START, vm)
        try:
            async with LibvirtDriver(options(folder / "b", "another-cloud"), pieces_of(folder)) as other:
                assert await other.look(1) == []
            assert len(await driver.look(1)) == 1
        finally:
            await doer.do(Deed.ERASE, vm)  # the hypervisor lives as long as this process


async def test_the_test_hypervisor_has_no_console_and_says_so(folder: Path) -> None:
    async with LibvirtDriver(options(folder), pieces_of(folder)) as driver:
        assert driver.capabilities == {"power", "suspend", "reboot", "resize"}
        facts = await driver.inventory(1, [])
        assert (facts.hypervisor, facts.memory_mib, len(facts.numa_nodes)) == ("test", 3072, 2)


async def test_a_hypervisor_that_does_not_answer_is_named_with_the_remedy(folder: Path) -> None:
    absent = f"qemu+unix:///system?socket={folder}/no-socket"
    with pytest.raises(MolnError, match="is libvirtd running") as refused:
        async with LibvirtDriver(options(folder, uri=absent), pieces_of(folder)):
            pytest.fail("it was opened")
    assert refused.value.reason is Reason.HYPERVISOR_FAILED
