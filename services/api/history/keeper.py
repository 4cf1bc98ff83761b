"""The keeper: brings the recorder's events to disk in bunches, and wakes those who follow the history."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from services.api.history.log import Event, EventLog, Query
from services.api.history.recorder import Recorder
from services.common.obs.logs import get_logger
from services.common.store import Change, Store

_GATHER_S = 0.02
_log = get_logger("history")


class Keeper:
    """One per api process. `revision` is what all followers can read up to."""

    def __init__(self, store: Store, log: EventLog, recorder: Recorder) -> None:
        self._store = store
        self._log = log
        self._recorder = recorder
        self._wake = asyncio.Event()
        self._grown = asyncio.Condition()
        self.revision = log.durable_revision

    async def run(self) -> None:
        """Until cancelled. A disk that refuses is an error of the process: events are kept and tried again."""
        unsubscribe = self._store.cache.subscribe(self._changed)
        kept: list[Event] = []
        try:
            while True:
                await self._wake.wait()
                await asyncio.sleep(_GATHER_S)
                self._wake.clear()
                revision = self._store.cache.revision
                kept += self._recorder.take()
                if await self._write(kept, revision):
                    kept = []
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
            return False
        async with self._grown:
            self.revision = revision
            self._grown.notify_all()
        return True

    async def read(self, query: Query) -> list[Event]:
        """Events on disk."""
        return await asyncio.to_thread(self._log.read, query)

    async def wait_beyond(self, revision: int) -> int:
        """Returns the newest revision once it is beyond the given one."""
        async with self._grown:
            await self._grown.wait_for(lambda: self.revision > revision)
            return self.revision

    def oldest_revision(self) -> int:
        """Revision of the oldest event that is kept."""
        return self._log.oldest_revision()
