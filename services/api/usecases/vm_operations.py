"""Operations that users ask for: one request, one transaction of spec and intent. What they do is their executors'.

Where a VM has no host, and so nothing of it is anywhere, a change takes effect by being written, without an operation.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any, NamedTuple

from google.protobuf.timestamp_pb2 import Timestamp

from moln.compute.v1 import template_pb2, vm_pb2, vm_service_pb2
from services.api.core.disk_snapshots import MAX_SNAPSHOTS, check_snapshot_name, new_snapshot, that_snapshot
from services.api.core.operations import DEADLINES_S, DEFAULT_DEADLINE_S, kind_name, set_size, size_of
from services.api.core.template_checks import check_context, check_disk, check_nic, check_size
from services.api.core.templates import complete_disk, complete_nic, needed
from services.api.core.usage import change
from services.api.core.verbs import Verb, VerbRow, check_verb
from services.api.index.cloud import CloudIndex
from services.api.index.vms import VmRecord
from services.api.usecases.addresses import check_room
from services.api.usecases.resources import swap
from services.api.usecases.vm_creation import refer, resolver_of
from services.api.usecases.vms import Vms, capabilities_of, check_host
from services.common.domain.caller import Caller
from services.common.domain.errors import MolnError, invalid
from services.common.domain.ids import check_name
from services.common.domain.keys import SCHEMA_VERSION
from services.common.domain.reasons import Reason
from services.common.resources.records import Repeatable, cause_of
from services.common.store import Store, Txn, key

_MODES = {
    "": vm_pb2.MOVE_MODE_UNSPECIFIED,
    "live": vm_pb2.MOVE_MODE_LIVE,
    "save": vm_pb2.MOVE_MODE_SAVE,
    "cold": vm_pb2.MOVE_MODE_COLD,
}
Request = Any
"""A request of VmService with `id` and `request_id`."""


class Asked(NamedTuple):
    """What a verb is asked of: the VM, a copy of its spec to change, and the transaction to add to."""

    record: VmRecord
    spec: vm_pb2.VmSpec
    txn: Txn
    caller: Caller


Prepare = Callable[[Asked], vm_pb2.OperationParameters]
"""Changes the spec, adds to the transaction, and says what the operation is about. Raises what refuses it."""


class VmOperations:
    """Begins operations."""

    def __init__(self, store: Store, cloud: CloudIndex, vms: Vms) -> None:
        self._store = store
        self._cloud = cloud
        self._vms = vms

    async def reboot(self, request: vm_service_pb2.RebootVmRequest, caller: Caller) -> bytes:
        """Reboots the guest."""
        about = vm_pb2.OperationParameters(is_hard=request.is_hard)
        return await self._ask(Verb.REBOOT, request, caller, lambda asked: about)

    async def migrate(self, request: vm_service_pb2.MigrateVmRequest, caller: Caller) -> bytes:
        """Has the VM moved. Raises INVALID for its own host or an unknown mode, NOT_FOUND/HOST_NOT_FOUND."""
        if request.mode not in _MODES:
            raise invalid("mode", f"'{request.mode}' is not one of live, save, cold")
        if request.host_id:
            check_host(self._cloud, request.host_id)
        wish = vm_pb2.MoveWish(
            host_id=request.host_id,
            mode=_MODES[request.mode],
            bandwidth_mib_per_s=request.bandwidth_mib_per_s,
            on_stall=request.on_stall,
        )

        def prepare(asked: Asked) -> vm_pb2.OperationParameters:
            if asked.record.host_id == request.host_id:
                raise invalid("host_id", "is the host that the VM is on; name another one, or none")
            return vm_pb2.OperationParameters(move=wish)

        return await self._ask(Verb.MIGRATE, request, caller, prepare)

    async def resched(self, request: vm_service_pb2.ReschedVmRequest, caller: Caller) -> bytes:
        """Has the VM moved to the host that suits it best now."""
        about = vm_pb2.OperationParameters(move=vm_pb2.MoveWish())
        return await self._ask(Verb.RESCHED, request, caller, lambda asked: about)

    async def attach_disk(self, request: vm_service_pb2.AttachVmDiskRequest, caller: Caller) -> bytes:
        """Adds a disk; its number is in the spec that is returned."""
        check_disk(request.disk, "disk")

        def prepare(asked: Asked) -> vm_pb2.OperationParameters:
            disk = asked.spec.template.disks.add()
            disk.CopyFrom(request.disk)
            complete_disk(disk, asked.spec.next_disk_id, resolver_of(self._cloud, caller), "disk")
            asked.spec.next_disk_id += 1
            used = {each.image_id for each in asked.record.spec.value.template.disks} if asked.record.spec else set()
            if disk.image_id and disk.image_id not in used:
                refer(self._cloud, asked.txn, disk.image_id, asked.record.id, asked.record.uid)
            return vm_pb2.OperationParameters(disk_id=disk.disk_id)

        return await self._ask(Verb.ATTACH_DISK, request, caller, prepare)

    async def detach_disk(self, request: vm_service_pb2.DetachVmDiskRequest, caller: Caller) -> bytes:
        """Removes a disk: out of the spec when the node has done it."""

        def prepare(asked: Asked) -> vm_pb2.OperationParameters:
            _disk(asked.spec, request.disk_id)
            return vm_pb2.OperationParameters(disk_id=request.disk_id)

        return await self._ask(Verb.DETACH_DISK, request, caller, prepare)

    async def attach_nic(self, request: vm_service_pb2.AttachVmNicRequest, caller: Caller) -> bytes:
        """Adds an interface; its number is in the spec that is returned."""
        check_nic(request.nic, "nic")

        def prepare(asked: Asked) -> vm_pb2.OperationParameters:
            nic = asked.spec.template.nics.add()
            nic.CopyFrom(request.nic)
            complete_nic(nic, asked.spec.next_nic_id, resolver_of(self._cloud, caller), "nic")
            check_room(template_pb2.VmTemplate(nics=[nic]), self._cloud.catalog, {})
            asked.spec.next_nic_id += 1
            return vm_pb2.OperationParameters(nic_id=nic.nic_id)

        return await self._ask(Verb.ATTACH_NIC, request, caller, prepare)

    async def detach_nic(self, request: vm_service_pb2.DetachVmNicRequest, caller: Caller) -> bytes:
        """Removes an interface: out of the spec when the node has done it."""

        def prepare(asked: Asked) -> vm_pb2.OperationParameters:
            if all(nic.nic_id != request.nic_id for nic in asked.spec.template.nics):
                there = _listed(nic.nic_id for nic in asked.spec.template.nics)
                raise MolnError(Reason.NIC_NOT_FOUND, f"nic_id: the VM has no interface {request.nic_id}; {there}")
            return vm_pb2.OperationParameters(nic_id=request.nic_id)

        return await self._ask(Verb.DETACH_NIC, request, caller, prepare)

    async def resize(self, request: vm_service_pb2.ResizeVmRequest, caller: Caller) -> bytes:
        """Changes CPU and memory. Where only the vCPUs are stated the CPU share grows with them."""
        if not (request.size.vcpus or request.size.cpu_percent or request.size.memory_mib):
            raise invalid("size", "says nothing: state vcpus, cpu_percent or memory_mib", reason=Reason.FIELD_REQUIRED)

        def prepare(asked: Asked) -> vm_pb2.OperationParameters:
            template = asked.spec.template
            before = size_of(template)
            wanted = vm_pb2.VmSize()
            wanted.CopyFrom(request.size)
            if wanted.vcpus and not wanted.cpu_percent:
                wanted.cpu_percent = before.cpu_percent * wanted.vcpus // max(1, before.vcpus)
            set_size(template, wanted)
            check_size(template, "size")
            return vm_pb2.OperationParameters(size=size_of(template), former_size=before)

        return await self._ask(Verb.RESIZE, request, caller, prepare)

    async def resize_disk(self, request: vm_service_pb2.ResizeVmDiskRequest, caller: Caller) -> bytes:
        """Makes a disk larger."""

        def prepare(asked: Asked) -> vm_pb2.OperationParameters:
            disk = _disk(asked.spec, request.disk_id)
            before = disk.size_mib
            if request.size_mib <= before:
                raise invalid("size_mib", f"must be more than the {before} MiB that the disk has; disks only grow")
            disk.size_mib = request.size_mib
            check_disk(disk, "disk")
            return vm_pb2.OperationParameters(
                disk_id=disk.disk_id, disk_size_mib=disk.size_mib, former_disk_size_mib=before
            )

        return await self._ask(Verb.RESIZE_DISK, request, caller, prepare)

    async def create_snapshot(self, request: vm_service_pb2.CreateVmSnapshotRequest, caller: Caller) -> bytes:
        """Makes a snapshot. Raises EXISTS/NAME_TAKEN for a name that the VM has."""
        check_snapshot_name(request.name)

        def prepare(asked: Asked) -> vm_pb2.OperationParameters:
            there = _snapshots(asked.record)
            if request.name in there:
                problem = f"the VM has a snapshot {request.name} already; delete it, or choose another name"
                raise MolnError(Reason.NAME_TAKEN, f"name: {problem}", fields=[("name", problem)])
            if len(there) >= MAX_SNAPSHOTS:
                raise invalid("name", f"would be one too many: a VM has at most {MAX_SNAPSHOTS} snapshots")
            return vm_pb2.OperationParameters(snapshot=request.name)

        return await self._ask(Verb.CREATE_SNAPSHOT, request, caller, prepare)

    async def revert_snapshot(self, request: vm_service_pb2.RevertVmSnapshotRequest, caller: Caller) -> bytes:
        """Goes back to a snapshot."""
        return await self._ask(Verb.REVERT_SNAPSHOT, request, caller, _of_snapshot(request.name))

    async def delete_snapshot(self, request: vm_service_pb2.DeleteVmSnapshotRequest, caller: Caller) -> bytes:
        """Deletes a snapshot."""
        return await self._ask(Verb.DELETE_SNAPSHOT, request, caller, _of_snapshot(request.name))

    async def create_disk_snapshot(self, request: vm_service_pb2.CreateVmDiskSnapshotRequest, caller: Caller) -> bytes:
        """Makes a snapshot of one disk. Raises what `new_snapshot` raises, and DISK_NOT_FOUND."""
        check_snapshot_name(request.name)

        def prepare(asked: Asked) -> vm_pb2.OperationParameters:
            disk = _disk(asked.spec, request.disk_id)
            return new_snapshot(disk, _disk_snapshots(asked.record, disk.disk_id), request.name)

        return await self._ask(Verb.CREATE_DISK_SNAPSHOT, request, caller, prepare)

    async def revert_disk_snapshot(self, request: vm_service_pb2.RevertVmDiskSnapshotRequest, caller: Caller) -> bytes:
        """Brings one disk back to a snapshot of it."""
        prepare = _of_disk_snapshot(request.disk_id, request.name)
        return await self._ask(Verb.REVERT_DISK_SNAPSHOT, request, caller, prepare)

    async def delete_disk_snapshot(self, request: vm_service_pb2.DeleteVmDiskSnapshotRequest, caller: Caller) -> bytes:
        """Deletes a snapshot of one disk."""
        prepare = _of_disk_snapshot(request.disk_id, request.name)
        return await self._ask(Verb.DELETE_DISK_SNAPSHOT, request, caller, prepare)

    async def save_disk(self, request: vm_service_pb2.SaveVmDiskRequest, caller: Caller) -> bytes:
        """Saves a disk as a new image, in the background. Raises EXISTS/NAME_TAKEN where its owner has such an image.

        One that comes to have the name meanwhile makes the operation fail, with the same words.
        """
        check_name("image_name", request.image_name)

        def prepare(asked: Asked) -> vm_pb2.OperationParameters:
            _disk(asked.spec, request.disk_id)
            if self._cloud.catalog.images.is_taken(request.image_name, asked.spec.owner_id):
                problem = f"{asked.spec.owner} has an image {request.image_name} already; choose another name"
                raise invalid("image_name", problem, reason=Reason.NAME_TAKEN)
            return vm_pb2.OperationParameters(disk_id=request.disk_id, image_name=request.image_name)

        return await self._ask(Verb.SAVE_DISK, request, caller, prepare)

    async def update_context(self, request: vm_service_pb2.UpdateVmContextRequest, caller: Caller) -> bytes:
        """Replaces the context; secret variables that are not stated stay."""
        check_context(request.context, "context")
        if request.context.is_disabled:
            raise invalid("context.is_disabled", "cannot be changed: the disk is there or not from the beginning")
        secrets = dict(request.context.secret_variables)

        def prepare(asked: Asked) -> vm_pb2.OperationParameters:
            asked.spec.template.context.CopyFrom(request.context)
            asked.spec.template.context.ClearField("secret_variables")
            if secrets:
                hidden = vm_pb2.VmSecrets(
                    uid=asked.record.uid, context_variables=secrets, schema_version=SCHEMA_VERSION
                )
                asked.txn.put(key("vm", asked.record.id, "secrets"), hidden)
            return vm_pb2.OperationParameters()

        return await self._ask(Verb.CONTEXT, request, caller, prepare)

    async def _ask(self, verb: Verb, request: Request, caller: Caller, prepare: Prepare) -> bytes:
        """The common way of all of them. Raises STATE_FORBIDS, CAPABILITY, OPERATION_IN_FLIGHT, QUOTA_EXCEEDED."""

        def build() -> Txn:
            record = self._vms.visible(request.id, caller)
            capabilities, is_imported = capabilities_of(self._cloud, record), record.is_imported
            row = check_verb(verb, record.view.state, record.name, capabilities, is_imported=is_imported)
            return self._build(verb, row, record, caller, prepare)

        record = self._vms.visible(request.id, caller)
        once = Repeatable(self._store, caller, "vm", request.request_id, request), record.id
        await swap(self._store, f"{verb} VM {record.id}", build, once if request.request_id else None)
        return record.serialized(self._cloud.hosts)

    def _build(self, verb: Verb, row: VerbRow, record: VmRecord, caller: Caller, prepare: Prepare) -> Txn:
        assert record.spec is not None and record.intent is not None  # noqa: S101  for the type checker: it is visible
        spec, intent, txn = vm_pb2.VmSpec(), vm_pb2.VmIntent(), Txn()
        spec.CopyFrom(record.spec.value)
        intent.CopyFrom(record.intent.value)
        about = prepare(Asked(record, spec, txn, caller))
        cause = cause_of(caller, verb.upper())
        if record.host_id:
            if spec != record.spec.value:
                about.former_cause.CopyFrom(record.spec.value.cause)
            operation = _operation(row, record, about, cause.time)
            operation.cause.CopyFrom(cause)
            _take_slot(intent, operation, row, record.name)
        elif verb in (Verb.DETACH_DISK, Verb.DETACH_NIC):
            _take_out(spec.template, about, verb)
        intent.needs_volumes |= bool(spec.template.disks)
        intent.needs_addresses |= bool(spec.template.nics)
        intent.cause.CopyFrom(cause)
        self._charge(txn, record, spec)
        txn.unchanged(record.intent.key, record.intent.mod_revision).put(record.intent.key, intent)
        placement = record.placement
        txn.unchanged(key("vm", record.id, "placement"), placement.mod_revision if placement is not None else 0)
        if spec != record.spec.value:
            spec.cause.CopyFrom(cause)
            txn.unchanged(record.spec.key, record.spec.mod_revision).put(record.spec.key, spec)
        return txn

    def _charge(self, txn: Txn, record: VmRecord, spec: vm_pb2.VmSpec) -> None:
        assert record.spec is not None  # noqa: S101  for the type checker: it is visible
        before, after = needed(record.spec.value.template), needed(spec.template)
        if before != after:
            user = self._cloud.catalog.get("user", record.owner_id)
            limits = user.value.limits if user is not None else type(before)()
            txn.fold(key("usage", record.owner_id), change(before, after, limits, spec.owner))


def _operation(row: VerbRow, record: VmRecord, about: vm_pb2.OperationParameters, now: Timestamp) -> vm_pb2.Operation:
    seconds = DEADLINES_S.get(row.operation, DEFAULT_DEADLINE_S)
    epoch = record.placement.value.epoch if record.placement is not None else 0
    return vm_pb2.Operation(
        id=str(uuid.uuid4()),
        kind=row.operation,
        parameters=about,
        create_time=now,
        deadline=Timestamp(seconds=now.seconds + seconds),
        epoch=epoch,
    )


def _take_slot(intent: vm_pb2.VmIntent, operation: vm_pb2.Operation, row: VerbRow, name: str) -> None:
    """One exclusive and one background operation at a time."""
    slot = intent.background if row.is_background else intent.operation
    if slot.id:
        raise MolnError(
            Reason.OPERATION_IN_FLIGHT,
            f"{kind_name(operation.kind)} of VM {name}: {kind_name(slot.kind)} is in flight ({slot.id}); "
            f"wait for it, or cancel it: moln vm cancel {name}",
            metadata={"operation": slot.id},
        )
    slot.CopyFrom(operation)


def _take_out(template: template_pb2.VmTemplate, about: vm_pb2.OperationParameters, verb: Verb) -> None:
    if verb is Verb.DETACH_DISK:
        kept = [disk for disk in template.disks if disk.disk_id != about.disk_id]
        del template.disks[:]
        template.disks.extend(kept)
    else:
        nics = [nic for nic in template.nics if nic.nic_id != about.nic_id]
        del template.nics[:]
        template.nics.extend(nics)


def _disk(spec: vm_pb2.VmSpec, disk_id: int) -> template_pb2.DiskTemplate:
    for disk in spec.template.disks:
        if disk.disk_id == disk_id:
            return disk
    there = _listed(disk.disk_id for disk in spec.template.disks)
    raise MolnError(Reason.DISK_NOT_FOUND, f"disk_id: the VM has no disk {disk_id}; {there}")


def _listed(numbers: Any) -> str:
    known = ", ".join(str(number) for number in numbers)
    return f"it has {known}" if known else "it has none"


def _snapshots(record: VmRecord) -> list[str]:
    entry = record.status_entry()
    return [snapshot.name for snapshot in entry.value.snapshots] if entry is not None else []


def _of_snapshot(name: str) -> Prepare:
    def prepare(asked: Asked) -> vm_pb2.OperationParameters:
        there = _snapshots(asked.record)
        if name not in there:
            known = f"it has {', '.join(there)}" if there else "it has none"
            raise MolnError(Reason.SNAPSHOT_NOT_FOUND, f"name: the VM has no snapshot '{name}'; {known}")
        return vm_pb2.OperationParameters(snapshot=name)

    return prepare


def _disk_snapshots(record: VmRecord, disk_id: int) -> list[str]:
    entry = record.status_entry()
    there = entry.value.disk_snapshots if entry is not None else ()
    return [snapshot.name for snapshot in there if snapshot.disk_id == disk_id]


def _of_disk_snapshot(disk_id: int, name: str) -> Prepare:
    def prepare(asked: Asked) -> vm_pb2.OperationParameters:
        _disk(asked.spec, disk_id)
        return that_snapshot(disk_id, _disk_snapshots(asked.record, disk_id), name)

    return prepare
