"""One hypervisor as a driver of the agent: deeds in tasks, looks, events, consoles, inventory. Wires, decides nothing.

What is on the host is read from two places that must agree in the end: the domains that carry moln's mark, and the
folders of VMs.
"""

from __future__ import annotations

import asyncio
import os
import platform
import shutil
import uuid
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Self

from moln.compute.v1.host_pb2 import HostInventory, PciDevice
from moln.compute.v1.vm_pb2 import VmStatus
from moln.image.v1.image_pb2 import Datastore
from services.common.domain.errors import MolnError
from services.common.obs.logs import get_logger
from services.common.runtime import Background
from services.hostagent.drivers.deeds import Deeds
from services.hostagent.drivers.libvirt.addresses import AddressWatch
from services.hostagent.drivers.libvirt.compose import Endpoint, default_cpu, domain_name
from services.hostagent.drivers.libvirt.connection import DomainEvent, LibvirtConnection, Raw
from services.hostagent.drivers.libvirt.console import GuestConsole, read_log, trim_log
from services.hostagent.drivers.libvirt.foreign import LibvirtForeign
from services.hostagent.drivers.libvirt.guestagent import GuestAgents
from services.hostagent.drivers.libvirt.guests import Guests
from services.hostagent.drivers.libvirt.inside import LibvirtInside
from services.hostagent.drivers.libvirt.inventory import (
    HYPERVISORS,
    CpuTime,
    HostFacts,
    cpu_set,
    read_cpu_time,
    read_facts,
    read_used_memory_mib,
)
from services.hostagent.drivers.libvirt.migration import PATIENCE_SECONDS, Migration
from services.hostagent.drivers.libvirt.observe import Observed
from services.hostagent.drivers.libvirt.operations.table import QEMU_CAPABILITIES, TEST_CAPABILITIES
from services.hostagent.drivers.libvirt.parting import part
from services.hostagent.drivers.libvirt.pci import read_devices
from services.hostagent.drivers.libvirt.probe import Acceleration, find_acceleration
from services.hostagent.drivers.libvirt.stats import StatsReader
from services.hostagent.drivers.libvirt.work import GuestWork
from services.hostagent.drivers.ports import Deed, End, Load, Outcome, Power, Seen, Work
from services.hostagent.drivers.stats import Sweep
from services.hostagent.network.bridges import Bridges
from services.hostagent.storage.cache import ImageCache
from services.hostagent.storage.disks import DiskMaker, Fetch, is_visible
from services.hostagent.storage.folders import NodeFolders, VmFolder, VmRecord
from services.hostagent.storage.volumes import VolumeStore

MIB = 1024 * 1024
BOOT_ID_FILE = Path("/proc/sys/kernel/random/boot_id")
TIDY_SECONDS = 30.0
NO_BRIDGES = "guests have no network but the hypervisor's own user mode: the agent is not root"


@dataclass(frozen=True, slots=True)
class DriverOptions:
    """What the driver is told. `domain_type`: `auto`, `kvm` or `qemu`."""

    host_id: int
    cloud_uid: str
    state: Path
    uri: str
    max_deeds: int = 4
    domain_type: str = "auto"
    cleans_up: bool = False
    """At its end nothing is left of guests that are off but their disks: no definition, no bridge."""
    pci_devices: tuple[str, ...] = ()
    """Which of the host's PCI devices guests may be given; see `pci.check_patterns`."""
    migration_uri: str = ""
    """Where other hypervisors reach this one for migrations; empty: they do not."""
    patience_s: float = PATIENCE_SECONDS
    """What is allowed to every live migration before it counts as one that does not converge."""
    has_bridges: bool = field(default_factory=lambda: os.geteuid() == 0)


