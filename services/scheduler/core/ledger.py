"""Everything that the placement loop remembers: hosts as columns, VMs as records, who waits and what is held.

It is a fold of the store's present state: `update_vm` and `update_hosts` are told which objects changed, read their
parts as they are now, and may be called at any time, in any order, again. No I/O.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from moln.compute.v1 import host_pb2, template_pb2, vm_pb2
from services.common.domain.errors import MolnError
from services.common.domain.reasons import Reason
from services.scheduler.core.amounts import KIB_PER_MIB, Amounts, Integers
from services.scheduler.core.columns import HostColumns
from services.scheduler.core.devices import Grant, Wish, grant_of
from services.scheduler.core.hosts import HostFacts
from services.scheduler.core.queues import Group, Queue, VmRecord, queue
from services.scheduler.core.shapes import demand, held, shape, shape_key
from services.scheduler.core.words import FITS, Why

NANOSECONDS = 1_000_000_000
_IDLE_GROUPS = 1000
_RESTART = frozenset({template_pb2.ON_HOST_LOSS_RESTART, template_pb2.ON_HOST_LOSS_RESTART_WITH_NEW_DISKS})
_STATUS = "status/"


class Part(Protocol):
    """A stored part of an object."""

    @property
    def value(self) -> Any: ...

    @property
    def mod_revision(self) -> int: ...


Parts = Mapping[str, Part]


class HostRevisions(NamedTuple):
    """Revisions of what a binding relies on."""

    spec: int = 0
    liveness: int = 0


class Ledger:
    """The ledger of one leadership."""

    def __init__(self) -> None:
        self.columns = HostColumns(self._hosts_of_vm)
        self.vms: dict[str, VmRecord] = {}
        self.waiting: dict[Group, None] = {}
        self.doomed: dict[str, VmRecord] = {}
        self.leaving: dict[str, VmRecord] = {}
        """VMs that are stopped or undeployed, and of which nothing is on their hosts any more."""
        self.asking: dict[str, VmRecord] = {}
        """VMs for which more or less is to be granted than is held."""
        self.moving: dict[str, VmRecord] = {}
        """VMs that are on their way to another host, or that are to move."""
        self.failing: dict[str, VmRecord] = {}
        """VMs that their hosts could not start again and again, or have not touched and are to be free of."""
        self.host_revisions: dict[int, HostRevisions] = {}
        self._groups: dict[tuple[object, ...], Group] = {}

    # ------------------------------------------------------------------------------------------------- hosts

    def update_hosts(
        self, changed: Sequence[tuple[HostFacts, HostRevisions]], removed: Iterable[int] = ()
    ) -> list[str]:
        """Takes over hosts; returns the keys of VMs to be looked at again because of what their host has become."""
        affected = {facts.host_id for facts, _ in changed if _affects_vms(self.columns.facts(facts.host_id), facts)}
        for facts, revisions in changed:
            self.host_revisions[facts.host_id] = revisions
        gone = list(removed)
        for host_id in gone:
            self.host_revisions.pop(host_id, None)
        self.columns.apply([facts for facts, _ in changed], gone)
        if not affected:
            return []
        return [
            key
            for key, each in self.vms.items()
            if each.host_id in affected or each.target_host in affected or self._is_lost(each.host_id)
        ]

    def _is_lost(self, host_id: int) -> bool:
        """Its VMs may wait for another host, where something of them is left, to be lost too."""
        return host_id != 0 and _is_fenced(self.columns.facts(host_id))

    # ------------------------------------------------------------------------------------------------- VMs

    def update_vm(self, key: str, parts: Parts) -> None:
        """Takes over a VM as its parts are now; none at all: it is gone."""
        intent, placement = parts.get("intent"), parts.get("placement")
        record = self.vms.get(key)
        if intent is None and placement is None:
            if record is not None:
                self._forget(record)
            return
        if record is None:
            record = self.vms[key] = VmRecord(key, int(key))
        self._read_placement(record, placement)
        self._sort_in(record, parts, intent)

    def _hosts_of_vm(self, vm_id: int) -> Sequence[int]:
        record = self.vms.get(f"{vm_id:010d}")
        return [host_id for host_id in (record.held_host, record.held_target) if host_id] if record is not None else ()

    def settle(self, record: VmRecord) -> None:
        """A write for this VM has come to its end, well or not. Call `update_vm` next."""
        record.is_busy = False
        record.bound_for = record.move_for = 0

    def unbind(self, record: VmRecord, parts: Parts) -> None:
        """A binding has failed: its room is given back at once. The VM stays busy until `settle`."""
        record.bound_for = record.move_for = 0
        record.granted_revision = 0
        self._read_placement(record, parts.get("placement"))

    # ------------------------------------------------------------------------------------------------- plans

    def queues(self) -> list[Queue]:
        """The waiting VMs that it is worth planning for."""
        room = self.columns.room()
        found = []
        for group in self.waiting:
            if group.shape is not None and group.is_worth_a_try(self.columns):
                made = queue(group, group.shape, self.columns, room)
                if made is not None:
                    found.append(made)
                else:
                    group.block(group.version(self.columns))
        return found

    def bind(self, queues: Sequence[Queue], plan: Sequence[Integers]) -> list[VmRecord]:
        """Holds the room of a plan. Returns the VMs that now are busy and `bound_for` a host; the rest waits on."""
        bound: list[VmRecord] = []
        short: set[Group] = set()
        planned_at = [each.group.version(self.columns) for each in queues]
        for each, rows in zip(queues, plan, strict=True):
            demand, wish = each.demand.shape.demand, each.demand.shape.wish
            if wish is not None:
                taken = self._bind_with_devices(each, rows, wish)
                if len(taken) < len(rows):
                    short.add(each.group)
                bound += taken
                continue
            self.columns.hold_rows(rows, demand)
            for record, host_id in zip(each.records, self.columns.ids[rows].tolist(), strict=False):
                self._bind(record, host_id, demand)
                bound.append(record)
        # What the plan itself changes may be what a requirement waits for: those groups are tried once more.
        for each, version in zip(queues, planned_at, strict=True):
            if each.group.waiting and each.group not in short:
                each.group.block(version)
        return bound

    def reserve(self, record: VmRecord, host_id: int) -> None:
        """Holds room for the VM on the target of a move that is about to begin."""
        record.move_for = host_id
        self._hold_target(record, host_id)

    def lack(self, record: VmRecord, amounts: Amounts) -> Why:
        """Why the VM's host cannot give it these amounts; FITS where it can."""
        row, facts = self.columns.row(record.host_id), self.columns.facts(record.host_id)
        if row is None or facts is None:
            return Why(Reason.HOST_SILENT, "its host is not known")
        for index, (name, unit, size) in enumerate(_UNITS):
            free = int(self.columns.total[index][row] - self.columns.used[index][row])
            more = amounts[index] - record.held[index]
            if more > 0 and more > free:
                return Why(
                    Reason.NO_HOST_FITS,
                    f"host {facts.name} has {max(0, free) // size} {unit} of {name} left, and {more // size} more are "
                    "needed; move the VM to a larger host first, or ask for less",
                )
        return FITS

    def grant(self, record: VmRecord, amounts: Amounts) -> None:
        """Holds more or less for the VM on its host from now on."""
        target = record.held_target
        self._hold_target(record, 0)
        self._hold(record, record.held_host, amounts, record.grant)
        self._hold_target(record, target)

    def hold_still(self, record: VmRecord) -> None:
        """Some other write for this VM begins: it is in no queue until `settle`."""
        self._leave(record)
        record.is_busy = True

    # ------------------------------------------------------------------------------------------------- within

    def _bind_with_devices(self, queue: Queue, rows: Integers, wish: Wish) -> list[VmRecord]:
        """A plan knows that each host has what one VM wants. Where it sent more, those wait for the next plan."""
        bound: list[VmRecord] = []
        for host_id in self.columns.ids[rows].tolist():
            grant = self.columns.granted(host_id, wish)
            if grant is not None:
                record = queue.records[len(bound)]
                self.columns.hold(host_id, queue.demand.shape.demand, grant)
                self._bind(record, host_id, queue.demand.shape.demand, grant)
                bound.append(record)
        return bound

    def _bind(self, record: VmRecord, host_id: int, demand: Amounts, grant: Grant | None = None) -> None:
        if record.held_host:
            self.columns.release(record.held_host, record.held, record.grant)
        record.held_host, record.held, record.grant, record.bound_for = host_id, demand, grant, host_id
        self.hold_still(record)

    def _forget(self, record: VmRecord) -> None:
        self._leave(record)
        self._hold_target(record, 0)
        if record.held_host:
            self.columns.release(record.held_host, record.held, record.grant)
        record.held_host = 0
        del self.vms[record.key]

    def _read_placement(self, record: VmRecord, placement: Part | None) -> None:
        if placement is None:
            record.placement_revision = record.host_id = record.target_host = 0
            record.noted = FITS
        elif placement.mod_revision != record.placement_revision:
            value: vm_pb2.VmPlacement = placement.value
            record.placement_revision = placement.mod_revision
            record.host_id, record.epoch = value.host_id, max(value.epoch, value.last_epoch)
            record.target_host = value.move.target_host_id if value.HasField("move") else 0
            record.avoided = tuple(value.avoided_host_ids)
            record.noted = Why(value.pending.reason, value.pending.message) if value.HasField("pending") else FITS
        self._read_room(record, placement)

    def _read_room(self, record: VmRecord, placement: Part | None) -> None:
        """Holds what the placement holds, here and at the target of a move, unless a write of ours says otherwise."""
        if record.bound_for:
            return
        target = record.move_for or record.target_host
        amounts, grant = record.held, record.grant
        if placement is not None:
            amounts, grant = held(placement.value), grant_of(placement.value.granted)
        if record.host_id != record.held_host or (record.host_id and amounts != record.held and not record.is_busy):
            self._hold_target(record, 0)
            self._hold(record, record.host_id, amounts, grant)
        self._hold_target(record, target)

    def _hold_target(self, record: VmRecord, host_id: int) -> None:
        """A VM with devices of its host does not move, so that only room is held at a target."""
        if record.held_target == host_id:
            return
        if record.held_target:
            self.columns.release(record.held_target, record.held)
        if host_id:
            self.columns.hold(host_id, record.held)
        record.held_target = host_id

    def _hold(self, record: VmRecord, host_id: int, amounts: Amounts, grant: Grant | None) -> None:
        if record.held_host:
            self.columns.release(record.held_host, record.held, record.grant)
        if host_id:
            self.columns.hold(host_id, amounts, grant)
        record.held_host, record.held, record.grant = host_id, amounts, grant

    def _sort_in(self, record: VmRecord, parts: Parts, intent: Part | None) -> None:
        """Puts the VM where it belongs: among those that wait, among those whose placement goes, or nowhere."""
        self._leave(record)
        if record.is_busy or intent is None:
            return
        record.intent_revision = intent.mod_revision
        value: vm_pb2.VmIntent = intent.value
        if value.desired == vm_pb2.DESIRED_STATE_TERMINATED:
            if record.placement_revision and not _has_status(parts):
                self.doomed[record.key] = record
            return
        if value.desired == vm_pb2.DESIRED_STATE_RUNNING and self._needs_host(record, parts):
            self._join(record, parts["spec"], value)
        elif record.host_id:
            self._sort_placed(record, parts, value)

    def _sort_placed(self, record: VmRecord, parts: Parts, intent: vm_pb2.VmIntent) -> None:
        """What is to be done for a VM that has a host."""
        facts = self.columns.facts(record.host_id)
        if record.target_host or intent.HasField("operation") or is_drained(facts):
            self.moving[record.key] = record
        if intent.desired in _OFF_HOST and is_stored(parts) and not _has_status(parts):
            self.leaving[record.key] = record
        if self._asks(record, parts, intent):
            self.asking[record.key] = record
        if intent.desired == vm_pb2.DESIRED_STATE_RUNNING:
            is_untouched = is_drained(facts) and not record.target_host and not _has_status(parts)
            if is_untouched or _keeps_failing(record, parts, intent):
                self.failing[record.key] = record

    def _asks(self, record: VmRecord, parts: Parts, intent: vm_pb2.VmIntent) -> bool:
        """Whether what is held has to be compared with what the VM is to have."""
        spec, operation = parts.get("spec"), intent.operation
        if spec is None or spec.value is None or parts["placement"].value is None:
            return False
        if operation.kind in COSTS_CAPACITY:
            placement: vm_pb2.VmPlacement = parts["placement"].value
            return operation.id not in (placement.granted_operation_id, placement.refusal.id)
        if record.granted_revision == spec.mod_revision:
            return False
        record.granted_revision = spec.mod_revision
        return demand(spec.value.template) != record.held

    def _needs_host(self, record: VmRecord, parts: Parts) -> bool:
        spec = parts.get("spec")
        if spec is None or spec.value.template.scheduler:
            return False
        if not record.host_id:
            return not _has_status(parts)
        if spec.value.template.on_host_loss not in _RESTART:
            return False
        return all(_is_fenced(self.columns.facts(host_id)) for host_id in (record.host_id, *status_hosts(parts)))

    def _join(self, record: VmRecord, spec: Part, intent: vm_pb2.VmIntent) -> None:
        if record.uid == "":
            record.uid = intent.uid
            record.created = intent.create_time.seconds * NANOSECONDS + intent.create_time.nanos
        group = record.group
        if (
            group is None
            or record.spec_revision != spec.mod_revision
            or group.key.wanted_host_id != intent.wanted_host_id
            or group.key.avoided != record.avoided
        ):
            group = record.group = self._group(spec.value.template, intent.wanted_host_id, record.avoided)
            record.spec_revision = spec.mod_revision
        group.add(record)
        self.waiting[group] = None

    def _leave(self, record: VmRecord) -> None:
        for place in (self.doomed, self.leaving, self.asking, self.moving, self.failing):
            place.pop(record.key, None)
        group = record.group
        if group is not None and group.remove(record) and not group.waiting:
            self.waiting.pop(group, None)

    def _group(self, template: template_pb2.VmTemplate, wanted_host_id: int, avoided: tuple[int, ...]) -> Group:
        key = shape_key(template, wanted_host_id, avoided)
        found = self._groups.get(key)
        if found is None:
            if len(self._groups) > _IDLE_GROUPS + 2 * len(self.waiting):
                self._groups = {each.key: each for each in self.waiting}
            try:
                found = Group(key, shape(key))
            except MolnError as err:
                found = Group(key, None, Why(err.reason, err.message.partition("\n")[0]))
            self._groups[key] = found
        return found


