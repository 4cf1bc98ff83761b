"""The host controller: one leader writes `liveness`, from who holds each host's stream, and asks for fences.

What it writes is decided in core/liveness.py; here is the loop, the reading and the transactions.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from google.protobuf.timestamp_pb2 import Timestamp

from moln.common.v1 import common_pb2
from moln.compute.v1 import host_pb2, template_pb2, vm_pb2
from services.api.core import host_operations as operations
from services.api.core.liveness import Change as Verdict
from services.api.core.liveness import Sight, Times, Watch
from services.api.index.cloud import CloudIndex
from services.api.index.hosts import HostRecord
from services.common.domain.keys import SCHEMA_VERSION
from services.common.obs.logs import get_logger
from services.common.store import Change, Entry, Leadership, Store, Txn, key

OUTAGE_S = 6.0
"""Without an own tick for so long, the store is out: ticks come every two seconds."""
RETRY_LOOK_S = 5.0
LOOKS_SHARE = 0.1
"""Looks at all hosts take at most this part of the time: with thousands of hosts, one of them always changes."""
LONGEST_PAUSE_S = 1.0
ACTOR = "<api>"
_RESTART = frozenset({template_pb2.ON_HOST_LOSS_RESTART, template_pb2.ON_HOST_LOSS_RESTART_WITH_NEW_DISKS})
_L = host_pb2.LivenessState
_SILENT, _UNSPECIFIED = _L.LIVENESS_STATE_SILENT, _L.LIVENESS_STATE_UNSPECIFIED
_WORDS = {
    _L.LIVENESS_STATE_CONNECTED: "CONNECTED", _L.LIVENESS_STATE_SILENT: "SILENT", _L.LIVENESS_STATE_FENCED: "FENCED",
}  # fmt: skip
_log = get_logger("hosts")


class HostController:
    """Level-triggered: looks at all hosts when one has changed, and when a time is due."""

    def __init__(self, store: Store, cloud: CloudIndex, times: Times | None = None) -> None:
        self._store = store
        self._cloud = cloud
        self._times = times or Times()
        self._watch: Watch | None = None
        self._has_silent = False
        self._look_s = 0.0
        self._ticked = 0.0
        self._wake = asyncio.Event()
        cloud.hosts.on_change(self._changed)
        cloud.vms.on_change(self._vm_changed)
        store.cache.subscribe(self._tick, kinds={"process"})

    def _changed(self, host: HostRecord, part: str, change: Change) -> None:
        if part == "connection" and change.new is not None and self._watch is not None:
            self._watch.heard(host.id)
        if part in ("connection", "spec", "liveness", "operation", "inventory"):
            self._wake.set()

    def _vm_changed(self, record: object, parts: set[str]) -> None:
        """A placement or a wish may be a reason to fence: of interest only while a host is silent."""
        if self._watch is not None and self._has_silent and parts & {"placement", "intent", "spec"}:
            self._wake.set()

    def _tick(self, changes: Sequence[Change], _: int) -> None:
        if not any(change.id == self._store.process.uuid for change in changes):
            return
        now = time.monotonic()
        if self._watch is not None and now - self._ticked > OUTAGE_S:
            _log.warning("the store was out, hosts are given their time again", seconds=round(now - self._ticked, 1))
            self._watch.interrupted(now)
        self._ticked = now

    async def run(self, leadership: Leadership) -> None:
        """Until leadership is lost."""
        self._ticked = time.monotonic()
        self._watch = watch = Watch(self._times, self._ticked)
        self._has_silent = False
        try:
            while True:
                self._wake.clear()
                again_in = await self._step(watch, leadership)
                await asyncio.sleep(min(self._look_s / LOOKS_SHARE, LONGEST_PAUSE_S))
                try:
                    async with asyncio.timeout(again_in):
                        await self._wake.wait()
                except TimeoutError:
                    continue
        finally:
            self._watch = None

    async def _step(self, watch: Watch, leadership: Leadership) -> float | None:
        """Looks at all hosts and writes what follows; returns the seconds to the next look, None: when woken."""
        now = time.monotonic()
        if now - self._ticked > OUTAGE_S:
            return OUTAGE_S
        hosts = {host.id: host for host in self._cloud.hosts.all()}
        review = watch.review([self._sight(host) for host in hosts.values()], now)
        self._has_silent = any(_state(host) == _SILENT for host in hosts.values())
        self._look_s = time.monotonic() - now
        txns = [self._liveness(hosts[verdict.host_id], verdict, leadership) for verdict in review.changes]
        txns += [self._fence(hosts[host_id], leadership) for host_id in review.fences]
        if not txns:
            return self._pause(review.again_in)
        outcomes = await self._store.commit_all(txns)
        if any(isinstance(outcome, Exception) for outcome in outcomes):
            _log.info("hosts changed meanwhile", hosts=len(txns))
        return 1.0

    def _pause(self, again_in: float | None) -> float | None:
        """A fence that failed is due again at a time of day: while hosts are silent, that is looked at now and then."""
        if not self._has_silent:
            return again_in
        return RETRY_LOOK_S if again_in is None else min(again_in, RETRY_LOOK_S)

    def _sight(self, host: HostRecord) -> Sight:
        liveness = host.liveness_value()
        connection = host.connection.value if host.connection is not None else None
        assert host.spec is not None  # noqa: S101  for the type checker: `all` gives existing hosts
        is_silent = _state(host) == _SILENT
        return Sight(
            host_id=host.id,
            state=_state(host),
            boot_id=liveness.boot_id if liveness is not None else "",
            connection=connection.boot_id if connection is not None else None,
            is_synced=connection.is_synced if connection is not None else False,
            mode=host.spec.value.mode,
            vms=host.vms,
            self_fence_s=host.inventory.value.self_fence_s if host.inventory is not None else 0,
            wants_fence=is_silent and self._wants_fence(host, host.spec.value),
        )

    def _wants_fence(self, host: HostRecord, spec: host_pb2.HostSpec) -> bool:
        operation = host.operation.value if host.operation is not None else None
        if not spec.fence_command or not operations.may_fence_again(operation, time.time()):
            return False
        return spec.fences_automatically or self._has_to_restart(host)

    def _has_to_restart(self, host: HostRecord) -> bool:
        """A VM that is placed there wants to run, elsewhere if need be."""
        for key_id in self._cloud.vms.by_host.get(host.id, ()):
            record = self._cloud.vms.by_key(key_id)
            if record is None or record.spec is None or record.intent is None or record.placement is None:
                continue
            is_here = record.placement.value.host_id == host.id
            wants_to_run = record.intent.value.desired == vm_pb2.DESIRED_STATE_RUNNING
            if is_here and wants_to_run and record.spec.value.template.on_host_loss in _RESTART:
                return True
        return False

    # What is written

    def _liveness(self, host: HostRecord, verdict: Verdict, leadership: Leadership) -> Txn:
        """Compares what the verdict rests on: the host is there, who holds its stream, what it says of its watchdog."""
        assert host.spec is not None  # noqa: S101  for the type checker: `all` gives existing hosts
        word = _WORDS[verdict.state]
        cause = _cause(verdict.proof.upper() or word)
        liveness = host_pb2.HostLiveness(
            uid=host.spec.value.uid, state=verdict.state, boot_id=verdict.boot_id, since=cause.time,
            proof=verdict.proof, schema_version=SCHEMA_VERSION, cause=cause,
        )  # fmt: skip
        txn = Txn(guard=leadership).present(host.spec.key)
        txn.unchanged(key("host", host.id, "liveness"), _revision(host.liveness))
        txn.unchanged(key("hostconn", host.id), _revision(host.connection))
        if verdict.proof:
            txn.unchanged(key("host", host.id, "inventory"), _revision(host.inventory))
        _log.info("host", host=host.name, becomes=word, proof=verdict.proof)
        return txn.put(key("host", host.id, "liveness"), liveness)

    def _fence(self, host: HostRecord, leadership: Leadership) -> Txn:
        """Asks for the fence command; the controller of scripts runs it."""
        assert host.spec is not None  # noqa: S101  for the type checker: `all` gives existing hosts
        former = host.operation.value if host.operation is not None else None
        kind = host_pb2.HOST_OPERATION_KIND_FENCE
        operation = operations.new_operation(host.spec.value.uid, kind, _cause("HOST_SILENT"), former)
        operation.is_automatic, operation.schema_version = True, SCHEMA_VERSION
        txn = Txn(guard=leadership).present(host.spec.key)
        txn.unchanged(key("host", host.id, "liveness"), _revision(host.liveness))
        txn.unchanged(key("host", host.id, "operation"), _revision(host.operation))
        _log.info("host is to be fenced", host=host.name, attempt=operation.attempt)
        return txn.put(key("host", host.id, "operation"), operation)


def _state(host: HostRecord) -> host_pb2.LivenessState:
    liveness = host.liveness_value()
    return liveness.state if liveness is not None else _UNSPECIFIED


def _revision(entry: Entry | None) -> int:
    return entry.mod_revision if entry is not None else 0


def _cause(reason: str) -> common_pb2.Cause:
    now = Timestamp()
    now.GetCurrentTime()
    return common_pb2.Cause(actor=ACTOR, reason=reason, time=now)
