"""PCI devices of a host: read from libvirt's words, and none listed that the administrator did not name."""

from __future__ import annotations

import pytest

from services.hostagent.drivers.libvirt.pci import check_patterns, chosen

GPU = """<device><name>pci_0000_01_00_0</name><capability type='pci'><class>0x030200</class><domain>0</domain>
<bus>1</bus><slot>0</slot><function>0</function><product id='0x1eb8'>TU104GL [Tesla T4]</product>
<vendor id='0x10de'>NVIDIA Corporation</vendor><numa node='1'/></capability></device>"""
PLAIN = """<device><name>pci_0000_00_1f_2</name><capability type='pci'><class>0x010601</class><domain>0</domain>
<bus>0</bus><slot>31</slot><function>2</function><product id='0x2922'/><vendor id='0x8086'/></capability></device>"""
BRIDGE = PLAIN.replace("0x010601", "0x060400").replace("<slot>31", "<slot>28")


TEXTS = (GPU, PLAIN, BRIDGE, "<device/>")


def test_nothing_is_listed_that_nobody_named() -> None:
    assert chosen(TEXTS, ()) == []
    assert chosen(TEXTS, ("1002",)) == []


@pytest.mark.parametrize("pattern", ["10de", "10DE:", "10de:1eb8", "0000:01:00.0"])
def test_a_device_is_named_by_vendor_kind_or_address(pattern: str) -> None:
    check_patterns([pattern])
    (device,) = chosen(TEXTS, (pattern,))
    assert (device.address, device.vendor, device.device, getattr(device, "class")) == (
        "0000:01:00.0", "10de", "1eb8", "0302",
    )  # fmt: skip
    assert (device.numa_node, device.description) == (1, "NVIDIA Corporation TU104GL [Tesla T4]")


def test_bridges_are_never_a_guests() -> None:
    assert [device.address for device in chosen(TEXTS, ("8086",))] == ["0000:00:1f.2"]


@pytest.mark.parametrize("pattern", ["", "all", "10de:1eb", "0000:01:00", "*"])
def test_a_pattern_that_matches_nothing_by_its_form_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="neither an address"):
        check_patterns([pattern])
