"""The scheduler's transactions, each with what it compares. Builds them from the cache; sends nothing.

A builder returns None where the VM has changed so much that there is nothing to write: look at it again.
"""

from __future__ import annotations

import uuid
from datetime import datetime

from google.protobuf.timestamp_pb2 import Timestamp

from moln.common.v1 import common_pb2
from moln.compute.v1 import host_pb2, vm_pb2
from services.common.domain.keys import SCHEMA_VERSION
from services.common.domain.reasons import Reason
from services.common.store import Leadership, Store, Txn, key
from services.scheduler.core.ledger import Ledger, status_hosts
from services.scheduler.core.moves import Wish
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
        on fenced ones, as that is which it leaves), placement, and of the host what enabled it. A first placement needs
        no look at the nodes: a claim compares the placement, so without one nobody can have claimed.
        """
        parts = self._cache.object("vm", record.key)
        spec = stored(parts.get("spec"), vm_pb2.VmSpec)
        if spec is None:
            return None
        txn = self._of(record)
        self._compare_host(txn, record.bound_for, with_spec=True)
        if record.host_id:
            for host_id in {record.host_id, *status_hosts(parts)}:
                self._compare_host(txn, host_id, with_spec=False)
        elif record.epoch:
            txn.none_under(key("vm", record.key, "status/"))
        placement = vm_pb2.VmPlacement(
            uid=record.uid,
            host_id=record.bound_for,
            epoch=record.epoch + 1,
            last_epoch=record.epoch + 1,
            avoided_host_ids=record.avoided,
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

    # Sizes

    def grant(self, record: VmRecord) -> Txn | None:
        """Writes down what is held for the VM now. Compares the spec that it was worked out from."""
        placement, spec = self._placement(record), self._cache.get("vm", record.key, "spec")
        intent = stored(self._cache.get("vm", record.key, "intent"), vm_pb2.VmIntent)
        if placement is None or spec is None or intent is None:
            return None
        placement.granted.CopyFrom(granted(spec.value.template, record.held, record.grant))
        placement.granted_operation_id = intent.operation.id or placement.granted_operation_id
        txn = self._of(record).unchanged(key("vm", record.key, "spec"), spec.mod_revision)
        return self._put(txn, record, placement, "GRANT")

    def refuse(self, record: VmRecord, refused: str, why: Why) -> Txn | None:
        """Says that an operation is not done, or (without one) that a drained host's VM has nowhere to go; and why."""
        placement = self._placement(record)
        if placement is None:
            return None
        placement.refusal.CopyFrom(vm_pb2.Refusal(id=refused, reason=why.reason, message=why.message))
        return self._put(self._of(record), record, placement, why.reason)

    # Hosts that are given back

    def leave(self, record: VmRecord) -> Txn | None:
        """Releases the host of a VM that is in the datastore, and of which nothing is on any node."""
        placement, volumes = self._placement(record), self._cache.get("vm", record.key, "volumes")
        if placement is None or volumes is None:
            return None
        txn = self._of(record).none_under(key("vm", record.key, "status/"))
        txn.unchanged(key("vm", record.key, "volumes"), volumes.mod_revision)
        return self._put(txn, record, _without_host(placement), "RELEASE")

    def _host_name(self, host_id: int) -> str:
        spec = stored(self._cache.get("host", f"{host_id:010d}", "spec"), host_pb2.HostSpec)
        return spec.name if spec is not None else str(host_id)

    def evict(self, record: VmRecord) -> Txn | None:
        """Takes the VM off a host that could not start it several times, and is avoided from now on; or off one that is
        drained before it has touched the VM.
        """
        placement = self._placement(record)
        entry = self._cache.get("vm", record.key, f"status/{record.host_id:010d}")
        status = stored(entry, vm_pb2.VmStatus)
        if placement is None:
            return None
        if entry is None or status is None:
            txn = self._of(record).none_under(key("vm", record.key, "status/"))
            return self._put(txn, record, _without_host(placement), "DRAIN")
        avoided = [*placement.avoided_host_ids, record.host_id]
        freed = _without_host(placement)
        freed.avoided_host_ids.extend(avoided)
        freed.pending.reason, freed.pending.message = (
            status.reason,
            f"host {self._host_name(record.host_id)}: {status.message}",
        )
        freed.pending.since.CopyFrom(self._time)
        txn = self._of(record).unchanged(entry.key, entry.mod_revision)
        return self._put(txn, record, freed, Reason.START_FAILED)

    # Moves

    def begin_move(self, record: VmRecord, wanted: Wish, how: vm_pb2.MoveMode) -> Txn | None:
        """The target is to get ready. Its room is held from now on, beside that of the source."""
        placement = self._placement(record)
        if placement is None or not record.move_for:
            return None
        epoch = max(placement.epoch, placement.last_epoch) + 1
        placement.last_epoch = epoch
        move = vm_pb2.Move(
            move_id=str(uuid.uuid4()),
            target_host_id=record.move_for,
            phase=vm_pb2.MOVE_PHASE_PREPARE,
            how=how,
            epoch=epoch,
            operation_id=wanted.operation_id,
            bandwidth_mib_per_s=wanted.bandwidth_mib_per_s,
            on_stall=wanted.on_stall,
            time=self._time,
            generation=wanted.generation,
        )
        placement.move.CopyFrom(move)
        placement.ClearField("refusal")
        txn = self._of(record)
        self._compare_host(txn, record.move_for, with_spec=True)
        return self._put(txn, record, placement, "MOVE")

    def move_on(self, record: VmRecord, phase: vm_pb2.MovePhase) -> Txn | None:
        """The next phase."""
        placement = self._placement(record)
        if placement is None:
            return None
        placement.move.phase = phase
        return self._put(self._seen(record), record, placement, "MOVE")

    def cancel_move(self, record: VmRecord) -> Txn | None:
        """The source is to give the move up, if it still can."""
        placement = self._placement(record)
        if placement is None:
            return None
        placement.move.is_cancelled = True
        return self._put(self._of(record), record, placement, Reason.OPERATION_CANCELLED)

    def switch(self, record: VmRecord) -> Txn | None:
        """The target is the VM's host from now on; the source erases. Compares what both have said."""
        placement = self._placement(record)
        if placement is None:
            return None
        placement.host_id, placement.epoch = placement.move.target_host_id, placement.move.epoch
        placement.ClearField("move")
        placement.time.CopyFrom(self._time)
        return self._put(self._seen(record), record, placement, "MOVE")

    def abort_move(self, record: VmRecord, why: Why) -> Txn | None:
        """The move is given up; the target erases. Compares what both have said: neither may have spoken since."""
        placement = self._placement(record)
        if placement is None:
            return None
        move = placement.move
        placement.last_abort.CopyFrom(
            vm_pb2.Refusal(id=move.operation_id or move.move_id, reason=why.reason, message=why.message)
        )
        placement.ClearField("move")
        return self._put(self._seen(record), record, placement, why.reason)

    def _placement(self, record: VmRecord) -> vm_pb2.VmPlacement | None:
        """A copy to change."""
        before = stored(self._cache.get("vm", record.key, "placement"), vm_pb2.VmPlacement)
        if before is None or not record.placement_revision:
            return None
        placement = vm_pb2.VmPlacement()
        placement.CopyFrom(before)
        return placement

    def _seen(self, record: VmRecord) -> Txn:
        """What all compare, and the statuses of both hosts of a move as they were read."""
        txn = self._of(record)
        for host_id in (record.host_id, record.target_host):
            name = f"status/{host_id:010d}"
            entry = self._cache.get("vm", record.key, name)
            txn.unchanged(key("vm", record.key, name), entry.mod_revision if entry is not None else 0)
        return txn

    def _put(self, txn: Txn, record: VmRecord, placement: vm_pb2.VmPlacement, reason: str) -> Txn:
        placement.schema_version = SCHEMA_VERSION
        placement.cause.CopyFrom(self._cause(reason))
        return txn.put(key("vm", record.key, "placement"), placement)

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


def _without_host(placement: vm_pb2.VmPlacement) -> vm_pb2.VmPlacement:
    """The placement without its host: only the count of epochs goes on."""
    return vm_pb2.VmPlacement(
        uid=placement.uid, epoch=placement.epoch, last_epoch=max(placement.epoch, placement.last_epoch)
    )
