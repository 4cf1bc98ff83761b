"""Which scheduled verbs are due, and what becomes of their rows. Pure."""

from __future__ import annotations

from moln.compute.v1 import vm_pb2

NANOSECONDS = 1_000_000_000


def due(intent: vm_pb2.VmIntent, now_s: float) -> vm_pb2.ScheduledVerb | None:
    """The first row that is due."""
    row = intent.scheduled[0] if intent.scheduled else None
    return row if row is not None and row.time.ToNanoseconds() <= now_s * NANOSECONDS else None


def after(intent: vm_pb2.VmIntent, row_id: int, now_s: float, reason: str, message: str) -> vm_pb2.VmIntent:
    """The intent once a row was carried out, or refused: gone, or due again at its next time to come.

    Times that passed while nobody could carry the verb out are not made up for.
    """
    changed = vm_pb2.VmIntent()
    changed.CopyFrom(intent)
    kept = []
    for row in changed.scheduled:
        if row.id == row_id:
            if not row.HasField("interval"):
                continue
            _advance(row, now_s)
            row.last_reason, row.last_message = reason, message
        kept.append(row)
    rows = [vm_pb2.ScheduledVerb.FromString(row.SerializeToString()) for row in kept]
    rows.sort(key=lambda row: row.time.ToNanoseconds())
    del changed.scheduled[:]
    changed.scheduled.extend(rows)
    return changed


def _advance(row: vm_pb2.ScheduledVerb, now_s: float) -> None:
    step, at = row.interval.ToNanoseconds(), row.time.ToNanoseconds()
    missed = max(0, int(now_s * NANOSECONDS) - at) // step
    row.time.FromNanoseconds(at + (missed + 1) * step)
