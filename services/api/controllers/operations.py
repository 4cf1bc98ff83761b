"""The operations controller: closes operations when their executors have reported, or nothing more can come of them."""

from __future__ import annotations

import asyncio
import time

from services.api.core.operations import Parts, end_of
from services.api.index.cloud import CloudIndex
from services.api.index.vms import VmRecord
from services.api.usecases.operation_ends import closing, now_cause
from services.common.obs.logs import get_logger
from services.common.store import Conflict, Leadership, Store, Txn

REVIEW_S = 1.0
"""Deadlines are looked at this often, as long as an operation is in flight."""
ACTOR = "<api>"
_log = get_logger("operations")


class OperationsController:
    """Level-triggered: looks at the VMs with an operation in flight when one has changed, and once a second."""

    def __init__(self, store: Store, cloud: CloudIndex) -> None:
        self._store = store
        self._cloud = cloud
        self._in_flight: set[str] = set()
        self._wake = asyncio.Event()
        cloud.vms.on_change(self._changed)

    def _changed(self, record: VmRecord, _: set[str]) -> None:
        if _has_operation(record):
            self._in_flight.add(record.key_id)
            self._wake.set()

    async def run(self, leadership: Leadership) -> None:
        """Until leadership is lost."""
        self._in_flight = {key_id for key_id, record in self._cloud.vms.records().items() if _has_operation(record)}
        while True:
            try:
                async with asyncio.timeout(REVIEW_S if self._in_flight else None):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()
            await self._review(leadership)

    async def _review(self, leadership: Leadership) -> None:
        txns: list[Txn] = []
        for key_id in list(self._in_flight):
            record = self._cloud.vms.by_key(key_id)
            if record is None or not _has_operation(record):
                self._in_flight.discard(key_id)
                continue
            txn = self._closing(record, leadership)
            if txn is not None:
                txns.append(txn)
        for outcome in await self._store.commit_all(txns):
            if isinstance(outcome, Exception) and not isinstance(outcome, Conflict):
                raise outcome

    def _closing(self, record: VmRecord, leadership: Leadership) -> Txn | None:
        if record.intent is None or record.spec is None:
            return None
        status = record.status_entry()
        placement = record.placement.value if record.placement is not None else None
        parts = Parts(record.intent.value, placement, status.value if status is not None else None)
        for is_background in (False, True):
            operation = parts.intent.background if is_background else parts.intent.operation
            end = end_of(operation, parts, time.time(), is_background=is_background) if operation.id else None
            if end is not None:
                _log.info("operation closed", vm_id=record.id, operation=operation.id, reason=end.reason or None)
                cause = now_cause(ACTOR, end.reason or "OPERATION_DONE")
                return closing(record, end, cause, is_background=is_background, guard=leadership)
        return None


def _has_operation(record: VmRecord) -> bool:
    intent = record.intent
    return intent is not None and (intent.value.HasField("operation") or intent.value.HasField("background"))
