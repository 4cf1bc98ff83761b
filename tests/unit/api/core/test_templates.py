"""Templates: what is refused, naming the field; what is filled in; one laid over another."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from google.protobuf.json_format import ParseDict

from moln.compute.v1 import template_pb2
from services.api.core.templates import (
    Resolver,
    check_stored_template,
    complete_template,
    merge_templates,
    needed,
)
from services.common.domain.caller import Caller
from services.common.domain.errors import MolnError, invalid
from services.common.domain.reasons import ErrorKind, Reason
from services.common.domain.template_images import image_ids

ANNA = Caller(7, "anna")
RAW = Caller(8, "ben", capabilities=frozenset({"vm.raw", "pci"}))
IMAGES, NETWORKS = {"debian": 3, "3": 3}, {"net": 5, "5": 5, "1": 1}


def _find(known: dict[str, int], text: str, field: str) -> int:
    if text not in known:
        raise invalid(field, f"there is no {text}", reason=Reason.IMAGE_NOT_FOUND)
    return known[text]


def resolver(default_network_id: int = 0) -> Resolver:
    """Knows one image of 100 MiB and two networks."""
    return Resolver(
        image=lambda text, field: _find(IMAGES, text, field),
        network=lambda text, field: _find(NETWORKS, text, field),
        image_size=lambda image_id: 100,
        image_format=lambda image_id: "qcow2",
        default_network_id=default_network_id,
    )


def template(**fields: Any) -> template_pb2.VmTemplate:
    """A template from the words that a YAML file would have."""
    return ParseDict({"memory_mib": 64, **fields}, template_pb2.VmTemplate())


SHAPE: list[tuple[str, dict[str, Any], Reason]] = [
    (field, fields, Reason.FIELD_INVALID)
    for field, fields in (
        ("cpu.model", {"cpu": {"model": "<x>"}}),
        ("cpu.features[1]", {"cpu": {"features": ["+vmx", "vmx svm"]}}),
        ("cpu.features", {"cpu": {"features": ["+vmx"] * 65}}),
        ("cpu.max_vcpus", {"vcpus": 4, "cpu": {"max_vcpus": 3}}),
        ("cpu.max_vcpus", {"cpu": {"max_vcpus": 513}}),
        ("cpu.sockets", {"vcpus": 4, "cpu": {"sockets": 2, "cores": 3}}),
        ("cpu.cores", {"vcpus": 4, "cpu": {"cores": 3}}),
        ("cpu.threads", {"vcpus": 3, "cpu": {"threads": 2}}),
        ("cpu.pinning", {"cpu": {"pinning": "core"}}),
        ("memory.max_memory_mib", {"memory": {"max_memory_mib": 63}}),
        ("memory.hugepage_kib", {"memory": {"hugepage_kib": 4}}),
        ("memory.hugepage_kib", {"memory_mib": 65, "memory": {"hugepage_kib": 2048}}),
        ("memory.numa_nodes", {"vcpus": 2, "memory": {"numa_nodes": 3}}),
        ("boot.firmware", {"boot": {"firmware": "efi"}}),
        ("boot.machine", {"boot": {"machine": "q35 accel=kvm"}}),
        ("boot.machine", {"boot": {"machine": "pc", "firmware": "uefi", "is_secure_boot": True}}),
        ("boot.is_secure_boot", {"boot": {"is_secure_boot": True}}),
        ("boot.initrd_image", {"boot": {"initrd_image": "debian"}}),
        ("boot.kernel_arguments", {"boot": {"kernel_arguments": "quiet"}}),
        ("boot.kernel_arguments", {"boot": {"kernel_image": "debian", "kernel_arguments": "a\nb"}}),
        ("boot.kernel_image", {"boot": {"kernel_image": "debian"}}),
        ("boot.order[0]", {"boot": {"order": ["disk0"]}}),
        ("boot.order[0]", {"boot": {"order": ["floppy"]}}),
        ("boot.order[1]", {"boot": {"order": ["cdrom", "cdrom"]}}),
        ("graphics.type", {"graphics": {"type": "rdp"}}),
        ("graphics.type", {"graphics": {"keymap": "sv"}}),
        ("graphics.video", {"graphics": {"type": "vnc", "video": "voodoo"}}),
        ("graphics.keymap", {"graphics": {"type": "vnc", "keymap": "s v"}}),
        ("graphics.inputs[0]", {"graphics": {"type": "vnc", "inputs": ["joystick"]}}),
        ("disks[0].io", {"disks": [{"size_mib": 1, "io": "native"}]}),
        ("disks[0].discard", {"disks": [{"size_mib": 1, "discard": "yes"}]}),
        ("disks[1].target", {"disks": [{"size_mib": 1, "target": "vda"}] * 2}),
        ("disks[0].target", {"disks": [{"size_mib": 1, "target": "../a"}]}),
        ("disks[0].target", {"disks": [{"size_mib": 1, "bus": "scsi", "target": "vda"}]}),
        (
            "disks[0].io_limits.total_iops",
            {"disks": [{"size_mib": 1, "io_limits": {"total_iops": "5", "read_iops": "1"}}]},
        ),
    )
]
BAD: list[tuple[str, dict[str, Any], Reason]] = [
    ("memory_mib", {"memory_mib": 0}, Reason.FIELD_REQUIRED),
    ("memory_mib", {"memory_mib": 16 * 1024 * 1024 + 1}, Reason.FIELD_INVALID),
    ("vcpus", {"vcpus": 513}, Reason.FIELD_INVALID),
    ("cpu_percent", {"cpu_percent": 51_201}, Reason.FIELD_INVALID),
    ("requirement", {"requirement": "FREE_MEMORY >"}, Reason.EXPRESSION_INVALID),
    ("policies[0].policy", {"policies": [{"weight": 2}]}, Reason.FIELD_REQUIRED),
    ("policies[0].policy", {"policies": [{"policy": 99}]}, Reason.FIELD_INVALID),
    ("policies[1].policy", {"policies": [{"policy": 1}, {"policy": 1}]}, Reason.FIELD_INVALID),
    ("policies[0].weight", {"policies": [{"policy": 1, "weight": -1}]}, Reason.FIELD_INVALID),
    ("policies[0].weight", {"policies": [{"policy": 1, "weight": "NaN"}]}, Reason.FIELD_INVALID),
    ("policies[0]", {"policies": [{"policy": 5}]}, Reason.FIELD_INVALID),
    ("rank", {"rank": "FREE_CPU", "policies": [{"policy": 1}]}, Reason.FIELD_INVALID),
    ("rank", {"rank": "1 +"}, Reason.EXPRESSION_INVALID),
    ("disks", {"disks": [{"size_mib": 1}] * 33}, Reason.FIELD_INVALID),
    ("disks[1]", {"disks": [{"size_mib": 1}, {}]}, Reason.FIELD_REQUIRED),
    ("disks[0].format", {"disks": [{"size_mib": 1, "format": "vmdk"}]}, Reason.FIELD_INVALID),
    ("disks[0].bus", {"disks": [{"size_mib": 1, "bus": "floppy"}]}, Reason.FIELD_INVALID),
    ("disks[0].cache", {"disks": [{"size_mib": 1, "cache": "all"}]}, Reason.FIELD_INVALID),
    ("disks[0].filesystem", {"disks": [{"size_mib": 1, "filesystem": "btrfs"}]}, Reason.FIELD_INVALID),
    ("disks[0].size_mib", {"disks": [{"size_mib": 64 * 1024 * 1024 + 1}]}, Reason.FIELD_INVALID),
    ("disks[0].size_mib", {"disks": [{"image": "debian", "size_mib": 99}]}, Reason.FIELD_INVALID),
    ("disks[1].image", {"disks": [{"size_mib": 1}, {"image": "windows"}]}, Reason.IMAGE_NOT_FOUND),
    ("nics", {"nics": [{"network": "net"}] * 33}, Reason.FIELD_INVALID),
    ("nics[0].network", {"nics": [{}]}, Reason.FIELD_REQUIRED),
    ("nics[1].network", {"nics": [{"network": "net"}, {"network": "dmz"}]}, Reason.IMAGE_NOT_FOUND),
    ("nics[0].model", {"nics": [{"network": "net", "model": "ne2000"}]}, Reason.FIELD_INVALID),
    ("nics[0].ipv4", {"nics": [{"network": "net", "ipv4": "10.0.0.256"}]}, Reason.FIELD_INVALID),
    ("nics[0].mac", {"nics": [{"network": "net", "mac": "02:00"}]}, Reason.FIELD_INVALID),
    ("nics[0].security_groups", {"nics": [{"network": "net", "security_groups": ["web"]}]}, Reason.FIELD_INVALID),
    ("context.hostname", {"context": {"hostname": "a b"}}, Reason.FIELD_INVALID),
    ("context.variables", {"context": {"variables": {"A-B": "1"}}}, Reason.FIELD_INVALID),
    ("context.secret_variables", {"context": {"secret_variables": {"1A": "1"}}}, Reason.FIELD_INVALID),
    ("context.secret_variables", {"context": {"secret_variables": {"A": "x" * 13_000}}}, Reason.FIELD_INVALID),
    ("context.files", {"context": {"files": {"context.sh": ""}}}, Reason.FIELD_INVALID),
    (
        "on_host_loss",
        {"on_host_loss": template_pb2.ON_HOST_LOSS_RESTART, "disks": [{"size_mib": 1}]},
        Reason.FIELD_INVALID,
    ),
    ("context.files", {"context": {"files": {"../x": ""}}}, Reason.FIELD_INVALID),
    ("context.files", {"context": {"files": {"big": "AAAA" * 11_000}}}, Reason.FIELD_INVALID),
    ("labels[a]", {"labels": {"a": "x" * 300}}, Reason.FIELD_INVALID),
    ("labels", {"labels": {f"l{number}": "" for number in range(65)}}, Reason.FIELD_INVALID),
    ("description", {"description": "x" * 4097}, Reason.FIELD_INVALID),
    ("", {"context": {"start_script": "x" * 62_000}}, Reason.FIELD_INVALID),
    ("boot.kernel_image", {"boot": {"kernel_image": "linux"}}, Reason.IMAGE_NOT_FOUND),
    *SHAPE,
]


@pytest.mark.parametrize(
    ("field", "fields", "reason"), BAD, ids=[f"{number}-{bad[0]}" for number, bad in enumerate(BAD)]
)
def test_a_bad_field_is_refused_by_its_path(field: str, fields: dict[str, Any], reason: Reason) -> None:
    with pytest.raises(MolnError) as caught:
        complete_template(template(**fields), ANNA, resolver())
    assert caught.value.reason == reason
    assert [path for path, _ in caught.value.fields] == [f"template.{field}".rstrip(".")]


@pytest.mark.parametrize(
    ("fields", "capability"),
    [({"raw": {"libvirt_xml": "<x/>"}}, "vm.raw"), ({"pci_devices": [{"vendor": "10de"}]}, "pci")],
)
def test_what_reaches_the_host_needs_a_capability(fields: dict[str, Any], capability: str) -> None:
    with pytest.raises(MolnError) as caught:
        complete_template(template(**fields), ANNA, resolver())
    assert caught.value.kind is ErrorKind.DENIED
    assert caught.value.metadata == {"capability": capability}
    complete_template(template(**fields), RAW, resolver())
    complete_template(template(**fields), Caller(1, "admin", is_admin=True), resolver())


@pytest.mark.parametrize(
    ("field", "fields", "reason"),
    [
        ("pci_devices[0]", {"pci_devices": [{}]}, Reason.FIELD_REQUIRED),
        ("pci_devices[0].vendor", {"pci_devices": [{"vendor": "nvidia"}]}, Reason.FIELD_INVALID),
        ("pci_devices", {"pci_devices": [{"vendor": "10de"}] * 17}, Reason.FIELD_INVALID),
        ("raw.libvirt_xml", {"raw": {"libvirt_xml": "<cpu>"}}, Reason.FIELD_INVALID),
        ("raw.libvirt_xml", {"raw": {"libvirt_xml": "<uuid>1</uuid>"}}, Reason.FIELD_INVALID),
    ],
)
def test_what_reaches_the_host_is_checked_as_well(field: str, fields: dict[str, Any], reason: Reason) -> None:
    with pytest.raises(MolnError) as caught:
        complete_template(template(**fields), RAW, resolver())
    assert caught.value.reason == reason
    assert [path for path, _ in caught.value.fields] == [f"template.{field}"]


def test_a_kernel_and_its_ram_disk_are_raw_images_and_are_resolved() -> None:
    boot = {"kernel_image": "debian", "initrd_image": "3", "kernel_arguments": "quiet"}
    raw_images = replace(resolver(), image_format=lambda image_id: "raw")
    full = complete_template(template(boot=boot), ANNA, raw_images)
    assert (full.boot.kernel_image_id, full.boot.initrd_image_id) == (3, 3)
    assert image_ids(full) == {3}


def test_ids_of_a_kernel_that_a_request_states_are_not_believed() -> None:
    full = complete_template(template(boot={"kernel_image_id": 9, "initrd_image_id": 9}), ANNA, resolver())
    assert image_ids(full) == set()


def test_defaults_are_filled_in() -> None:
    full = complete_template(template(disks=[{"image": "debian"}], nics=[{"network": "net"}]), ANNA, resolver())
    assert (full.vcpus, full.cpu_percent, full.memory_mib) == (1, 100, 64)
    assert (full.disks[0].disk_id, full.disks[0].image_id, full.disks[0].size_mib) == (0, 3, 100)
    assert full.disks[0].format == "qcow2"
    assert (full.nics[0].nic_id, full.nics[0].network_id) == (0, 5)
    assert complete_template(template(vcpus=4), ANNA, resolver()).cpu_percent == 400


def test_numbers_are_given_in_order() -> None:
    full = complete_template(template(disks=[{"size_mib": 1}] * 3, nics=[{"network": "net"}] * 2), ANNA, resolver())
    assert [disk.disk_id for disk in full.disks] == [0, 1, 2]
    assert [nic.nic_id for nic in full.nics] == [0, 1]


def test_ids_that_a_request_states_are_not_believed() -> None:
    sly = template(
        disks=[{"size_mib": 1, "image_id": 9, "disk_id": 8}],
        nics=[{"network": "net", "network_id": 9, "nic_id": 8, "security_group_ids": [1]}],
    )
    full = complete_template(sly, ANNA, resolver())
    assert (full.disks[0].image_id, full.disks[0].disk_id) == (0, 0)
    assert (full.nics[0].network_id, full.nics[0].nic_id, list(full.nics[0].security_group_ids)) == (5, 0, [])


def test_an_interface_on_the_default_network_is_added_where_none_is_asked_for() -> None:
    assert [nic.network_id for nic in complete_template(template(), ANNA, resolver(1)).nics] == [1]
    assert not complete_template(template(no_default_network=True), ANNA, resolver(1)).nics
    assert not complete_template(template(), ANNA, resolver()).nics


def test_the_template_that_was_sent_is_left_as_it_is() -> None:
    sent = template(disks=[{"image": "debian"}])
    before = sent.SerializeToString()
    complete_template(sent, ANNA, resolver(1))
    assert sent.SerializeToString() == before


def test_addresses_are_written_in_one_way() -> None:
    full = complete_template(
        template(nics=[{"network": "net", "ipv4": "10.0.0.7", "mac": "02:00:0A:00:00:07"}]), ANNA, resolver()
    )
    assert (full.nics[0].ipv4, full.nics[0].mac) == ("10.0.0.7", "02:00:0a:00:00:07")


def test_what_a_vm_takes_is_the_sum_of_its_parts() -> None:
    full = complete_template(template(vcpus=2, disks=[{"image": "debian"}, {"size_mib": 50}]), ANNA, resolver())
    amounts = needed(full)
    assert (amounts.vms, amounts.vcpus, amounts.memory_mib, amounts.disk_mib) == (1, 2, 64, 150)


def test_a_named_template_may_lack_memory_and_holds_no_secrets() -> None:
    check_stored_template(template(memory_mib=0), ANNA)
    with pytest.raises(MolnError) as caught:
        check_stored_template(template(context={"secret_variables": {"A": "1"}}), ANNA)
    assert caught.value.fields[0][0] == "template.context.secret_variables"
    with pytest.raises(MolnError) as caught:
        check_stored_template(template(nics=[{"network": "net", "model": "ne2000"}]), ANNA, path="spec.template")
    assert caught.value.fields[0][0] == "spec.template.nics[0].model"


def test_what_is_set_on_top_wins_and_lists_are_replaced_whole() -> None:
    base = template(
        vcpus=2, disks=[{"size_mib": 1}], labels={"a": "1", "b": "2"},
        context={"ssh_keys": ["base"], "hostname": "base"},
    )  # fmt: skip
    over = template_pb2.VmTemplate(memory_mib=128)
    ParseDict({"disks": [{"size_mib": 7}], "labels": {"b": "3"}, "context": {"ssh_keys": ["over"]}}, over)
    merged = merge_templates(base, over)
    assert (merged.vcpus, merged.memory_mib) == (2, 128)
    assert [disk.size_mib for disk in merged.disks] == [7]
    assert dict(merged.labels) == {"a": "1", "b": "3"}
    assert (list(merged.context.ssh_keys), merged.context.hostname) == (["over"], "base")
    assert list(base.context.ssh_keys) == ["base"]
