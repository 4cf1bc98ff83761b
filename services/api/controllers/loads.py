"""Tells the scheduler how much of each host is in use, from the samples of the hosts whose streams are here.

A load is written when it has changed by a few percent, so that an idle cloud writes nothing; it ends with this process.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

import numpy as np

from moln.compute.v1 import placement_pb2
from services.api.core.loads import Load, Smoothing
from services.api.index.cloud import CloudIndex
from services.api.samples.book import SampleBook
from services.api.samples.ring import CPU, MEMORY
from services.common.domain.keys import SCHEMA_VERSION
from services.common.store import Conflict, Store, Txn, key


class Streams(Protocol):
    """The hosts whose streams are here."""

    @property
    def links(self) -> Collection[int]: ...


class Loads:
    """The loads of this process's hosts."""

    interval_s = 5.0

    def __init__(self, store: Store, cloud: CloudIndex, book: SampleBook, streams: Streams) -> None:
        self._store, self._cloud, self._book, self._streams = store, cloud, book, streams
        self._smoothing = Smoothing()
        self._lease = 0

    async def step(self) -> None:
        """Takes the newest samples and writes what is news. What cannot be written is written at the next step."""
        lease = await self._store.process_lease()
        if lease != self._lease:
            self._smoothing.forget_told()
            self._lease = lease
        news = self._news()
        results = await self._store.commit_all([self._record(host_id, load) for host_id, load in news])
        for (host_id, load), result in zip(news, results, strict=True):
            if isinstance(result, int):
                self._smoothing.told(host_id, load)
            elif not isinstance(result, Conflict):
                raise result

    def _news(self) -> list[tuple[int, Load]]:
        self._book.settle()
        facts = self._book.facts
        hosts = [host_id for host_id in self._streams.links if host_id in facts and self._cloud.hosts.get(host_id)]
        self._smoothing.keep(set(hosts))
        times, figures = self._book.hosts.newest(hosts)
        cpus = np.array([facts[host_id].cpus for host_id in hosts], np.float64)
        memory = np.array([facts[host_id].memory_total for host_id in hosts], np.float64)
        with np.errstate(all="ignore"):
            percents = np.column_stack((figures[:, CPU] / cpus, figures[:, MEMORY] / memory * 100)).clip(0, 100)
        found = []
        for host_id, time, (cpu, mem) in zip(hosts, times.tolist(), percents.tolist(), strict=True):
            load = self._smoothing.take(host_id, Load(cpu, mem, facts[host_id].running, time))
            if load is not None:
                found.append((host_id, load))
        return found

    def _record(self, host_id: int, load: Load) -> Txn:
        host = self._cloud.hosts.get(host_id)
        record = placement_pb2.HostLoad(
            uid=host.spec.value.uid if host is not None and host.spec is not None else "",
            cpu_percent=round(load.cpu, 1),
            memory_percent=round(load.memory, 1),
            running_vms=load.running,
            schema_version=SCHEMA_VERSION,
        )
        record.time.FromMilliseconds(int(load.time * 1000))
        txn = Txn().present(key("host", host_id, "spec"))
        return txn.put(key("hostload", host_id), record, lease=self._lease)
