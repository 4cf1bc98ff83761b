"""Shapes of guests on a real QEMU: what was asked for is seen inside the guest, or is what the hypervisor then runs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

import pytest
from google.protobuf.json_format import ParseDict

from moln.node.v1.node_service_pb2 import VmOrder
from services.devstack.guestimage import boot_files
from services.hostagent.drivers.libvirt.connection import LibvirtConnection
from services.hostagent.drivers.libvirt.driver import LibvirtDriver
from services.hostagent.drivers.libvirt.xml import memory_xml, parse
from services.hostagent.drivers.ports import Deed, Power
from tests.support.deeds import Doer
from tests.support.eventually import eventually
from tests.support.hypervisor import order

pytestmark = pytest.mark.timeout(300)
BOOT_SECONDS = 150.0
SECTOR = 512
# Facts that the guest prints about itself, as `fact NAME VALUE`.
SCRIPT = """\
fact() { echo "fact $1 $2"; }
fact online "$(nproc)"
fact possible "$(cat /sys/devices/system/cpu/possible)"
fact sockets "$(sed -n 's/^physical id.*: //p' /proc/cpuinfo | sort -u | wc -l)"
fact cores "$(sed -n 's/^cpu cores.*: //p' /proc/cpuinfo | sort -u)"
fact siblings "$(sed -n 's/^siblings.*: //p' /proc/cpuinfo | sort -u)"
fact model "$(sed -n 's/^model name.*: //p' /proc/cpuinfo | sort -u)"
fact nodes "$(ls -d /sys/devices/system/node/node* | wc -l)"
fact flags "$(sed -n 's/^flags.*: //p' /proc/cpuinfo | sort -u)"
fact blocks "$(ls /sys/block | tr '\\n' ' ')"
fact readonly "$(cat /sys/block/vdb/ro)"
fact efi "$([ -d /sys/firmware/efi ] && echo yes || echo no)"
fact tpm "$(cat /sys/class/tpm/tpm0/tpm_version_major)"
fact machine "$(cat /sys/class/dmi/id/product_name)"
fact vendor "$(cat /sys/class/dmi/id/bios_vendor)"
fact command "$(cat /proc/cmdline)"
fact balloon "$(grep -l 0x0005 /sys/bus/virtio/devices/*/device | wc -l)"
fact display "$(grep -l '^0x0300' /sys/bus/pci/devices/*/class | wc -l)"
fact sections "$(ls -d /sys/devices/system/memory/memory* | wc -l)"
"""


def shaped(vm: VmOrder, **fields: Any) -> VmOrder:
    ParseDict(fields, vm.spec.template)
    for number, disk in enumerate(vm.spec.template.disks):
        disk.disk_id = number
    vm.spec.template.context.start_script = SCRIPT
    return vm


async def facts_of(driver: LibvirtDriver, vm: VmOrder) -> dict[str, str]:
    """What the guest says of itself, once it has said all."""

    async def said() -> dict[str, str]:
        log = (await driver.console_log(1, vm.uid, 0)).decode(errors="replace")
        found = re.findall(r"fact (\w+) ?(.*?)\s*$", log, re.MULTILINE)
        return dict(found) if " ready" in log else {}

    return await eventually(said, within=BOOT_SECONDS, what="the guest tells its facts")


async def running(uri: str, vm: VmOrder) -> Element:
    """The domain as the hypervisor runs it."""
    connection = LibvirtConnection(uri)
    try:
        return parse(await connection.call(lambda raw: raw.lookupByUUIDString(vm.uid).XMLDesc(), what="asking"))
    finally:
        await connection.close()


@pytest.mark.feature("plain", "run")
@pytest.mark.feature("vcpus", "run")
@pytest.mark.feature("more vcpus later", "run")
@pytest.mark.feature("cpu topology", "run")
@pytest.mark.feature("cpu model", "run")
@pytest.mark.feature("cpu features", "run")
@pytest.mark.feature("more memory later", "run")
@pytest.mark.feature("numa nodes", "run")
@pytest.mark.feature("pinning", "run")
@pytest.mark.feature("disk on scsi", "run")
@pytest.mark.feature("disk on ide", "run")
@pytest.mark.feature("disk cache", "run")
@pytest.mark.feature("disk discard", "run")
@pytest.mark.feature("disk limits", "run")
@pytest.mark.feature("read-only disk", "run")
@pytest.mark.feature("cd-rom", "run")
@pytest.mark.feature("vnc", "run")
@pytest.mark.feature("video model", "run")
@pytest.mark.feature("raw xml", "run")
async def test_a_guest_sees_its_cpus_its_memory_and_its_disks(driver: LibvirtDriver, image: Path, uri: str) -> None:
    limits = {"read_iops": "5000", "write_bytes_per_s": "50000000"}
    vm = shaped(
        order(image),
        vcpus=2,
        cpu={"max_vcpus": 4, "cores": 2, "model": "Nehalem", "features": ["-sse4.2"], "pinning": "shared"},
        memory={"max_memory_mib": "512", "numa_nodes": 2},
        memory_mib="256",
        graphics={"type": "vnc", "video": "vga", "inputs": ["tablet"]},
        raw={"libvirt_xml": "<sysinfo type='smbios'><bios><entry name='vendor'>Acme</entry></bios></sysinfo>"
             "<os><smbios mode='sysinfo'/></os>"},
    )  # fmt: skip
    vm.placement.granted.numa_nodes.extend([0, 0])  # this machine has one node
    disks = vm.spec.template.disks
    disks[0].cache, disks[0].discard = "unsafe", "unmap"
    ParseDict(limits, disks[0].io_limits)
    disks.add(disk_id=1, size_mib=1, is_read_only=True)
    disks.add(disk_id=2, size_mib=2, bus="scsi")
    disks.add(disk_id=3, size_mib=3, bus="ide")
    doer = Doer(driver)
    assert (await doer.do(Deed.START, vm)).is_done

    facts = await facts_of(driver, vm)
    assert (facts["online"], facts["possible"]) == ("2", "0-3")
    assert (facts["cores"], facts["siblings"]) == ("2", "2")
    assert "Nehalem" in facts["model"]
    assert facts["nodes"] == "2"
    assert "sse4_1" in facts["flags"].split()
    assert "sse4_2" not in facts["flags"].split()
    assert {"vda", "vdb", "sda", "sdb", "sr0"} <= set(facts["blocks"].split())
    assert facts["readonly"] == "1"
    assert (facts["vendor"], facts["balloon"], facts["display"]) == ("Acme", "1", "1")

    domain = await running(uri, vm)
    tune = domain.find("devices/disk/iotune")
    assert tune is not None
    assert {limit.tag: limit.text for limit in tune} == {"read_iops_sec": "5000", "write_bytes_sec": "50000000"}
    assert domain.find("cputune/vcpupin") is not None
    assert [element.get("nodeset") for element in domain.findall("numatune/memory")] == ["0"]
    await check_plugged_memory(driver, vm, uri, int(facts["sections"]))


async def check_plugged_memory(driver: LibvirtDriver, vm: VmOrder, uri: str, before: int) -> None:
    """The guest has room for more, and sees it come."""
    connection = LibvirtConnection(uri)
    await connection.call(lambda raw: raw.lookupByUUIDString(vm.uid).attachDevice(memory_xml(128)), what="plugging")
    await connection.close()
    console = await driver.open_console(1, vm.uid)
    words = "ls -d /sys/devices/system/memory/memory* | wc -l | sed 's/^/now-/'\n"

    async def grown() -> bool:
        await console.write(words.encode())
        log = (await driver.console_log(1, vm.uid, 0)).decode(errors="replace")
        return any(int(count) > before for count in re.findall(r"now-(\d+)", log))

    await eventually(grown, within=60, what="the guest sees more memory")
    await console.close()


@pytest.mark.feature("uefi", "run")
@pytest.mark.feature("tpm", "run")
@pytest.mark.feature("kernel boot", "run")
@pytest.mark.feature("machine type", "run")
@pytest.mark.feature("no balloon", "run")
async def test_a_guest_boots_a_kernel_by_uefi_and_finds_a_tpm(
    driver: LibvirtDriver, datastore: Path, uri: str, folder: Path
) -> None:
    vm = shaped(
        order(None),
        memory_mib="192",
        memory={"no_balloon": True},
        boot={"firmware": "uefi", "has_tpm": True, "machine": "q35", "kernel_image": "linux",
              "kernel_arguments": "console=ttyS0 quiet moln.test=42"},
    )  # fmt: skip
    stage_kernel(vm, datastore)
    doer = Doer(driver)
    assert (await doer.do(Deed.START, vm)).is_done

    facts = await facts_of(driver, vm)
    assert "moln.test=42" in facts["command"]
    assert (facts["efi"], facts["tpm"], facts["balloon"]) == ("yes", "2", "0")
    assert "Q35" in facts["machine"]
    assert (folder / "node" / "vms" / vm.uid / "nvram.fd").exists()
    await check_state_stays_until_the_end(doer, vm, folder)


async def check_state_stays_until_the_end(doer: Doer, vm: VmOrder, folder: Path) -> None:
    """What the guest wrote into firmware and TPM outlives a power-off, and goes with the VM."""
    own = folder / "node" / "vms" / vm.uid
    tpm = folder / "libvirtd" / "lib" / "swtpm" / vm.uid
    assert (await doer.do(Deed.PLUG, vm)).is_done
    assert (own / "nvram.fd").exists()
    assert tpm.exists()
    assert (await doer.do(Deed.ERASE, vm)).is_done
    assert not own.exists()
    assert not tpm.exists()
    assert await doer.power(vm) is Power.ABSENT


def stage_kernel(vm: VmOrder, datastore: Path) -> None:
    """Puts the demo guest's kernel into the datastore, as raw images that the order names."""
    for name, volume in (("vmlinuz", vm.volumes.kernel), ("initrd.gz", vm.volumes.initrd)):
        content = boot_files()[name]
        path = datastore / name
        path.write_bytes(content + b"\0" * (-len(content) % SECTOR))
        volume.image_id, volume.source, volume.source_format = 5, str(path), "raw"
        volume.datastore_id = 1
    vm.intent.needs_volumes = True


@pytest.mark.feature("boot order", "run")
@pytest.mark.feature("spice", "run")
async def test_a_guest_boots_from_the_disk_that_is_named_first(driver: LibvirtDriver, image: Path) -> None:
    vm = shaped(order(image), graphics={"type": "spice", "inputs": ["mouse", "keyboard"]})
    disks = vm.spec.template.disks
    disks.add(disk_id=1).CopyFrom(disks[0])
    disks[1].disk_id = 1
    empty = vm.spec.template.disks[0]
    empty.disk_id, empty.size_mib = 9, 4
    vm.volumes.disks[0].disk_id = 1
    vm.spec.template.boot.order.append("disk1")
    assert (await Doer(driver).do(Deed.START, vm)).is_done
    assert "vdb" in (await facts_of(driver, vm))["blocks"]
