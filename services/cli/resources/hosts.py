"""Hosts."""

from __future__ import annotations

from collections.abc import Mapping

from moln.compute.v1.host_pb2 import DESCRIPTOR, Host
from moln.compute.v1.host_service_pb2 import (
    GetHostRequest,
    ListHostsRequest,
    ListHostsResponse,
    WatchHostsRequest,
    WatchHostsResponse,
)
from services.cli.documents import enum_word
from services.cli.objects import Resource
from services.cli.sizes import age, cores, mib
from services.cli.tables import Column

_STATES = DESCRIPTOR.enum_types_by_name["HostState"]


def state_of(host: Host) -> str:
    """`UP`."""
    return enum_word(_STATES, host.view.state)


def share(used: str, total: str) -> str:
    """`1/8`."""
    return f"{used}/{total}"


def cpu_of(host: Host) -> str:
    """Cores given out, of those that may be."""
    return share(cores(host.view.cpu_percent_used), cores(host.view.cpu_percent_total))


def memory_of(host: Host) -> str:
    """Memory given out, of what may be."""
    return share(mib(host.view.memory_mib_used), mib(host.view.memory_mib_total))


def labels_of(labels: Mapping[str, str]) -> str:
    """`tier=front,zone=a`."""
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items()))


COLUMNS: tuple[Column[Host], ...] = (
    Column("ID", lambda host: str(host.id), is_number=True),
    Column("NAME", lambda host: host.spec.name),
    Column("STATE", state_of, is_state=True),
    Column("CLUSTER", lambda host: host.view.cluster),
    Column("VMS", lambda host: str(host.view.vms), is_number=True),
    Column("CPU", cpu_of, is_number=True),
    Column("MEMORY", memory_of, is_number=True),
    Column("DISK", lambda host: share(mib(host.view.disk_mib_used), mib(host.view.disk_mib_total)), is_wide=True),
    Column("HYPERVISOR", lambda host: host.inventory.hypervisor),
    Column("VERSION", lambda host: host.inventory.hypervisor_version, is_wide=True),
    Column("CPU MODEL", lambda host: host.inventory.cpu_model, is_wide=True),
    Column("LABELS", lambda host: labels_of(host.spec.labels), is_wide=True),
    Column("SINCE", lambda host: age(host.view.since)),
)


HOSTS: Resource[Host] = Resource(
    word="host",
    service="moln.compute.v1.HostService",
    message=Host,
    get_request=GetHostRequest,
    list_request=ListHostsRequest,
    list_reply=ListHostsResponse,
    items="hosts",
    name_of=lambda host: host.spec.name,
    columns=COLUMNS,
    watch_request=WatchHostsRequest,
    watch_reply=WatchHostsResponse,
)
