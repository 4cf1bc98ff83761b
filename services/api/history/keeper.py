"""The keeper: brings the recorder's events to disk in bunches, and wakes those who follow the history."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from services.api.history.log import Event, EventLog, Query
from services.api.history.recorder import Recorder
from services.common.obs.logs import get_logger
from services.common.store import Change, Store

_GATHER_S = 0.02
_RETRY_S = 1.0
_PATIENCE_S = 2.0
_log = get_logger("history")


class Keeper:
    """One per api process. `revision` is what all followers can read up to. Make it once the history is caught up."""

    def __init__(self, store: Store, log: EventLog, recorder: Recorder) -> None:
        self._store = store
        self._log = log
        self._recorder = recorder
        self._wake = asyncio.Event()
        self._wake.set()
        self._followers: set[asyncio.Event] = set()
        self._is_failing = False
        self.revision = log.durable_revision

    async def run(self) -> None:
        """Until cancelled. While the disk refuses, events are kept and tried again, and the process says so."""
        unsubscribe = self._store.cache.subscribe(self._changed)
        kept: list[Event] = []
        try:
            while True:
                await self._wake.wait()
                await asyncio.sleep(_RETRY_S if self._is_failing else _GATHER_S)
                self._wake.clear()
                revision = self._store.cache.revision
                kept += self._recorder.take()
                if await self._write(kept, revision):
                    kept = []
                else:
                    self._wake.set()
        finally:
            unsubscribe()
            await self._write(kept + self._recorder.take(), self._store.cache.revision)

    def _changed(self, _: Sequence[Change], __: int) -> None:
        self._wake.set()

    async def _write(self, events: list[Event], revision: int) -> bool:
        try:
            await asyncio.to_thread(self._log.append, events, revision)
        except OSError as err:
            _log.error("history cannot be written", error=str(err), events=len(events))
            self._report(f"history cannot be written: {err}")
            return False
        self._report("")
        self.revision = revision
        for follower in self._followers:
            follower.set()
        return True

    def _report(self, problem: str) -> None:
        """Tells all processes how far this history is, so that compaction waits for it, and what is wrong with it."""
        self._is_failing = bool(problem)
        self._store.process.report(problems=[problem] if problem else [], history_revision=self._log.durable_revision)

    async def read(self, query: Query) -> list[Event]:
        """Events on disk."""
        return await asyncio.to_thread(self._log.read, query)

    async def settled(self) -> None:
        """Returns once the history has all that this process has heard; or a little later, if the disk refuses."""
        wanted, wake = self._store.cache.revision, asyncio.Event()
        with self.follow(wake), contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE_S):
                while self.revision < wanted:
                    wake.clear()
                    await wake.wait()

    @contextmanager
    def follow(self, wake: asyncio.Event) -> Iterator[None]:
        """Sets the event whenever `revision` has grown, as long as the context lasts."""
        self._followers.add(wake)
        try:
            yield
        finally:
            self._followers.discard(wake)

    @property
    def beginning(self) -> int:
        """All events after this revision are kept."""
        return self._log.beginning
