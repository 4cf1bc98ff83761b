"""Wires the api: the only file here that builds adapters and hands them out."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Coroutine
from typing import Any

from moln.compute.v1 import (
    cluster_service_pb2_grpc,
    host_service_pb2_grpc,
    template_service_pb2_grpc,
    vm_service_pb2_grpc,
)
from moln.iam.v1 import user_service_pb2_grpc
from moln.image.v1 import datastore_service_pb2, image_service_pb2
from moln.network.v1 import network_service_pb2
from moln.node.v1 import node_service_pb2_grpc
from moln.operations.v1 import monitoring_service_pb2_grpc, operations_service_pb2_grpc
from moln.scheduler.v1 import scheduler_service_pb2
from services.api.access.credentials import Authenticator
from services.api.access.gate import ApiGate
from services.api.controllers.founding import found_cloud
from services.api.controllers.host_scripts import ScriptRunner
from services.api.controllers.leading import lead_api
from services.api.controllers.liveness import HostController
from services.api.controllers.loads import Loads
from services.api.controllers.timetable import Timetable
from services.api.core.liveness import Times
from services.api.forward.forwarder import Forwarder
from services.api.forward.peers import Peers
from services.api.history.keeper import Keeper
from services.api.history.recorder import Recorder
from services.api.history.replay import open_history, replay
from services.api.index.cloud import KINDS, CloudIndex
from services.api.metrics import ApiMetrics, CloudCollector, ScriptCounts
from services.api.nodes.gateway import NodeGateway
from services.api.nodes.servicer import NodeServicer
from services.api.nodes.tunnels import Tunnels
from services.api.samples.book import SampleBook
from services.api.servicers.hosts import HostServicer
from services.api.servicers.monitoring import MonitoringServicer
from services.api.servicers.others import ClusterServicer, OperationsServicer, TemplateServicer, UserServicer
from services.api.servicers.raw import add_raw
from services.api.servicers.vms import VmServicer
from services.api.settings import Settings
from services.api.usecases.accounting import Accounting
from services.api.usecases.cloud_status import CloudStatus
from services.api.usecases.clusters import Clusters
from services.api.usecases.consoles import Consoles
from services.api.usecases.events import Events
from services.api.usecases.host_guests import HostGuests
from services.api.usecases.host_scripts import HostScripts
from services.api.usecases.host_watches import HostWatches
from services.api.usecases.hosts import Hosts
from services.api.usecases.insides import Insides
from services.api.usecases.lost_hosts import LostHosts
from services.api.usecases.operation_views import OperationViews
from services.api.usecases.schedules import Schedules
from services.api.usecases.scrape_targets import PATH, ScrapeTargets
from services.api.usecases.streams import Streams
from services.api.usecases.templates import Templates
from services.api.usecases.usages import Usages
from services.api.usecases.users import Users
from services.api.usecases.vm_histories import VmHistories
from services.api.usecases.vm_imports import VmImports
from services.api.usecases.vm_operations import VmOperations
from services.api.usecases.vm_watches import VmWatches
from services.api.usecases.vms import Vms
from services.api.usecases.waiting import Waiting
from services.common.domain.keys import KEYS
from services.common.exec import ScriptFolder, ScriptLimits
from services.common.obs.loops import LoopCounts
from services.common.rpc.channel import ClientTls
from services.common.rpc.metrics import RpcMetrics
from services.common.rpc.secret import read_service_secret
from services.common.rpc.server import RpcServer
from services.common.runtime.background import Background
from services.common.runtime.listen import TlsFiles, tls_files
from services.common.runtime.loop import Loop
from services.common.runtime.service import Run
from services.common.store import ProcessInfo, Store, StoreSettings
from services.common.store.metrics import StoreMetrics
from services.common.version import version

GC_THRESHOLDS = (50_000, 20, 50)
"""Entries and records live long, in no cycles, and are many: look through them rarely."""
TOKEN_FILE = "admin.token"  # noqa: S105  the name of a file


async def main(settings: Settings, run: Run) -> None:
    """One api process from start to ordered end."""
    gc.set_threshold(*GC_THRESHOLDS)
    secret = read_service_secret(settings.service_secret_file)
    async with contextlib.AsyncExitStack() as stack:
        gate, metrics = ApiGate(), RpcMetrics(run.metrics)
        revision = _Revision()
        server = RpcServer(metrics, gate=gate, revision=revision)
        address = str(server.listen(settings.listen, tls=_tls(settings), what="listen"))
        nodes = RpcServer(metrics, gate=gate)
        node_address = str(nodes.listen(settings.node_listen, tls=_node_tls(settings), what="node_listen"))
        public, public_node = settings.advertise or address, settings.node_advertise or node_address

        store = await stack.enter_async_context(await _open_store(settings, public, run))
        cloud = CloudIndex(store)
        cloud.start()
        log = open_history(settings.state_dir / "history", settings.history_max_mib << 20, store.cache.revision)
        stack.callback(log.close)
        recorder = Recorder(cloud)
        recorder.adopt()
        await replay(store, log, store.cache.revision)
        keeper = Keeper(store, log, recorder)
        await found_cloud(store, cloud, settings.state_dir / TOKEN_FILE)
        gate.open(Authenticator(cloud.catalog), store)
        revision.store = store

        gateway = NodeGateway(store, cloud, secret.encode(), public)
        tunnels = Tunnels(gateway, secret.encode(), public_node)
        add_raw(
            nodes, node_service_pb2_grpc.add_NodeServiceServicer_to_server, NodeServicer(store, cloud, gateway, tunnels)
        )
        streams = Streams()
        scripts = ScriptFolder(settings.host_script_folder, "the api's setting host_script_folder")
        vms = Vms(store, cloud)
        operations = VmOperations(store, cloud, vms)
        _add_vms(server, store, cloud, keeper, tunnels, streams, vms, operations)
        _add_services(server, store, cloud, keeper, gateway, tunnels, streams, public_node, vms, scripts)
        forwarder = Forwarder(store, secret, _client_tls(settings))
        stack.push_async_callback(forwarder.close)
        _forward(server, forwarder)
        book = _add_monitoring(server, settings, store, cloud, gateway, keeper, streams, stack)
        run.pages[PATH] = ScrapeTargets(cloud).document
        _measure(run, cloud, gateway, store, book)

        await stack.enter_async_context(nodes)
        await stack.enter_async_context(server)
        loops = await stack.enter_async_context(Background())
        loads = Loads(store, cloud, book, gateway)
        mending = _start_loops(loops, keeper, gateway, book, loads, LoopCounts(run.metrics))
        stack.callback(store.process.on_lost(mending.wake))
        timetable = Timetable(store, cloud, vms, operations)
        loops.start(_lead(settings, run, store, cloud, keeper, public, scripts, timetable), name="api leader")
        await _serve(run, {"grpc": server, "nodes": nodes}, {"grpc": address, "nodes": node_address})
        streams.end()
        tunnels.close_all()
        gateway.close()


async def _serve(run: Run, servers: dict[str, RpcServer], addresses: dict[str, str]) -> None:
    """Says that all is ready, and no longer, once the process is asked to stop."""
    for each in servers.values():
        await each.set_serving(True)
    run.ready(addresses)
    await run.stopped()
    for each in servers.values():
        await each.set_serving(False)


def _start_loops(
    loops: Background, keeper: Keeper, gateway: NodeGateway, book: SampleBook, loads: Loads, counts: LoopCounts
) -> Loop:
    """Returns the loop that mends connections, for those who must wake it."""

    async def settle() -> None:
        book.settle()

    async def tidy() -> None:
        book.tidy()

    loops.start(keeper.run(), name="history keeper")
    mending = Loop("connections", gateway.mend, interval=2.0, metrics=counts)
    loops.start(mending.run(), name="connections")
    loops.start(Loop("loads", loads.step, interval=loads.interval_s, metrics=counts).run(), name="loads")
    loops.start(Loop("samples", settle, interval=1.0, metrics=counts).run(), name="samples")
    loops.start(Loop("old samples", tidy, interval=60.0, metrics=counts).run(), name="old samples")
    return mending


class _Revision:
    """The revision that replies reflect: that of the cache, once there is one."""

    store: Store | None = None

    def __call__(self) -> int:
        return self.store.cache.revision if self.store is not None else 0


async def _open_store(settings: Settings, address: str, run: Run) -> Store:
    store = await Store.open(
        StoreSettings(
            endpoints=settings.etcd_endpoints,
            ca_file=settings.etcd_ca,
            cert_file=settings.etcd_cert,
            key_file=settings.etcd_key,
        ),
        keys=KEYS,
        kinds=KINDS,
        process=ProcessInfo("api", address, version(), run.metrics_address),
    )
    StoreMetrics(run.metrics, store)
    return store


def _tls(settings: Settings) -> TlsFiles | None:
    """For clients, who show tokens."""
    return tls_files(settings.tls_cert, settings.tls_key)


def _node_tls(settings: Settings) -> TlsFiles | None:
    """For nodes, who must show certificates where an authority is given."""
    return tls_files(settings.tls_cert, settings.tls_key, settings.tls_ca)


def _client_tls(settings: Settings) -> ClientTls | None:
    if settings.tls_ca is None:
        return None
    return ClientTls(settings.tls_ca, settings.tls_cert, settings.tls_key)


def _add_vms(
    server: RpcServer,
    store: Store,
    cloud: CloudIndex,
    keeper: Keeper,
    tunnels: Tunnels,
    streams: Streams,
    vms: Vms,
    operations: VmOperations,
) -> None:
    waiting = Waiting(cloud, vms, streams)
    servicer = VmServicer(
        vms,
        operations,
        OperationViews(store, cloud, vms, waiting, streams, keeper),
        Schedules(store, cloud, vms),
        waiting,
        VmWatches(store, cloud, streams),
        Consoles(vms, tunnels),
        Insides(vms, tunnels),
        VmImports(store, cloud, HostGuests(cloud, tunnels)),
    )
    add_raw(server, vm_service_pb2_grpc.add_VmServiceServicer_to_server, servicer)


def _add_services(
    server: RpcServer,
    store: Store,
    cloud: CloudIndex,
    keeper: Keeper,
    gateway: NodeGateway,
    tunnels: Tunnels,
    streams: Streams,
    node_address: str,
    vms: Vms,
    scripts: ScriptFolder,
) -> None:
    hosts = Hosts(store, cloud, node_address, scripts)
    template_servicer = TemplateServicer(Templates(store, cloud), vms)
    add_raw(server, template_service_pb2_grpc.add_TemplateServiceServicer_to_server, template_servicer)
    host_servicer = HostServicer(
        hosts,
        HostWatches(store, cloud, hosts, streams),
        HostScripts(store, cloud, hosts, streams),
        HostGuests(cloud, tunnels),
        LostHosts(store, cloud, hosts),
    )
    server.add(host_service_pb2_grpc.add_HostServiceServicer_to_server, host_servicer)
    cluster_servicer = ClusterServicer(Clusters(store, cloud), hosts)
    server.add(cluster_service_pb2_grpc.add_ClusterServiceServicer_to_server, cluster_servicer)
    server.add(user_service_pb2_grpc.add_UserServiceServicer_to_server, UserServicer(Users(store, cloud)))


def _add_monitoring(
    server: RpcServer, settings: Settings, store: Store, cloud: CloudIndex, gateway: NodeGateway, keeper: Keeper,
    streams: Streams, stack: contextlib.AsyncExitStack,
) -> SampleBook:  # fmt: skip
    """Where samples go, and who reads them."""
    book, peers = SampleBook(cloud, settings.samples_max_vms), Peers(store, cloud, _client_tls(settings))
    stack.push_async_callback(peers.close)
    gateway.on_samples = book.take
    servicer = MonitoringServicer(Usages(cloud, Vms(store, cloud), gateway, book, peers, streams))
    server.add(monitoring_service_pb2_grpc.add_MonitoringServiceServicer_to_server, servicer)
    status, events = CloudStatus(store, cloud, gateway, version()), Events(keeper, streams)
    operations = OperationsServicer(status, events, VmHistories(cloud, keeper), Accounting(cloud, keeper, book))
    server.add(operations_service_pb2_grpc.add_OperationsServiceServicer_to_server, operations)
    return book


def _measure(run: Run, cloud: CloudIndex, gateway: NodeGateway, store: Store, book: SampleBook) -> None:
    unsettled = ApiMetrics(run.metrics, cloud).unsettled
    run.metrics.collector(CloudCollector(cloud, gateway, store, unsettled, book))


def _lead(
    settings: Settings,
    run: Run,
    store: Store,
    cloud: CloudIndex,
    keeper: Keeper,
    address: str,
    scripts: ScriptFolder,
    timetable: Timetable,
) -> Coroutine[Any, Any, None]:
    """What one process does for all."""
    limits = ScriptLimits(request_s=settings.host_script_timeout_s)
    hosts = HostController(store, cloud, Times(margin=settings.self_fence_margin_s))
    runner = ScriptRunner(store, cloud, scripts, limits, ScriptCounts(run.metrics))
    return lead_api(store, cloud, keeper, address, hosts, runner, timetable)


def _forward(server: RpcServer, forwarder: Forwarder) -> None:
    """What the api does not own, with the service that does."""
    owned = (
        (image_service_pb2.DESCRIPTOR.services_by_name["ImageService"], "imagesvc"),
        (datastore_service_pb2.DESCRIPTOR.services_by_name["DatastoreService"], "imagesvc"),
        (network_service_pb2.DESCRIPTOR.services_by_name["NetworkService"], "netsvc"),
        (scheduler_service_pb2.DESCRIPTOR.services_by_name["SchedulerService"], "scheduler"),
    )
    for service, owner in owned:
        forwarder.serve(server, service, owner)
