"""The life of a VM as the history has it: its hosts with times and causes, its transitions, what is not known."""

from __future__ import annotations

import time
from collections.abc import Sequence

from google.protobuf.timestamp_pb2 import Timestamp

from moln.compute.v1 import vm_pb2
from moln.operations.v1 import operations_service_pb2 as pb
from services.api.core.timeline import Event, Gap, Piece, Size, Standing, pieces, time_of
from services.api.core.verbs import state_name
from services.api.history.keeper import Keeper
from services.api.history.log import Query
from services.api.index.cloud import CloudIndex
from services.api.index.vms import VmRecord
from services.common.domain.caller import Caller
from services.common.domain.errors import MolnError
from services.common.domain.reasons import Reason

MOST_EVENTS = 10_000
"""Of one VM; the newest are shown."""


class VmHistories:
    """Reads the history of this process."""

    def __init__(self, cloud: CloudIndex, keeper: Keeper) -> None:
        self._cloud, self._keeper = cloud, keeper

    async def get(self, vm_id: int, caller: Caller) -> pb.VmHistory:
        """The history of a VM that lives or is gone. Raises NOT_FOUND/VM_NOT_FOUND, for VMs of others too."""
        await self._keeper.settled()
        record = self._cloud.vms.get(vm_id)
        events = await self._keeper.read(Query(kind="vm", id=vm_id, limit=MOST_EVENTS, is_newest=True))
        owner = record.owner_id if record is not None and record.owner_id else events[-1].owner_id if events else 0
        if (record is None and not events) or not (caller.is_admin or owner == caller.user_id):
            raise MolnError(Reason.VM_NOT_FOUND, f"id: the history has no VM {vm_id}; see: moln vm list")
        marks, gaps = await gaps_of(self._keeper)
        begin = time_of(events[0]) if events else time.time()
        found = list(pieces(events, gaps, begin, time.time(), present(record)))
        relevant = [mark for mark, gap in zip(marks, gaps, strict=True) if gap.end > begin]
        name = record.name if record is not None else ""
        return pb.VmHistory(
            id=vm_id, name=name or (events[-1].name if events else ""), owner_id=owner, transitions=events,
            stays=self._stays(events, found), gaps=relevant, is_cut=not events or bool(getattr(events[0], "from")),
        )  # fmt: skip

    def _stays(self, events: Sequence[Event], found: Sequence[Piece]) -> list[pb.HostStay]:
        """Pieces in a row on one host are one stay; what brought the VM and took it away are the events at its ends."""
        by_time = {time_of(event): event for event in events}
        stays: list[pb.HostStay] = []
        host_id = 0
        for piece in found:
            cause = by_time.get(piece.start)
            if piece.standing.host_id != host_id:
                if host_id:
                    _end(stays[-1], piece.start, cause)
                host_id = piece.standing.host_id
                if host_id:
                    stays.append(self._begun(host_id, piece.start, cause))
            if host_id:
                stays[-1].last_state = piece.standing.state
                stays[-1].running_seconds += piece.seconds if piece.is_running else 0
                stays[-1].unknown_seconds += piece.seconds if piece.is_unknown else 0
        if host_id and events and not events[-1].to:
            _end(stays[-1], time_of(events[-1]), events[-1])
        return stays

    def _begun(self, host_id: int, start: float, cause: Event | None) -> pb.HostStay:
        stay = pb.HostStay(host_id=host_id, host=self._cloud.hosts.name_of(host_id), start_time=stamp(start))
        if cause is not None:
            stay.start_reason = cause.reason
            stay.start_cause.CopyFrom(cause.cause)
        return stay


async def gaps_of(keeper: Keeper) -> tuple[list[Event], list[Gap]]:
    """The marks of gaps and their spans: from the last event before each, which is as far as anything is known."""
    marks = [event for event in await keeper.read(Query(kind="gap", limit=MOST_EVENTS)) if event.kind == "gap"]
    spans = []
    for mark in marks:
        before = await keeper.read(Query(before=mark.revision, limit=1, is_newest=True))
        spans.append(Gap(time_of(before[-1]) if before else 0.0, time_of(mark)))
    return marks, spans


def present(record: VmRecord | None) -> Standing | None:
    """What a VM is now; None for one that is gone."""
    if record is None or record.intent is None or record.view.state == vm_pb2.VM_STATE_DONE:
        return None
    size = Size()
    if record.placement is not None:
        granted = record.placement.value.granted
        size = Size(granted.cpu_percent, granted.memory_mib, granted.disk_mib)
    return Standing(state_name(record.view.state), record.view.host_id, size)


def stamp(seconds: float) -> Timestamp:
    """Unix seconds as a timestamp."""
    made = Timestamp()
    made.FromMicroseconds(int(seconds * 1e6))
    return made


def _end(stay: pb.HostStay, at: float, cause: Event | None) -> None:
    stay.end_time.CopyFrom(stamp(at))
    if cause is not None:
        stay.end_reason = cause.reason
        stay.end_cause.CopyFrom(cause.cause)