class LibvirtDriver:
    """A context: on entering it has spoken to the hypervisor; on leaving nothing of it runs on, guests excepted."""

    name = "libvirt"

    def __init__(
        self, options: DriverOptions, fetch: Fetch, volumes: VolumeStore | None = None,
        stopping: Callable[[], Awaitable[None]] | None = None,
    ) -> None:  # fmt: skip
        """`stopping` returns when the process is to end: a hypervisor that is silent then is waited for no longer."""
        self._options, self._stopping = options, stopping
        self._is_test = options.uri.startswith("test:")
        self._connection = LibvirtConnection(options.uri)
        self._guests = Guests(self._connection)
        self._folders = NodeFolders(options.state, options.host_id)
        self._stats = StatsReader(self._connection, self._guests.mark_of, options.cloud_uid, options.state)
        self._bridges = Bridges() if options.has_bridges and not self._is_test else None
        disks = DiskMaker(ImageCache(self._folders.cache), fetch)
        self._work = GuestWork(
            self._guests, self._folders, disks, self._bridges, volumes, Migration(options.patience_s)
        )
        self.data_address = ""
        """Where other nodes fetch files of VMs that move to them; empty: nowhere. Set by who serves them."""
        self._background = Background()
        self._watch = AsyncExitStack()
        self._agents = GuestAgents(self._connection, self._background)
        self._inside = LibvirtInside(self._connection, self._agents)
        self.foreign = LibvirtForeign(self._connection, options.cloud_uid)
        self._deeds = Deeds(self._perform, options.max_deeds, self._background)
        self._addresses = AddressWatch(self._agents, self._running, self._look_again)
        self._statuses: dict[str, VmStatus] = {}
        self._changed: set[str] = set()
        self._wake = asyncio.Event()
        self._heard: Callable[[Seen], None] = lambda _seen: None
        self._changes: Callable[[], int] = lambda: 0
        # The test driver's guests live and die with this process.
        self._boot_id = str(uuid.uuid4()) if self._is_test else BOOT_ID_FILE.read_text().strip()
        self._acceleration = Acceleration("test")
        self._last_cpu: CpuTime | None = None
        self._log = get_logger("libvirt")

    @property
    def inside(self) -> LibvirtInside | None:
        """The test driver's guests have none."""
        return None if self._is_test else self._inside

    @property
    def capabilities(self) -> frozenset[str]:
        """The test driver has guests without disks and consoles."""
        if self._is_test:
            return frozenset({"power", "suspend"}) | TEST_CAPABILITIES
        if self._acceleration.domain_type not in ("qemu", "kvm"):
            return frozenset({"power", "console", "console_log"})
        found = {"power", "console", "console_log", "suspend", "stop"} | QEMU_CAPABILITIES
        if self.data_address:
            found |= {"migrate_cold", "migrate_save"}
        if self._options.migration_uri:
            found |= {"migrate_live"}
        return frozenset(found)

    async def __aenter__(self) -> Self:
        """Raises MolnError HYPERVISOR_FAILED where the hypervisor does not answer."""
        async with AsyncExitStack() as stack:
            watch = await Background().__aenter__()
            stack.push_async_callback(watch.__aexit__, None, None, None)
            if self._stopping is not None:
                watch.start(part(self._connection, self._stopping), name="libvirt-parting")
            await self._open()
            self._watch = stack.pop_all()
        return self

    async def _open(self) -> None:
        self._folders.make()
        self._connection.listen(self._happened)
        facts = await self._facts()
        self._acceleration = await self._find_acceleration(facts)
        self._work.endpoint = Endpoint(
            self._options.cloud_uid, self._acceleration.domain_type, facts.architecture,
            has_bridges=self._bridges is not None, has_cpu_shares=not self._options.uri.endswith("/session"),
            numa_cpus={node.node_id: cpu_set(node.cpus) for node in facts.numa_nodes},
        )  # fmt: skip
        await self._background.__aenter__()
        self._background.start(self._tell_changes(), name="libvirt-events")
        self._background.start(self._tidy_for_ever(), name="libvirt-tidy")
        if not self._is_test:
            self._background.start(self._addresses.run(), name="libvirt-addresses")

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._deeds.close()
        await self._background.__aexit__(kind, error, trace)
        if self._options.cleans_up:
            await self._clean_up()
        await self._stats.close()
        await self._guests.live.close()
        await self._connection.close()
        await self._watch.aclose()

    def guest_name(self, vm_id: int, uid: str) -> str:
        """The domain's name, for `virsh`."""
        return domain_name(vm_id, uid)

    # Power

    def begin(self, work: Work) -> None:
        """Begins a deed, as a task of its own; all but those that wait for a guest take one of the few places."""
        self._deeds.begin(work)

    def interrupt(self, host_id: int, vm_id: int, *, is_background: bool = False) -> None:
        """Cancels the deed under way; a start undoes what it has made."""
        self._deeds.interrupt(host_id, vm_id, is_background=is_background)

    def remember(self, status: VmStatus, vm_id: int) -> None:
        """Keeps the status in the VM's folder, where there is one yet."""
        self._statuses[status.uid] = status
        self._keep(status)

    async def _perform(self, work: Work) -> Outcome:
        outcome = await self._work.perform(work)
        if work.deed is Deed.ERASE and outcome.is_done:
            self._statuses.pop(work.uid, None)
        elif work.uid in self._statuses:  # the folder that a start makes was not there when the claim was remembered
            self._keep(self._statuses[work.uid])
        return outcome

    def _keep(self, status: VmStatus) -> None:
        folder = self._folders.vm(status.uid)
        record = folder.record()
        if record is None or record.is_of(self._options.host_id):
            folder.remember(status)

    @property
    def folders(self) -> NodeFolders:
        """Where the files of VMs are."""
        return self._folders

    async def runs(self, uid: str) -> bool:
        """Whether the guest's vCPUs exist. Raises MolnError HYPERVISOR_FAILED."""
        return await self._guests.live.runs(uid)

    # Recovery

    async def look(self, host_id: int) -> Sequence[Seen]:
        """Guests by the hypervisor's domains and by the folders of VMs."""
        domains = {seen.mark.uid: seen for seen in await self._guests.all() if self._is_ours(seen)}
        records = await asyncio.to_thread(self._folders.records)
        folders = {record.uid: record for record in records if record.cloud_uid == self._options.cloud_uid}
        return [self._seen(uid, domains.get(uid), folders.get(uid)) for uid in domains.keys() | folders.keys()]

    def listen(self, heard: Callable[[Seen], None], changes: Callable[[], int] = lambda: 0) -> None:
        """`heard` is called soon after the hypervisor's event, with what is read then."""
        self._heard, self._changes = heard, changes

    def _happened(self, event: DomainEvent) -> None:
        self._look_again(event.uid)

    def _look_again(self, uid: str) -> None:
        self._changed.add(uid)
        self._wake.set()

    async def _running(self) -> list[str]:
        seen = await self._guests.all()
        return [each.mark.uid for each in seen if self._is_ours(each) and each.power is Power.RUNNING]

    async def _tell_changes(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            changed, self._changed = self._changed, set()
            began_at = self._changes()
            try:
                for seen in await self._look_at(changed):
                    self._heard(replace(seen, began_at=began_at))
            except MolnError as err:
                self._log.warning("the hypervisor does not answer", error=err.message)

    async def _look_at(self, uids: set[str]) -> Sequence[Seen]:
        if "" in uids:
            return await self.look(self._options.host_id)
        host_id = self._options.host_id
        found = [(uid, await self._guests.observe(uid), self._folders.vm(uid).record_of(host_id)) for uid in uids]
        return [
            self._seen(uid, domain, record)
            for uid, domain, record in found
            if (domain is not None and self._is_ours(domain)) or (record is not None and self._is_own_record(record))
        ]

    def _is_ours(self, seen: Observed) -> bool:
        return seen.mark.cloud_uid == self._options.cloud_uid

    def _is_own_record(self, record: VmRecord) -> bool:
        return record.cloud_uid == self._options.cloud_uid

    def _seen(self, uid: str, domain: Observed | None, record: VmRecord | None) -> Seen:
        folder = self._folders.vm(uid)
        vm_id, epoch = (domain.mark.vm_id, domain.mark.epoch) if domain else (0, 0)
        if record is not None:
            vm_id, epoch = record.vm_id, record.epoch
        power = _power(domain, folder, self._options.host_id)
        if power is Power.RUNNING:
            folder.settle_arrival(self._options.host_id)
        end = domain.end if domain is not None else End.NONE
        if power is Power.OFF and folder.halt_file.exists():
            end = End.BY_AGENT
        addresses = self._addresses.known(uid) if power is Power.RUNNING else None
        return Seen(self._options.host_id, vm_id, uid, epoch, power, end, self._status(folder, uid), addresses)

    def _status(self, folder: VmFolder, uid: str) -> VmStatus | None:
        kept = self._statuses.get(uid) or folder.status()
        return kept if kept is None or kept.host_id in (0, self._options.host_id) else None

    # Consoles

    async def open_console(self, host_id: int, uid: str) -> GuestConsole:
        """The guest's serial console; who had it before loses it."""
        return await GuestConsole.open(self._connection, uid)

    async def console_log(self, host_id: int, uid: str, max_bytes: int) -> bytes:
        """The newest part of the file that the hypervisor writes."""
        return await asyncio.to_thread(read_log, self._folders.vm(uid).console_log, max_bytes)

    # Hosts

    def boot_id(self, host_id: int) -> str:
        """The kernel's; of the test driver one that changes with this process."""
        return self._boot_id

    async def inventory(self, host_id: int, datastores: Sequence[Datastore]) -> HostInventory:
        """Hardware, hypervisor, and which of the datastores the node sees itself."""
        self._work.see(datastores)
        facts = await self._facts()
        kind = facts.hypervisor if self._is_test else self._acceleration.domain_type
        return HostInventory(
            cpus=facts.cpus, memory_mib=facts.memory_mib, disk_mib=await asyncio.to_thread(self._disk_mib),
            driver=self.name, hypervisor=kind, hypervisor_version=facts.hypervisor_version,
            architecture=facts.architecture, cpu_model=facts.cpu_model, numa_nodes=facts.numa_nodes,
            hostname=platform.node() if self._is_test else facts.hostname, capabilities=sorted(self.capabilities),
            pci_devices=await self._connection.call(self._pci_devices, what="listing the host's PCI devices"),
            migration_uri=self._options.migration_uri, data_address=self.data_address,
            storage_id="" if self._is_test else await asyncio.to_thread(self._folders.storage_id),
            warnings=self._warnings(), visible_datastore_ids=[store.id for store in datastores if is_visible(store)],
        )  # fmt: skip

    def _pci_devices(self, raw: Raw) -> list[PciDevice]:
        return read_devices(raw, self._options.pci_devices)

    async def load(self, host_id: int) -> Load:
        """Since the last call; 0 where the hypervisor does not tell."""
        now = await self._connection.call(read_cpu_time, what="asking for the host's load")
        memory_mib = await self._connection.call(read_used_memory_mib, what="asking for the host's memory")
        before, self._last_cpu = self._last_cpu, now
        if now is None or before is None or now.total_s <= before.total_s:
            return Load(0.0, memory_mib)
        share = (now.busy_s - before.busy_s) / (now.total_s - before.total_s)
        return Load(max(0.0, share) * 100 * (os.cpu_count() or 1), memory_mib)

    async def sweep(self, host_id: int) -> Sweep:
        """The host and its guests by one bulk call."""
        return await self._stats.sweep()

    async def _clean_up(self) -> None:
        """Removes what guests that are off leave in the hypervisor and on the network; their disks stay."""
        try:
            await self._remove_definitions()
        except MolnError as err:
            self._log.warning("definitions of guests that are off stay", error=err.message)
        if self._bridges is not None:
            records = await asyncio.to_thread(self._folders.records)
            await self._bridges.release({name for record in records for name in record.bridges})

    async def _remove_definitions(self) -> None:
        for seen in await self._guests.all():
            if self._is_ours(seen) and seen.power is Power.OFF:
                await self._guests.undefine(seen.mark.uid)

    async def _facts(self) -> HostFacts:
        return await self._connection.call(read_facts, what="asking what the host is")

    async def _find_acceleration(self, facts: HostFacts) -> Acceleration:
        if facts.hypervisor in HYPERVISORS:
            return Acceleration(HYPERVISORS[facts.hypervisor])
        if self._options.domain_type != "auto":
            return Acceleration(self._options.domain_type)
        cpu = default_cpu("kvm")
        found = await find_acceleration(self._connection, facts.domain_types, self._options.state, self._boot_id, cpu)
        self._log.info("guests run with", type=found.domain_type, warning=found.warning)
        return found

    def _warnings(self) -> list[str]:
        network = NO_BRIDGES if self._bridges is None and not self._is_test else ""
        return [warning for warning in (self._acceleration.warning, network) if warning]

    def _disk_mib(self) -> int:
        """Room on the file system of the VMs' folder that is free or moln's own."""
        free = shutil.disk_usage(self._options.state).free
        return (free + self._folders.used_bytes()) // MIB

    async def _tidy_for_ever(self) -> None:
        """Keeps the logs of consoles within bounds: a guest may write without end."""
        while True:
            await asyncio.sleep(TIDY_SECONDS)
            await asyncio.to_thread(self._trim_logs)

    def _trim_logs(self) -> None:
        for log in self._folders.vms.glob("*/console.log"):
            trim_log(log)


def _power(domain: Observed | None, folder: VmFolder, host_id: int) -> Power:
    """By the hypervisor, and by what is in the folder of a guest that it does not run."""
    if domain is not None and domain.is_arriving and not folder.migrating_file(host_id).exists():
        return Power.OFF
    power = domain.power if domain is not None else Power.OFF
    is_cut_off = domain is not None and domain.is_saved and folder.memory_part.exists()
    if power is Power.OFF and (folder.memory.exists() or is_cut_off):
        return Power.SAVED
    return power
