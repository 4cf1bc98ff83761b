"""A real libvirt takes what the driver makes: every shape by QEMU's driver, and what others can by theirs."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from services.hostagent.drivers.libvirt.compose import compose
from services.hostagent.drivers.libvirt.connection import Flags, HypervisorError, LibvirtConnection, Raw
from services.hostagent.drivers.libvirt.inventory import read_facts
from services.hostagent.drivers.libvirt.pci import read_devices
from services.hostagent.drivers.libvirt.xml import domain_xml
from tests.support.real import real_part
from tests.unit.hostagent.libvirt.shapes import ENDPOINTS, FOLDER, SHAPES, shaped


@pytest.fixture
async def hypervisor(uri: str) -> AsyncIterator[LibvirtConnection]:
    connection = LibvirtConnection(uri)
    yield connection
    await connection.close()


def define(xml: str) -> Callable[[Raw], str]:
    """Defines the domain, checked against the schema of the libvirt that is asked, and forgets it again."""

    def work(raw: Raw) -> str:
        domain = raw.defineXMLFlags(xml, Flags.DEFINE_VALIDATE)
        try:
            return str(domain.XMLDesc())
        finally:
            if raw.getType() == "QEMU":
                domain.undefineFlags(Flags.UNDEFINE_ALL | Flags.KEEP_NVRAM)
            else:
                domain.undefine()

    return work


@pytest.mark.feature("*", "defined")
async def test_qemu_takes_every_shape(hypervisor: LibvirtConnection) -> None:
    refused = {}
    for name, fields in SHAPES.items():
        spec = compose(shaped(fields), FOLDER, ENDPOINTS["qemu"])
        try:
            await hypervisor.call(define(domain_xml(spec)), what=name)
        except HypervisorError as err:
            refused[name] = err.message
    assert refused == {}


@pytest.mark.feature("test hypervisor", "defined")
async def test_the_test_hypervisor_takes_what_it_is_said_to_take() -> None:
    connection = LibvirtConnection("test:///default")
    for name in ("plain", "cpu weight", "vcpus", "disk cache"):
        spec = compose(shaped(SHAPES[name]), FOLDER, ENDPOINTS["test"])
        await connection.call(define(domain_xml(spec)), what=name)
    await connection.close()


@pytest.mark.feature("LXC", "defined")
async def test_lxc_takes_a_container(uri: str) -> None:
    connection = LibvirtConnection(uri.replace("qemu+unix", "lxc+unix"))
    try:
        facts = await connection.call(read_facts, what="asking")
    except HypervisorError as err:
        problem = err.message
        real_part("libvirt's LXC driver", lambda: problem)
        raise
    spec = compose(shaped({"disks": [{"size_mib": 1}]}), FOLDER, replace(ENDPOINTS["lxc"], architecture="x86_64"))
    seen = await connection.call(define(domain_xml(spec)), what="defining")
    assert facts.hypervisor == "lxc"
    assert "/mnt/context" in seen
    await connection.close()


async def test_libvirt_refuses_raw_xml_that_is_wrong_where_that_is_asked_for(hypervisor: LibvirtConnection) -> None:
    vm = shaped({"raw": {"libvirt_xml": "<features><teleport/></features>", "is_validated": True}})
    spec = compose(vm, FOLDER, ENDPOINTS["qemu"])
    assert spec.is_validated
    with pytest.raises(HypervisorError, match="teleport|schema|valid"):
        await hypervisor.call(define(domain_xml(spec)), what=str(uuid.uuid4()))


async def test_devices_of_this_machine_are_listed_by_the_vendor_that_is_named(hypervisor: LibvirtConnection) -> None:
    found = {path.name: (path / "vendor").read_text().strip()[2:] for path in Path("/sys/bus/pci/devices").iterdir()}
    real_part("PCI devices", lambda: None if found else "this machine has none")
    devices = await hypervisor.call(lambda raw: read_devices(raw, sorted(set(found.values()))), what="listing")
    assert {device.address: device.vendor for device in devices}.items() <= found.items()
    assert len(devices) == sum(not is_bridge(address) for address in found)


def is_bridge(address: str) -> bool:
    return Path(f"/sys/bus/pci/devices/{address}/class").read_text().startswith("0x06")
