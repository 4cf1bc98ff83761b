"""Virtual machines."""

from __future__ import annotations

from moln.compute.v1.vm_pb2 import DESCRIPTOR, DiskSnapshot, Vm
from moln.compute.v1.vm_service_pb2 import (
    GetVmRequest,
    ListVmsRequest,
    ListVmsResponse,
    WatchVmsRequest,
    WatchVmsResponse,
)
from services.cli.documents import enum_word
from services.cli.objects import Resource
from services.cli.sizes import age, cores, mib
from services.cli.tables import Column

_STATES = DESCRIPTOR.enum_types_by_name["VmState"]
_PHASES = DESCRIPTOR.enum_types_by_name["VmPhase"]
_DESIRED = DESCRIPTOR.enum_types_by_name["DesiredState"]


def state_of(vm: Vm) -> str:
    """`RUNNING`."""
    return enum_word(_STATES, vm.view.state)


def desired_of(vm: Vm) -> str:
    """`POWERED_OFF`."""
    return enum_word(_DESIRED, vm.intent.desired)


def phase_word(phase: int) -> str:
    """`STARTING`."""
    return enum_word(_PHASES, phase)


def why(vm: Vm) -> str:
    """Reason and words of the present state, or nothing."""
    return ": ".join(filter(None, (vm.view.reason, vm.view.message)))


def disk_snapshots_of(vm: Vm) -> list[DiskSnapshot]:
    """Snapshots of the VM's single disks, as the host tells of them that the VM is on; oldest first."""
    here = [status for status in vm.statuses if status.host_id == vm.placement.host_id]
    return [snapshot for status in here for snapshot in status.disk_snapshots]


COLUMNS: tuple[Column[Vm], ...] = (
    Column("ID", lambda vm: str(vm.id), is_number=True),
    Column("NAME", lambda vm: vm.spec.name),
    Column("STATE", state_of, is_state=True),
    Column("HOST", lambda vm: vm.view.host),
    Column("ADDRESS", lambda vm: vm.view.ipv4),
    Column("VCPUS", lambda vm: str(vm.spec.template.vcpus), is_number=True),
    Column("CPU", lambda vm: cores(vm.spec.template.cpu_percent), is_wide=True, is_number=True),
    Column("MEMORY", lambda vm: mib(vm.spec.template.memory_mib), is_number=True),
    Column("OWNER", lambda vm: vm.spec.owner, is_wide=True),
    Column("IMAGE", lambda vm: ",".join(disk.image for disk in vm.spec.template.disks if disk.image), is_wide=True),
    Column("SINCE", lambda vm: age(vm.view.since)),
    Column("AGE", lambda vm: age(vm.intent.create_time), is_wide=True),
    Column("REASON", lambda vm: vm.view.reason),
    Column("MESSAGE", lambda vm: vm.view.message, is_wide=True),
)

VMS: Resource[Vm] = Resource(
    word="VM",
    service="moln.compute.v1.VmService",
    message=Vm,
    get_request=GetVmRequest,
    list_request=ListVmsRequest,
    list_reply=ListVmsResponse,
    items="vms",
    name_of=lambda vm: vm.spec.name,
    columns=COLUMNS,
    watch_request=WatchVmsRequest,
    watch_reply=WatchVmsResponse,
    has_watch_filter=True,
)
