"""The space that etcd has left. Creating objects ends early, so that there is room to run and delete what is there."""

from __future__ import annotations

import asyncio

from moln.etcd.v1 import etcd_pb2 as pb
from services.common.obs.logs import get_logger
from services.common.store.errors import StoreError, StoreFull
from services.common.store.etcd.client import EtcdClient
from services.common.store.txn import Txn

log = get_logger("store")
CREATES_UP_TO = 0.70
WRITES_UP_TO = 0.85
FILE_UP_TO = 0.95
"""Share of the quota up to which the size of etcd's file does not matter, for what is free in it is used again."""
OBJECT_PART = "/spec"
"""The transaction that puts an object's spec where there was none creates the object."""


class Space:
    """How much of etcd's quota is taken, as of a few seconds ago."""

    def __init__(self, client: EtcdClient, quota: int, interval: float) -> None:
        self._client = client
        self._quota = quota
        self._interval = interval
        self.used = 0
        self.share = 0.0

    async def run(self) -> None:
        """Asks etcd now and then, until cancelled."""
        while True:
            try:
                await self.look()
            except StoreError as err:
                log.debug("space of etcd not known", error=str(err))
            await asyncio.sleep(self._interval)

    async def look(self) -> None:
        """Asks etcd now."""
        status = await self._client.status(pb.StatusRequest().SerializeToString())
        quota = status.db_size_quota or self._quota
        self.used = max(status.db_size_in_use, status.db_size if status.db_size > FILE_UP_TO * quota else 0)
        self.share = self.used / quota

    def check(self, txn: Txn) -> None:
        """StoreFull where there is no room for what the transaction does. Deletions always pass."""
        if self.share < CREATES_UP_TO:
            return
        if self.share >= WRITES_UP_TO and (txn.sizes or txn.folds):
            raise StoreFull(f"{self._taken()}: only deletions pass; delete objects or raise etcd's quota")
        if any(name.endswith(OBJECT_PART) for name in txn.absent_keys):
            raise StoreFull(f"{self._taken()}: nothing new is created; delete objects or raise etcd's quota")

    def _taken(self) -> str:
        return f"etcd's space is {self.share:.0%} used ({self.used >> 20} MiB)"
