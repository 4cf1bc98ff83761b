"""Wires the agent: the only place that builds its parts and hands them out."""

from __future__ import annotations

import fcntl
import gc
import importlib.metadata
import os
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import grpc

from moln.node.v1 import node_service_pb2_grpc
from services.common.domain.errors import MolnError
from services.common.domain.keys import SCHEMA_VERSION
from services.common.obs.logs import get_logger
from services.common.obs.loops import LoopCounts
from services.common.rpc import ClientTls, RpcServer, connect
from services.common.runtime import Background, Backoff, Loop, Run, SettingsError
from services.common.runtime.listen import TlsFiles
from services.hostagent.controllers.agent import AgentSession
from services.hostagent.controllers.hand import Hand
from services.hostagent.controllers.hosts import HostReporter
from services.hostagent.controllers.identity import Identity, find_identity
from services.hostagent.controllers.life import Life
from services.hostagent.controllers.link import Link
from services.hostagent.controllers.outbox import Outbox
from services.hostagent.controllers.racing import until_one_ends
from services.hostagent.controllers.reconciler import Guests, Reconciler
from services.hostagent.controllers.samples import SLICES, Sampler
from services.hostagent.controllers.self_fence import IDLE_S, SelfFence
from services.hostagent.controllers.sweep import TICK_S, Sweep
from services.hostagent.controllers.timers import Timers
from services.hostagent.controllers.tunnels import Tunnels
from services.hostagent.core.feeding import Feeding
from services.hostagent.core.status import host_base
from services.hostagent.drivers.libvirt.driver import DriverOptions, LibvirtDriver
from services.hostagent.drivers.libvirt.pci import check_patterns
from services.hostagent.drivers.ports import Driver, Power
from services.hostagent.drivers.sim.control import Control
from services.hostagent.drivers.sim.driver import SimDriver
from services.hostagent.drivers.sim.knobs import Knobs
from services.hostagent.exposition import LoadText
from services.hostagent.metrics import AgentMetrics
from services.hostagent.servicers import node_data
from services.hostagent.settings import Settings
from services.hostagent.storage.fetch import ImageSource
from services.hostagent.storage.volumes import VolumeStore
from services.hostagent.watchdog.device import KernelWatchdog, StandInWatchdog, Watchdog

T = TypeVar("T")
_MAY_RUN = (Power.RUNNING, Power.UNKNOWN)
CONTROL_S = 0.2
STREAM_S = 3600.0
GC_THRESHOLDS = (50_000, 20, 100)
"""Thousands of VMs are objects that stay: looking for garbage among them as usual costs a fifth of the time."""


async def main(settings: Settings, run: Run) -> None:
    """Runs the agent until it is asked to stop."""
    gc.set_threshold(*GC_THRESHOLDS)
    with _alone(settings.state_dir):
        joining = find_identity(
            settings.identity_file, settings.join_token, settings.api_addresses, lambda to: _dial(settings, to)
        )
        identity = await _unless_stopped(run, joining)
        if identity is None:
            return
        async with AsyncExitStack() as stack:
            timers = Timers()
            stack.callback(timers.close)
            driver = await _driver(settings, identity, timers, stack, run)
            await _Agent(settings, run, identity, timers, driver).run(stack)


async def _unless_stopped(run: Run, work: Coroutine[Any, Any, T]) -> T | None:
    """What the work returns; None where the process is asked to stop before it has."""
    results: list[T] = []

    async def keep() -> None:
        results.append(await work)

    if run.is_stopping:
        work.close()
    else:
        await until_one_ends(keep(), run.stopped(), expected=(MolnError, SettingsError))
    return results[0] if results else None


