"""Compaction: revisions older than ten minutes are forgotten, never those that a keeper of the history still needs.

One leader runs it. It also removes the lane keys of processes that are gone, and lets etcd take writes again where it
ran out of space and has room now.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace

from moln.etcd.v1 import etcd_pb2 as pb
from services.common.obs.logs import get_logger
from services.common.store.cache import Cache
from services.common.store.errors import Refused, StoreError
from services.common.store.etcd.client import EtcdClient
from services.common.store.keys import LANE, PROCESS, prefix, range_end, split_key
from services.common.store.listing import current_revision
from services.common.store.settings import StoreSettings

log = get_logger("store")
DEFRAGMENT_SECONDS = 120.0
Floor = Callable[[], int | None]
"""The revision that must be kept, with all after it: the slowest keeper's. None where nobody needs any."""


class Compactor:
    """Remembers which revision was the newest when, and forgets up to the one of `keep_history` seconds ago."""

    def __init__(
        self, client: EtcdClient, cache: Cache, settings: StoreSettings, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._client = client
        self._cache = cache
        self._settings = settings
        self._keep = settings.keep_history
        self._clock = clock
        self._seen: deque[tuple[float, int]] = deque()
        self.compacted = 0

    async def run(self, floor: Floor, interval: float) -> None:
        """Every `interval` seconds, until cancelled."""
        while True:
            try:
                await self.step(floor())
            except StoreError as err:
                log.warning("compaction failed, tried again", error=str(err))
            await asyncio.sleep(interval)

    async def step(self, floor: int | None) -> int:
        """Forgets what is old enough now; returns the revision up to which that was done, 0 for nothing."""
        now = self._clock()
        self._seen.append((now, await current_revision(self._client)))
        target = self._due(now)
        if floor is not None:
            target = min(target, floor)
        if target <= self.compacted:
            return 0
        try:
            await self._client.compact(pb.CompactionRequest(revision=target).SerializeToString())
        except Refused as err:
            if err.code != "OUT_OF_RANGE":
                raise
        self.compacted = target
        await self._remove_lanes(target)
        await self._end_alarms()
        return target

    async def _end_alarms(self) -> None:
        """Where etcd has stopped for want of space: gives free space back to the file system and lets it go on."""
        alarms = (await self._client.alarm(pb.AlarmRequest().SerializeToString())).alarms
        for alarm in [alarm for alarm in alarms if alarm.alarm == pb.ALARM_TYPE_NOSPACE]:
            log.warning("etcd ran out of space, defragmenting", member=f"{alarm.member_id:x}")
            for place in self._settings.endpoints:
                await self._defragment(place)
            end = pb.AlarmRequest(action=pb.AlarmRequest.ALARM_ACTION_DEACTIVATE, member_id=alarm.member_id)
            end.alarm = alarm.alarm
            await self._client.alarm(end.SerializeToString())

    async def _defragment(self, place: str) -> None:
        """One member; it answers nothing else meanwhile."""
        client = await EtcdClient.connect(replace(self._settings, endpoints=(place,)))
        try:
            await client.authenticate()
            await client.defragment(pb.DefragmentRequest().SerializeToString(), timeout=DEFRAGMENT_SECONDS)
        finally:
            await client.close()

    def _due(self, now: float) -> int:
        """The newest revision that is old enough; it stays known, for a floor that holds it back."""
        due = 0
        while self._seen and now - self._seen[0][0] >= self._keep:
            due = self._seen[0][1]
            if len(self._seen) == 1 or now - self._seen[1][0] < self._keep:
                break
            self._seen.popleft()
        return due

    async def _remove_lanes(self, before: int) -> None:
        """Lane keys of processes that are gone and have written nothing for as long as history is kept."""
        start = prefix(LANE).encode()
        listing = pb.RangeRequest(key=start, range_end=range_end(start), keys_only=True)
        for kv in (await self._client.range(listing.SerializeToString())).kvs:
            _, process, _ = split_key(kv.key.decode())
            if kv.mod_revision >= before or self._cache.get(PROCESS, process) is not None:
                continue
            request = pb.TxnRequest()
            compare = request.compare.add()
            compare.key, compare.target = kv.key, pb.Compare.COMPARE_TARGET_MOD
            compare.mod_revision = kv.mod_revision
            request.success.add().request_delete_range.key = kv.key
            await self._client.txn(request.SerializeToString())
