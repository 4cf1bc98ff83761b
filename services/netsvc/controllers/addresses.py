"""Addresses of VMs: given from pools that mirror the lease keys, taken back when nothing of the VM is left.

It drives `core.assignment`; that an address is never given twice is certain only by the comparison in the transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from moln.common.v1.common_pb2 import Cause
from moln.compute.v1.vm_pb2 import VmAddresses, VmIntent, VmSpec
from moln.network.v1.network_pb2 import Lease, NetworkDesired, NetworkIntent, NetworkSpec
from services.common.domain.keys import SCHEMA_VERSION
from services.common.resources.stored import stored
from services.common.resources.vm_parts import Wish
from services.common.resources.waiting import Waiting
from services.common.runtime import Clock
from services.common.store import Change, Entry, Store, Txn, key
from services.netsvc.core import macs, ranges
from services.netsvc.core.assignment import Assigned, Known, Refused, assign, give_back, know, renewed, room
from services.netsvc.metrics import NetsvcMetrics

ACTOR = "<netsvc>"


class Addresses:
    """The pools of one leadership, what is set aside in them, and who waits; a `Work` for `VmParts`."""

    part = "addresses"

    def __init__(self, store: Store, clock: Clock, metrics: NetsvcMetrics) -> None:
        self.wake: Callable[[Iterable[str]], None] = lambda vms: None
        """Called with the VMs for which another try is worth it now."""
        self._waiting = Waiting()
        self._cache = store.cache
        self._clock = clock
        self._metrics = metrics
        self._known: dict[int, Known] = {}
        self._set_aside: dict[str, Assigned] = {}
        self._time = Timestamp()
        self._given = self._cause()
        for network in self._cache.ids("network"):
            self._read_network(int(network))

    # ------------------------------------------------------------------------------------- what the cache tells

    def changed(self, changes: Sequence[Change]) -> None:
        """Brings the pools up to date, and wakes who waits for what has come free."""
        touched: set[int] = set()
        for change in changes:
            if change.kind == "lease":
                self._lease_changed(change, touched)
            elif change.kind == "network":
                self._read_network(int(change.id))
                touched.add(int(change.id))
        for network_id in touched:
            self._waiting.signal(room(network_id))
        self._wake_next(touched)

    def _wake_next(self, networks: Iterable[int]) -> None:
        """Wakes the VMs whose turn it is in networks that have room, or are gone."""
        for network_id in networks:
            known = self._known.get(network_id)
            self.wake(self._waiting.due(room(network_id), known.pool.free if known else None))

    def _lease_changed(self, change: Change, touched: set[int]) -> None:
        network_id = int(change.id)
        known = self._known.get(network_id)
        address = ranges.ipv4(change.part)
        if known is None or address is None:
            return
        lease = stored(change.new, Lease)
        if lease is not None:
            known.pool.mark(address, macs.parse(lease.mac) or macs.of_ipv4(address))
            return
        before = stored(change.old, Lease)
        known.pool.give_back(address)
        touched.add(network_id)
        mac = macs.parse(before.mac) if before else None
        for lack in (("address", network_id, address), ("mac", network_id, mac or 0)):
            self._waiting.signal(lack)
            self.wake(self._waiting.due(lack))

    def _read_network(self, network_id: int) -> None:
        spec = stored(self._cache.get("network", network_id, "spec"), NetworkSpec)
        intent = stored(self._cache.get("network", network_id, "intent"), NetworkIntent)
        if spec is None or intent is None or intent.desired == NetworkDesired.NETWORK_DESIRED_DELETED:
            self._known.pop(network_id, None)
            return
        before = self._known.get(network_id)
        if before is None:
            self._known[network_id] = self._with_leases(know(network_id, spec))
            return
        self._known[network_id] = renewed(before, spec)

    def _with_leases(self, known: Known) -> Known:
        for text, entry in self._cache.object("lease", known.network_id).items():
            lease, address = stored(entry, Lease), ranges.ipv4(text)
            if lease is not None and address is not None:
                known.pool.mark(address, macs.parse(lease.mac) or macs.of_ipv4(address))
        return known

    # ------------------------------------------------------------------------------------- what VmParts asks

    def is_needed(self, intent: VmIntent) -> bool:
        """Whether the VM has interfaces."""
        return intent.needs_addresses

    async def look(self, wishes: Sequence[Wish]) -> None:
        """Sets the time that is written down; all else is in memory."""
        self._time.FromDatetime(self._clock.now())
        self._given = self._cause()

    def give(self, wish: Wish, txn: Txn) -> Message | None:
        """Addresses for all interfaces with their leases, or why there are none."""
        outcome = assign(wish.spec.template.nics, self._known.get)
        if isinstance(outcome, Refused):
            return self._refused(wish, outcome)
        self._set_aside[wish.vm] = outcome
        self._compare_networks(outcome, txn)
        for nic, (network_id, _) in zip(outcome.nics, outcome.addresses, strict=True):
            lease_key = key("lease", network_id, nic.ipv4)
            txn.absent(lease_key).put(lease_key, self._lease(wish, nic.nic_id, network_id, nic.ipv4, nic.mac))
        return VmAddresses(uid=wish.spec.uid, nics=outcome.nics, cause=self._given, schema_version=SCHEMA_VERSION)

    def lacks(self, spec: VmSpec, part: Message) -> bool:
        """Whether an interface was attached or detached since."""
        assert isinstance(part, VmAddresses)  # noqa: S101  for the type checker: it is this work's part
        return [nic.nic_id for nic in part.nics] != [nic.nic_id for nic in spec.template.nics]

    def amend(self, wish: Wish, txn: Txn) -> Message | None:
        """Addresses for the interfaces that are new; those of interfaces that are gone go back."""
        assert isinstance(wish.before, VmAddresses)  # noqa: S101  for the type checker: there is a part to amend
        kept = {nic.nic_id: nic for nic in wish.before.nics}
        outcome = assign([nic for nic in wish.spec.template.nics if nic.nic_id not in kept], self._known.get)
        if isinstance(outcome, Refused):
            self._waiting.add(wish.vm, outcome.lack)
            return None
        self._set_aside[wish.vm] = outcome
        self._compare_networks(outcome, txn)
        for nic, (network_id, _) in zip(outcome.nics, outcome.addresses, strict=True):
            lease_key = key("lease", network_id, nic.ipv4)
            txn.absent(lease_key).put(lease_key, self._lease(wish, nic.nic_id, network_id, nic.ipv4, nic.mac))
            kept[nic.nic_id] = nic
        wanted = [nic.nic_id for nic in wish.spec.template.nics]
        gone = VmAddresses(uid=wish.before.uid, nics=[nic for nic in wish.before.nics if nic.nic_id not in wanted])
        self.take_back(wish.vm, gone, txn)
        nics = [kept[nic_id] for nic_id in wanted]
        return VmAddresses(uid=wish.spec.uid, nics=nics, cause=self._given, schema_version=SCHEMA_VERSION)

    def settle(self, vm: str, *, is_written: bool) -> None:
        """Keeps what was set aside, or gives it back where no lease stands for it."""
        assigned = self._set_aside.pop(vm, None)
        if assigned is None:
            return
        if is_written:
            self._waiting.forget(vm)
            self._metrics.given(len(assigned.nics))
            return
        free = Assigned([], [(net, ip) for net, ip in assigned.addresses if not self._lease_at(net, ip)])
        give_back(free, self._known.get)

    def take_back(self, vm: str, part: Message, txn: Txn) -> None:
        """Deletes the leases that are the VM's."""
        if not isinstance(part, VmAddresses):
            return
        for nic in part.nics:
            entry = self._cache.get("lease", nic.network_id, nic.ipv4)
            lease = stored(entry, Lease)
            if entry is not None and lease is not None and lease.vm_uid == part.uid:
                txn.unchanged(entry.key, entry.mod_revision).delete(entry.key)
        self._metrics.taken_back(len(part.nics))

    def forget(self, vm: str) -> None:
        """The VM waits for nothing any more; what it might have got goes to the next."""
        lacked = self._waiting.forget(vm)
        if isinstance(lacked, tuple):
            self._wake_next([lacked[1]])
        self._metrics.show_waiting(len(self._waiting))

    def _refused(self, wish: Wish, refused: Refused) -> VmAddresses | None:
        self._waiting.add(wish.vm, refused.lack)
        self._wake_next({nic.network_id for nic in wish.spec.template.nics})
        self._metrics.show_waiting(len(self._waiting))
        before = wish.before
        if isinstance(before, VmAddresses) and (before.reason, before.message) == (refused.reason, refused.message):
            return None
        return VmAddresses(
            uid=wish.spec.uid, reason=refused.reason, message=refused.message,
            cause=self._cause(refused.reason), schema_version=SCHEMA_VERSION,
        )  # fmt: skip

    def _compare_networks(self, assigned: Assigned, txn: Txn) -> None:
        """The networks stand as they were read: none is deleted or made smaller meanwhile."""
        for network_id in {network_id for network_id, _ in assigned.addresses}:
            entry = self._cache.get("network", network_id, "intent")
            txn.unchanged(key("network", network_id, "intent"), entry.mod_revision if entry else 0)

    def _lease(self, wish: Wish, nic_id: int, network_id: int, ipv4: str, mac: str) -> Lease:
        return Lease(
            network_id=network_id, ipv4=ipv4, mac=mac, vm_id=int(wish.vm), vm_uid=wish.spec.uid, nic_id=nic_id,
            time=self._time,
        )  # fmt: skip

    def _lease_at(self, network_id: int, address: int) -> Entry | None:
        return self._cache.get("lease", network_id, ranges.text(address))

    def _cause(self, reason: str = "") -> Cause:
        return Cause(actor=ACTOR, reason=reason, time=self._time)
