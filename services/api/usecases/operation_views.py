"""Operations as users see them, in flight and ended: read, wait for, cancel; and recovery from what is stuck."""

from __future__ import annotations

import asyncio

from moln.compute.v1 import vm_pb2, vm_service_pb2
from services.api.core.operations import DONE, End
from services.api.core.recovery import check_stuck, given_up
from services.api.core.verbs import Verb
from services.api.history.keeper import Keeper
from services.api.history.log import Query
from services.api.index.cloud import CloudIndex
from services.api.index.vms import VmRecord
from services.api.usecases.operation_ends import closing
from services.api.usecases.resources import swap
from services.api.usecases.streams import Streams
from services.api.usecases.vms import Vms
from services.api.usecases.waiting import Waiting
from services.common.domain.caller import Caller
from services.common.domain.errors import MolnError, invalid
from services.common.domain.reasons import Reason
from services.common.resources.records import Repeatable, cause_of
from services.common.store import Store, Txn

_RETRY, _SUCCESS = vm_service_pb2.RECOVER_ACTION_RETRY, vm_service_pb2.RECOVER_ACTION_SUCCESS
_FAILURE, _DELETE = vm_service_pb2.RECOVER_ACTION_FAILURE, vm_service_pb2.RECOVER_ACTION_DELETE
VmOperation = vm_service_pb2.VmOperation


class OperationViews:
    """Reads operations, waits for them, gives them up, and gets VMs out of what they are stuck in."""

    def __init__(
        self, store: Store, cloud: CloudIndex, vms: Vms, waiting: Waiting, streams: Streams, keeper: Keeper
    ) -> None:
        self._store = store
        self._cloud = cloud
        self._vms = vms
        self._waiting = waiting
        self._streams = streams
        self._keeper = keeper

    async def get(self, vm_id: int, operation_id: str, caller: Caller) -> VmOperation:
        """One operation; an empty id is the newest. Raises NOT_FOUND/OPERATION_NOT_FOUND."""
        record = self._vms.visible(vm_id, caller)
        found = _of_intent(record, operation_id)
        if found is None and operation_id:
            found = await self._of_history(vm_id, operation_id)
        if found is None:
            what = f"no operation {operation_id}" if operation_id else "had no operation"
            raise MolnError(Reason.OPERATION_NOT_FOUND, f"VM {record.name} has {what}")
        return found

    async def wait(self, vm_id: int, operation_id: str, timeout_s: float, caller: Caller) -> VmOperation:
        """The operation once it has ended. Raises NOT_REACHED after the time."""
        record = self._vms.visible(vm_id, caller)
        found = await self.get(vm_id, operation_id, caller)
        with self._waiting.changes_of(record) as changed, self._streams.wakes(changed):
            try:
                async with asyncio.timeout(timeout_s):
                    while not found.is_done:
                        self._streams.check()
                        changed.clear()
                        await changed.wait()
                        found = await self.get(vm_id, found.id, caller)
            except TimeoutError as err:
                raise _not_ended(record, found, timeout_s) from err
        return found

    async def cancel(self, vm_id: int, operation_id: str, caller: Caller) -> bytes:
        """Asks for an operation in flight to be given up. Raises OPERATION_NOT_FOUND, OPERATION_ENDED."""

        def build() -> Txn | None:
            record = self._vms.visible(vm_id, caller)
            assert record.intent is not None  # noqa: S101  for the type checker: `visible` has looked
            intent = vm_pb2.VmIntent()
            intent.CopyFrom(record.intent.value)
            operation = _in_flight(intent, operation_id)
            if operation is None:
                raise _not_in_flight(record, operation_id)
            if operation.is_cancelled:
                return None
            operation.is_cancelled = True
            intent.cause.CopyFrom(cause_of(caller, "CANCEL"))
            return Txn().unchanged(record.intent.key, record.intent.mod_revision).put(record.intent.key, intent)

        record = self._vms.visible(vm_id, caller)
        await swap(self._store, f"cancel an operation of VM {vm_id}", build)
        return record.serialized(self._cloud.hosts)

    async def recover(self, request: vm_service_pb2.RecoverVmRequest, caller: Caller) -> bytes:
        """Gets a VM out of what it is stuck in; see RecoverAction. Only administrators declare a success.

        Raises STATE_FORBIDS where it is stuck in nothing.
        """
        if request.action == _DELETE:
            doomed = vm_service_pb2.TerminateVmRequest(id=request.id, is_hard=True, request_id=request.request_id)
            return await self._vms.change(Verb.TERMINATE, doomed, caller)
        if request.action not in (_RETRY, _SUCCESS, _FAILURE):
            raise invalid("action", "is required: retry, success, failure or delete", reason=Reason.FIELD_REQUIRED)
        if request.action == _SUCCESS and not caller.is_admin:
            raise MolnError(Reason.ROLE_MISSING, "action: only an administrator declares that something was done")

        def build() -> Txn | None:
            record = self._vms.visible(request.id, caller)
            assert record.intent is not None  # noqa: S101  for the type checker: `visible` has looked
            is_at_work = _in_flight(record.intent.value, "") is not None
            check_stuck(record.view.state, record.name, is_at_work=is_at_work)
            return _recovery(record, request.action, caller)

        record = self._vms.visible(request.id, caller)
        once = Repeatable(self._store, caller, "vm", request.request_id, request), record.id
        await swap(self._store, f"recover VM {record.id}", build, once if request.request_id else None)
        return record.serialized(self._cloud.hosts)

    async def _of_history(self, vm_id: int, operation_id: str) -> VmOperation | None:
        query = Query(kind="operation", id=vm_id, limit=10_000)
        for event in await self._keeper.read(query):
            if event.name == operation_id:
                kind = f"OPERATION_KIND_{getattr(event, 'from')}"
                return VmOperation(
                    vm_id=vm_id, id=operation_id, kind=kind, is_done=True, reason=event.reason, message=event.message,
                    end_time=event.time,
                )  # fmt: skip
        return None


