"""The runner of control loops: the one place where a broad `except` stands. It logs, counts and carries on.

A loop is woken by an event or by its interval, calls its step, and knows nothing of what the step does. The step
re-reads what it needs and is idempotent: a wake carries no data, and several wakes may become one call.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from services.common.domain.errors import MolnError
from services.common.obs.logs import get_logger

Step = Callable[[], Awaitable[float | None]]


@dataclass(frozen=True)
class Backoff:
    """Pauses after failures, in seconds: `first`, doubled each time up to `most`, each shortened by up to a quarter."""

    first: float = 0.1
    most: float = 30.0

    def pause(self, failures: int) -> float:
        """The pause after that many failures in a row (at least one)."""
        full = min(self.most, self.first * 2.0 ** min(failures - 1, 30))
        return full * random.uniform(0.75, 1.0)


class LoopMetrics(Protocol):
    """What a loop reports about itself."""

    def ran(self, loop: str, seconds: float) -> None:
        """A step ended well after `seconds`."""
        ...

    def failed(self, loop: str) -> None:
        """A step raised."""
        ...


class Loop:
    """Calls `step` when woken and at least every `interval` seconds, for ever; one call at a time.

    A step may return the seconds after which it wants to be called again, where that is sooner than the interval. After
    a step that raised, the loop pauses (`backoff`); wakes in that time are kept, not acted on. Exceptions of the types
    in `fatal` end the loop and reach the caller.
    """

    def __init__(
        self,
        name: str,
        step: Step,
        *,
        interval: float,
        backoff: Backoff | None = None,
        metrics: LoopMetrics | None = None,
        fatal: tuple[type[Exception], ...] = (),
    ) -> None:
        self.name = name
        self.failures = 0
        self._step = step
        self._interval = interval
        self._backoff = backoff or Backoff()
        self._metrics = metrics
        self._fatal = fatal
        self._woken = asyncio.Event()
        self._log = get_logger("loop", loop=name)

    def wake(self) -> None:
        """Asks for a call of the step soon; a wake during a step leads to another call after it."""
        self._woken.set()

    async def run(self) -> None:
        """Runs until cancelled; the first call comes at once."""
        while True:
            self._woken.clear()
            again = await self.once()
            if self.failures:
                await asyncio.sleep(self._backoff.pause(self.failures))
            else:
                await self._pause(self._interval if again is None else min(again, self._interval))

    async def once(self) -> float | None:
        """One call of the step, with its failure logged and counted."""
        started = time.perf_counter()
        try:
            again = await self._step()
        except self._fatal:
            raise
        except Exception as err:  # noqa: BLE001  the one broad except: a loop must outlive what its step meets
            self._failed(err)
            return None
        self.failures = 0
        if self._metrics is not None:
            self._metrics.ran(self.name, time.perf_counter() - started)
        return again

    def _failed(self, err: Exception) -> None:
        self.failures += 1
        if self._metrics is not None:
            self._metrics.failed(self.name)
        if isinstance(err, MolnError):
            self._log.warning("loop step failed", reason=str(err.reason), error=err.message, failures=self.failures)
        else:
            self._log.error("loop step failed", error=repr(err), failures=self.failures, exc_info=err)

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(max(0.0, seconds)):
                await self._woken.wait()
        except TimeoutError:
            return
