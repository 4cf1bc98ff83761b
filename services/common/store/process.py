"""This process's record under `/moln/process/<uuid>`, and the lease on which it and all that ends with it hang.

The record is written every two seconds: it is the tick of every watch in the cloud.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Sequence
from typing import Any

from moln.etcd.v1 import etcd_pb2 as pb
from services.common.obs.logs import get_logger
from services.common.store.errors import Refused, StoreError, StoreUnavailable
from services.common.store.etcd.client import EtcdClient
from services.common.store.keys import LANE, PROCESS, KeyTable, key, range_end
from services.common.store.settings import ProcessInfo, StoreSettings

log = get_logger("store")


class Process:
    """The registration of this process. `uuid` is new with every start."""

    def __init__(self, client: EtcdClient, keys: KeyTable, info: ProcessInfo, settings: StoreSettings) -> None:
        self.uuid = str(uuid.uuid4())
        self.key = key(PROCESS, self.uuid)
        self._client = client
        self._settings = settings
        self._lease = 0
        self._renewed = 0.0
        self._now: Callable[[], float] = lambda: 0.0
        self._has_lease = asyncio.Event()
        self._lost: list[Callable[[], None]] = []
        self._record = _record(keys, self.uuid, info)

    def report(self, *, problems: Sequence[str] | None = None, history_revision: int | None = None) -> None:
        """What the next ticks say: what is wrong with this process, and how far its history has come."""
        if problems is not None:
            self._record.problems[:] = problems
        if history_revision is not None:
            self._record.history_revision = history_revision

    async def lease(self) -> int:
        """The lease of this process; waits while there is none. What hangs on it is gone soon after the process."""
        await self._has_lease.wait()
        return self._lease

    @property
    def lease_margin(self) -> float:
        """Seconds until the lease ends, were it not renewed; below 0 it may have ended."""
        return self._settings.lease_ttl - (self._now() - self._renewed)

    def on_lost(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Calls `callback` when the lease has ended, or may have: what hung on it may be gone. Returns what ends it."""
        self._lost.append(callback)

        def forget() -> None:
            if callback in self._lost:
                self._lost.remove(callback)

        return forget

    async def run(self) -> None:
        """Ticks until cancelled; the first tick is the caller's."""
        is_away = False
        while True:
            await asyncio.sleep(min(self._settings.tick, self._settings.lease_ttl / 2))
            try:
                await self.tick()
                is_away = False
            except StoreUnavailable as err:
                if not is_away:
                    log.warning("tick failed", error=str(err))
                is_away = True
                self._check_lapse()

    async def tick(self) -> None:
        """Renews the lease, or makes one, and writes the record."""
        self._now = asyncio.get_running_loop().time
        sent = self._now()
        if self._lease and await self._client.keep_alive(self._lease) <= 0:
            self._lose()
        if not self._lease:
            await self._grant()
        self._renewed = sent
        self._has_lease.set()
        try:
            await self._write()
        except Refused as err:
            log.warning("record of this process not written", error=str(err))

    async def close(self) -> None:
        """Ends the lease and with it all that hangs on it; where this fails, etcd and the compactor clean up."""
        if not self._lease:
            return
        lanes = pb.TxnRequest()
        step = lanes.success.add().request_delete_range
        step.key = f"{key(LANE, self.uuid)}/".encode()
        step.range_end = range_end(step.key)
        try:
            await self._client.txn(lanes.SerializeToString(), timeout=1.0)
            await self._client.lease_revoke(pb.LeaseRevokeRequest(id=self._lease).SerializeToString(), timeout=1.0)
        except StoreError as err:
            log.info("lease not given back, it will end by itself", error=str(err))

    async def _grant(self) -> None:
        request = pb.LeaseGrantRequest(ttl=self._settings.lease_ttl)
        self._lease = (await self._client.lease_grant(request.SerializeToString())).id

    async def _write(self) -> None:
        self._record.time.GetCurrentTime()
        request = pb.TxnRequest()
        put = request.success.add().request_put
        put.key, put.value, put.lease = self.key.encode(), self._record.SerializeToString(), self._lease
        await self._client.txn(request.SerializeToString())

    def _check_lapse(self) -> None:
        """Not renewed for its whole life: it may have ended, so nothing may rest on it."""
        lapsed = asyncio.get_running_loop().time() - self._renewed > self._settings.lease_ttl
        if lapsed and self._has_lease.is_set():
            self._has_lease.clear()
            self._tell()

    def _lose(self) -> None:
        log.warning("lease of this process has ended, a new one is made", lease=self._lease)
        self._lease = 0
        if self._has_lease.is_set():
            self._has_lease.clear()
            self._tell()

    def _tell(self) -> None:
        for callback in tuple(self._lost):
            callback()


def _record(keys: KeyTable, uuid: str, info: ProcessInfo) -> Any:
    """The message is the key table's: its type is not known here."""
    record: Any = keys.required(PROCESS).message
    filled = record(
        uuid=uuid, kind=info.kind, address=info.address, version=info.version, metrics_address=info.metrics_address
    )
    filled.start_time.GetCurrentTime()
    return filled
