"""Accounting of one VM over pieces of time: what it held while it ran and while it was there, and what is not known."""

from __future__ import annotations

from collections.abc import Iterable

from moln.operations.v1 import operations_service_pb2 as pb
from services.api.core.timeline import Piece, Size

HOUR_S = 3600.0


def account(record: pb.AccountingRecord, found: Iterable[Piece]) -> None:
    """Adds pieces to a record. Time that is not known is shown apart, and charged nothing but that it was there."""
    for piece in found:
        record.existing_seconds += piece.seconds
        if piece.is_unknown:
            record.unknown_seconds += piece.seconds
            continue
        size, hours = piece.standing.size, piece.seconds / HOUR_S
        if piece.is_running:
            record.running_seconds += piece.seconds
        if size is None:
            record.is_size_unknown = True
            continue
        _hold(record, size, hours, is_running=piece.is_running)


def _hold(record: pb.AccountingRecord, size: Size, hours: float, *, is_running: bool) -> None:
    record.disk_mib_hours += size.disk_mib * hours
    if is_running:
        record.cpu_core_hours += size.cpu_percent / 100 * hours
        record.memory_mib_hours += size.memory_mib * hours
