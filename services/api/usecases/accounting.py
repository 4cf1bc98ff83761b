"""Accounting records by VM and owner, over a span of time, from the history and the samples of this process."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from google.protobuf.timestamp_pb2 import Timestamp

from moln.operations.v1 import operations_service_pb2 as pb
from services.api.core.accounting import HOUR_S, account
from services.api.core.timeline import Event, Gap, Standing, clipped, pieces, time_of
from services.api.history.keeper import Keeper
from services.api.history.log import Query
from services.api.index.cloud import CloudIndex
from services.api.samples.book import SampleBook
from services.api.samples.ring import CPU, DAY, TIERS
from services.api.usecases.vm_histories import gaps_of, present, stamp
from services.common.domain.caller import Caller
from services.common.domain.errors import MolnError, invalid
from services.common.domain.reasons import Reason

_CHUNK = 10_000


class _Living(NamedTuple):
    """A VM that is there now."""

    name: str
    owner_id: int
    standing: Standing | None


class Accounting:
    """Who took how much."""

    def __init__(self, cloud: CloudIndex, keeper: Keeper, book: SampleBook) -> None:
        self._cloud, self._keeper, self._book = cloud, keeper, book

    async def list(self, request: pb.ListAccountingRecordsRequest, caller: Caller) -> pb.ListAccountingRecordsResponse:
        """Records of the VMs that were there in the span, by owner and VM."""
        owner_id = self._owner(request.owner_id, caller)
        await self._keeper.settled()
        now = time.time()
        begin = await self._begin(now)
        start = max(begin, _seconds(request.start_time) or begin)
        end = min(now, _seconds(request.end_time) or now)
        if request.HasField("end_time") and _seconds(request.end_time) < _seconds(request.start_time):
            raise invalid("end_time", "is before start_time")
        marks, gaps = await gaps_of(self._keeper)
        events = await self._events(owner_id, end)
        living = {vm.id: _Living(vm.name, vm.owner_id, present(vm)) for vm in self._cloud.vms.living(owner_id)}
        records = await asyncio.to_thread(_records, events, living, gaps, begin, (start, end), now)
        self._book.settle()
        for record in records:
            self._complete(record, start, end)
        records.sort(key=lambda record: (record.owner_id, record.vm_id))
        known = [mark for mark, gap in zip(marks, gaps, strict=True) if gap.end > start and gap.start < end]
        return pb.ListAccountingRecordsResponse(
            records=records, gaps=known, history_start_time=stamp(begin), start_time=stamp(start), end_time=stamp(end)
        )

    def _owner(self, wanted: int, caller: Caller) -> int:
        if caller.is_admin:
            return wanted
        if wanted not in (0, caller.user_id):
            raise MolnError(Reason.ROLE_MISSING, "owner_id: only administrators see the records of others")
        return caller.user_id

    async def _begin(self, now: float) -> float:
        oldest = await self._keeper.read(Query(limit=1))
        return time_of(oldest[0]) if oldest else now

    async def _events(self, owner_id: int, end: float) -> Mapping[int, Sequence[Event]]:
        """All transitions of VMs of an owner until `end`, by VM."""
        found: defaultdict[int, deque[Event]] = defaultdict(deque)
        after = 0
        while True:
            chunk = await self._keeper.read(Query(after=after, limit=_CHUNK, kind="vm", owner=owner_id))
            for event in chunk:
                if event.kind == "vm":
                    found[event.id].append(event)
            if len(chunk) < _CHUNK or time_of(chunk[-1]) > end:
                return found
            after = chunk[-1].revision

    def _complete(self, record: pb.AccountingRecord, start: float, end: float) -> None:
        user = self._cloud.catalog.get("user", record.owner_id)
        record.owner = user.value.name if user is not None else ""
        self._add_used(record, start, end)

    def _add_used(self, record: pb.AccountingRecord, start: float, end: float) -> None:
        """CPU that samples saw: the mean of their half hours, for no more time than the VM ran."""
        series = self._book.vms.history(record.vm_id, DAY, time.time())
        step = TIERS[DAY].seconds
        shares = [
            (max(0.0, min(end, begins + step) - max(start, begins)), figures[CPU])
            for begins, figures in zip(series.starts, series.figures, strict=True)
            if figures[CPU] == figures[CPU]
        ]
        covered = sum(seconds for seconds, _ in shares)
        if covered > 0:
            mean = sum(seconds * percent for seconds, percent in shares) / covered
            record.sampled_seconds = min(covered, record.running_seconds)
            record.cpu_used_core_hours = mean / 100 * record.sampled_seconds / HOUR_S


def _records(
    events: Mapping[int, Sequence[Event]], living: Mapping[int, _Living], gaps: Sequence[Gap], begin: float,
    span: tuple[float, float], now: float,
) -> list[pb.AccountingRecord]:  # fmt: skip
    """Of every VM that was there in the span. Runs in a thread: there may be very many transitions."""
    records = []
    for vm_id in events.keys() | living.keys():
        transitions, alive = events.get(vm_id, ()), living.get(vm_id)
        standing = alive.standing if alive is not None else None
        record = pb.AccountingRecord(vm_id=vm_id)
        account(record, clipped(pieces(transitions, gaps, begin, now, standing), *span))
        if not record.existing_seconds:
            continue
        if alive is not None:
            record.vm_name, record.owner_id = alive.name, alive.owner_id
        else:
            record.vm_name, record.owner_id = transitions[-1].name, transitions[-1].owner_id
        records.append(record)
    return records


def _seconds(moment: Timestamp) -> float:
    return moment.ToNanoseconds() / 1e9
