"""What one api process does for all: the host controller, the collector, compaction."""

from __future__ import annotations

import asyncio

from services.api.controllers.collector import Collector
from services.api.controllers.liveness import HostController
from services.api.history.keeper import Keeper
from services.api.index.cloud import CloudIndex
from services.common.store import Leadership, Store

COMPACT_EVERY_S = 60.0


async def lead_api(store: Store, cloud: CloudIndex, keeper: Keeper, address: str) -> None:
    """Campaigns for ever; while this process leads, runs the controllers."""
    hosts, collector = HostController(store, cloud), Collector(store, cloud)

    def floor() -> int | None:
        """The slowest keeper's revision: nothing that a history still needs is forgotten."""
        others = [
            entry.value.history_revision
            for (kind, _, _), entry in cloud.catalog.parts.items()
            if kind == "process" and entry.value.history_revision
        ]
        slowest: int = min([keeper.revision, *others])
        return slowest

    async def run(leadership: Leadership) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(hosts.run(leadership))
            group.create_task(collector.run(leadership))
            group.create_task(store.compactor(floor, COMPACT_EVERY_S))

    await store.lead("api", address, run)
