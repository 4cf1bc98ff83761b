"""The watch cache: what etcd held at one revision, kept up to date by the events of one watch. No I/O: listing.py
and watch.py feed it.

It is told of whole revisions only, so that a transaction is seen entirely or not at all. Reading it costs a look-up;
what it hands out is live and must not be kept over an `await`.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from google.protobuf.message import DecodeError

from moln.etcd.v1 import etcd_pb2 as pb
from services.common.obs.logs import get_logger
from services.common.store.entries import Change, Entry
from services.common.store.errors import StoreStale
from services.common.store.keys import KeyRow, KeyTable, key
from services.common.store.tables import NO_OBJECTS, NO_PARTS, Tables

Callback = Callable[[Sequence[Change], int], None]
log = get_logger("store")


class Cache:
    """The cache of one process. Its readers need no lock: it changes between two steps of the event loop."""

    def __init__(
        self,
        keys: KeyTable,
        kinds: Mapping[str, frozenset[str] | None] | None,
        *,
        stale_after: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.revision = 0
        self.heard = clock()
        self.quarantine: dict[str, str] = {}
        self.tables = Tables(keys, kinds)
        self._stale_after = stale_after
        self._clock = clock
        self._subscribers: list[tuple[Callback, frozenset[str] | None]] = []
        self._waiting: list[tuple[int, int, Callable[[], None]]] = []
        self._waiters = 0

    # ------------------------------------------------------------------------------------------------- reading

    def get(self, kind: str, id: int | str, part: str = "") -> Entry | None:
        """The entry of a key, or None. An id that is a number is padded as in keys."""
        parts = self.object(kind, id)
        return parts.get(part)

    def object(self, kind: str, id: int | str) -> Mapping[str, Entry]:
        """The parts of an object; empty where there is none."""
        table = self.tables.kinds.get(kind)
        if table is None:
            return NO_PARTS
        return table.objects.get(f"{id:010d}" if isinstance(id, int) else id, NO_PARTS)

    def table(self, kind: str) -> Mapping[str, Mapping[str, Entry]]:
        """All objects of a kind by id, in no order."""
        table = self.tables.kinds.get(kind)
        return NO_OBJECTS if table is None else table.objects

    def ids(self, kind: str, after: str = "", limit: int | None = None) -> Sequence[str]:
        """Ids of a kind that are greater than `after`, in order; a copy. With `limit` no more than that."""
        table = self.tables.kinds.get(kind)
        return () if table is None else table.ids(after, limit)

    def check_fresh(self) -> None:
        """StoreStale where etcd has been silent for too long: every process writes its tick more often than that."""
        silent = self._clock() - self.heard
        if silent > self._stale_after:
            raise StoreStale(
                f"nothing heard from etcd for {silent:.0f} s; is it running? (`moln status` shows the store)"
            )

    async def wait(self, revision: int, timeout: float | None = None) -> None:
        """Returns once the cache has reached `revision`; StoreStale after `timeout` seconds."""
        if self.revision >= revision:
            return
        try:
            async with asyncio.timeout(timeout):
                await self.reached(revision)
        except TimeoutError:
            raise StoreStale(f"revision {revision} has not come within {timeout:g} s; at {self.revision}") from None

    async def reached(self, revision: int) -> None:
        """Returns once the cache has reached `revision`, however long that takes."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.when(revision, lambda: None if future.done() else future.set_result(None))
        await future

    def when(self, revision: int, then: Callable[[], None]) -> None:
        """Calls `then` once the cache has reached `revision`: now, or in the step that brings it there."""
        if self.revision >= revision:
            then()
        else:
            self._waiters += 1
            heapq.heappush(self._waiting, (revision, self._waiters, then))

    def subscribe(self, callback: Callback, kinds: Iterable[str] | None = None) -> Callable[[], None]:
        """Calls `callback(changes, revision)` once for every step of the cache, before anyone who waits for it goes on.

        `changes` are in their order, of `kinds` only where given; steps without any are left out. Returns what ends it.
        """
        row = (callback, None if kinds is None else frozenset(kinds))
        self._subscribers.append(row)

        def unsubscribe() -> None:
            if row in self._subscribers:
                self._subscribers.remove(row)

        return unsubscribe

    # ------------------------------------------------------------------------------------------------- feeding

    def touch(self) -> None:
        """etcd has been heard."""
        self.heard = self._clock()

    def apply(self, events: Iterable[pb.Event]) -> None:
        """Applies the events of whole revisions, in their order, as one step."""
        kinds = self.tables.kinds
        changes: list[Change] = []
        revision = self.revision
        for event in events:
            kv = event.kv
            revision = kv.mod_revision
            fields = kv.key.decode("utf-8", "replace").split("/", 4)
            if len(fields) < 4:
                continue
            table = kinds.get(fields[2])
            if table is None:
                continue
            part = fields[4] if len(fields) == 5 else ""
            row = table.rows.get(part) or table.row(part)
            if row is None:
                continue
            id = fields[3]
            if event.type:
                old, new = table.remove(id, part), None
                if self.quarantine:
                    self.quarantine.pop(key(row.kind, id, part), None)
            else:
                new = self.entry(row, id, part, kv)
                if new is None:
                    continue
                old = table.put(new)
            if old is not None or new is not None:
                changes.append(Change(row.kind, id, part, old, new, revision))
        self.advance(changes, revision)

    def advance(self, changes: Sequence[Change], revision: int) -> None:
        """Ends a step: subscribers are told, then those who wait for the revision go on."""
        self.revision = revision
        self.heard = self._clock()
        if changes:
            self._tell(changes, revision)
        while self._waiting and self._waiting[0][0] <= revision:
            heapq.heappop(self._waiting)[2]()

    def _tell(self, changes: Sequence[Change], revision: int) -> None:
        for callback, kinds in tuple(self._subscribers):
            part = changes if kinds is None else [change for change in changes if change.kind in kinds]
            if not part:
                continue
            try:
                callback(part, revision)
            except Exception as err:  # one subscriber's mistake must not stop the cache of all others
                log.error("subscriber of the cache failed", revision=revision, error=repr(err), exc_info=err)

    def entry(self, row: KeyRow, id: str, part: str, kv: pb.KeyValue) -> Entry | None:
        """The entry of what etcd sent; None where it does not parse: it is named, and the last good one stays."""
        if row.revision_only:
            return Entry(row, id, part, None, b"", kv.create_revision, kv.mod_revision)
        raw = kv.value
        try:
            value = row.message.FromString(raw)
        except DecodeError as err:
            full = key(row.kind, id, part)
            self.quarantine[full] = f"revision {kv.mod_revision} is no {row.message.DESCRIPTOR.full_name}: {err}"
            log.error("value does not parse, the last good one is served", key=full, revision=kv.mod_revision)
            return None
        if self.quarantine:
            self.quarantine.pop(key(row.kind, id, part), None)
        return Entry(row, id, part, value, raw, kv.create_revision, kv.mod_revision)
