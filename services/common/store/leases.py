"""The leases of requests: one for every hour, shared by all processes, on which the answers to requests hang."""

from __future__ import annotations

import time
from collections.abc import Callable

from moln.etcd.v1 import etcd_pb2 as pb
from services.common.store.errors import Refused, StoreFull
from services.common.store.etcd.client import EtcdClient

HOUR_SECONDS = 3600
TTL_SECONDS = 25 * HOUR_SECONDS
FIRST_ID = 0x6D6F6C6E << 24
"""Ids of these leases: this number plus the hour since 1970, so that all processes name the same lease."""


class RequestLeases:
    """Finds or makes the lease of the current hour."""

    def __init__(self, client: EtcdClient, clock: Callable[[], float] = time.time) -> None:
        self._client = client
        self._clock = clock
        self._made = 0

    async def current(self) -> int:
        """Its id. It lives at least 24 hours more. StoreFull where etcd has no room even for a lease."""
        wanted = FIRST_ID + int(self._clock()) // HOUR_SECONDS
        if wanted == self._made:
            return wanted
        request = pb.LeaseGrantRequest(ttl=TTL_SECONDS, id=wanted)
        try:
            await self._client.lease_grant(request.SerializeToString())
        except Refused as err:
            if err.code == "RESOURCE_EXHAUSTED":
                raise StoreFull(f"etcd's space is used up: {err.message}") from err
            if "already exists" not in err.message:
                raise
        self._made = wanted
        return wanted
