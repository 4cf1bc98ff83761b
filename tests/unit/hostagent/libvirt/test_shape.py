"""XML of domains that are there: devices found, fitted in, and moved to another node."""

from __future__ import annotations

from pathlib import Path

from services.hostagent.drivers.libvirt import shape
from services.hostagent.drivers.libvirt.saving import former_folder
from services.hostagent.drivers.libvirt.spec import Mark
from services.hostagent.drivers.libvirt.xml import parse

UID = "0b8d2c1e-0000-4000-8000-000000000001"
HERE, THERE = Path(f"/var/a/vms/{UID}"), Path(f"/srv/b/vms/{UID}")
XML = f"""<domain type='qemu'><name>moln-7</name><uuid>{UID}</uuid>
<metadata><m:vm xmlns:m='urn:moln:domain:1' id='7' uid='{UID}' epoch='1' cloud='c'/></metadata>
<memory unit='MiB'>128</memory><currentMemory unit='KiB'>98304</currentMemory><vcpu current='1'>4</vcpu>
<devices>
<disk type='file' device='disk'><source file='{HERE}/disk-0.qcow2'/><target dev='vda' bus='virtio'/>
<backingStore type='file'><source file='/var/a/cache/i.qcow2'/></backingStore><boot order='1'/></disk>
<disk type='file' device='cdrom'><source file='{HERE}/context.iso'/><target dev='hda' bus='ide'/><readonly/></disk>
<interface type='bridge'><mac address='02:00:0a:62:00:07'/><source bridge='old'/>
<target dev='mt0b8d2c1e-0'/></interface>
<serial type='pty'><log file='{HERE}/console.log' append='on'/></serial>
</devices></domain>"""


def test_a_moved_domain_has_the_new_paths_bridges_and_mark_and_is_otherwise_the_same() -> None:
    moved = shape.adapted(
        XML, Mark(7, UID, 2, "c"), here=HERE, there=THERE, bridges=[("02:00:0a:62:00:07", "new")]
    )  # fmt: skip
    assert str(HERE) not in moved
    domain = parse(moved)
    disk = shape.find_disk(domain, 0)
    assert disk is not None
    assert shape.source_of(disk) == THERE / "disk-0.qcow2"
    assert disk.find("backingStore") is None
    assert [source.get("bridge") for source in domain.iterfind("devices/interface/source")] == ["new"]
    marks = domain.findall("metadata/{urn:moln:domain:1}vm")
    assert [mark.get("epoch") for mark in marks] == ["2"]
    assert shape.shape_of(domain) == shape.shape_of(parse(XML))


def test_the_folder_where_a_guest_was_is_read_from_its_devices() -> None:
    assert former_folder(XML, UID) == str(HERE)
    assert former_folder("<domain/>", UID) == ""


def test_devices_are_found_by_what_they_are() -> None:
    domain = parse(XML)
    assert shape.find_disk(domain, 1) is None
    assert shape.find_cdrom(domain, HERE / "context.iso") is not None
    assert shape.find_nic(domain, device="mt0b8d2c1e-0", mac="") is not None
    assert shape.find_nic(domain, device="", mac="02:00:0A:62:00:07") is not None
    assert shape.find_nic(domain, device="mt0b8d2c1e-1", mac="") is None


def test_a_disk_that_is_plugged_in_gets_a_free_name_and_no_place_in_the_boot_order() -> None:
    domain = parse(XML)
    disk = shape.find_disk(parse(XML), 0)
    assert disk is not None
    plugged = parse(shape.plugged(disk, domain))
    assert shape.target_of(plugged) == "vdb"
    assert plugged.find("boot") is None


def test_an_emptied_drive_is_found_again() -> None:
    domain = parse(XML)
    drive = shape.find_cdrom(domain, HERE / "context.iso")
    assert drive is not None
    assert shape.source_of(parse(shape.with_media(drive, None))) is None
    assert shape.find_cdrom(domain, HERE / "context.iso") is drive
    assert shape.source_of(parse(shape.with_media(drive, Path("/x.iso")))) == Path("/x.iso")


def test_sizes_are_read_in_every_unit_and_differences_are_told() -> None:
    domain = parse(XML)
    assert (shape.memory_kib(domain, "memory"), shape.memory_kib(domain, "currentMemory")) == (131072, 98304)
    assert shape.max_vcpus(domain) == 4
    was, now = shape.shape_of(domain), shape.shape_of(parse(XML.replace("current='1'", "current='2'")))
    assert was.difference(was) == ""
    assert was.difference(now) == "it had 1 vCPUs then and has 2 now"
    other = shape.shape_of(parse(XML.replace("disk-0.qcow2", "disk-3.qcow2")))
    assert was.difference(other) == "it has not the same devices: disk-0.qcow2, disk-3.qcow2"
