"""Guests that moln did not create: listed as they are, moln's own left out, and nothing changed by it."""

from __future__ import annotations

import re
import uuid
from collections.abc import AsyncIterator

import pytest

from moln.node.v1.node_service_pb2 import VmOrder
from services.common.domain.reasons import Reason
from services.hostagent.drivers.libvirt.connection import LibvirtConnection, LiveFlags, Raw
from services.hostagent.drivers.libvirt.driver import LibvirtDriver
from services.hostagent.drivers.ports import DONE, Deed, Power
from tests.support.deeds import Doer
from tests.support.hypervisor import order

GUEST = str(uuid.uuid4())
XML = f"""<domain type='qemu'>
<name>legacy &lt;db&gt;</name><uuid>{GUEST}</uuid><memory unit='MiB'>32</memory><vcpu>2</vcpu>
<os><type arch='x86_64' machine='pc'>hvm</type></os>
<devices>
<disk type='file' device='cdrom'><target dev='hda' bus='ide'/><readonly/></disk>
<disk type='file' device='disk'><source file='/srv/legacy.img'/><target dev='vda' bus='virtio'/></disk>
<interface type='user'><mac address='52:54:00:00:00:07'/><model type='e1000'/></interface>
</devices></domain>"""
MARK = "<metadata><moln:vm xmlns:moln='urn:moln:domain:1' id='1' uid='u' epoch='1' cloud='another'/></metadata><os>"
THEIRS = str(uuid.uuid4())
MARKED = XML.replace(GUEST, THEIRS).replace("legacy &lt;db&gt;", "theirs").replace("<os>", MARK)


@pytest.fixture
async def hypervisor(uri: str) -> AsyncIterator[LibvirtConnection]:
    """With two guests of others, which are off."""
    connection = LibvirtConnection(uri)
    for xml in (XML, MARKED):
        await connection.call(lambda raw, xml=xml: raw.defineXML(xml), what="defining")  # type: ignore[misc]
    yield connection
    await connection.call(_forget_all, what="forgetting")
    await connection.close()


@pytest.fixture
async def runnable(hypervisor: LibvirtConnection) -> LibvirtConnection:
    """The first guest without a disk, so that it can be started."""
    xml = re.sub("<disk type='file' device='disk'>.*</disk>", "", XML)
    await hypervisor.call(lambda raw: raw.defineXML(xml), what="defining")
    return hypervisor


def _definition(raw: Raw) -> str:
    """libvirt leaves an empty element where the mark was."""
    return str(raw.lookupByUUIDString(GUEST).XMLDesc(LiveFlags.INACTIVE)).replace("  <metadata/>\n", "")


def _domain_id(raw: Raw) -> int:
    return int(raw.lookupByUUIDString(GUEST).ID())


def _forget_all(raw: Raw) -> None:
    for domain in raw.listAllDomains():
        if domain.name() in ("legacy <db>", "theirs"):
            if domain.isActive():
                domain.destroy()
            domain.undefine()


def _descriptions(raw: Raw) -> dict[str, str]:
    return {domain.name(): domain.XMLDesc() for domain in raw.listAllDomains()}


@pytest.mark.feature("guests of others", "run")
async def test_guests_of_others_are_listed_and_moln_s_own_are_not(
    hypervisor: LibvirtConnection, driver: LibvirtDriver
) -> None:
    own = order(None)
    own.spec.template.memory_mib = 32
    assert (await Doer(driver).do(Deed.START, own)).is_done
    before = await hypervisor.call(_descriptions, what="asking")

    found = await driver.foreign.list_guests(1)

    assert not found.is_truncated
    legacy, theirs = found.guests
    assert (legacy.name, legacy.uuid, legacy.state) == ("legacy <db>", GUEST, "off")
    assert (legacy.vcpus, legacy.memory_mib, legacy.is_persistent, legacy.is_autostarted) == (2, 32, True, False)
    assert [(disk.target, disk.bus, disk.source, disk.device) for disk in legacy.disks] == [
        ("hda", "ide", "", "cdrom"),
        ("vda", "virtio", "/srv/legacy.img", "disk"),
    ]
    assert [(nic.mac, nic.model, nic.source) for nic in legacy.nics] == [("52:54:00:00:00:07", "e1000", "user")]
    assert (theirs.name, theirs.cloud_uid, legacy.cloud_uid) == ("theirs", "another", "")
    assert await hypervisor.call(_descriptions, what="asking") == before, "nothing is changed by looking"


