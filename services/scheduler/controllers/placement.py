"""The placement loop: woken by changes, it brings the ledger up to date, plans for all that waits, and sends bindings.

While bindings are on their way the next plan is made; their room is held in the columns. There is no fixed cycle.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import TypeVar

from moln.compute.v1 import cluster_pb2, host_pb2, placement_pb2, vm_pb2
from services.common.runtime import Background, Clock, Loop
from services.common.store import Change, Entry, Leadership, Store
from services.scheduler.controllers.moves import Grants, Moves
from services.scheduler.controllers.notes import Notes
from services.scheduler.controllers.transactions import Transactions
from services.scheduler.controllers.writes import Writes
from services.scheduler.core.hosts import DEFAULT_CLUSTER, HostFacts, facts
from services.scheduler.core.ledger import MOST_FAILURES, HostRevisions, Ledger
from services.scheduler.core.loads import Load
from services.scheduler.core.plan import plan
from services.scheduler.core.policies import Policies, for_clusters, policies_of
from services.scheduler.metrics import SchedulerMetrics
from services.scheduler.stored import stored

KINDS = frozenset({"vm", "host", "hostload", "cluster"})
IDLE_SECONDS = 30.0
NOTES_SECONDS = 1.0
MOVES_SECONDS = 2.0
LOAD_SECONDS = 60.0
_AT_A_TIME = 2000
_STATUS = "status/"
Item = TypeVar("Item")


class Placement:
    """Placement by this process: `ledger` is there while it leads, and has loaded. `policies` rank hosts by default."""

    def __init__(self, store: Store, metrics: SchedulerMetrics, clock: Clock, policies: Policies = ()) -> None:
        self.ledger: Ledger | None = None
        self._policies = policies
        self._store = store
        self._metrics = metrics
        self._clock = clock

    async def lead(self, leadership: Leadership) -> None:
        """Places VMs until cancelled; to be given to `Store.lead`."""
        await self._store.cache.wait(leadership.create_revision, LOAD_SECONDS)
        term = Term(self._store, leadership, self._metrics, self._clock, self._policies)
        unsubscribe = self._store.cache.subscribe(term.changed, KINDS)
        try:
            await term.load()
            self.ledger = term.ledger
            self._metrics.leads(True)
            await term.run()
        finally:
            self.ledger = None
            self._metrics.leads(False)
            unsubscribe()


class Term:
    """One leadership, from its first look at the store to its end. What it remembers ends with it."""

    def __init__(
        self, store: Store, leadership: Leadership, metrics: SchedulerMetrics, clock: Clock, policies: Policies
    ) -> None:
        self.ledger = Ledger()
        self._policies = policies
        self._store = store
        self._metrics = metrics
        self._clock = clock
        self._vms: dict[str, None] = {}
        self._hosts: dict[str, None] = {}
        self._loads: dict[str, None] = {}
        self._transactions = Transactions(store, self.ledger, leadership)
        self._loop = Loop("placement", self.step, interval=IDLE_SECONDS, metrics=metrics.loops)

    def changed(self, changes: Sequence[Change], _revision: int) -> None:
        """Notes which objects to look at. What a node reports matters only where it ends or begins. A VM for which a
        write of ours is on its way is looked at anyway when that has come to its end.
        """
        vms, records = self._vms, self.ledger.vms
        for change in changes:
            if change.kind == "vm":
                if not self._is_news(change):
                    continue
                record = records.get(change.id)
                if record is None or not record.is_busy:
                    vms[change.id] = None
            elif change.kind == "host":
                self._hosts[change.id] = None
            elif change.kind == "hostload":
                self._loads[change.id] = None
            else:
                self._hosts.update(dict.fromkeys(self._store.cache.ids("host")))
                self._rank_by_default()
        self._loop.wake()

    def _is_news(self, change: Change) -> bool:
        """What a node reports matters where it ends or begins, of VMs on their way, and when it keeps failing; and of
        volumes, that they are in a datastore.
        """
        if change.part == "volumes":
            return change.new is not None and change.new.value is not None and change.new.value.is_in_datastore
        if change.part[:7] != _STATUS or change.new is None or change.old is None or change.id in self.ledger.moving:
            return True
        status = change.new.value
        return status is not None and status.failures >= MOST_FAILURES and status.phase == vm_pb2.VM_PHASE_FAILED

    async def load(self) -> None:
        """Looks at everything there is, hosts first."""
        self._rank_by_default()
        self._hosts.update(dict.fromkeys(self._store.cache.ids("host")))
        self._vms.update(dict.fromkeys(self._store.cache.ids("vm")))
        await self._refresh()

    async def run(self) -> None:
        """The loops, until cancelled."""
        async with Background() as background:
            writes = Writes(
                self._store, self.ledger, self._transactions, self._metrics, background, self._clock, self._loop.wake
            )
            notes = Notes(self.ledger, writes, self._transactions, self._metrics, self._clock)
            moves = Moves(self._store, self.ledger, writes, self._transactions, self._clock)
            self._grants = Grants(self._store, self.ledger, writes, self._transactions)
            self._writes = writes
            self._moves = Loop("moves", moves.step, interval=MOVES_SECONDS, metrics=self._metrics.loops)
            self._notes = Loop("notes", notes.step, interval=NOTES_SECONDS, metrics=self._metrics.loops)
            background.start(self._loop.run(), name="placement")
            background.start(self._notes.run(), name="notes")
            background.start(self._moves.run(), name="moves")
            await asyncio.Event().wait()

    async def step(self) -> None:
        """Looks at what changed, places what waits, gives back what is terminated."""
        await self._refresh()
        ledger = self.ledger
        if queues := ledger.queues():
            started = time.perf_counter()
            bound = ledger.bind(queues, plan(ledger.columns, [queue.demand for queue in queues]))
            self._metrics.planned(time.perf_counter() - started, len(bound))
            await self._writes.send("bind", bound, self._transactions.bind)
        if ledger.doomed:
            released = list(ledger.doomed.values())
            for record in released:
                ledger.hold_still(record)
            await self._writes.send("release", released, self._transactions.release)
        if ledger.asking or ledger.leaving or ledger.failing:
            await self._grants.step()
        if ledger.moving:
            self._moves.wake()
        if any(group.unnoted for group in ledger.waiting):
            self._notes.wake()

    async def _refresh(self) -> None:
        """Brings the ledger up to date; lets others run now and then where there is much to look at."""
        while self._hosts or self._vms or self._loads:
            hosts, self._hosts = self._hosts, {}
            lost_or_found = self.ledger.update_hosts(*self._read_hosts(hosts))
            self._vms.update(dict.fromkeys(lost_or_found))
            loads, self._loads = {**self._loads, **hosts}, {}
            self._refresh_loads(loads)
            vms, self._vms = self._vms, {}
            for number, keys in enumerate(_portions(vms, _AT_A_TIME)):
                if number:
                    await asyncio.sleep(0)
                self._refresh_vms(keys)

    def _refresh_loads(self, keys: Mapping[str, None]) -> None:
        for key in keys:
            entry = self._store.cache.get("hostload", key)
            found = stored(entry, placement_pb2.HostLoad)
            revision = entry.mod_revision if entry is not None else 0
            load = Load(found.cpu_percent, found.memory_percent, revision) if found is not None else None
            self.ledger.columns.measure(int(key), load)

    def _rank_by_default(self) -> None:
        """Settings and clusters say how hosts are ranked for VMs that do not."""
        cache = self._store.cache
        clusters = {}
        for key in cache.ids("cluster"):
            spec = stored(cache.get("cluster", key, "spec"), cluster_pb2.ClusterSpec)
            clusters[int(key)] = policies_of(spec.policies) if spec is not None else ()
        self.ledger.columns.default_rank = for_clusters(self._policies, clusters)

    def _refresh_vms(self, keys: Sequence[str]) -> None:
        records, cache = self.ledger.vms, self._store.cache
        for key in keys:
            record = records.get(key)
            if record is None or not record.is_busy:
                self.ledger.update_vm(key, cache.object("vm", key))

    def _read_hosts(self, keys: Mapping[str, None]) -> tuple[list[tuple[HostFacts, HostRevisions]], list[int]]:
        found, gone = [], []
        for key in keys:
            parts = self._store.cache.object("host", key)
            if "spec" in parts:
                found.append(self._read_host(int(key), parts))
            else:
                gone.append(int(key))
        return found, gone

    def _read_host(self, host_id: int, parts: Mapping[str, Entry]) -> tuple[HostFacts, HostRevisions]:
        spec = stored(parts["spec"], host_pb2.HostSpec) or host_pb2.HostSpec()
        inventory = stored(parts.get("inventory"), host_pb2.HostInventory)
        liveness = stored(parts.get("liveness"), host_pb2.HostLiveness)
        cluster = stored(self._store.cache.get("cluster", spec.cluster_id, "spec"), cluster_pb2.ClusterSpec)
        name, labels = (cluster.name, cluster.labels) if cluster is not None else (DEFAULT_CLUSTER, {})
        found = facts(host_id, spec, inventory, liveness, name, labels)
        heard = parts["liveness"].mod_revision if "liveness" in parts else 0
        return found, HostRevisions(parts["spec"].mod_revision, heard)


def _portions(items: Mapping[Item, object], size: int) -> Iterator[list[Item]]:
    rest = iter(items)
    while portion := list(islice(rest, size)):
        yield portion