class _Agent:
    """The parts, joined."""

    def __init__(self, settings: Settings, run: Run, identity: Identity, timers: Timers, driver: Driver) -> None:
        self._settings, self._run, self._driver = settings, run, driver
        self._metrics = AgentMetrics(run.metrics)
        self._loops = LoopCounts(run.metrics)
        host_ids = list(identity.hosts)
        self._bases = {
            host.host_id: host_base(
                host.host_id, driver.boot_id(host.host_id), driver.name, f"<node {host.name}>", SCHEMA_VERSION
            )
            for host in identity.hosts.values()
        }
        guests = Guests(host_ids)
        self._metrics.watch(guests)
        outbox = Outbox(lambda: self.link.wake())
        hand = Hand(
            driver, outbox, timers, self._bases, self._metrics, now=time.time, guest_name=driver.guest_name,
            look=lambda host_id: self.sweep.ask(host_id), is_verbose=driver.name != "sim",
        )  # fmt: skip
        life = Life(hand, monotonic=time.monotonic, forget=guests.remove, longest_halt_s=settings.stop_grace_s)
        self.reconciler = Reconciler(guests, life, outbox, timers, self._bases)
        self.sweep = Sweep(host_ids, driver, self.reconciler)
        version = importlib.metadata.version("moln")
        self.samples = Sampler(
            identity.hosts, driver, self._metrics, lambda: self.link.wake(), interval_s=settings.stats_interval_s
        )
        self._metrics.load(LoadText(self.samples.newest, identity.hosts, guests.get, most=settings.max_exported_vms))
        self.hosts = HostReporter(
            identity.hosts, driver, self.reconciler.orphans, version, lambda: self.link.wake(),
            settings.metrics_advertise or run.metrics_address, self._watchdog,
        )  # fmt: skip
        self.session = AgentSession(
            identity.hosts, driver.boot_id, version, self.reconciler, outbox, self.hosts, self.samples,
            lambda order: self.tunnels.open(order), self.sweep.ask_all,
        )  # fmt: skip
        self._guests = guests
        self._fence = _self_fence(settings, identity, self.hosts.changed)
        self.session.promise_s = lambda: self._watchdog()[0]
        self.link = _link(settings, identity, self.session, self._metrics, self._fence)
        self._background = Background()
        self.tunnels = Tunnels(driver, driver.inside, driver.foreign, lambda to: _dial(settings, to), self._background)

    async def run(self, stack: AsyncExitStack) -> None:
        """Adopts what runs, connects, and works until the process is asked to stop."""
        self._driver.listen(self.reconciler.see, lambda: self.reconciler.changes)
        await _unless_stopped(self._run, self.sweep.first())
        if self._run.is_stopping:
            return
        async with Background() as to_the_end:
            if self._fence is not None:
                feeding = Loop("watchdog", self._fence.step, interval=IDLE_S, metrics=self._loops)
                self._fence.wake = feeding.wake
                to_the_end.start(feeding.run(), name=feeding.name)
            await self._work()
        if self._fence is not None:
            self._fence.close(has_guests=any(guest.power in _MAY_RUN for guest in self._guests))

    async def _work(self) -> None:
        async with self._background as background:
            for loop in self._all_loops():
                background.start(loop.run(), name=loop.name)
            self._run.ready({})
            await self._run.stopped()
        if self._settings.on_stop == "poweroff":
            count = await self.reconciler.halt()
            get_logger("process").info("guests stopped with the agent", guests=count)

    def _watchdog(self) -> tuple[int, str]:
        """What it promises, and what is wrong with it."""
        return (self._fence.promise_s, self._fence.problem) if self._fence is not None else (0, "")

    def _rebooted(self, host_id: int) -> None:
        self._bases[host_id].boot_id = self._driver.boot_id(host_id)
        self.sweep.ask(host_id)

    def _all_loops(self) -> list[Loop]:
        sweep = Loop("sweep", self.sweep.step, interval=TICK_S, metrics=self._loops)
        hosts = Loop("hosts", self.hosts.step, interval=self._settings.sample_interval_s, metrics=self._loops)
        every = self._settings.stats_interval_s / SLICES
        samples = Loop("samples", self.samples.step, interval=every, metrics=self._loops)
        self.sweep.wake, self.hosts.wake = sweep.wake, hosts.wake
        loops = [sweep, hosts, samples, Loop("link", self.link.step, interval=STREAM_S, backoff=Backoff(1.0, 10.0))]
        if isinstance(self._driver, SimDriver):
            file = _control_file(self._settings)
            control = Control(file, self._driver, self.link, self.session.silent_hosts, self._rebooted)
            loops.append(Loop("control", control.step, interval=CONTROL_S, metrics=self._loops))
        return loops


def _link(
    settings: Settings, identity: Identity, session: AgentSession, metrics: AgentMetrics, fence: SelfFence | None
) -> Link:
    def dial(address: str) -> grpc.aio.Channel:
        return _dial(settings, address)

    if fence is None:
        return Link(identity.addresses, dial, session, metrics)
    return Link(identity.addresses, dial, session, metrics, acknowledged=fence.acknowledged, clock=fence.now)


