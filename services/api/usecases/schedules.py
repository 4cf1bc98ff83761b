"""Verbs at a time, or again and again: kept in the VM's intent, carried out by the leader in the name of who asked."""

from __future__ import annotations

import time

from moln.compute.v1 import vm_pb2, vm_service_pb2
from services.api.core.verbs import SCHEDULABLE
from services.api.index.cloud import CloudIndex
from services.api.usecases.resources import swap
from services.api.usecases.vms import Vms
from services.common.domain.caller import Caller
from services.common.domain.errors import MolnError, invalid
from services.common.domain.reasons import Reason
from services.common.resources.records import Repeatable, cause_of
from services.common.store import Store, Txn

MOST = 16
LEAST_INTERVAL_S = 60
LATE_S = 60.0
"""A time that has passed by so little was to come when it was asked for: clocks differ, and calls take time."""
MOST_AHEAD_S = 10 * 366 * 86400


class Schedules:
    """Adds and removes scheduled verbs."""

    def __init__(self, store: Store, cloud: CloudIndex, vms: Vms) -> None:
        self._store = store
        self._cloud = cloud
        self._vms = vms

    async def add(self, request: vm_service_pb2.ScheduleVmVerbRequest, caller: Caller) -> bytes:
        """Schedules a verb. Raises INVALID naming the field, EXHAUSTED/SCHEDULE_FULL."""
        _check(request)

        def build() -> Txn:
            record = self._vms.visible(request.id, caller)
            assert record.intent is not None  # noqa: S101  for the type checker: `visible` has looked
            intent = vm_pb2.VmIntent()
            intent.CopyFrom(record.intent.value)
            if len(intent.scheduled) >= MOST:
                raise MolnError(
                    Reason.SCHEDULE_FULL, f"VM {record.name} has {MOST} scheduled verbs; take one back first"
                )
            cause = cause_of(caller, "SCHEDULE")
            row = vm_pb2.ScheduledVerb(
                id=max((each.id for each in intent.scheduled), default=0) + 1,
                verb=request.verb,
                time=request.time,
                is_hard=request.is_hard,
                cause=cause,
                user_id=caller.user_id,
            )
            if request.HasField("interval"):
                row.interval.CopyFrom(request.interval)
            rows = sorted([*intent.scheduled, row], key=lambda each: each.time.ToNanoseconds())
            del intent.scheduled[:]
            intent.scheduled.extend(rows)
            intent.cause.CopyFrom(cause)
            return Txn().unchanged(record.intent.key, record.intent.mod_revision).put(record.intent.key, intent)

        record = self._vms.visible(request.id, caller)
        once = Repeatable(self._store, caller, "vm", request.request_id, request), record.id
        await swap(self._store, f"schedule a verb of VM {record.id}", build, once if request.request_id else None)
        return record.serialized(self._cloud.hosts)

    async def remove(self, request: vm_service_pb2.UnscheduleVmVerbRequest, caller: Caller) -> bytes:
        """Takes a scheduled verb back; one that is not there is no error."""

        def build() -> Txn | None:
            record = self._vms.visible(request.id, caller)
            assert record.intent is not None  # noqa: S101  for the type checker: `visible` has looked
            intent = vm_pb2.VmIntent()
            intent.CopyFrom(record.intent.value)
            kept = [each for each in intent.scheduled if each.id != request.scheduled_id]
            if len(kept) == len(intent.scheduled):
                return None
            del intent.scheduled[:]
            intent.scheduled.extend(kept)
            intent.cause.CopyFrom(cause_of(caller, "UNSCHEDULE"))
            return Txn().unchanged(record.intent.key, record.intent.mod_revision).put(record.intent.key, intent)

        record = self._vms.visible(request.id, caller)
        await swap(self._store, f"unschedule a verb of VM {record.id}", build)
        return record.serialized(self._cloud.hosts)


def _check(request: vm_service_pb2.ScheduleVmVerbRequest) -> None:
    if request.verb not in [str(verb) for verb in SCHEDULABLE]:
        raise invalid("verb", f"'{request.verb}' is not one of {', '.join(SCHEDULABLE)}")
    if not request.HasField("time"):
        raise invalid("time", "is required: when the verb is due", reason=Reason.FIELD_REQUIRED)
    ahead = request.time.seconds - time.time()
    if ahead < -LATE_S:
        raise invalid("time", "is in the past; name a time to come")
    if ahead > MOST_AHEAD_S:
        raise invalid("time", "is more than ten years ahead")
    if request.HasField("interval") and request.interval.seconds < LEAST_INTERVAL_S:
        raise invalid("interval", f"must be at least {LEAST_INTERVAL_S} s")