def _of_intent(record: VmRecord, operation_id: str) -> VmOperation | None:
    assert record.intent is not None  # noqa: S101  for the type checker: it is visible
    intent, entry = record.intent.value, record.status_entry()
    status = entry.value if entry is not None else vm_pb2.VmStatus()
    found: list[VmOperation] = []
    for operation, told in ((intent.operation, status.operation), (intent.background, status.background)):
        if operation.id and operation_id in ("", operation.id):
            found.append(_running(record, operation, told))
    for result in (intent.last_operation, intent.last_background):
        if result.id and operation_id in ("", result.id):
            found.append(_ended(record.id, result))
    return max(found, key=lambda each: each.create_time.ToNanoseconds(), default=None)


def _running(record: VmRecord, operation: vm_pb2.Operation, told: vm_pb2.OperationStatus) -> VmOperation:
    view = VmOperation(
        vm_id=record.id, id=operation.id, kind=operation.kind, create_time=operation.create_time,
        deadline=operation.deadline, is_cancelled=operation.is_cancelled,
    )  # fmt: skip
    if told.id == operation.id:
        view.progress_percent, view.message = told.progress_percent, told.message
    if operation.kind == vm_pb2.OPERATION_KIND_MIGRATE:
        entry = record.status_entry()
        view.progress_percent = entry.value.progress_percent if entry is not None else 0
        view.message = record.view.message
    return view


def _ended(vm_id: int, result: vm_pb2.OperationResult) -> VmOperation:
    return VmOperation(
        vm_id=vm_id, id=result.id, kind=result.kind, is_done=True, reason=result.reason, message=result.message,
        progress_percent=0 if result.reason else 100, results=result.results, create_time=result.create_time,
        end_time=result.end_time,
    )  # fmt: skip


def _in_flight(intent: vm_pb2.VmIntent, operation_id: str) -> vm_pb2.Operation | None:
    for operation in (intent.operation, intent.background):
        if operation.id and operation_id in ("", operation.id):
            return operation
    return None


def _not_in_flight(record: VmRecord, operation_id: str) -> MolnError:
    ended = _of_intent(record, operation_id) if operation_id else None
    if ended is not None:
        how = f"failed: {ended.reason}" if ended.reason else "is done"
        return MolnError(Reason.OPERATION_ENDED, f"cancel: operation {operation_id} of VM {record.name} {how} already")
    what = f"no operation {operation_id}" if operation_id else "no operation"
    return MolnError(Reason.OPERATION_NOT_FOUND, f"cancel: VM {record.name} has {what} in flight")


def _not_ended(record: VmRecord, operation: VmOperation, timeout_s: float) -> MolnError:
    name = vm_pb2.OperationKind.Name(operation.kind).removeprefix("OPERATION_KIND_").replace("_", " ").lower()
    said = f": {operation.message}" if operation.message else ""
    return MolnError(
        Reason.NOT_REACHED,
        f"{name} of VM {record.name} has not ended after {timeout_s:g} s "
        f"({operation.progress_percent} % are done){said}",
        metadata={"operation": operation.id},
    )


def _recovery(record: VmRecord, action: int, caller: Caller) -> Txn:
    """Ends the operation in flight as declared; without one, has the node try again, or gives up what is wanted."""
    assert record.intent is not None  # noqa: S101  for the type checker: it is visible
    intent = record.intent.value
    cause = cause_of(caller, "RECOVER")
    if action != _RETRY and (intent.operation.id or intent.background.id):
        failed = End(Reason.RECOVERED, f"{caller.name} declared that it failed")
        end = failed if action == _FAILURE else DONE
        return closing(record, end, cause, is_background=not intent.operation.id)
    changed = vm_pb2.VmIntent()
    changed.CopyFrom(intent)
    changed.generation += 1
    if action == _FAILURE:
        changed.desired, changed.is_hard = given_up(record.view.state, intent.desired), False
    changed.cause.CopyFrom(cause)
    changed.change_time.CopyFrom(cause.time)
    return Txn().unchanged(record.intent.key, record.intent.mod_revision).put(record.intent.key, changed)
