"""Reports of nodes into transactions: what a node may write, and what each write compares. No I/O.

A node writes only the status of VMs that are placed on it, at the epoch of that placement. The first status of an
epoch is a claim; without one granted nothing of the VM may be touched on the node.
"""

from __future__ import annotations

from typing import NamedTuple

from moln.compute.v1 import host_pb2, vm_pb2
from moln.node.v1 import node_service_pb2
from services.api.index.cloud import CloudIndex
from services.api.index.vms import VmRecord
from services.common.domain.keys import SCHEMA_VERSION
from services.common.domain.reasons import Reason
from services.common.store import Txn, key

MAX_MESSAGE = 4096
"""Characters of a hypervisor's own words that are kept."""

Report = node_service_pb2.VmReport


class Verdict(NamedTuple):
    """What becomes of a report: a transaction, or an answer at once (an empty reason: it is as the store has it)."""

    txn: Txn | None
    reason: str = ""


_AS_STORED = Verdict(None)


def judge(report: Report, actor: str, cloud: CloudIndex) -> Verdict:
    """The verdict on one report of a host that the connection carries."""
    record = cloud.vms.get(report.vm_id)
    if report.is_gone:
        return _gone(report, record)
    if record is None or record.intent is None or record.uid != report.status.uid:
        return Verdict(None, Reason.VM_NOT_FOUND)
    report.status.schema_version = SCHEMA_VERSION
    report.status.message = report.status.message[:MAX_MESSAGE]
    report.status.cause.actor = actor
    return _claim(report, record, cloud) if report.is_claim else _observation(report, record)


def _gone(report: Report, record: VmRecord | None) -> Verdict:
    """Nothing is on the host any more: its status goes. Repeating it changes nothing."""
    entry = record.statuses.get(report.status.host_id) if record is not None else None
    if entry is None or entry.value.uid != report.status.uid or entry.value.epoch > report.status.epoch:
        return _AS_STORED
    txn = Txn()
    txn.unchanged(entry.key, entry.mod_revision)
    txn.delete(entry.key)
    return Verdict(txn)


def _claim(report: Report, record: VmRecord, cloud: CloudIndex) -> Verdict:
    """Grants a start only while the placement is as the node was told, the VM is wanted, and the host is not fenced."""
    assert record.intent is not None  # noqa: S101  for the type checker: `judge` has looked
    status, placement = report.status, record.placement
    if placement is None or (status.host_id, status.epoch) not in _places(placement.value, status.phase):
        return Verdict(None, Reason.EPOCH_PAST)
    if not _is_wanted(record.intent.value.desired, status.phase):
        return Verdict(None, Reason.STATE_FORBIDS)
    host = cloud.hosts.get(status.host_id)
    liveness = host.liveness if host is not None else None
    if liveness is not None and liveness.value.state == host_pb2.LIVENESS_STATE_FENCED:
        return Verdict(None, Reason.HOST_FENCED)
    txn = Txn()
    txn.unchanged(placement.key, placement.mod_revision)
    txn.unchanged(record.intent.key, record.intent.mod_revision)
    if liveness is not None:
        txn.unchanged(liveness.key, liveness.mod_revision)
    _put(txn, status, record)
    return Verdict(txn)


def _places(placement: vm_pb2.VmPlacement, phase: vm_pb2.VmPhase) -> list[tuple[int, int]]:
    """Host and epoch of whom may claim: a start is the placement's, a place for a move is its target's."""
    if phase != vm_pb2.VM_PHASE_READY:
        return [(placement.host_id, placement.epoch)]
    move = placement.move
    return [(move.target_host_id, move.epoch)] if placement.HasField("move") else []


def _is_wanted(desired: vm_pb2.DesiredState, phase: vm_pb2.VmPhase) -> bool:
    if phase == vm_pb2.VM_PHASE_READY:
        return desired != vm_pb2.DESIRED_STATE_TERMINATED
    return desired == vm_pb2.DESIRED_STATE_RUNNING


def _observation(report: Report, record: VmRecord) -> Verdict:
    entry = record.statuses.get(report.status.host_id)
    if entry is None or entry.value.epoch != report.status.epoch:
        return Verdict(None, Reason.EPOCH_PAST)
    if entry.value == report.status:
        return _AS_STORED
    txn = Txn()
    _put(txn, report.status, record)
    return Verdict(txn)


def _put(txn: Txn, status: vm_pb2.VmStatus, record: VmRecord) -> None:
    entry = record.statuses.get(status.host_id)
    if entry is None:
        status_key = key("vm", record.id, f"status/{status.host_id:010d}")
        txn.absent(status_key)
    else:
        status_key = entry.key
        txn.unchanged(status_key, entry.mod_revision)
    txn.put(status_key, status)
