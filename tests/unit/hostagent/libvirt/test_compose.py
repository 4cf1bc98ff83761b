"""From an order to a domain: names, buses and defaults."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from moln.compute.v1 import template_pb2
from moln.node.v1.node_service_pb2 import ImageTicket
from services.common.domain.errors import MolnError
from services.common.domain.reasons import Reason
from services.hostagent.drivers.libvirt.compose import Endpoint, compose, disk_plans
from services.hostagent.storage.folders import VmFolder
from tests.support.hypervisor import add_nic, order

FOLDER = VmFolder(Path("/state/vms/u"))
QEMU = Endpoint("cloud-1", "qemu", "x86_64")


def test_disks_are_named_in_order_and_the_context_comes_on_a_cd() -> None:
    vm = order(Path("/d/i"))
    vm.spec.template.disks.add(disk_id=4, size_mib=10)
    vm.spec.template.disks.add(disk_id=5, size_mib=10, bus="scsi")
    domain = compose(vm, FOLDER, QEMU)
    assert [(disk.target, disk.bus, disk.boot_order) for disk in domain.disks] == [
        ("vda", "virtio", 1),
        ("vdb", "virtio", 2),
        ("sda", "scsi", 3),
        ("hda", "ide", 0),
    ]
    assert domain.disks[-1].path == FOLDER.context_iso
    assert domain.devices.scsi_controller == "virtio-scsi"


def test_a_stated_target_is_kept_and_given_to_nobody_else() -> None:
    vm = order(None)
    vm.spec.template.disks.add(disk_id=0, size_mib=1)
    vm.spec.template.disks.add(disk_id=1, size_mib=1, target="vda")
    assert [disk.target for disk in compose(vm, FOLDER, QEMU).disks[:2]] == ["vdb", "vda"]


def test_a_cd_of_the_owner_is_an_ide_or_scsi_cd_by_machine() -> None:
    vm = order(None)
    vm.spec.template.disks.add(disk_id=0, device=template_pb2.DISK_DEVICE_CDROM, image_id=1)
    assert [(disk.target, disk.bus) for disk in compose(vm, FOLDER, QEMU).disks] == [("hda", "ide"), ("hdb", "ide")]
    vm.spec.template.boot.machine = "q35"
    assert [(disk.target, disk.bus) for disk in compose(vm, FOLDER, QEMU).disks] == [("sda", "scsi"), ("sdb", "scsi")]


def test_the_granted_size_goes_before_what_was_asked_for() -> None:
    vm = order(None)
    vm.placement.granted.memory_mib, vm.placement.granted.vcpus, vm.placement.granted.cpu_percent = 64, 2, 150
    domain = compose(vm, FOLDER, QEMU)
    assert (domain.memory.mib, domain.vcpus, domain.tune.weight_percent) == (64, 2, 150)


def test_a_stated_boot_order_is_the_only_one() -> None:
    vm = order(Path("/d/i"))
    add_nic(vm, "10.0.0.2", bridge="moln1")
    vm.spec.template.boot.order.extend(["nic0", "disk0"])
    domain = compose(vm, FOLDER, QEMU)
    assert (domain.nics[0].boot_order, domain.disks[0].boot_order) == (1, 2)


def test_without_bridges_guests_have_user_mode_networks() -> None:
    vm = order(None)
    add_nic(vm, "10.0.0.2", bridge="moln1")
    assert compose(vm, FOLDER, QEMU).nics[0].bridge == "moln1"
    assert compose(vm, FOLDER, replace(QEMU, has_bridges=False)).nics[0].bridge == ""


def test_the_name_of_a_guests_interface_on_the_node_is_short_and_its_own() -> None:
    vm = order(None)
    add_nic(vm, "10.0.0.2", bridge="moln1", nic_id=12)
    device = compose(vm, FOLDER, QEMU).nics[0].device
    assert len(device) <= 15
    assert device == f"mt{vm.uid[:8]}-12"


def test_a_disk_knows_its_volume_and_the_leave_to_fetch_it() -> None:
    vm = order(Path("/d/i"))
    vm.tickets.append(ImageTicket(image_id=3, ticket="t"))
    (plan,) = disk_plans(vm, FOLDER)
    assert plan.path == FOLDER.path / "disk-0.qcow2"
    assert plan.ticket is not None
    assert plan.ticket.ticket == "t"


def test_all_that_cannot_be_made_is_named_at_once() -> None:
    vm = order(None)
    vm.spec.template.boot.has_tpm = True
    vm.spec.template.memory.hugepage_kib = 2048
    with pytest.raises(MolnError, match=r"boot\.has_tpm, memory\.hugepage_kib") as refused:
        compose(vm, FOLDER, replace(QEMU, domain_type="xen"))
    assert refused.value.reason is Reason.CAPABILITY


def test_a_guest_with_kvm_sees_the_hosts_cpu_and_an_emulated_one_does_not() -> None:
    vm = order(None)
    assert compose(vm, FOLDER, replace(QEMU, domain_type="kvm")).cpu.model == "host-model"
    assert compose(vm, FOLDER, QEMU).cpu.model == ""
