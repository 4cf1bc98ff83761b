"""Watching hosts: the present ones, then changes; one that is gone has its id only."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from moln.compute.v1 import host_pb2, host_service_pb2
from services.api.index.cloud import CloudIndex
from services.api.index.hosts import HostRecord
from services.api.usecases.hosts import Hosts
from services.common.domain.errors import MolnError
from services.common.domain.reasons import Reason
from services.common.store import Change, Store

_MAX_AGE_S = 3600.0


class HostWatches:
    """All watchers of hosts in this process."""

    def __init__(self, store: Store, cloud: CloudIndex, hosts: Hosts) -> None:
        self._store = store
        self._cloud = cloud
        self._hosts = hosts
        self._started = store.cache.revision
        self._watchers: dict[asyncio.Event, set[int]] = {}
        cloud.hosts.on_change(self._changed)

    def _changed(self, record: HostRecord, _: str, __: Change) -> None:
        for event, changed in self._watchers.items():
            changed.add(record.id)
            event.set()

    async def watch(self, from_revision: int) -> AsyncIterator[host_service_pb2.WatchHostsResponse]:
        """As WatchVms, for hosts."""
        if from_revision and from_revision < self._started:
            problem = f"revision {from_revision} is before this api's start at {self._started}"
            raise MolnError(Reason.REVISION_GONE, f"watch hosts: {problem}; list anew and watch from there")
        wake, changed = asyncio.Event(), set[int]()
        self._watchers[wake] = changed
        try:
            present = [self._hosts.message(each) for each in self._cloud.hosts.all() if each.revision > from_revision]
            yield host_service_pb2.WatchHostsResponse(
                hosts=present, revision=self._store.cache.revision, is_synced=True
            )
            async with asyncio.timeout(_MAX_AGE_S):
                while True:
                    await wake.wait()
                    wake.clear()
                    due = sorted(changed)
                    changed.clear()
                    yield host_service_pb2.WatchHostsResponse(
                        hosts=[self._picture(host_id) for host_id in due], revision=self._store.cache.revision
                    )
        except TimeoutError:
            return
        finally:
            del self._watchers[wake]

    def _picture(self, host_id: int) -> host_pb2.Host:
        record = self._cloud.hosts.get(host_id)
        return self._hosts.message(record) if record is not None else host_pb2.Host(id=host_id)
