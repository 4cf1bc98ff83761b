"""Time as something that is handed in, so that tests move it instead of waiting for it."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """What a part of a service may know about time."""

    def now(self) -> datetime:
        """The time of day, in UTC. It may jump: never measure a duration with it."""
        ...

    def monotonic(self) -> float:
        """Seconds from some fixed moment; it only goes forward."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Returns after `seconds`; at once where they are not positive."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class ManualClock:
    """A clock that stands still until `advance` moves it: for tests and for simulation over virtual time."""

    def __init__(self, start: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self._start = start
        self._elapsed = 0.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._order = itertools.count()

    def now(self) -> datetime:
        return self._start + timedelta(seconds=self._elapsed)

    def monotonic(self) -> float:
        return self._elapsed

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._elapsed + seconds, next(self._order), woken))
        await woken

    @property
    def sleepers(self) -> int:
        """How many tasks sleep on this clock now."""
        return sum(not woken.done() for _, _, woken in self._sleepers)

    async def advance(self, seconds: float) -> None:
        """Moves the time on, waking sleepers in order, each at its own moment; lets what they start run."""
        end = self._elapsed + seconds
        while self._sleepers and self._sleepers[0][0] <= end:
            moment, _, woken = heapq.heappop(self._sleepers)
            if woken.done():
                continue
            self._elapsed = moment
            woken.set_result(None)
            await _settle()
        self._elapsed = end
        await _settle()


async def _settle() -> None:
    """Lets tasks that can run do so: enough turns of the loop for a chain of a few awaits."""
    for _ in range(10):
        await asyncio.sleep(0)