_UNITS = (("CPU", "%", 1), ("memory", "MiB", KIB_PER_MIB), ("disk", "MiB", 1))
_OFF_HOST = frozenset({vm_pb2.DESIRED_STATE_STOPPED, vm_pb2.DESIRED_STATE_UNDEPLOYED})
COSTS_CAPACITY = frozenset(
    {vm_pb2.OPERATION_KIND_ATTACH_DISK, vm_pb2.OPERATION_KIND_RESIZE, vm_pb2.OPERATION_KIND_RESIZE_DISK}
)
"""Operations that wait until the scheduler has granted what they take."""
MOST_FAILURES = 3
"""Starts that fail in a row, before another host is tried."""


def is_drained(facts: HostFacts | None) -> bool:
    """Whether VMs are to be moved away from the host."""
    return facts is not None and facts.mode in (host_pb2.HOST_MODE_DRAINING, host_pb2.HOST_MODE_MAINTENANCE)


def is_stored(parts: Parts) -> bool:
    """Whether everything of the VM is in a datastore, as its placement had it."""
    volumes, placement = parts.get("volumes"), parts.get("placement")
    if volumes is None or volumes.value is None or placement is None or placement.value is None:
        return False
    return bool(volumes.value.is_in_datastore and volumes.value.saved_epoch == placement.value.epoch)


