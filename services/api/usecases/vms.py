"""What users do with VMs: one request, one transaction. Reads from the index; writes spec, secrets and intent only."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Sequence
from itertools import islice
from operator import attrgetter

from moln.compute.v1 import vm_pb2, vm_service_pb2
from services.api.core import compose
from services.api.core.template_checks import check_about
from services.api.core.verbs import Verb, check_verb, next_intent
from services.api.index.cloud import CloudIndex
from services.api.index.vms import VmRecord
from services.api.usecases.resources import swap
from services.api.usecases.vm_creation import Creation, VmCreation
from services.api.usecases.vm_filter import VMS
from services.common.domain.caller import Caller
from services.common.domain.errors import MolnError, invalid
from services.common.domain.ids import check_name
from services.common.domain.reasons import Reason
from services.common.filters import parse
from services.common.resources import page_token
from services.common.resources.labels import check_labels
from services.common.resources.records import Repeatable, cause_of, check_etag
from services.common.resources.update_mask import apply_mask
from services.common.store import Store, Txn, key

MAX_BATCH = 1000
_MUTABLE = ("name", "template.description", "template.labels", "user_fields")

VerbRequest = (
    vm_service_pb2.DeployVmRequest
    | vm_service_pb2.HoldVmRequest
    | vm_service_pb2.ReleaseVmRequest
    | vm_service_pb2.PoweroffVmRequest
    | vm_service_pb2.ResumeVmRequest
    | vm_service_pb2.SuspendVmRequest
    | vm_service_pb2.StopVmRequest
    | vm_service_pb2.UndeployVmRequest
    | vm_service_pb2.TerminateVmRequest
)


class Vms:
    """Create, read, change, list."""

    def __init__(self, store: Store, cloud: CloudIndex) -> None:
        self._store = store
        self._cloud = cloud
        self._creation = VmCreation(store, cloud)

    async def create(self, request: vm_service_pb2.CreateVmRequest, caller: Caller) -> bytes:
        """Creates one VM and returns it serialised. With `validate_only` nothing is created and the id is 0."""
        result = (await self._creation.create([request], caller))[0]
        if isinstance(result, MolnError):
            raise result
        return self._created(result)

    async def batch_create(self, requests: Sequence[vm_service_pb2.CreateVmRequest], caller: Caller) -> bytes:
        """Creates up to 1,000 VMs; returns a serialised BatchCreateVmsResponse, one result per request, in order."""
        if len(requests) > MAX_BATCH:
            raise invalid("requests", f"has {len(requests)} items; at most {MAX_BATCH} go into one batch")
        results = await self._creation.create(requests, caller)
        return compose.repeated(1, (self._batch_result(each) for each in results))

    def get(self, vm_id: int, caller: Caller) -> bytes:
        """One VM, serialised. Raises NOT_FOUND."""
        return self.visible(vm_id, caller).serialized(self._cloud.hosts)

    def visible(self, vm_id: int, caller: Caller) -> VmRecord:
        """The VM, if it lives and the caller may see it. Raises NOT_FOUND/VM_NOT_FOUND otherwise."""
        record = self._cloud.vms.get(vm_id)
        if record is None or record.intent is None or not caller.may_see(record.owner_id):
            raise MolnError(
                Reason.VM_NOT_FOUND, f"there is no VM {vm_id} that {caller.name} may see", metadata={"id": str(vm_id)}
            )
        return record

    def list(self, request: vm_service_pb2.ListVmsRequest, caller: Caller) -> bytes:
        """A page of VMs by id as a serialised ListVmsResponse, put together from stored bytes."""
        wanted = parse(request.filter, VMS)
        token = page_token.decode(request.page_token, wanted.digest)
        limit = page_token.size(request.page_size)
        revision, hosts = self._store.cache.revision, self._cloud.hosts
        records = self._cloud.vms.living(0 if caller.is_admin else caller.user_id)
        start = bisect_right(records, token.last, key=attrgetter("key_id"))
        if wanted.pairs:
            rest = (record for record in islice(records, start, None) if wanted.matches((record, hosts)))
            page = list(islice(rest, limit + 1))
        else:
            page = records[start : start + limit + 1]
        is_more = len(page) > limit
        del page[limit:]
        next_token = page_token.encode(page[-1].key_id, wanted.digest, token.revision or revision) if is_more else ""
        listed = [record.listed(hosts) for record in page]
        return b"".join((*listed, compose.frame(2, next_token.encode()), compose.number(3, revision)))

    async def change(self, verb: Verb, request: VerbRequest, caller: Caller) -> bytes:
        """Changes the desired state as the verb table says. Idempotent. Raises STATE_FORBIDS, CAPABILITY, NOT_FOUND.

        A request that carries an id has its effect once: repeated, it answers the VM as it is by then.
        """
        vm_id, is_hard = request.id, getattr(request, "is_hard", False)
        wanted_host_id = request.host_id if isinstance(request, vm_service_pb2.DeployVmRequest) else 0
        if verb is Verb.DEPLOY:
            check_host(self._cloud, wanted_host_id)

        def build() -> Txn | None:
            record = self.visible(vm_id, caller)
            capabilities, is_imported = capabilities_of(self._cloud, record), record.is_imported
            row = check_verb(
                verb, record.view.state, record.name, capabilities, is_imported=is_imported, is_hard=is_hard
            )
            assert record.intent is not None  # noqa: S101  for the type checker: `visible` has looked
            intent = next_intent(verb, row, record.view.state, record.intent.value, is_hard=is_hard)
            if wanted_host_id and record.intent.value.wanted_host_id != wanted_host_id:
                intent = intent or _again(record.intent.value)
                intent.wanted_host_id = wanted_host_id
            if intent is None:
                return None
            intent.cause.CopyFrom(cause_of(caller, verb.upper()))
            intent.change_time.CopyFrom(intent.cause.time)
            txn = Txn()
            txn.unchanged(record.intent.key, record.intent.mod_revision)
            if verb in (Verb.HOLD, Verb.DEPLOY):
                placement = record.placement
                txn.unchanged(key("vm", vm_id, "placement"), placement.mod_revision if placement is not None else 0)
            return txn.put(record.intent.key, intent)

        record = self.visible(vm_id, caller)
        once = Repeatable(self._store, caller, "vm", request.request_id, request), vm_id
        await swap(self._store, f"{verb} VM {vm_id}", build, once if request.request_id else None)
        return record.serialized(self._cloud.hosts)

    async def update(self, request: vm_service_pb2.UpdateVmRequest, caller: Caller) -> bytes:
        """Changes name, description or labels. Raises ABORTED/ETAG_MISMATCH, INVALID/FIELD_IMMUTABLE."""

        def build() -> Txn:
            record = self.visible(request.id, caller)
            assert record.spec is not None  # noqa: S101  for the type checker: spec and intent are written together
            check_etag(request.etag, record.spec, f"VM {request.id}")
            spec: vm_pb2.VmSpec = apply_mask(record.spec.value, request.spec, request.update_mask, _MUTABLE)
            check_name("spec.name", spec.name)
            check_about(spec.template, "spec.template")
            check_labels("spec.user_fields", spec.user_fields)
            spec.cause.CopyFrom(cause_of(caller, "UPDATE"))
            txn = Txn()
            txn.unchanged(record.spec.key, record.spec.mod_revision)
            txn.put(record.spec.key, spec)
            return txn

        record = self.visible(request.id, caller)
        await swap(self._store, f"update VM {request.id}", build)
        return record.serialized(self._cloud.hosts)

    def _created(self, created: Creation) -> bytes:
        record = self._cloud.vms.get(created.vm_id)
        return record.serialized(self._cloud.hosts) if record is not None else created.fallback

    def _batch_result(self, result: Creation | MolnError) -> bytes:
        if not isinstance(result, MolnError):
            return compose.frame(1, self._created(result))
        failure = vm_service_pb2.Failure(
            code=_CODES[result.kind.value],
            reason=result.reason,
            message=result.message,
            field=result.fields[0][0] if result.fields else "",
        )
        return compose.frame(2, failure.SerializeToString())


def capabilities_of(cloud: CloudIndex, record: VmRecord) -> Collection[str] | None:
    """What the VM's host can do; None where it has no host, or one that has not said."""
    host = cloud.hosts.get(record.host_id) if record.host_id else None
    return host.inventory.value.capabilities if host is not None and host.inventory is not None else None


