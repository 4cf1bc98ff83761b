"""Watching hosts: the present ones, then changes; one that is gone has its id only."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from moln.compute.v1 import host_pb2, host_service_pb2
from services.api.index.cloud import CloudIndex
from services.api.index.hosts import HostRecord
from services.api.usecases.hosts import Hosts
from services.api.usecases.streams import MAX_AGE_S, Streams
from services.common.domain.errors import MolnError
from services.common.domain.reasons import Reason
from services.common.store import Store

_Response = host_service_pb2.WatchHostsResponse


class HostWatches:
    """All watchers of hosts in this process."""

    def __init__(self, store: Store, cloud: CloudIndex, hosts: Hosts, streams: Streams) -> None:
        self._store = store
        self._cloud = cloud
        self._hosts = hosts
        self._streams = streams
        self._started = store.cache.revision
        self._watchers: dict[asyncio.Event, set[int]] = {}
        cloud.hosts.on_change(lambda record, _, __: self._changed(record))
        cloud.hosts.on_load(self._changed)

    def _changed(self, record: HostRecord) -> None:
        for event, changed in self._watchers.items():
            changed.add(record.id)
            event.set()

    async def watch(self, from_revision: int) -> AsyncIterator[_Response]:
        """As WatchVms, for hosts."""
        if from_revision and from_revision < self._started:
            problem = f"what went between revision {from_revision} and {self._started} is not known to this api"
            raise MolnError(Reason.REVISION_GONE, f"watch hosts: {problem}; list anew and watch from there")
        wake, changed = asyncio.Event(), set[int]()
        self._watchers[wake] = changed
        try:
            with self._streams.wakes(wake):
                yield self._present(from_revision)
                async with asyncio.timeout(MAX_AGE_S):
                    while not self._streams.are_ending:
                        await wake.wait()
                        wake.clear()
                        due = sorted(changed)
                        changed.clear()
                        if due:
                            yield _Response(hosts=map(self._picture, due), revision=self._store.cache.revision)
        except TimeoutError:
            return
        finally:
            del self._watchers[wake]

    def _present(self, after: int) -> _Response:
        """Hosts that have changed after a revision, and those that went since; all that there are after 0."""
        due = [host.id for host in self._cloud.hosts.all() if host.revision > after]
        due += self._cloud.hosts.gone_after(after) if after else []
        return _Response(hosts=map(self._picture, sorted(due)), revision=self._store.cache.revision, is_synced=True)

    def _picture(self, host_id: int) -> host_pb2.Host:
        record = self._cloud.hosts.get(host_id)
        return self._hosts.message(record) if record is not None else host_pb2.Host(id=host_id)