def _self_fence(settings: Settings, identity: Identity, changed: Callable[[], None]) -> SelfFence | None:
    """None where no watchdog is set; SettingsError where what is set cannot work."""
    if settings.watchdog_device is None:
        return None
    rule = Feeding(settings.self_fence_s, settings.watchdog_timeout_s)
    if fault := rule.fault():
        raise SettingsError(fault)
    if len(identity.hosts) != 1:
        raise SettingsError(
            f"watchdog_device: an agent that carries {len(identity.hosts)} hosts cannot fence one of them"
        )
    device: Watchdog = (
        StandInWatchdog(settings.watchdog_device) if settings.driver == "sim"
        else KernelWatchdog(settings.watchdog_device, settings.watchdog_timeout_s)
    )  # fmt: skip
    return SelfFence(device, rule, changed)


async def _driver(settings: Settings, identity: Identity, timers: Timers, stack: AsyncExitStack, run: Run) -> Driver:
    if settings.driver == "libvirt":
        real = await stack.enter_async_context(_libvirt(settings, identity, run))
        if settings.data_listen:
            await _serve_files(settings, real, stack, run)
        return real
    driver = SimDriver(
        settings.state_dir / "sim" / "hypervisors.journal", identity.hosts, timers, now=time.time,
        knobs=_knobs(settings), size=(settings.sim_cpus, settings.sim_memory_mib, settings.sim_disk_mib),
    )  # fmt: skip
    stack.callback(driver.close)
    return driver


async def _serve_files(settings: Settings, driver: LibvirtDriver, stack: AsyncExitStack, run: Run) -> None:
    """The data port: files of VMs that move, for the nodes that they move to."""
    server = RpcServer(run.metrics, gate=node_data.gate)
    tls = None
    if settings.tls_certificate is not None and settings.tls_key is not None:
        tls = TlsFiles(settings.tls_certificate, settings.tls_key, settings.tls_authority)
    address = server.listen(settings.data_listen, tls=tls, what="data_listen")
    servicer = node_data.NodeDataServicer(driver.folders, driver.runs)
    server.add(node_service_pb2_grpc.add_NodeDataServiceServicer_to_server, servicer)
    await stack.enter_async_context(server)
    await server.set_serving(True)
    driver.data_address = settings.data_advertise or str(address)


def _libvirt(settings: Settings, identity: Identity, run: Run) -> LibvirtDriver:
    if len(identity.hosts) != 1:
        raise SettingsError(f"{settings.identity_file}: the libvirt driver carries one host, not {len(identity.hosts)}")
    try:
        check_patterns(settings.pci_devices)
    except ValueError as err:
        raise SettingsError(f"pci_devices: {err}") from err
    options = DriverOptions(
        host_id=next(iter(identity.hosts)), cloud_uid=identity.cloud_uid, state=settings.state_dir,
        uri=settings.libvirt_uri, max_deeds=settings.max_deeds, domain_type=settings.libvirt_type,
        cleans_up=settings.on_stop == "poweroff", pci_devices=settings.pci_devices,
        migration_uri=settings.migration_uri,
    )  # fmt: skip

    def dial(to: str) -> grpc.aio.Channel:
        return _dial(settings, to)

    return LibvirtDriver(options, ImageSource(dial).fetch, VolumeStore(dial), run.stopped)


def _knobs(settings: Settings) -> Knobs:
    return Knobs(**{name: getattr(settings, f"sim_{name}") for name in Knobs.__dataclass_fields__})


def _control_file(settings: Settings) -> Path:
    return settings.state_dir / "sim" / "control"


def _dial(settings: Settings, address: str) -> grpc.aio.Channel:
    has_tls = settings.tls_authority is not None
    tls = ClientTls(settings.tls_authority, settings.tls_certificate, settings.tls_key) if has_tls else None
    return connect(address, tls=tls)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Holds the folder's lock, so that no second agent works on the same guests; SettingsError where one does."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(folder / "agent.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as err:
        raise SettingsError(f"{folder}: another agent works on it; stop that one or choose another folder") from err
    finally:
        os.close(descriptor)
