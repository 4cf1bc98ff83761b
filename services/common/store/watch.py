"""The watch that keeps a cache up to date: one stream over all of `/moln/`, begun again wherever it ends.

It resumes after the last complete answer and never inside a revision; what it has missed too much of is listed again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from moln.etcd.v1 import etcd_pb2 as pb
from services.common.obs.logs import get_logger
from services.common.store.cache import Cache
from services.common.store.errors import Compacted, StoreError, StoreUnavailable
from services.common.store.etcd.client import EtcdClient
from services.common.store.keys import ROOT, range_end
from services.common.store.listing import current_revision, list_into
from services.common.store.retry import pauses
from services.common.store.settings import StoreSettings

Events = Sequence[pb.Event]
log = get_logger("store")


async def answers(
    client: EtcdClient, after: int, silence: float, *, with_prev: bool = False
) -> AsyncGenerator[Events, None]:
    """Complete answers of a watch over `/moln/`, from the revision after `after` on: fragments are put together first.

    An empty one means that etcd is heard. Compacted where the revisions are gone; StoreUnavailable where the stream
    ends or nothing is heard for `silence` seconds (every process's tick is). Close it with `aclosing`.

    The stream begins at `after` itself, and what is known is left out: some etcd forget the deletions of the very
    revision at which they are compacted, and a watch from there on would miss them without a word.
    """
    root = ROOT.encode()
    request = pb.WatchCreateRequest(
        key=root, range_end=range_end(root), start_revision=max(1, after), fragment=True, prev_kv=with_prev
    )
    held: list[pb.Event] = []
    async with client.watch(request) as stream:
        while True:
            try:
                async with asyncio.timeout(silence):
                    answer = await stream.receive()
            except TimeoutError:
                raise StoreUnavailable(f"the watch of etcd was silent for {silence:g} s") from None
            if answer.canceled:
                raise _ended(answer)
            if answer.fragment:
                held += answer.events
                continue
            events: Events = [*held, *answer.events] if held else answer.events
            held.clear()
            if events and events[0].kv.mod_revision <= after:
                events = [event for event in events if event.kv.mod_revision > after]
            yield events


def _ended(answer: pb.WatchResponse) -> StoreError:
    if answer.compact_revision:
        return Compacted(answer.compact_revision)
    return StoreUnavailable(f"etcd ended the watch: {answer.cancel_reason or 'no reason given'}")


class Watcher:
    """Keeps one cache up to date, for ever."""

    def __init__(self, cache: Cache, client: EtcdClient, settings: StoreSettings) -> None:
        self._cache = cache
        self._client = client
        self._settings = settings
        self.relists = 0

    async def run(self) -> None:
        """Follows etcd until cancelled; pauses between attempts while it does not answer."""
        waits, is_away = pauses(), False
        while True:
            before = self._cache.revision
            try:
                await self._follow()
            except Compacted as err:
                log.warning("watch fell behind, listing again", at=before, oldest=err.compact_revision)
                await self._relist()
            except StoreError as err:
                if self._cache.revision > before or not is_away:
                    log.info("watch begins again", at=self._cache.revision, error=str(err))
                is_away = True
            if self._cache.revision > before:
                waits, is_away = pauses(), False
            await asyncio.sleep(next(waits))

    async def _follow(self) -> None:
        """One stream, to its end; lists first where etcd is far ahead, or behind (it was restored from a backup)."""
        ahead = await current_revision(self._client) - self._cache.revision
        if not 0 <= ahead <= self._settings.relist_after:
            log.warning("listing again", at=self._cache.revision, ahead=ahead)
            await list_into(self._cache, self._client, self._settings.page_keys)
            self.relists += 1
        stream = answers(self._client, self._cache.revision, self._settings.stale_after)
        async with aclosing(stream):
            async for events in stream:
                if events:
                    self._cache.apply(events)
                else:
                    self._cache.touch()

    async def _relist(self) -> None:
        try:
            await list_into(self._cache, self._client, self._settings.page_keys)
            self.relists += 1
        except StoreError as err:
            log.warning("listing failed, tried again soon", error=str(err))
