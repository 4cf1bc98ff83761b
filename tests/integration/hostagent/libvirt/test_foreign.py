"""Guests that moln did not create: listed as they are, moln's own left out, and nothing changed by it."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator

import pytest

from services.common.domain.reasons import Reason
from services.hostagent.drivers.libvirt.connection import LibvirtConnection, Raw
from services.hostagent.drivers.libvirt.driver import LibvirtDriver
from services.hostagent.drivers.ports import DONE, Deed
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
MARKED = XML.replace(GUEST, str(uuid.uuid4())).replace("legacy &lt;db&gt;", "theirs").replace("<os>", MARK)


@pytest.fixture
async def hypervisor(uri: str) -> AsyncIterator[LibvirtConnection]:
    """With two guests of others, which are off."""
    connection = LibvirtConnection(uri)
    for xml in (XML, MARKED):
        await connection.call(lambda raw, xml=xml: raw.defineXML(xml), what="defining")  # type: ignore[misc]
    yield connection
    await connection.call(_forget_all, what="forgetting")
    await connection.close()


def _forget_all(raw: Raw) -> None:
    for domain in raw.listAllDomains():
        if domain.name() in ("legacy <db>", "theirs"):
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
