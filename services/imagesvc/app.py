"""Wires imagesvc: store, leader's loops, gRPC server. The only file that builds these parts."""

from __future__ import annotations

import gc
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Final

from moln.image.v1 import datastore_service_pb2_grpc, image_data_service_pb2_grpc, image_service_pb2_grpc
from services.common.domain.keys import KEYS
from services.common.resources.front import Front
from services.common.rpc import RpcServer, read_service_secret
from services.common.runtime import Background, Run
from services.common.store import KeyTable, ProcessInfo, Store
from services.common.store.metrics import StoreMetrics
from services.common.version import version
from services.imagesvc.catalog import Catalog
from services.imagesvc.controllers.reign import Reign
from services.imagesvc.metrics import ImagesvcMetrics
from services.imagesvc.servicers.datastores import DatastoreServicer
from services.imagesvc.servicers.image_data import ImageDataServicer, gate
from services.imagesvc.servicers.images import ImageServicer
from services.imagesvc.settings import GIB, ImagesvcSettings
from services.imagesvc.usecases.datastores import Datastores
from services.imagesvc.usecases.images import Images
from services.imagesvc.usecases.saved import SavedUploads
from services.imagesvc.usecases.uploads import Uploads

LEADER: Final = "imagesvc"
GC_THRESHOLDS: Final = (50_000, 20, 50)
"""What lives here for long (entries) is in no cycles, and there is much of it: look through it rarely."""
KINDS: dict[str, frozenset[str] | None] = {
    "vm": frozenset({"spec", "intent", "volumes", "status"}),
    "image": None,
    "imageref": None,
    "datastore": None,
    "name": None,
    "cloud": None,
    "user": frozenset({"spec"}),
}
"""What imagesvc's cache holds."""

TABLE = KeyTable(
    replace(row, revision_only=True) if (row.kind, row.part) == ("vm", "status/*") else row for row in KEYS
)
"""The key table; of what nodes see of VMs only the presence matters here, so it is not even parsed."""


async def main(settings: ImagesvcSettings, run: Run) -> None:
    """Runs until asked to stop: stops the loops first, then answering, then the store."""
    gc.set_threshold(*GC_THRESHOLDS)
    secret = read_service_secret(settings.service_secret_file)
    metrics = ImagesvcMetrics(run.metrics)
    server = RpcServer(run.metrics, gate=gate(secret), revision=lambda: store.cache.revision)
    address = str(server.listen(settings.listen, tls=settings.tls()))
    advertised = settings.advertise or address
    process = ProcessInfo(LEADER, advertised, version(), run.metrics_address)
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(
            await Store.open(settings.store(), keys=TABLE, kinds=KINDS, process=process)
        )
        StoreMetrics(run.metrics, store)
        catalog = Catalog(store, settings.reserve_mib)
        front = Front(store, LEADER)
        images = Images(store, catalog, front)
        uploads = Uploads(images, catalog, settings.max_image_gib * GIB, metrics)
        reign = Reign(store, catalog, front, uploads, settings, run.clock, metrics)
        _serve(server, store, catalog, front, images, uploads, reign)
        saved = SavedUploads(store, catalog, images, uploads, settings.max_image_gib * GIB, metrics)
        data = ImageDataServicer(catalog, saved, front, secret, run.clock, metrics)
        server.add(image_data_service_pb2_grpc.add_ImageDataServiceServicer_to_server, data)
        await stack.enter_async_context(server)
        background = await stack.enter_async_context(Background())
        background.start(store.lead(LEADER, advertised, reign.lead), name="lead")
        stack.push_async_callback(server.set_serving, False)
        await server.set_serving(True)
        run.ready({"grpc": address})
        await run.stopped()


def _serve(
    server: RpcServer, store: Store, catalog: Catalog, front: Front, images: Images, uploads: Uploads, reign: Reign
) -> None:
    server.add(image_service_pb2_grpc.add_ImageServiceServicer_to_server, ImageServicer(front, images, uploads))
    datastores = Datastores(store, catalog, front, reign.look)
    server.add(datastore_service_pb2_grpc.add_DatastoreServiceServicer_to_server, DatastoreServicer(front, datastores))
