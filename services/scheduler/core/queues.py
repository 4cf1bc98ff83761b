"""The VMs that wait for a host, class by class, and what is known of each. Bookkeeping; decides nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from services.scheduler.core.amounts import NOTHING, Amounts, Flags
from services.scheduler.core.columns import HostColumns
from services.scheduler.core.filters import eligible
from services.scheduler.core.plan import Demand
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

    def is_worth_a_try(self, columns: HostColumns) -> bool:
        """Something has changed since its VMs were found not to fit."""
        return self.shape is not None and bool(self.waiting) and self._blocked_at != self._version(columns)

    def block(self, columns: HostColumns) -> None:
        """Its VMs were found not to fit, as hosts are now."""
        self._blocked_at = self._version(columns)

    def passing(self, columns: HostColumns, shape: Shape) -> Flags:
        """What the filters leave that placements do not change; worked out once per change of hosts."""
        if self._passing is None or self._passing_version != columns.facts_version:
            self._passing = eligible(columns, columns.room(), shape)
            self._passing_version = columns.facts_version
        return self._passing

    def why(self, columns: HostColumns) -> Why:
        """Why its VMs wait; FITS where a host has become free for them."""
        return self.problem if self.shape is None else why(columns, columns.room(), self.shape)

    def _version(self, columns: HostColumns) -> int:
        """What must grow before another try makes sense: placements only matter where the requirement looks at them."""
        is_dynamic = self.shape is not None and self.shape.requirement.is_dynamic
        return columns.version if is_dynamic else columns.room_version


@dataclass(frozen=True, slots=True)
class Queue:
    """The waiting VMs of a group, oldest first, as a plan takes them."""

    group: Group
    records: Sequence[VmRecord]
    demand: Demand


def queue(group: Group, shape: Shape, columns: HostColumns) -> Queue:
    """The group's VMs in their order. They mostly stand in it already."""
    records = list(group.waiting.values())
    created = np.fromiter([record.created for record in records], np.int64, len(records))
    ids = np.fromiter([record.vm_id for record in records], np.int64, len(records))
    if np.any(created[1:] < created[:-1]) or np.any(ids[1:] < ids[:-1]):
        order = np.lexsort((ids, created))
        created, ids = created[order], ids[order]
        records = [records[at] for at in order.tolist()]
    return Queue(group, records, Demand(shape, created, ids, group.passing(columns, shape)))
