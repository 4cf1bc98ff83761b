"""The scheduler's transactions, each with what it compares. Builds them from the cache; sends nothing.

A builder returns None where the VM has changed so much that there is nothing to write: look at it again.
"""

from __future__ import annotations

from datetime import datetime

from google.protobuf.timestamp_pb2 import Timestamp

from moln.common.v1 import common_pb2
from moln.compute.v1 import vm_pb2
from services.common.domain.keys import SCHEMA_VERSION
from services.common.domain.reasons import Reason
from services.common.store import Leadership, Store, Txn, key
from services.scheduler.core.ledger import Ledger
from services.scheduler.core.queues import VmRecord
from services.scheduler.core.shapes import granted
from services.scheduler.core.words import Why
from services.scheduler.stored import stored

ACTOR = "<scheduler>"


class Transactions:
    """Builds the transactions of one leadership. `time` is the time that is written down; set it for each chunk."""

    def __init__(self, store: Store, ledger: Ledger, leadership: Leadership) -> None:
        self._cache = store.cache
        self._ledger = ledger
        self._leadership = leadership
        self._time = Timestamp()

    def set_time(self, now: datetime) -> None:
        """The time of what is written from now on."""
        self._time.FromDatetime(now)

    def bind(self, record: VmRecord) -> Txn | None:
        """Gives the VM the host that it is bound for. Compares: leadership, intent, nothing of it on any node (or only
        on the fenced host that it leaves), placement, and of the host what enabled it. A first placement needs no look
        at the nodes: a claim compares the placement, so without one nobody can have claimed.
        """
        parts = self._cache.object("vm", record.key)
        spec = stored(parts.get("spec"), vm_pb2.VmSpec)
        if spec is None:
            return None
        txn = self._of(record)
        self._compare_host(txn, record.bound_for, with_spec=True)
        if record.host_id:
            self._compare_host(txn, record.host_id, with_spec=False)
        elif record.epoch:
            txn.none_under(key("vm", record.key, "status/"))
        placement = vm_pb2.VmPlacement(
            uid=record.uid,
            host_id=record.bound_for,
            epoch=record.epoch + 1,
            granted=granted(spec.template, record.held, record.grant),
            time=self._time,
            cause=self._cause(Reason.HOST_FENCED if record.host_id else ""),
            schema_version=SCHEMA_VERSION,
        )
        return txn.put(key("vm", record.key, "placement"), placement)

    def note(self, record: VmRecord, why: Why) -> Txn | None:
        """Writes down why the VM has no host. The time stays that of the first note of the same reason."""
        before = stored(self._cache.get("vm", record.key, "placement"), vm_pb2.VmPlacement)
        placement = vm_pb2.VmPlacement()
        if before is not None:
            placement.CopyFrom(before)
        placement.uid = record.uid
        placement.schema_version = SCHEMA_VERSION
        if placement.pending.reason != why.reason:
            placement.pending.since.CopyFrom(self._time)
        placement.pending.reason, placement.pending.message = why
        placement.cause.CopyFrom(self._cause(why.reason))
        return self._of(record).put(key("vm", record.key, "placement"), placement)

    def release(self, record: VmRecord) -> Txn | None:
        """Deletes the placement of a terminated VM of which nothing is on any node."""
        txn = self._of(record).none_under(key("vm", record.key, "status/"))
        return txn.delete(key("vm", record.key, "placement"))

    def _of(self, record: VmRecord) -> Txn:
        """What all of them compare: leadership, intent and placement as they were seen."""
        txn = Txn(guard=self._leadership)
        txn.unchanged(key("vm", record.key, "intent"), record.intent_revision)
        if record.placement_revision:
            return txn.unchanged(key("vm", record.key, "placement"), record.placement_revision)
        return txn.absent(key("vm", record.key, "placement"))

    def _compare_host(self, txn: Txn, host_id: int, *, with_spec: bool) -> None:
        revisions = self._ledger.host_revisions.get(host_id)
        txn.unchanged(key("host", host_id, "liveness"), revisions.liveness if revisions else 0)
        if with_spec:
            txn.unchanged(key("host", host_id, "spec"), revisions.spec if revisions else 0)

    def _cause(self, reason: str) -> common_pb2.Cause:
        return common_pb2.Cause(actor=ACTOR, reason=reason, time=self._time)
