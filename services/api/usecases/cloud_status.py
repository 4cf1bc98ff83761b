"""The cloud at a glance: services, hosts, capacity, and what is wrong with the remedy beside it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from moln.compute.v1 import host_pb2, vm_pb2
from moln.operations.v1 import operations_service_pb2, records_pb2
from services.api.index.cloud import CloudIndex
from services.api.index.hosts import HostRecord
from services.api.nodes.gateway import NodeGateway
from services.api.usecases.resources import swap
from services.common.domain.caller import Caller
from services.common.domain.errors import MolnError
from services.common.domain.reasons import Reason
from services.common.domain.words import counted
from services.common.store import Store, Txn, key

LEADERS = ("api", "scheduler", "imagesvc", "netsvc")
S = host_pb2.HostState
Problem = operations_service_pb2.Problem


class CloudStatus:
    """Status of the whole, and what the whole shares."""

    def __init__(self, store: Store, cloud: CloudIndex, gateway: NodeGateway, version: str) -> None:
        self._store = store
        self._cloud = cloud
        self._gateway = gateway
        self._version = version

    def get(self, caller: Caller) -> operations_service_pb2.CloudStatus:
        """The status. One who is no administrator gets counts and capacity, no addresses."""
        entry = self._cloud.catalog.cloud()
        status = operations_service_pb2.CloudStatus(
            cloud_uid=entry.value.uid if entry is not None else "",
            version=self._version,
            revision=self._store.cache.revision,
            vms={
                vm_pb2.VmState.Name(state).removeprefix("VM_STATE_"): count
                for state, count in self._cloud.vms.states.items()
                if count > 0
            },
            hosts=Counter(S.Name(host.state()).removeprefix("HOST_STATE_") for host in self._cloud.hosts.all()),
            cloud=entry.value if entry is not None else None,
        )
        self._add_capacity(status)
        if caller.is_admin:
            status.processes.extend(self._processes())
            status.leaders.update({name: self._store.leader_address(name) or "" for name in LEADERS})
            status.problems.extend(self._problems())
        return status

    def _add_capacity(self, status: operations_service_pb2.CloudStatus) -> None:
        for host in self._cloud.hosts.all():
            if host.state() != S.HOST_STATE_UP:
                continue
            cpu, memory, disk = host.totals()
            status.total.cpu_percent += cpu
            status.total.memory_mib += memory
            status.total.disk_mib += disk
            status.used.cpu_percent += host.cpu_percent
            status.used.memory_mib += host.memory_mib
            status.used.disk_mib += host.disk_mib

    def _processes(self) -> list[records_pb2.ProcessRecord]:
        entries = self._cloud.catalog.of_kind("process").values()
        return sorted((entry.value for entry in entries), key=lambda record: (record.kind, record.address))

    def _problems(self) -> list[Problem]:
        problems = [
            Problem(
                subject=name,
                reason=Reason.SERVICE_UNAVAILABLE,
                message="no process leads",
                remedy=f"start it: python -m services.{name}; its log says why it is away",
            )
            for name in LEADERS
            if not self._store.leader_address(name)
        ]
        if self._cloud.hosts.self_fence_is_suspended():
            problems.append(_SUSPENDED)
        for host in self._cloud.hosts.all():
            problems += _host_problems(host)
            link = self._gateway.links.get(host.id)
            problems += [_orphan(host.name, orphan) for orphan in link.orphans] if link is not None else []
        for bad_key, error in self._store.cache.quarantine.items():
            problems.append(
                Problem(subject=bad_key, reason=Reason.VALUE_QUARANTINED, message=str(error), remedy="write it anew")
            )
        for record in self._processes():
            problems += [
                Problem(subject=f"{record.kind} {record.address}", message=text, remedy="see its log")
                for text in record.problems
            ]
        return problems

    async def update(self, request: operations_service_pb2.UpdateCloudRequest) -> records_pb2.CloudRecord:
        """Changes the defaults. Raises NOT_FOUND for one that is not there."""
        if request.default_datastore_id and self._cloud.catalog.get("datastore", request.default_datastore_id) is None:
            raise MolnError(
                Reason.DATASTORE_NOT_FOUND,
                f"default_datastore_id: there is no datastore {request.default_datastore_id}",
            )
        if request.default_network_id and self._cloud.catalog.networks.spec(request.default_network_id) is None:
            raise MolnError(
                Reason.NETWORK_NOT_FOUND, f"default_network_id: there is no network {request.default_network_id}"
            )

        def build() -> Txn:
            entry = self._cloud.catalog.cloud()
            record = records_pb2.CloudRecord()
            txn = Txn()
            if entry is not None:
                record.CopyFrom(entry.value)
                txn.unchanged(entry.key, entry.mod_revision)
            record.default_datastore_id = request.default_datastore_id or record.default_datastore_id
            record.default_network_id = request.default_network_id or record.default_network_id
            txn.put(key("cloud", "settings"), record)
            return txn

        await swap(self._store, "change the cloud's defaults", build)
        entry = self._cloud.catalog.cloud()
        return entry.value if entry is not None else records_pb2.CloudRecord()


_SUSPENDED = Problem(
    subject="hosts",
    reason=Reason.SELF_FENCE_SUSPENDED,
    message="so many are silent at once that their watchdogs are not taken as proof: what they share may be at fault",
    remedy="look at the network and the store; a host that is certainly off: moln host fence HOST",
)


def _host_problems(host: HostRecord) -> Iterator[Problem]:
    """What is wrong with a host that is monitored."""
    subject = f"host {host.name}"
    if not host.is_monitored():
        return
    if host.state() == S.HOST_STATE_SILENT:
        yield Problem(
            subject=subject,
            reason=Reason.HOST_SILENT,
            message=f"is silent, and what becomes of its {counted(host.vms, 'VM')} is UNKNOWN",
            remedy=f"see whether the machine and its agent run; if it is off: moln host fence {host.name}",
        )
    else:
        return
    operation = host.operation.value if host.operation is not None else None
    if operation is not None and operation.is_automatic and operation.state == host_pb2.HOST_OPERATION_STATE_FAILED:
        yield Problem(
            subject=subject,
            reason=Reason.SCRIPT_FAILED,
            message=f"its fence command has failed {operation.attempt} times: {operation.message}",
            remedy=f"see to the script; or, sure that it is off: moln host fence {host.name} --confirmed",
        )


def _orphan(host: str, orphan: str) -> Problem:
    return Problem(
        subject=f"host {host}",
        reason=Reason.GUEST_VANISHED,
        message=f"has {orphan}, which carries this cloud's mark but belongs to no VM",
        remedy="look at it, then remove it by hand: moln never touches what it does not know",
    )
