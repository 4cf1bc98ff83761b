"""A host in words, and the command with which its node joins. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence

from google.protobuf.timestamp_pb2 import Timestamp

from moln.compute.v1.host_pb2 import Host, HostOperation, HostOperationKind, HostOperationState, HostSpec
from services.cli.printing import fields, section
from services.cli.resources.hosts import cpu_of, labels_of, memory_of, share, state_of
from services.cli.sizes import age, clock, mib
from services.common.domain.words import counted

STATE_FOLDER = "/var/lib/moln"


def join_lines(token: str, address: str, expires: Timestamp) -> list[str]:
    """What the administrator types on the node, and until when."""
    run = ["python", "-m", "services.hostagent", "--join", token, "--api", address, "--state", STATE_FOLDER]
    return [f"  {shlex.join(run)}", f"The token works once, until {clock(expires)}."]


def host_lines(host: Host, stays: Sequence[str] = ()) -> list[str]:
    """All that is worth knowing of a host."""
    found = host.inventory
    nodes = [f"{node.node_id}: {mib(node.memory_mib)}, CPUs {_cpus(list(node.cpus))}" for node in found.numa_nodes]
    devices = [
        f"{device.address}  {device.vendor}:{device.device}  {device.description}" for device in found.pci_devices
    ]
    attributes = [f"{key} = {value}" for key, value in sorted(found.attributes.items())]
    return [
        *fields(_head(host)),
        *section("Nowhere to move to", stays),
        *section("Warnings", list(found.warnings)),
        *section("NUMA nodes", nodes),
        *section("PCI devices", devices),
        *section("Attributes", attributes),
    ]


def _head(host: Host) -> Iterator[tuple[str, object]]:
    found = host.inventory
    yield "host", f"{host.spec.name} ({host.id})"
    yield "state", f"{state_of(host)} for {age(host.view.since)}"
    yield "cluster", host.view.cluster
    yield "vms", str(host.view.vms)
    yield (
        "to move away",
        f"{host.view.drain_left} of {counted(host.view.drain_total, 'VM')}" if host.view.drain_total else "",
    )
    yield "cpu", f"{cpu_of(host)} cores given out"
    yield "memory", f"{memory_of(host)} given out"
    yield "disk", f"{share(mib(host.view.disk_mib_used), mib(host.view.disk_mib_total))} given out"
    yield "overcommit", _overcommit(host)
    yield "reserved", f"{mib(host.spec.reserved_memory_mib)} memory" if host.spec.reserved_memory_mib else ""
    yield "machine", " ".join(filter(None, (found.hostname, found.architecture, found.cpu_model)))
    yield "has", f"{found.cpus} CPUs, {mib(found.memory_mib)} memory, {mib(found.disk_mib)} disk" if found.cpus else ""
    yield "hypervisor", " ".join(filter(None, (found.hypervisor, found.hypervisor_version, f"by {found.driver}")))
    yield "can", " ".join(found.capabilities)
    yield "agent", found.agent_version
    yield "boot id", host.liveness.boot_id
    yield "silence", f"resets itself {found.self_fence_s} s after it is cut off" if found.self_fence_s else ""
    yield "fenced by", host.liveness.proof
    yield "fence command", _fence_command(host.spec)
    yield "power command", host.spec.power_command
    yield "parameters", labels_of(host.spec.script_parameters)
    yield "script", _script(host.operation)
    yield "labels", labels_of(host.spec.labels)
    yield "taints", " ".join(host.spec.taints)
    yield "created", clock(host.spec.create_time)


def _left(host: Host) -> str:
    return f"{host.view.drain_left} of {counted(host.view.drain_total, 'VM')}" if host.view.drain_total else ""


def _fence_command(spec: HostSpec) -> str:
    when = "as soon as it is silent" if spec.fences_automatically else "where a VM is to restart elsewhere"
    return f"{spec.fence_command}, {when}" if spec.fence_command else ""


def _script(operation: HostOperation) -> str:
    """`fence FAILED 3s ago (try 2): no route to host`."""
    if not operation.id:
        return ""
    what = HostOperationKind.Name(operation.kind).removeprefix("HOST_OPERATION_KIND_").lower().replace("_", " ")
    state = HostOperationState.Name(operation.state).removeprefix("HOST_OPERATION_STATE_")
    attempt = f" (try {operation.attempt})" if operation.attempt > 1 else ""
    when = age(operation.end_time if operation.end_time.seconds else operation.request_time)
    return f"{what} {state} {when} ago{attempt}" + (f": {operation.message}" if operation.message else "")


def _overcommit(host: Host) -> str:
    cpu, memory = host.spec.cpu_overcommit_percent or 100, host.spec.memory_overcommit_percent or 100
    return "" if cpu == memory == 100 else f"CPU {cpu} %, memory {memory} %"


def _cpus(numbers: list[int]) -> str:
    """`0-3,8` for [0, 1, 2, 3, 8]."""
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and number == parts[-1][1] + 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in parts)
