"""Runs what hosts' scripts are asked for. One leader does; what it leaves undone its successor does again.

Level-triggered by `host/<id>/operation`. A fence that is done makes a silent host FENCED in the same transaction.
"""

from __future__ import annotations

import asyncio

from google.protobuf.timestamp_pb2 import Timestamp

from moln.common.v1 import common_pb2
from moln.compute.v1 import host_pb2
from services.api.core import host_operations as operations
from services.api.core.liveness import FENCE_COMMAND
from services.api.index.cloud import CloudIndex
from services.api.index.hosts import HostRecord
from services.api.usecases.resources import swap
from services.common.domain.errors import MolnError
from services.common.exec import ScriptError, ScriptFolder, ScriptLimits, ScriptMetrics, run_script
from services.common.obs.logs import get_logger
from services.common.runtime.background import Background
from services.common.store import Change, Leadership, Store, StoreError, Txn, key

AT_ONCE = 32
_PAUSE_S = 1.0
_K, _S, _L = host_pb2.HostOperationKind, host_pb2.HostOperationState, host_pb2.LivenessState
_log = get_logger("scripts")


class ScriptRunner:
    """The loop, and one task for each script that runs."""

    def __init__(
        self, store: Store, cloud: CloudIndex, folder: ScriptFolder, limits: ScriptLimits, metrics: ScriptMetrics
    ) -> None:
        self._store, self._cloud = store, cloud
        self._folder, self._limits, self._metrics = folder, limits, metrics
        self._busy: set[int] = set()
        self._wake = asyncio.Event()
        cloud.hosts.on_change(self._changed)

    def _changed(self, _: HostRecord, part: str, __: Change) -> None:
        if part == "operation":
            self._wake.set()

    async def run(self, leadership: Leadership) -> None:
        """Until leadership is lost."""
        self._busy.clear()
        async with Background() as tasks:
            while True:
                self._wake.clear()
                for host in self._cloud.hosts.all():
                    is_due = host.operation is not None and operations.is_active(host.operation.value)
                    if is_due and host.id not in self._busy and len(self._busy) < AT_ONCE:
                        self._busy.add(host.id)
                        tasks.start(self._perform(host, leadership), name=f"script of host {host.name}")
                await self._wake.wait()

    async def _perform(self, host: HostRecord, leadership: Leadership) -> None:
        try:
            await self._begin(host, leadership)
        except (StoreError, MolnError) as err:
            _log.warning("script not run to its end, done again", host=host.name, error=str(err))
            await asyncio.sleep(_PAUSE_S)
        finally:
            self._busy.discard(host.id)
            self._wake.set()

    async def _begin(self, host: HostRecord, leadership: Leadership) -> None:
        entry = host.operation
        if entry is None or host.spec is None or not operations.is_active(entry.value):
            return
        operation: host_pb2.HostOperation = entry.value
        if operation.state == _S.HOST_OPERATION_STATE_REQUESTED:
            txn = Txn(guard=leadership).unchanged(entry.key, entry.mod_revision)
            await self._store.commit(txn.put(entry.key, operations.begun(operation)))
        if operation.kind == _K.HOST_OPERATION_KIND_FENCE and not _is_silent(host):
            await self._end(host, operation, leadership, problem="the host was heard again before its script was run")
            return
        silence = _silence(host)
        problem = await self._ask(host.id, host.spec.value, operation)
        await self._end(host, operation, leadership, problem=problem, silence=silence)

    async def _ask(self, host_id: int, spec: host_pb2.HostSpec, operation: host_pb2.HostOperation) -> str:
        """Runs the script; why it failed, empty where it is done."""
        method = operations.METHODS[operation.kind]
        _log.info("script begins", host=spec.name, method=method, attempt=operation.attempt)
        try:
            script = self._folder.find(operations.command_of(spec, operation.kind))
            parameters = operations.parameters_of(host_id, spec)
            await run_script([script], method, parameters, limits=self._limits, metrics=self._metrics)
        except ScriptError as err:
            _log.warning("script failed", host=spec.name, method=method, attempt=operation.attempt, error=err.message)
            return err.message
        _log.info("script done", host=spec.name, method=method, attempt=operation.attempt)
        return ""

    async def _end(
        self, host: HostRecord, operation: host_pb2.HostOperation, leadership: Leadership, *, problem: str,
        silence: int = 0,
    ) -> None:  # fmt: skip
        """Writes how it ended. A fence proves only the silence in which it was begun: `silence` is its revision."""
        now = Timestamp()
        now.GetCurrentTime()

        def build() -> Txn | None:
            entry = host.operation
            if entry is None or entry.value.id != operation.id:
                return None
            over = operations.ended(entry.value, now, is_done=not problem, message=problem)
            txn = Txn(guard=leadership).unchanged(entry.key, entry.mod_revision).put(entry.key, over)
            is_fence = operation.kind == _K.HOST_OPERATION_KIND_FENCE
            if is_fence and not problem and _is_silent(host) and silence == _silence(host):
                _prove(host, operation, now, txn)
            return txn

        await swap(self._store, f"end the script of host {host.name}", build)


def _is_silent(host: HostRecord) -> bool:
    """Also of a host that has a stream but has not reported its guests on it: it is not heard."""
    return host.liveness is not None and host.liveness.value.state == _L.LIVENESS_STATE_SILENT


def _silence(host: HostRecord) -> int:
    return host.liveness.mod_revision if host.liveness is not None else 0


def _prove(host: HostRecord, operation: host_pb2.HostOperation, now: Timestamp, txn: Txn) -> None:
    """Adds that the host is fenced: its script has said so. A stream that it has may be of a time after the script."""
    if host.liveness is None or host.connection is not None:
        return
    fenced = host_pb2.HostLiveness()
    fenced.CopyFrom(host.liveness.value)
    fenced.state, fenced.proof = _L.LIVENESS_STATE_FENCED, FENCE_COMMAND
    fenced.since.CopyFrom(now)
    fenced.cause.CopyFrom(common_pb2.Cause(actor=operation.cause.actor, reason=FENCE_COMMAND.upper(), time=now))
    txn.unchanged(host.liveness.key, host.liveness.mod_revision).absent(key("hostconn", host.id))
    txn.put(host.liveness.key, fenced)
