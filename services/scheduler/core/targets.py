"""Which host a VM goes to when it leaves its own: by the filters and ranks of a new one, and who can take it over."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from moln.compute.v1 import vm_pb2
from services.common.domain.reasons import Reason
from services.scheduler.core.amounts import Integers
from services.scheduler.core.columns import HostColumns
from services.scheduler.core.filters import count_left
from services.scheduler.core.hosts import HostFacts
from services.scheduler.core.moves import can_at_all, mode_between
from services.scheduler.core.ranks import balance, own_rank
from services.scheduler.core.room import Room
from services.scheduler.core.shapes import Shape
from services.scheduler.core.words import Why, why_from


class Target(NamedTuple):
    """Where to, and how."""

    host_id: int
    mode: vm_pb2.MoveMode


IMPORTED = Why(
    Reason.CAPABILITY, "it was imported: its disks and definition are on its host, and moln does not know them"
)
"""Why a guest that moln did not create stays where it is, also when its host is drained."""


def choose(columns: HostColumns, shape: Shape, source: HostFacts, modes: tuple[vm_pb2.MoveMode, ...]) -> Target | Why:
    """The best host that passes all filters and can take the VM over in one of the modes; or why there is none.

    `shape` names the host that is wanted, where one is.
    """
    if shape.wish is not None:
        return Why(Reason.CAPABILITY, "it holds devices or NUMA nodes of its host, and cannot be moved with them")
    if not can_at_all(modes, source):
        words = ", ".join(vm_pb2.MoveMode.Name(mode).removeprefix("MOVE_MODE_").lower() for mode in modes)
        return Why(
            Reason.CAPABILITY, f"host {source.name} cannot move VMs ({words}); see: moln host show {source.name}"
        )
    room = columns.room()
    lefts, rows = count_left(columns, room, shape)
    if not len(rows):
        return why_from(columns, shape, lefts)
    for row in _best_first(columns, room, rows, shape):
        facts = columns.facts(int(columns.ids[row]))
        if facts is None or facts.host_id == source.host_id:
            continue
        mode = mode_between(modes, source, facts)
        if mode is not None:
            return Target(facts.host_id, mode)
    others = len(rows) - int(np.isin(source.host_id, columns.ids[rows]))
    return Why(
        Reason.NO_HOST_FITS,
        f"{others} other hosts have room, and none of them can take the VM over from {source.name}: driver, hypervisor "
        "and architecture must be the same, and both must be able to move VMs",
    )


def _best_first(columns: HostColumns, room: Room, rows: Integers, shape: Shape) -> list[int]:
    rank, balances = own_rank(columns, room, rows, shape), balance(room, rows)
    order = np.argsort(-balances, kind="stable") if rank is None else np.lexsort((-balances, -rank))
    return [int(row) for row in rows[order]]
