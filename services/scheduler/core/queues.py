"""The VMs that wait for a host, class by class, and what is known of each. Bookkeeping; decides nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np

from services.scheduler.core.amounts import NOTHING, Amounts, Flags
from services.scheduler.core.columns import HostColumns
from services.scheduler.core.devices import Grant
from services.scheduler.core.filters import eligible
from services.scheduler.core.plan import Demand
from services.scheduler.core.room import Room
from services.scheduler.core.shapes import Shape, ShapeKey
from services.scheduler.core.words import FITS, Why, why


@dataclass(slots=True, eq=False)
class VmRecord:
    """One VM. Revisions are those of its parts, 0 where a part is absent.

    `bound_for`: the host of a binding that is on its way to the store. `is_busy`: some write of ours is on its way, so
    nothing else is begun for this VM.
    """

    key: str
    vm_id: int
    uid: str = ""
    group: Group | None = None
    created: int = 0
    spec_revision: int = 0
    intent_revision: int = 0
    placement_revision: int = 0
    epoch: int = 0
    host_id: int = 0
    bound_for: int = 0
    is_busy: bool = False
    held_host: int = 0
    held: Amounts = NOTHING
    grant: Grant | None = None
    target_host: int = 0
    """The host that the VM is on its way to, as the placement has it."""
    move_for: int = 0
    """The target of a move whose beginning is on its way to the store."""
    held_target: int = 0
    """Where room is held for the VM beside its host."""
    avoided: tuple[int, ...] = ()
    """Hosts that could not start the VM."""
    granted_revision: int = 0
    """Revision of the spec that what is held was compared with."""
    noted: Why = FITS


@dataclass(slots=True, eq=False)
class Group:
    """The waiting VMs of one shape. `shape` is None where its expressions cannot be read; `problem` says why."""

    key: ShapeKey
    shape: Shape | None
    problem: Why = FITS
    waiting: dict[str, VmRecord] = field(default_factory=dict)
    unnoted: dict[str, VmRecord] = field(default_factory=dict)
    noted: Why = FITS
    noted_at: float = 0.0
    _passing: Flags | None = None
    _passing_version: int = -1
    _blocked_at: int = -1
    _youngest: tuple[int, int] = (0, 0)
    _is_sorted: bool = True

    def add(self, record: VmRecord) -> None:
        """A VM begins to wait. They mostly come in the order of their age."""
        age = (record.created, record.vm_id)
        if not self.waiting:
            self._youngest, self._is_sorted = age, True
        elif age < self._youngest:
            self._is_sorted = False
        else:
            self._youngest = age
        self.waiting[record.key] = record
        if record.noted == FITS:
            self.unnoted[record.key] = record

    def remove(self, record: VmRecord) -> bool:
        """A VM waits no more; returns whether it did."""
        self.unnoted.pop(record.key, None)
        return self.waiting.pop(record.key, None) is not None

    def oldest(self, most: int) -> list[VmRecord]:
        """The oldest VMs, in their order."""
        if not self._is_sorted:
            self.waiting = dict(sorted(self.waiting.items(), key=lambda item: (item[1].created, item[1].vm_id)))
            self._is_sorted = True
        return list(islice(self.waiting.values(), most))

    def is_worth_a_try(self, columns: HostColumns) -> bool:
        """Something has changed since its VMs were found not to fit."""
        return self.shape is not None and bool(self.waiting) and self._blocked_at != self.version(columns)

    def block(self, version: int) -> None:
        """Its VMs were found not to fit, as hosts were at that version."""
        self._blocked_at = version

    def passing(self, columns: HostColumns, shape: Shape) -> Flags:
        """What the filters leave that placements do not change; worked out once per change of hosts."""
        version = columns.facts_version if shape.wish is None else columns.version
        if self._passing is None or self._passing_version != version:
            self._passing = eligible(columns, columns.room(), shape)
            self._passing_version = version
        return self._passing

    def why(self, columns: HostColumns) -> Why:
        """Why its VMs wait; FITS where a host has become free for them."""
        return self.problem if self.shape is None else why(columns, columns.room(), self.shape)

    def version(self, columns: HostColumns) -> int:
        """What must grow before another try makes sense: placements only matter where the requirement looks at them."""
        is_dynamic = self.shape is not None and self.shape.requirement.is_dynamic
        return columns.version if is_dynamic else columns.room_version


@dataclass(frozen=True, slots=True)
class Queue:
    """Waiting VMs of a group, oldest first, as a plan takes them."""

    group: Group
    records: Sequence[VmRecord]
    demand: Demand


def queue(group: Group, shape: Shape, columns: HostColumns, room: Room) -> Queue | None:
    """The oldest of the group's VMs, as many as there could be room for at best; None where there is none."""
    passing = group.passing(columns, shape)
    most = int(room.slots(shape.demand, np.flatnonzero(passing)).clip(max=len(group.waiting)).sum())
    if most == 0:
        return None
    records = group.oldest(most)
    created = np.fromiter([record.created for record in records], np.int64, len(records))
    ids = np.fromiter([record.vm_id for record in records], np.int64, len(records))
    return Queue(group, records, Demand(shape, created, ids, passing))
