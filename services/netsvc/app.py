"""Wires netsvc: store, leader's loop, gRPC server. The only file that builds these parts."""

from __future__ import annotations

import gc
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Final

from moln.network.v1 import network_service_pb2_grpc
from services.common.domain.keys import KEYS
from services.common.resources.front import Front
from services.common.rpc import RpcServer, read_service_secret, secret_gate
from services.common.runtime import Background, Run
from services.common.store import KeyTable, ProcessInfo, Store
from services.common.store.metrics import StoreMetrics
from services.common.version import version
from services.netsvc.controllers.reign import Reign
from services.netsvc.metrics import NetsvcMetrics
from services.netsvc.servicers.networks import NetworkServicer
from services.netsvc.settings import NetsvcSettings
from services.netsvc.usecases.networks import Networks

LEADER: Final = "netsvc"
GC_THRESHOLDS: Final = (50_000, 20, 50)
"""What lives here for long (entries) is in no cycles, and there is much of it: look through it rarely."""
KINDS: dict[str, frozenset[str] | None] = {
    "vm": frozenset({"spec", "intent", "addresses", "status"}),
    "network": None,
    "lease": None,
    "name": None,
    "cloud": None,
}
"""What netsvc's cache holds."""

TABLE = KeyTable(
    replace(row, revision_only=True) if (row.kind, row.part) == ("vm", "status/*") else row for row in KEYS
)
"""The key table; of what nodes see of VMs only the presence matters here, so it is not even parsed."""


async def main(settings: NetsvcSettings, run: Run) -> None:
    """Runs until asked to stop: stops the loop first, then answering, then the store."""
    gc.set_threshold(*GC_THRESHOLDS)
    server = RpcServer(
        run.metrics,
        gate=secret_gate(read_service_secret(settings.service_secret_file)),
        revision=lambda: store.cache.revision,
    )
    address = str(server.listen(settings.listen, tls=settings.tls()))
    advertised = settings.advertise or address
    process = ProcessInfo(LEADER, advertised, version(), run.metrics_address)
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(
            await Store.open(settings.store(), keys=TABLE, kinds=KINDS, process=process)
        )
        StoreMetrics(run.metrics, store)
        front = Front(store, LEADER)
        servicer = NetworkServicer(front, Networks(store))
        server.add(network_service_pb2_grpc.add_NetworkServiceServicer_to_server, servicer)
        await stack.enter_async_context(server)
        background = await stack.enter_async_context(Background())
        reign = Reign(store, front, run.clock, NetsvcMetrics(run.metrics))
        background.start(store.lead(LEADER, advertised, reign.lead), name="lead")
        stack.push_async_callback(server.set_serving, False)
        await server.set_serving(True)
        run.ready({"grpc": address})
        await run.stopped()