def _keeps_failing(record: VmRecord, parts: Parts, intent: vm_pb2.VmIntent) -> bool:
    """Its host could not start it several times, it never ran there, and nobody asked for this host."""
    status = parts.get(f"{_STATUS}{record.host_id:010d}")
    if status is None or status.value is None or intent.wanted_host_id or record.target_host:
        return False
    value: vm_pb2.VmStatus = status.value
    is_failed = value.phase == vm_pb2.VM_PHASE_FAILED and value.failures >= MOST_FAILURES
    return is_failed and not value.HasField("start_time")


def _affects_vms(before: HostFacts | None, after: HostFacts) -> bool:
    """Whether VMs on the host are to be looked at: it was lost or found, is drained or no more."""
    if before is None:
        return after.is_fenced or is_drained(after)
    was, now = (before.is_fenced, before.is_connected, before.mode), (after.is_fenced, after.is_connected, after.mode)
    return was != now


def status_hosts(parts: Parts) -> Iterator[int]:
    """The hosts on which something of the VM is."""
    return (int(part.removeprefix(_STATUS)) for part in parts if part.startswith(_STATUS))


def _has_status(parts: Parts) -> bool:
    """Something of the VM is on a node."""
    return any(part.startswith(_STATUS) for part in parts)


def _is_fenced(facts: HostFacts | None) -> bool:
    return facts is not None and facts.is_fenced
