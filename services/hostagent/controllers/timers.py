"""Many moments, one timer: thousands of VMs may wait for something without a task or loop handle of their own."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable

Callback = Callable[[], None]


class Timers:
    """Calls callbacks at moments of the event loop's clock. They are not taken back: callbacks look again."""

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self._loop = loop or asyncio.get_running_loop()
        self._heap: list[tuple[float, int, Callback]] = []
        self._order = itertools.count()
        self._handle: asyncio.TimerHandle | None = None
        self._armed_for = float("inf")

    def after(self, seconds: float, callback: Callback) -> None:
        """Calls `callback` once, `seconds` from now; in the order of moments, and of calls for equal ones."""
        heapq.heappush(self._heap, (self._loop.time() + seconds, next(self._order), callback))
        self._arm()

    def close(self) -> None:
        """Forgets everything that is waited for."""
        self._heap.clear()
        if self._handle is not None:
            self._handle.cancel()

    def __len__(self) -> int:
        return len(self._heap)

    def _arm(self) -> None:
        if not self._heap or self._heap[0][0] >= self._armed_for:
            return
        if self._handle is not None:
            self._handle.cancel()
        self._armed_for = self._heap[0][0]
        self._handle = self._loop.call_at(self._armed_for, self._fire)

    def _fire(self) -> None:
        self._handle, self._armed_for = None, float("inf")
        now = self._loop.time()
        try:
            while self._heap and self._heap[0][0] <= now:
                heapq.heappop(self._heap)[2]()
        finally:
            self._arm()
