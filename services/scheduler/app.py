"""Wires the scheduler: store, placement as leader, gRPC server. The only file that builds these parts."""

from __future__ import annotations

import gc
from contextlib import AsyncExitStack
from typing import Final

from moln.scheduler.v1 import scheduler_service_pb2_grpc
from services.common.domain.keys import KEYS
from services.common.rpc import RpcServer, read_service_secret, secret_gate
from services.common.runtime import Background, Run
from services.common.store import ProcessInfo, Store
from services.common.store.metrics import StoreMetrics
from services.common.version import version
from services.scheduler.controllers.placement import Placement
from services.scheduler.metrics import SchedulerMetrics
from services.scheduler.servicers.scheduler import SchedulerServicer
from services.scheduler.settings import SchedulerSettings

LEADER: Final = "scheduler"
GC_THRESHOLDS: Final = (50_000, 20, 50)
"""What lives here for long (entries, records) is in no cycles, and there is much of it: look through it rarely."""
KINDS: dict[str, frozenset[str] | None] = {
    "vm": frozenset({"spec", "intent", "placement", "volumes", "status"}),
    "host": frozenset({"spec", "inventory", "liveness"}),
    "hostload": None,
    "cluster": None,
}
"""What the scheduler's cache holds."""


async def main(settings: SchedulerSettings, run: Run) -> None:
    """Runs until asked to stop: stops placing first, then answering, then the store."""
    gc.set_threshold(*GC_THRESHOLDS)
    policies = settings.ranked_by()
    secret = read_service_secret(settings.service_secret_file)
    server = RpcServer(run.metrics, gate=secret_gate(secret))
    address = str(server.listen(settings.listen, tls=settings.tls()))
    advertised = settings.advertise or address
    process = ProcessInfo(LEADER, advertised, version(), run.metrics_address)
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(
            await Store.open(settings.store(), keys=KEYS, kinds=KINDS, process=process)
        )
        StoreMetrics(run.metrics, store)
        placement = Placement(store, SchedulerMetrics(run.metrics), run.clock, policies)
        servicer = SchedulerServicer(store, placement)
        server.add(scheduler_service_pb2_grpc.add_SchedulerServiceServicer_to_server, servicer)
        await stack.enter_async_context(server)
        background = await stack.enter_async_context(Background())
        background.start(store.lead(LEADER, advertised, placement.lead), name="lead")
        stack.push_async_callback(server.set_serving, False)
        await server.set_serving(True)
        run.ready({"grpc": address})
        await run.stopped()