async def test_nothing_that_moln_does_reaches_guests_of_others(
    hypervisor: LibvirtConnection, driver: LibvirtDriver
) -> None:
    assert await driver.look(1) == []
    assert len((await driver.foreign.list_guests(1)).guests) == 2


def imported(vm_id: int = 7) -> VmOrder:
    """An order of the VM that the first guest has become."""
    vm = order(None, vm_id=vm_id)
    vm.uid = GUEST
    vm.spec.imported_as = "legacy <db>"
    return vm


def _marked(raw: Raw) -> str:
    return str(raw.lookupByUUIDString(GUEST).XMLDesc())


@pytest.mark.feature("guests of others that are imported", "run")
async def test_an_imported_guest_is_marked_ended_and_started_as_it_is_defined_and_given_back_unchanged(
    runnable: LibvirtConnection, driver: LibvirtDriver
) -> None:
    before = await runnable.call(_definition, what="asking")
    doer, vm = Doer(driver), imported()
    assert (await doer.do(Deed.START, vm)).is_done
    pid = await runnable.call(_domain_id, what="asking")
    assert (await doer.do(Deed.START, vm)).is_done, "repeated it goes on"
    assert await runnable.call(_domain_id, what="asking") == pid
    assert await doer.power(vm) is Power.RUNNING
    assert (await driver.foreign.list_guests(1)).guests[0].name == "theirs", "it is no longer another's"

    vm.epoch = 2
    for deed in (Deed.PLUG, Deed.START, Deed.SHUT_DOWN):
        assert (await doer.do(deed, vm, grace_s=0.5)).is_done
    assert await doer.power(vm) is Power.OFF
    assert 'epoch="2"' in (marked := await runnable.call(_marked, what="asking")) and 'imported="yes"' in marked

    assert (await doer.do(Deed.START, vm)).is_done
    assert await doer.do(Deed.ERASE, vm) == DONE
    assert await doer.do(Deed.ERASE, vm) == DONE
    assert await doer.power(vm) is Power.ABSENT
    assert await runnable.call(_definition, what="asking") == before, "defined as before, and without a mark"


async def test_a_running_guest_is_imported_without_being_disturbed(
    runnable: LibvirtConnection, driver: LibvirtDriver
) -> None:
    await runnable.call(lambda raw: raw.lookupByUUIDString(GUEST).create(), what="starting")
    before = await runnable.call(_domain_id, what="asking")
    assert (await Doer(driver).do(Deed.START, imported())).is_done
    assert await runnable.call(_domain_id, what="asking") == before
    (seen,) = await driver.look(1)
    assert (seen.vm_id, seen.uid, seen.power) == (7, GUEST, Power.RUNNING)


async def test_an_imported_guest_that_was_undefined_is_not_defined_by_moln(
    runnable: LibvirtConnection, driver: LibvirtDriver
) -> None:
    doer, vm = Doer(driver), imported()
    assert (await doer.do(Deed.START, vm)).is_done
    assert (await doer.do(Deed.PLUG, vm)).is_done
    await runnable.call(lambda raw: raw.lookupByUUIDString(GUEST).undefine(), what="undefining")
    refused = await doer.do(Deed.START, vm)
    assert (refused.is_done, refused.reason) == (False, Reason.START_FAILED)
    assert "not defined on this host any more" in refused.message
    assert await doer.do(Deed.ERASE, vm) == DONE


async def test_another_clouds_guest_is_not_adopted(hypervisor: LibvirtConnection, driver: LibvirtDriver) -> None:
    before = await hypervisor.call(_descriptions, what="asking")
    vm = imported()
    vm.uid = THEIRS
    refused = await Doer(driver).do(Deed.START, vm)
    assert (refused.is_done, refused.reason) == (False, Reason.START_FAILED)
    assert "the mark of another cloud" in refused.message
    assert await hypervisor.call(_descriptions, what="asking") == before


async def test_a_vm_whose_uid_is_anothers_guest_is_not_started_over_it_and_its_end_does_not_touch_it(
    hypervisor: LibvirtConnection, driver: LibvirtDriver
) -> None:
    before = await hypervisor.call(_descriptions, what="asking")
    vm = order(None)
    vm.uid = GUEST
    refused = await Doer(driver).do(Deed.START, vm)
    assert (refused.is_done, refused.reason) == (False, Reason.START_FAILED)
    assert "not moln's own" in refused.message
    for deed in (Deed.SHUT_DOWN, Deed.PLUG, Deed.ERASE):
        assert await Doer(driver).do(deed, vm) == DONE
    assert await hypervisor.call(_descriptions, what="asking") == before
