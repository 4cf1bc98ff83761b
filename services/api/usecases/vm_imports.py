"""Guests that moln did not create become VMs: asked of their node, checked, and written, each once."""

from __future__ import annotations

from collections.abc import Iterable

from moln.common.v1 import common_pb2
from moln.compute.v1 import host_pb2, template_pb2, vm_pb2, vm_service_pb2
from moln.operations.v1.records_pb2 import NameRecord
from services.api.core.imports import check_importable, choose_guest, imported_spec
from services.api.core.templates import needed
from services.api.core.usage import charge
from services.api.index.cloud import CloudIndex
from services.api.index.vms import VmRecord
from services.api.usecases.host_guests import HostGuests
from services.api.usecases.resources import catch_up
from services.api.usecases.vms import check_host
from services.common.domain.caller import Caller
from services.common.domain.errors import MolnError, invalid
from services.common.domain.ids import check_name
from services.common.domain.keys import SCHEMA_VERSION
from services.common.domain.reasons import Reason
from services.common.resources.records import cause_of, guest_key
from services.common.rpc.store_errors import from_store_error
from services.common.store import Conflict, Store, StoreError, Txn, key


class VmImports:
    """Imports guests. Who may is the access table's to say."""

    def __init__(self, store: Store, cloud: CloudIndex, guests: HostGuests) -> None:
        self._store = store
        self._cloud = cloud
        self._guests = guests

    async def import_guest(self, request: vm_service_pb2.ImportVmRequest, caller: Caller) -> bytes:
        """The VM, serialised. Idempotent.

        Raises GUEST_NOT_FOUND, GUEST_TAKEN, STATE_FORBIDS, QUOTA_EXCEEDED, HOST_SILENT, CAPABILITY.
        """
        check_host(self._cloud, request.host_id)
        if not request.guest:
            raise invalid("guest", "is required: its UUID or name; see: moln host guests", reason=Reason.FIELD_REQUIRED)
        if request.name:
            check_name("name", request.name)
        former = self._imported(request)
        if former is not None:
            return former.serialized(self._cloud.hosts)
        host = self._cloud.hosts.name_of(request.host_id)
        guest = choose_guest((await self._guests.list(request.host_id)).guests, request.guest, host)
        check_importable(guest)
        former = self._imported(request)  # meanwhile somebody else may have imported it
        if former is not None:
            return former.serialized(self._cloud.hosts)
        if any(record.uid == guest.uuid for record in self._cloud.vms.living(0)):
            raise _taken(guest)
        return await self._make(request, guest, caller)

    def _imported(self, request: vm_service_pb2.ImportVmRequest) -> VmRecord | None:
        """The VM that this guest is already."""
        return _of_guest(self._cloud.vms.living(0), request.host_id, request.guest)

    async def _make(
        self, request: vm_service_pb2.ImportVmRequest, guest: host_pb2.ForeignGuest, caller: Caller
    ) -> bytes:
        vm_id = (await self._store.ids.take("vm", 1))[0]
        txn = self._transaction(vm_id, request, guest, caller)
        try:
            await self._store.commit(txn)
        except Conflict as err:
            await catch_up(self._store)
            former = self._imported(request)
            if former is None:
                raise _taken(guest) from err
            return former.serialized(self._cloud.hosts)
        except StoreError as err:
            raise from_store_error(err) from err
        await catch_up(self._store)
        record = self._cloud.vms.get(vm_id)
        if record is None:
            raise MolnError(Reason.VM_NOT_FOUND, f"VM {vm_id} was imported, and is gone again")
        return record.serialized(self._cloud.hosts)

    def _transaction(
        self, vm_id: int, request: vm_service_pb2.ImportVmRequest, guest: host_pb2.ForeignGuest, caller: Caller
    ) -> Txn:
        spec = imported_spec(vm_id, guest, request.name)
        spec.owner_id, spec.owner, spec.schema_version = caller.user_id, caller.name, SCHEMA_VERSION
        spec.cause.CopyFrom(cause_of(caller, "IMPORT"))
        intent = vm_pb2.VmIntent(
            uid=guest.uuid, desired=vm_pb2.DESIRED_STATE_RUNNING, generation=1, create_time=spec.cause.time,
            change_time=spec.cause.time, cause=spec.cause, schema_version=SCHEMA_VERSION, owner_id=caller.user_id,
            wanted_host_id=request.host_id,
        )  # fmt: skip
        txn, spec_key, claim = Txn(), key("vm", vm_id, "spec"), guest_key(guest.uuid)
        txn.absent(spec_key).absent(claim)
        txn.put(spec_key, spec).put(key("vm", vm_id, "intent"), intent).put(claim, NameRecord(id=vm_id))
        self._charge(txn, spec.template, caller)
        return txn

    def _charge(self, txn: Txn, template: template_pb2.VmTemplate, caller: Caller) -> None:
        user = self._cloud.catalog.get("user", caller.user_id)
        limits = user.value.limits if user is not None else common_pb2.Amounts()
        txn.fold(key("usage", caller.user_id), charge(needed(template), limits, caller.name))


def _of_guest(records: Iterable[VmRecord], host_id: int, guest: str) -> VmRecord | None:
    """The VM that was imported from this guest of the host. Raises STATE_FORBIDS for one that ends."""
    for record in records:
        if record.spec is None or record.intent is None or not record.is_imported:
            continue
        is_named = guest.lower() == record.uid or guest == record.spec.value.imported_as
        if is_named and record.intent.value.wanted_host_id == host_id:
            if record.intent.value.desired == vm_pb2.DESIRED_STATE_TERMINATED:
                problem = f"it is VM {record.name}, which is being terminated; import it again when that is done"
                raise MolnError(Reason.STATE_FORBIDS, f"import guest {guest}: {problem}")
            return record
    return None


def _taken(guest: host_pb2.ForeignGuest) -> MolnError:
    problem = f"{guest.name} has the UUID of a VM of this cloud, {guest.uuid}; terminate that first"
    return MolnError(Reason.GUEST_TAKEN, f"guest: {problem}", fields=[("guest", problem)])
