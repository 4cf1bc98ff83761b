"""Carries scheduled verbs out when they are due, in the name of who asked for them. Leader only.

A row is taken off, or set to its next time, before its verb is carried out: a crash between the two leaves a verb
undone rather than doing it twice.
"""

from __future__ import annotations

import asyncio
import heapq
import time

from moln.compute.v1 import vm_pb2, vm_service_pb2
from moln.iam.v1 import user_pb2
from services.api.core import timetable
from services.api.core.verbs import Verb
from services.api.index.cloud import CloudIndex
from services.api.index.vms import VmRecord
from services.api.usecases.operation_ends import now_cause
from services.api.usecases.vm_operations import VmOperations
from services.api.usecases.vms import Vms
from services.common.domain.caller import Caller
from services.common.domain.errors import MolnError
from services.common.obs.logs import get_logger
from services.common.store import Conflict, Leadership, Store, Txn

LONGEST_S = 60.0
ACTOR = "<timetable>"
_REQUESTS = {
    Verb.HOLD: vm_service_pb2.HoldVmRequest,
    Verb.RELEASE: vm_service_pb2.ReleaseVmRequest,
    Verb.POWEROFF: vm_service_pb2.PoweroffVmRequest,
    Verb.RESUME: vm_service_pb2.ResumeVmRequest,
    Verb.SUSPEND: vm_service_pb2.SuspendVmRequest,
    Verb.STOP: vm_service_pb2.StopVmRequest,
    Verb.UNDEPLOY: vm_service_pb2.UndeployVmRequest,
    Verb.TERMINATE: vm_service_pb2.TerminateVmRequest,
}
_log = get_logger("timetable")


class Timetable:
    """A heap of when each VM's next verb is due; what is due is read from the index."""

    def __init__(self, store: Store, cloud: CloudIndex, vms: Vms, operations: VmOperations) -> None:
        self._store, self._cloud, self._vms, self._operations = store, cloud, vms, operations
        self._heap: list[tuple[float, str]] = []
        self._wake = asyncio.Event()
        cloud.vms.on_change(self._changed)

    def _changed(self, record: VmRecord, parts: set[str]) -> None:
        if "intent" in parts and record.intent is not None and record.intent.value.scheduled:
            self._note(record)

    def _note(self, record: VmRecord) -> None:
        if record.intent is not None and record.intent.value.scheduled:
            heapq.heappush(self._heap, (record.intent.value.scheduled[0].time.ToNanoseconds() / 1e9, record.key_id))
            self._wake.set()

    async def run(self, leadership: Leadership) -> None:
        """Until leadership is lost."""
        self._heap = []
        for record in self._cloud.vms.records().values():
            self._note(record)
        while True:
            self._wake.clear()
            while self._heap and self._heap[0][0] <= time.time():
                due = self._cloud.vms.by_key(heapq.heappop(self._heap)[1])
                if due is not None:
                    await self._look(due, leadership)
            wait = min(LONGEST_S, self._heap[0][0] - time.time()) if self._heap else None
            try:
                async with asyncio.timeout(wait):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def _look(self, record: VmRecord, leadership: Leadership) -> None:
        """Carries out the first verb that is due; the change of the intent brings the VM back for the next one."""
        if record.intent is None:
            return
        row = timetable.due(record.intent.value, time.time())
        if row is None:
            self._note(record)
            return
        if await self._take(record, row, leadership, "", ""):
            await self._carry_out(record, row)

    async def _take(
        self, record: VmRecord, row: vm_pb2.ScheduledVerb, leadership: Leadership, reason: str, message: str
    ) -> bool:
        if record.intent is None:
            return False
        changed = timetable.after(record.intent.value, row.id, time.time(), reason, message)
        changed.cause.CopyFrom(now_cause(ACTOR, "SCHEDULE"))
        txn = Txn(guard=leadership).unchanged(record.intent.key, record.intent.mod_revision)
        try:
            await self._store.commit(txn.put(record.intent.key, changed))
        except Conflict:
            self._note(record)
            return False
        return True

    async def _carry_out(self, record: VmRecord, row: vm_pb2.ScheduledVerb) -> None:
        caller = self._caller(row.user_id)
        if caller is None:
            _log.warning("scheduled verb of a user who is gone", vm_id=record.id, verb=row.verb)
            return
        try:
            await self._do(Verb(row.verb), record.id, caller, is_hard=row.is_hard)
        except MolnError as err:
            _log.warning("scheduled verb refused", vm_id=record.id, verb=row.verb, reason=err.reason, error=err.message)
            await self._note_refusal(record, row, err)
        else:
            _log.info("scheduled verb carried out", vm_id=record.id, verb=row.verb, user=caller.name)

    async def _do(self, verb: Verb, vm_id: int, caller: Caller, *, is_hard: bool) -> None:
        if verb is Verb.REBOOT:
            await self._operations.reboot(vm_service_pb2.RebootVmRequest(id=vm_id, is_hard=is_hard), caller)
        elif verb is Verb.RESCHED:
            await self._operations.resched(vm_service_pb2.ReschedVmRequest(id=vm_id), caller)
        else:
            request = _REQUESTS[verb](id=vm_id)
            if is_hard and "is_hard" in request.DESCRIPTOR.fields_by_name:
                setattr(request, "is_hard", True)  # noqa: B010  the verbs that have it are known by their fields
            await self._vms.change(verb, request, caller)

    async def _note_refusal(self, record: VmRecord, row: vm_pb2.ScheduledVerb, error: MolnError) -> None:
        """What came of a verb that is due again and again stands beside it."""
        if record.intent is None or not row.HasField("interval"):
            return
        changed = vm_pb2.VmIntent()
        changed.CopyFrom(record.intent.value)
        for each in changed.scheduled:
            if each.id == row.id:
                each.last_reason, each.last_message = error.reason, error.message
        txn = Txn().unchanged(record.intent.key, record.intent.mod_revision).put(record.intent.key, changed)
        await self._store.commit_all([txn])

    def _caller(self, user_id: int) -> Caller | None:
        """Who asked, with what he may do now."""
        entry = self._cloud.catalog.get("user", user_id)
        if entry is None:
            return None
        spec = entry.value
        is_admin = spec.role == user_pb2.ROLE_ADMIN
        return Caller(user_id=user_id, name=spec.name, is_admin=is_admin, capabilities=frozenset(spec.capabilities))
