"""Sends the scheduler's writes: in chunks, some on their way at a time, each VM settled when its own answer is there.

No task per VM. A conflict is not an error: somebody was faster, the VM is looked at again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence

from services.common.obs.logs import get_logger
from services.common.runtime import Background, Clock
from services.common.store import Conflict, NotLeader, Store, StoreError, Txn
from services.scheduler.controllers.transactions import Transactions
from services.scheduler.core.ledger import Ledger
from services.scheduler.core.queues import VmRecord
from services.scheduler.metrics import SchedulerMetrics

CHUNK = 128
CHUNKS_ON_THEIR_WAY = 8
CONFLICT_PAUSE = 0.02
FAILURE_PAUSE = 1.0

Build = Callable[[VmRecord], Txn | None]
Answer = int | Exception | None


class Writes:
    """The writes of one leadership. `wake` is called when VMs are settled, so that the loop looks at them again."""

    def __init__(
        self,
        store: Store,
        ledger: Ledger,
        transactions: Transactions,
        metrics: SchedulerMetrics,
        background: Background,
        clock: Clock,
        wake: Callable[[], None],
    ) -> None:
        self._store = store
        self._cache = store.cache
        self._ledger = ledger
        self._transactions = transactions
        self._metrics = metrics
        self._background = background
        self._clock = clock
        self._wake = wake
        self._room = asyncio.Semaphore(CHUNKS_ON_THEIR_WAY)
        self._log = get_logger("writes")

    async def send(self, what: str, records: Sequence[VmRecord], build: Build) -> None:
        """Sends one transaction for each VM; all of them must be busy. Returns when the last chunk is on its way."""
        for chunk in _chunks(records):
            await self._room.acquire()
            self._background.start(self._commit(what, chunk, build), name=f"{what} {len(chunk)}")
            await asyncio.sleep(0)

    async def _commit(self, what: str, records: Sequence[VmRecord], build: Build) -> None:
        try:
            answers = await self._answers(records, build)
        finally:
            self._room.release()
        failed = [record for record, answer in zip(records, answers, strict=True) if not isinstance(answer, int)]
        self._settle([record for record, answer in zip(records, answers, strict=True) if isinstance(answer, int)])
        self._count(what, records, answers)
        if failed:
            for record in failed:
                self._ledger.unbind(record, self._cache.object("vm", record.key))
            self._wake()
            await self._clock.sleep(CONFLICT_PAUSE if all(map(_is_conflict, answers)) else FAILURE_PAUSE)
            self._settle(failed)

    async def _answers(self, records: Sequence[VmRecord], build: Build) -> list[Answer]:
        self._transactions.set_time(self._clock.now())
        built = [build(record) for record in records]
        try:
            found = iter(await self._store.commit_all([txn for txn in built if txn is not None]))
        except StoreError as err:
            return [err for _ in records]
        return [next(found) if txn is not None else None for txn in built]

    def _settle(self, records: Sequence[VmRecord]) -> None:
        for record in records:
            self._ledger.settle(record)
            self._ledger.update_vm(record.key, self._cache.object("vm", record.key))
        self._wake()

    def _count(self, what: str, records: Sequence[VmRecord], answers: Sequence[Answer]) -> None:
        done = sum(isinstance(answer, int) for answer in answers)
        self._metrics.written(what, done)
        if done:
            self._log.info("placements written", what=what, vms=done, first=records[0].vm_id)
        for answer in answers:
            if isinstance(answer, Conflict):
                self._metrics.conflict(answer.key)
        wrong = next((answer for answer in answers if not isinstance(answer, int) and not _is_conflict(answer)), None)
        if wrong is not None and not isinstance(wrong, NotLeader):
            self._log.warning("placements could not be written", what=what, vms=len(records) - done, error=str(wrong))


def _is_conflict(answer: Answer) -> bool:
    return answer is None or isinstance(answer, int | Conflict)


def _chunks(records: Sequence[VmRecord]) -> Iterator[Sequence[VmRecord]]:
    return (records[start : start + CHUNK] for start in range(0, len(records), CHUNK))
