"""Watching VMs: the present ones, then changes, tombstones included. A slow watcher gets fewer, newer pictures."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator

from moln.compute.v1 import vm_service_pb2
from services.api.core import compose
from services.api.core.view import GONE
from services.api.index.cloud import CloudIndex
from services.api.index.vms import VmRecord
from services.api.usecases.streams import MAX_AGE_S, Streams
from services.api.usecases.vm_filter import VMS, Item
from services.common.domain.caller import Caller
from services.common.domain.errors import MolnError
from services.common.domain.reasons import Reason
from services.common.filters import Filter, parse
from services.common.store import Store

_CHUNK = 500
REMEMBERED = 100_000
"""VMs that are gone and still told to those who resume a watch."""
_DONE = compose.frame(9, compose.number(1, GONE.state))


class VmWatches:
    """All watchers of this process."""

    def __init__(self, store: Store, cloud: CloudIndex, streams: Streams) -> None:
        self._store = store
        self._cloud = cloud
        self._streams = streams
        self._watchers: set[_Watcher] = set()
        self._oldest = store.cache.revision
        self._gone: deque[tuple[int, VmRecord]] = deque()
        cloud.vms.on_change(self._changed)

    def _changed(self, record: VmRecord, _: set[str]) -> None:
        if record.intent is None and record.is_empty:
            self._gone.append((record.revision, record))
            if len(self._gone) > REMEMBERED:
                self._oldest = self._gone.popleft()[0]
        for watcher in self._watchers:
            watcher.changed[record.key_id] = record
            watcher.wake.set()

    async def watch(self, request: vm_service_pb2.WatchVmsRequest, caller: Caller) -> AsyncIterator[bytes]:
        """Serialised WatchVmsResponses. From a revision: all that has changed since, then changes.

        Raises OUT_OF_RANGE/REVISION_GONE for a revision before this process's start, whose tombstones it cannot know.
        The stream ends after an hour; it resumes at the last `revision`.
        """
        watcher = _Watcher(self._cloud, parse(request.filter, VMS), caller)
        after = request.from_revision
        if after and after < self._oldest:
            problem = f"what went between revision {after} and {self._oldest} is not known to this api"
            raise MolnError(Reason.REVISION_GONE, f"watch VMs: {problem}; list anew and watch from there")
        self._watchers.add(watcher)
        try:
            with self._streams.wakes(watcher.wake):
                for message in watcher.present(after, self._store.cache.revision, self._gone_after(after)):
                    yield message
                async with asyncio.timeout(MAX_AGE_S):
                    while not self._streams.are_ending:
                        await watcher.wake.wait()
                        for message in watcher.taken(self._store.cache.revision):
                            yield message
        except TimeoutError:
            return
        finally:
            self._watchers.discard(watcher)

    def _gone_after(self, revision: int) -> list[VmRecord]:
        """VMs that went after a revision; none for a watch that begins with what there is."""
        return [record for gone, record in self._gone if gone > revision] if revision else []


class _Watcher:
    def __init__(self, cloud: CloudIndex, wanted: Filter[Item], caller: Caller) -> None:
        self.changed: dict[str, VmRecord] = {}
        self.wake = asyncio.Event()
        self._cloud = cloud
        self._wanted = wanted
        self._caller = caller
        self._sent: set[str] = set()

    def present(self, after: int, revision: int, gone: list[VmRecord]) -> list[bytes]:
        """The VMs that there are, in bounded messages; the last one is synced.

        After a revision: those that have changed since, and tombstones of those that are gone or match no more.
        """
        due: list[bytes] = []
        for key_id, record in sorted(self._cloud.vms.records().items()):
            if self._sees(record):
                self._sent.add(key_id)
                if record.revision > after:
                    due.append(record.serialized(self._cloud.hosts))
            elif after and record.revision > after and self._caller.may_see(record.last_owner_id):
                due.append(_tombstone(record))
        due += [_tombstone(record) for record in gone if self._caller.may_see(record.last_owner_id)]
        return self._messages(due, revision, compose.number(3, 1)) or [
            compose.number(2, revision) + compose.number(3, 1)
        ]

    def taken(self, revision: int) -> list[bytes]:
        """What has changed since the last time."""
        self.wake.clear()
        changed, self.changed = self.changed, {}
        return self._messages([raw for record in changed.values() if (raw := self._picture(record))], revision, b"")

    def _messages(self, due: list[bytes], revision: int, end: bytes) -> list[bytes]:
        """Bounded messages; the last one has the revision and the end."""
        messages = [compose.repeated(1, due[start : start + _CHUNK]) for start in range(0, len(due), _CHUNK)]
        if messages:
            messages[-1] += compose.number(2, revision) + end
        return messages

    def _picture(self, record: VmRecord) -> bytes:
        if self._sees(record):
            self._sent.add(record.key_id)
            return record.serialized(self._cloud.hosts)
        if record.key_id not in self._sent:
            return b""
        self._sent.discard(record.key_id)
        return _tombstone(record)

    def _sees(self, record: VmRecord) -> bool:
        if record.intent is None or not self._caller.may_see(record.owner_id):
            return False
        return not self._wanted.pairs or self._wanted.matches((record, self._cloud.hosts))


def _tombstone(record: VmRecord) -> bytes:
    return compose.number(1, record.id) + _DONE
