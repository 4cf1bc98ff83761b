"""Every domain that the driver makes is one by libvirt's own schemas, for every kind of hypervisor."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import etree

from moln.node.v1.node_service_pb2 import VmOrder
from services.api.core.template_checks import check_template
from services.common.domain.caller import Caller
from services.common.domain.errors import MolnError
from services.common.domain.reasons import Reason
from services.hostagent.drivers.libvirt import features
from services.hostagent.drivers.libvirt.compose import compose
from services.hostagent.drivers.libvirt.xml import disk_xml, domain_xml, memory_xml, nic_xml
from tests.support.real import real_part
from tests.unit.hostagent.libvirt.shapes import ENDPOINTS, FOLDER, SHAPES, shaped

SCHEMAS = Path("/usr/share/libvirt/schemas")
ROOT = Caller(1, "root", is_admin=True)


@cache
def schema() -> etree.RelaxNG:
    return etree.RelaxNG(etree.parse(SCHEMAS / "domain.rng"))


@pytest.fixture(autouse=True)
def schemas_are_there() -> None:
    real_part("libvirt's schemas", lambda: None if (SCHEMAS / "domain.rng").exists() else f"no {SCHEMAS}/domain.rng")


def problems(xml: str) -> list[str]:
    """What is wrong with a domain; nothing, where it is one."""
    return [] if schema().validate(etree.fromstring(xml)) else [str(error) for error in schema().error_log]


def made(vm: VmOrder, domain_type: str) -> str | None:
    """The domain's XML; None where the driver says that this hypervisor cannot."""
    try:
        return domain_xml(compose(vm, FOLDER, ENDPOINTS[domain_type]))
    except MolnError as err:
        assert err.reason is Reason.CAPABILITY
        return None


def test_every_feature_has_a_shape() -> None:
    assert SHAPES.keys() == features.SHAPES.keys()


@pytest.mark.feature("*", "schema")
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("domain_type", ["qemu", "kvm"])
def test_qemu_can_do_everything_and_its_domains_are_valid(shape: str, domain_type: str) -> None:
    xml = made(shaped(SHAPES[shape]), domain_type)
    assert xml is not None
    assert problems(xml) == []


@pytest.mark.feature("Xen HVM", "schema")
@pytest.mark.feature("Xen PV", "schema")
@pytest.mark.feature("LXC", "schema")
@pytest.mark.feature("ESX", "schema")
@pytest.mark.feature("test hypervisor", "schema")
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("domain_type", "machine"), [("xen", ""), ("xen", "xenpv"), ("lxc", ""), ("vmware", ""), ("test", "")]
)
def test_domains_of_other_hypervisors_are_valid_or_refused(shape: str, domain_type: str, machine: str) -> None:
    fields = {**SHAPES[shape], "disks": SHAPES[shape].get("disks", [{"size_mib": 1}])}
    if machine:
        fields = {**fields, "boot": {**fields.get("boot", {}), "machine": machine}}
    xml = made(shaped(fields), domain_type)
    assert xml is None or problems(xml) == []
    if shape == "plain":
        assert xml is not None


def test_a_schema_refuses_what_is_wrong() -> None:
    xml = made(shaped({}), "qemu")
    assert xml is not None
    assert problems(xml.replace("<on_crash>destroy", "<on_crash>explode")) != []


@pytest.mark.parametrize("shape", SHAPES)
def test_single_devices_are_those_of_the_whole_domain(shape: str) -> None:
    spec = compose(shaped(SHAPES[shape]), FOLDER, ENDPOINTS["qemu"])
    whole = domain_xml(spec)
    assert all(disk_xml(disk) in whole for disk in spec.disks)
    assert all(nic_xml(nic) in whole for nic in spec.nics)


def test_a_piece_of_memory_is_a_device_of_a_guest_with_slots() -> None:
    xml = made(shaped(SHAPES["more memory later"]), "qemu")
    assert xml is not None
    assert problems(xml.replace("</devices>", memory_xml(128) + "</devices>")) == []


DISKS = st.fixed_dictionaries(
    {"size_mib": st.just("1")},
    optional={
        "bus": st.sampled_from(["virtio", "scsi", "sata", "ide", "usb"]),
        "format": st.sampled_from(["raw", "qcow2"]),
        "cache": st.sampled_from(["none", "writeback", "writethrough", "unsafe"]),
        "io": st.sampled_from(["threads", "native", "io_uring"]),
        "discard": st.sampled_from(["unmap", "ignore"]),
        "is_read_only": st.booleans(),
        "device": st.sampled_from(["DISK_DEVICE_DISK", "DISK_DEVICE_CDROM"]),
        "io_limits": st.dictionaries(
            st.sampled_from(["total_iops", "read_iops", "write_iops", "read_bytes_per_s"]), st.just("9")
        ),
    },
)
TEMPLATES = st.fixed_dictionaries(
    {"vcpus": st.integers(1, 16), "memory_mib": st.integers(1, 64).map(str), "disks": st.lists(DISKS, max_size=4)},
    optional={
        "cpu_percent": st.integers(1, 1600),
        "cpu": st.fixed_dictionaries(
            {},
            optional={
                "model": st.sampled_from(["", "host-model", "host-passthrough", "qemu64"]),
                "cores": st.integers(0, 4),
                "threads": st.integers(0, 2),
                "features": st.lists(st.sampled_from(["+vmx", "-svm", "aes"]), max_size=2, unique=True),
                "max_vcpus": st.integers(0, 32),
                "pinning": st.sampled_from(["", "shared"]),
                "is_capped": st.booleans(),
            },
        ),
        "memory": st.fixed_dictionaries(
            {},
            optional={
                "max_memory_mib": st.integers(0, 128).map(str),
                "hugepage_kib": st.sampled_from([0, 2048]),
                "numa_nodes": st.integers(0, 4),
                "no_balloon": st.booleans(),
            },
        ),
        "boot": st.fixed_dictionaries(
            {},
            optional={
                "firmware": st.sampled_from(["", "bios", "uefi"]),
                "is_secure_boot": st.booleans(),
                "has_tpm": st.booleans(),
                "machine": st.sampled_from(["", "pc", "q35", "xenpv"]),
                "order": st.lists(st.sampled_from(["disk0", "disk1", "cdrom"]), unique=True),
                "kernel_image": st.sampled_from(["", "linux"]),
            },
        ),
        "graphics": st.fixed_dictionaries(
            {"type": st.sampled_from(["none", "vnc", "spice"])},
            optional={
                "video": st.sampled_from(["", "vga", "virtio", "qxl"]),
                "inputs": st.lists(st.sampled_from(["tablet", "mouse", "keyboard"]), unique=True),
            },
        ),
        "pci_devices": st.lists(st.just({"vendor": "10de"}), max_size=2),
        "context": st.fixed_dictionaries({"is_disabled": st.booleans()}),
    },
)


@given(fields=TEMPLATES, domain_type=st.sampled_from(sorted(ENDPOINTS)))
@settings(max_examples=150, deadline=None)
def test_whatever_the_api_lets_pass_is_a_valid_domain_or_refused_by_name(
    fields: dict[str, Any], domain_type: str
) -> None:
    vm = shaped(fields)
    try:
        check_template(vm.spec.template, ROOT)
    except MolnError as err:
        assert err.fields, "a refusal names its field"
        return
    xml = made(vm, domain_type)
    assert xml is None or problems(xml) == []
