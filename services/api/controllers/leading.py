"""What one api process does for all: hosts and their scripts, operations, timetable, collector, compaction."""

from __future__ import annotations

import asyncio

from services.api.controllers.collector import Collector
from services.api.controllers.host_scripts import ScriptRunner
from services.api.controllers.liveness import HostController
from services.api.controllers.operations import OperationsController
from services.api.controllers.timetable import Timetable
from services.api.history.keeper import Keeper
from services.api.index.cloud import CloudIndex
from services.common.store import Leadership, Store

COMPACT_EVERY_S = 60.0
MAX_BEHIND = 1_000_000
"""Revisions that are kept for a history that cannot keep up; beyond it the history has a gap."""


async def lead_api(
    store: Store,
    cloud: CloudIndex,
    keeper: Keeper,
    address: str,
    hosts: HostController,
    scripts: ScriptRunner,
    timetable: Timetable,
) -> None:
    """Campaigns for ever; while this process leads, runs the controllers."""
    collector, operations = Collector(store, cloud), OperationsController(store, cloud)

    def floor() -> int | None:
        """The slowest keeper's revision: nothing that a history still needs is forgotten."""
        records = [entry.value for entry in cloud.catalog.of_kind("process").values()]
        slowest: int = min([keeper.revision, *[each.history_revision for each in records if each.history_revision]])
        return max(slowest, store.cache.revision - MAX_BEHIND)

    async def run(leadership: Leadership) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(hosts.run(leadership))
            group.create_task(scripts.run(leadership))
            group.create_task(collector.run(leadership))
            group.create_task(operations.run(leadership))
            group.create_task(timetable.run(leadership))
            group.create_task(store.compactor(floor, COMPACT_EVERY_S))

    await store.lead("api", address, run)
