"""Listing: what etcd holds at one revision, read in pages, becomes what a cache holds. At the start, and when the watch
has missed too much; then what has changed or gone meanwhile is told as changes.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import contextmanager

from moln.etcd.v1 import etcd_pb2 as pb
from services.common.store.cache import Cache
from services.common.store.entries import Change, Entry
from services.common.store.errors import Compacted, Refused
from services.common.store.etcd.client import EtcdClient
from services.common.store.keys import ROOT, prefix, range_end, split_key
from services.common.store.tables import NO_PARTS

PAGE_BYTES = 4 * 1024 * 1024


async def current_revision(client: EtcdClient) -> int:
    """The newest revision, as agreed by etcd's members."""
    request = pb.RangeRequest(key=ROOT.encode(), count_only=True, limit=1)
    return (await client.range(request.SerializeToString())).header.revision


async def pages(client: EtcdClient, start: str, revision: int, page_keys: int) -> AsyncIterator[list[pb.KeyValue]]:
    """All keys that begin with `start` as of `revision`, page by page; Compacted once that is forgotten.

    A page holds up to `page_keys`, fewer where values are large.
    """
    first, end, limit = start.encode(), range_end(start.encode()), page_keys
    while True:
        request = pb.RangeRequest(key=first, range_end=end, limit=limit, revision=revision)
        answer = await _read(client, request)
        found = list(answer.kvs)
        if found:
            yield found
        if not answer.more:
            return
        first = found[-1].key + b"\0"
        limit = max(16, min(page_keys, limit * PAGE_BYTES // max(1, answer.ByteSize())))


async def _read(client: EtcdClient, request: pb.RangeRequest) -> pb.RangeResponse:
    try:
        return await client.range(request.SerializeToString())
    except Refused as err:
        if err.code != "OUT_OF_RANGE":
            raise
        raise Compacted(request.revision + 1) from err


async def list_into(cache: Cache, client: EtcdClient, page_keys: int) -> None:
    """Makes the cache hold what etcd holds now, as one step. Nothing changes where it fails."""
    revision = await current_revision(client)
    listing = Listing(cache)
    with _without_collection():
        for kind in sorted(cache.tables.kinds):
            async for page in pages(client, prefix(kind), revision, page_keys):
                listing.add(page)
                await asyncio.sleep(0)
        listing.finish(revision)


@contextmanager
def _without_collection() -> Iterator[None]:
    """No garbage is collected: of what is loaded nothing is, and looking for it doubles the time that loading takes."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


class Listing:
    """Compares what is found with what a cache holds. The cache must not change between `add` and `finish`."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._seen: set[tuple[str, str, str]] = set()
        self._fresh: list[Entry] = []

    def add(self, found: Iterable[pb.KeyValue]) -> None:
        """Takes a page; values that the cache has already are not parsed again."""
        tables = self._cache.tables.kinds
        for kv in found:
            try:
                kind, id, part = split_key(kv.key.decode())
            except ValueError:
                continue
            table = tables.get(kind)
            row = table.row(part) if table is not None else None
            if table is None or row is None:
                continue
            self._seen.add((kind, id, part))
            old = table.objects.get(id, NO_PARTS).get(part)
            if old is None or old.mod_revision != kv.mod_revision or old.create_revision != kv.create_revision:
                new = self._cache.entry(row, id, part, kv)
                if new is not None:
                    self._fresh.append(new)

    def finish(self, revision: int) -> None:
        """Applies it all, deletions first."""
        changes = self._remove_unseen(revision)
        for new in self._fresh:
            old = self._cache.tables.kinds[new.row.kind].put(new)
            changes.append(Change(new.row.kind, new.id, new.part, old, new, new.mod_revision))
        self._cache.advance(changes, revision)

    def _remove_unseen(self, revision: int) -> list[Change]:
        changes: list[Change] = []
        for entry in list(self._cache.tables.entries()):
            if (entry.row.kind, entry.id, entry.part) not in self._seen:
                self._cache.tables.kinds[entry.row.kind].remove(entry.id, entry.part)
                changes.append(Change(entry.row.kind, entry.id, entry.part, entry, None, revision))
        for full in [full for full in self._cache.quarantine if split_key(full) not in self._seen]:
            self._cache.quarantine.pop(full)
        return changes
