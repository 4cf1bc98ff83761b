"""Watching VMs: the present ones, then changes, tombstones included. A slow watcher gets fewer, newer pictures."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from moln.compute.v1 import vm_service_pb2
from services.api.core import compose
from services.api.core.view import GONE
from services.api.index.cloud import CloudIndex
from services.api.index.vms import VmRecord
from services.api.usecases.vm_filter import VMS, Item
from services.common.domain.caller import Caller
from services.common.domain.errors import MolnError
from services.common.domain.reasons import Reason
from services.common.filters import Filter, parse
from services.common.store import Store

_CHUNK = 500
_MAX_AGE_S = 3600.0
_DONE = compose.frame(9, compose.number(1, GONE.state))


class VmWatches:
    """All watchers of this process."""

    def __init__(self, store: Store, cloud: CloudIndex) -> None:
        self._store = store
        self._cloud = cloud
        self._watchers: set[_Watcher] = set()
        self._started = store.cache.revision
        cloud.vms.on_change(self._changed)

    def _changed(self, record: VmRecord, _: set[str]) -> None:
        for watcher in self._watchers:
            watcher.changed[record.key_id] = record
            watcher.wake.set()

    async def watch(self, request: vm_service_pb2.WatchVmsRequest, caller: Caller) -> AsyncIterator[bytes]:
        """Serialised WatchVmsResponses. From a revision: all that may have changed since, then changes.

        Raises OUT_OF_RANGE/REVISION_GONE for a revision before this process's start, whose tombstones it cannot know.
        The stream ends after an hour; it resumes at the last `revision`.
        """
        watcher = _Watcher(self._cloud, parse(request.filter, VMS), caller)
        if request.from_revision and request.from_revision < self._started:
            problem = f"revision {request.from_revision} is before this api's start at {self._started}"
            raise MolnError(Reason.REVISION_GONE, f"watch VMs: {problem}; list anew and watch from there")
        self._watchers.add(watcher)
        try:
            for message in watcher.present(request.from_revision, self._store.cache.revision):
                yield message
            deadline = asyncio.get_running_loop().time() + _MAX_AGE_S
            async with asyncio.timeout_at(deadline):
                while True:
                    await watcher.wake.wait()
                    for message in watcher.taken(self._store.cache.revision):
                        yield message
        except TimeoutError:
            return
        finally:
            self._watchers.discard(watcher)


class _Watcher:
    def __init__(self, cloud: CloudIndex, wanted: Filter[Item], caller: Caller) -> None:
        self.changed: dict[str, VmRecord] = {}
        self.wake = asyncio.Event()
        self._cloud = cloud
        self._wanted = wanted
        self._caller = caller
        self._sent: set[str] = set()

    def present(self, after: int, revision: int) -> list[bytes]:
        """The VMs that there are (those changed after a revision), in bounded messages; the last one is synced."""
        records = self._cloud.vms.records()
        found = [key_id for key_id in sorted(records) if self._sees(records[key_id])]
        self._sent.update(found)
        due = [records[key_id].serialized(self._cloud.hosts) for key_id in found if records[key_id].revision > after]
        chunks = [due[start : start + _CHUNK] for start in range(0, len(due), _CHUNK)] or [[]]
        messages = [compose.repeated(1, chunk) for chunk in chunks]
        messages[-1] += compose.number(2, revision) + compose.number(3, 1)
        return messages

    def taken(self, revision: int) -> list[bytes]:
        """What has changed since the last time."""
        self.wake.clear()
        changed, self.changed = self.changed, {}
        due = [raw for record in changed.values() if (raw := self._picture(record))]
        chunks = [due[start : start + _CHUNK] for start in range(0, len(due), _CHUNK)]
        messages = [compose.repeated(1, chunk) for chunk in chunks]
        if messages:
            messages[-1] += compose.number(2, revision)
        return messages

    def _picture(self, record: VmRecord) -> bytes:
        if self._sees(record):
            self._sent.add(record.key_id)
            return record.serialized(self._cloud.hosts)
        if record.key_id not in self._sent:
            return b""
        self._sent.discard(record.key_id)
        return compose.number(1, record.id) + _DONE

    def _sees(self, record: VmRecord) -> bool:
        if record.intent is None or not self._caller.may_see(record.owner_id):
            return False
        return not self._wanted.pairs or self._wanted.matches((record, self._cloud.hosts))