def check_host(cloud: CloudIndex, host_id: int, field: str = "host_id") -> None:
    """Raises INVALID for no host, NOT_FOUND/HOST_NOT_FOUND for one that is not there."""
    if not host_id:
        raise invalid(field, "is required: the id of a host", reason=Reason.FIELD_REQUIRED)
    if cloud.hosts.get(host_id) is None:
        problem = f"there is no host {host_id}; see: moln host list"
        raise MolnError(Reason.HOST_NOT_FOUND, f"{field}: {problem}", fields=[(field, problem)])


def _again(intent: vm_pb2.VmIntent) -> vm_pb2.VmIntent:
    changed = vm_pb2.VmIntent()
    changed.CopyFrom(intent)
    changed.generation += 1
    return changed


_CODES = {
    "INVALID_ARGUMENT": 3,
    "DEADLINE_EXCEEDED": 4,
    "NOT_FOUND": 5,
    "ALREADY_EXISTS": 6,
    "PERMISSION_DENIED": 7,
    "RESOURCE_EXHAUSTED": 8,
    "FAILED_PRECONDITION": 9,
    "ABORTED": 10,
    "OUT_OF_RANGE": 11,
    "UNIMPLEMENTED": 12,
    "INTERNAL": 13,
    "UNAVAILABLE": 14,
    "UNAUTHENTICATED": 16,
}
