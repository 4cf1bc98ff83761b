"""The XML of a domain: what stands in it, and what never can."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from services.hostagent.drivers.libvirt.spec import (
    CpuSpec,
    Devices,
    DiskSpec,
    DomainSpec,
    GraphicsSpec,
    IoLimits,
    Mark,
    MemorySpec,
    NicSpec,
)
from services.hostagent.drivers.libvirt.xml import domain_xml, mark_xml, parse, parse_mark

MARK = Mark(7, "6f3ea5ee-6f3f-4b71-8b5c-0d4ee61b6d51", 3, "cloud-1")


def rendered(**changes: object) -> ElementTree.Element:
    values: dict[str, object] = {"mark": MARK, "name": "moln-7", "type": "qemu", "memory": MemorySpec(96), "vcpus": 2}
    return parse(domain_xml(DomainSpec(**{**values, **changes})))  # type: ignore[arg-type]


def test_a_domain_carries_a_mark_that_reads_back() -> None:
    metadata = rendered().find("metadata")
    assert metadata is not None
    assert parse_mark(ElementTree.tostring(metadata[0], encoding="unicode")) == MARK


def test_a_mark_of_something_else_is_no_mark() -> None:
    assert parse_mark("<vm/>") is None
    assert parse_mark("not xml") is None
    assert parse_mark("<vm id='x' uid='u' epoch='1' cloud='c'/>") is None


@pytest.mark.parametrize("is_imported", [False, True])
def test_a_mark_says_whether_others_made_the_guest(is_imported: bool) -> None:
    mark = Mark(7, "uid", 2, "cloud", is_imported)
    assert parse_mark(mark_xml(mark)) == mark
    assert ("imported" in mark_xml(mark)) == is_imported, "marks of moln's own guests are as they were"


def test_what_a_user_wrote_stays_text() -> None:
    name = """<&"']]>"""
    assert rendered(name=name).findtext("name") == name


def test_a_guest_that_ends_is_never_started_again_by_libvirt() -> None:
    domain = rendered()
    assert [domain.findtext(event) for event in ("on_poweroff", "on_reboot", "on_crash")] == [
        "destroy",
        "restart",
        "destroy",
    ]


def test_disks_state_their_format_and_limits() -> None:
    limits = IoLimits(total_iops=100)
    disk = DiskSpec(Path("/d"), "qcow2", "vda", "virtio", cache="none", serial="s", boot_order=1, limits=limits)
    found = rendered(disks=(disk,)).find("devices/disk")
    assert found is not None
    driver, boot = found.find("driver"), found.find("boot")
    assert driver is not None
    assert driver.attrib == {"name": "qemu", "type": "qcow2", "cache": "none"}
    assert boot is not None
    assert boot.get("order") == "1"
    assert found.findtext("iotune/total_iops_sec") == "100"
    assert found.find("readonly") is None


def test_a_cd_is_read_only() -> None:
    disk = DiskSpec(Path("/c"), "raw", "hda", "ide", is_cdrom=True)
    found = rendered(disks=(disk,)).find("devices/disk")
    assert found is not None
    assert found.get("device") == "cdrom"
    assert found.find("readonly") is not None


def test_an_interface_is_on_its_bridge_and_without_one_in_user_mode() -> None:
    nics = (NicSpec("02:00:00:00:00:01", "moln1", device="mt1", mtu=1400), NicSpec("02:00:00:00:00:02", ""))
    first, second = rendered(nics=nics).findall("devices/interface")
    assert (first.get("type"), second.get("type")) == ("bridge", "user")
    assert [child.tag for child in first] == ["mac", "source", "target", "model", "mtu"]


@pytest.mark.parametrize(
    ("cpu", "mode", "model"),
    [
        (CpuSpec(model="host-model"), "host-model", None),
        (CpuSpec(model="Skylake-Client"), "custom", "Skylake-Client"),
        (CpuSpec(sockets=1, cores=2), None, None),
    ],
)
def test_a_cpu_model_is_a_mode_or_a_name(cpu: CpuSpec, mode: str | None, model: str | None) -> None:
    found = rendered(cpu=cpu).find("cpu")
    assert found is not None
    assert (found.get("mode"), found.findtext("model")) == (mode, model)


def test_features_are_required_or_disabled() -> None:
    found = rendered(cpu=CpuSpec(model="host-model", features=("+vmx", "-svm"))).findall("cpu/feature")
    assert [(feature.get("policy"), feature.get("name")) for feature in found] == [
        ("require", "vmx"),
        ("disable", "svm"),
    ]


def test_a_screen_listens_nowhere_or_on_loopback() -> None:
    screen = GraphicsSpec("vnc", keymap="sv", inputs=("tablet",))
    found = rendered(graphics=screen).find("devices/graphics")
    assert found is not None
    assert found.get("listen") is None
    assert [child.attrib for child in found] == [{"type": "none"}]
    found = rendered(graphics=replace(screen, address="127.0.0.1")).find("devices/graphics")
    assert found is not None
    assert found.get("listen") == "127.0.0.1"


def test_the_console_is_kept_in_a_file() -> None:
    found = rendered(console_log=Path("/l"), devices=Devices(console="serial")).find("devices/serial/log")
    assert found is not None
    assert found.attrib == {"file": "/l", "append": "on"}


def test_the_test_hypervisor_gets_only_what_it_knows() -> None:
    domain = rendered(type="test")
    assert domain.find("features") is None
    assert domain.find("devices/rng") is None


def test_a_document_type_from_the_hypervisor_is_refused() -> None:
    with pytest.raises(ValueError, match="document type"):
        parse('<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>')
