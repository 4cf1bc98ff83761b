"""Says of every waiting VM why it waits: soon after it was found not to fit, then only when the answer has changed.

Nothing is decided here. Under load notes are rewritten rarely: they must not cost more than placing does.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence

from services.common.domain.reasons import Reason
from services.common.runtime import Clock
from services.scheduler.controllers.transactions import Transactions
from services.scheduler.controllers.writes import Writes
from services.scheduler.core.ledger import Ledger
from services.scheduler.core.queues import Group, VmRecord
from services.scheduler.core.words import FITS, Why
from services.scheduler.metrics import SchedulerMetrics

GRACE = 0.2
"""Seconds that a VM may wait before it is told why: most are placed by then."""
REWRITE_SECONDS = 5.0
REWRITES_PER_SECOND = 500
_GROUPS_AT_A_TIME = 50


class Notes:
    """Writes the reasons of one leadership's waiting VMs."""

    def __init__(
        self, ledger: Ledger, writes: Writes, transactions: Transactions, metrics: SchedulerMetrics, clock: Clock
    ) -> None:
        self._ledger = ledger
        self._writes = writes
        self._transactions = transactions
        self._metrics = metrics
        self._clock = clock

    async def step(self) -> None:
        """Writes what is due now."""
        await self._clock.sleep(GRACE)
        pause = self._pause()
        for number, group in enumerate(list(self._ledger.waiting)):
            if number % _GROUPS_AT_A_TIME == 0:
                await asyncio.sleep(0)
            due, why = self._due(group, pause)
            await self._write(due, why)
        self._metrics.show_pending(self._pending())

    def _due(self, group: Group, pause: float) -> tuple[list[VmRecord], Why]:
        """The VMs of a group that must be told, and what."""
        now = self._clock.monotonic()
        is_stale = now >= group.noted_at + pause
        if not (group.unnoted or is_stale) or group.is_worth_a_try(self._ledger.columns):
            return [], FITS
        why = group.why(self._ledger.columns)
        if why == FITS:
            return [], FITS
        if not is_stale:
            return list(group.unnoted.values()), why
        group.noted, group.noted_at = why, now
        return [record for record in group.waiting.values() if record.noted != why], why

    async def _write(self, records: Sequence[VmRecord], why: Why) -> None:
        for record in records:
            self._ledger.hold_still(record)
        await self._writes.send("note", records, lambda record: self._transactions.note(record, why))

    def _pause(self) -> float:
        waiting = sum(len(group.waiting) for group in self._ledger.waiting)
        return REWRITE_SECONDS + waiting / REWRITES_PER_SECOND

    def _pending(self) -> Counter[str]:
        found: Counter[str] = Counter()
        for group in self._ledger.waiting:
            found[group.noted.reason or Reason.WAITING_FOR_SCHEDULER] += len(group.waiting)
        return found
