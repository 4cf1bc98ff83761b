"""A VM in words, for `moln vm show`. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast

from moln.compute.v1.template_pb2 import OnHostLoss
from moln.compute.v1.vm_pb2 import OperationKind, Vm
from moln.scheduler.v1.scheduler_service_pb2 import ExplainVmResponse
from services.cli.policies import policy_words
from services.cli.printing import fields, section
from services.cli.resources.vms import desired_of, disk_snapshots_of, phase_word, state_of, why
from services.cli.sizes import age, clock, mib, size


def vm_lines(vm: Vm, explanation: ExplainVmResponse | None = None) -> list[str]:
    """All that is worth knowing of a VM."""
    return [
        *fields(_head(vm)),
        *section("Why it has no host", _explanation_lines(explanation)),
        *section("Disks", list(_disk_lines(vm))),
        *section("Interfaces", list(_nic_lines(vm))),
        *section("Placement rules", _rule_lines(vm)),
        *section("On hosts", list(_status_lines(vm))),
    ]


_ON_HOST_LOSS = {
    OnHostLoss.ON_HOST_LOSS_RESTART: "started elsewhere once it is proven that its host runs nothing",
    OnHostLoss.ON_HOST_LOSS_RESTART_WITH_NEW_DISKS: "started elsewhere, its disks made anew: what was written is lost",
}


def _head(vm: Vm) -> Iterator[tuple[str, object]]:
    shape = vm.spec.template
    yield "VM", f"{vm.spec.name} ({vm.id})"
    yield "uid", vm.uid
    yield "owner", vm.spec.owner
    yield "state", f"{state_of(vm)} for {age(vm.view.since)}"
    yield "reason", why(vm)
    yield "next try", clock(vm.view.retry_time) if vm.view.retry_time.seconds else ""
    yield "wanted", desired_of(vm)
    yield "host", f"{vm.view.host} ({vm.view.host_id})" if vm.view.host_id else ""
    yield "address", vm.view.ipv4
    yield "size", f"{shape.vcpus} vCPU, {shape.cpu_percent} % of a core, {mib(shape.memory_mib)}"
    yield "on host loss", _ON_HOST_LOSS.get(shape.on_host_loss, "")
    yield "created", clock(vm.intent.create_time)
    yield "started", clock(vm.view.start_time) if vm.view.start_time.seconds else ""
    yield "operation", _operation(vm)
    yield "labels", " ".join(f"{key}={value}" for key, value in sorted(shape.labels.items()))
    yield "fields", " ".join(f"{key}={value}" for key, value in sorted(vm.spec.user_fields.items()))
    yield "description", shape.description


def _operation(vm: Vm) -> str:
    """What is in flight, or how the last operation failed."""
    for slot in (vm.intent.operation, vm.intent.background):
        if slot.id:
            return f"{_kind(slot.kind)} is in flight ({slot.id})"
    last = vm.intent.last_operation
    return f"{_kind(last.kind)} failed: {last.reason}: {last.message}" if last.reason else ""


def _kind(kind: int) -> str:
    return OperationKind.Name(cast(OperationKind, kind)).removeprefix("OPERATION_KIND_").replace("_", " ").lower()


def _explanation_lines(explanation: ExplainVmResponse | None) -> list[str]:
    if explanation is None:
        return []
    left = [f"{row.hosts_left:>6} left by {row.name}" for row in explanation.filters]
    unknown = [f"no host has the attribute {name}" for name in explanation.unknown_attributes]
    return [f"{explanation.hosts:>6} hosts", *left, *unknown] if left or unknown else []


def _disk_lines(vm: Vm) -> Iterator[str]:
    volumes = {volume.disk_id: volume for volume in vm.volumes.disks}
    for disk in vm.spec.template.disks:
        volume = volumes.get(disk.disk_id)
        content = f"image {disk.image} ({disk.image_id})" if disk.image_id or disk.image else "empty"
        seen = size(max(volume.virtual_size_bytes if volume else 0, disk.size_mib * 1024**2))
        names = ", ".join(each.name for each in disk_snapshots_of(vm) if each.disk_id == disk.disk_id)
        held = f"snapshots {names}" if names else ""
        yield "  ".join(filter(None, (str(disk.disk_id), content, seen, disk.format, disk.bus, held)))


def _nic_lines(vm: Vm) -> Iterator[str]:
    addresses = {nic.nic_id: nic for nic in vm.addresses.nics}
    for nic in vm.spec.template.nics:
        address = addresses.get(nic.nic_id)
        words = (address.ipv4, address.mac, f"bridge {address.bridge}") if address else ("no address yet",)
        yield "  ".join(filter(None, (str(nic.nic_id), f"network {nic.network} ({nic.network_id})", *words, nic.model)))


def _rule_lines(vm: Vm) -> Sequence[str]:
    shape = vm.spec.template
    return fields(
        (
            ("requirement", shape.requirement),
            ("rank", shape.rank),
            ("policies", policy_words(shape.policies)),
            ("host", vm.intent.wanted_host_id),
            ("affinity group", shape.affinity_group),
            ("tolerations", " ".join(shape.tolerations)),
            ("priority", shape.priority),
        )
    )


def _status_lines(vm: Vm) -> Iterator[str]:
    for status in vm.statuses:
        host = vm.view.host if vm.view.host and status.host_id == vm.view.host_id else str(status.host_id)
        where = f"host {host}: {phase_word(status.phase)} for {age(status.since)}, attempt {status.attempt}"
        yield ", ".join(filter(None, (where, status.step and f"step {status.step}", status.hypervisor_name)))
        if status.reason or status.message:
            yield "  " + ": ".join(filter(None, (status.reason, status.message)))
        if status.failures:
            yield f"  {status.failures} failures in a row"
