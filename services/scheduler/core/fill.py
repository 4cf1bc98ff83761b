"""Places many VMs of one shape at once, exactly as if each in turn took the best host there was at its moment."""

from __future__ import annotations

import numpy as np

from services.scheduler.core.amounts import EMPTY, Flags, Integers
from services.scheduler.core.columns import HostColumns
from services.scheduler.core.evaluation import satisfied
from services.scheduler.core.ranks import Steps, balance, best, own_rank
from services.scheduler.core.room import Room
from services.scheduler.core.shapes import Shape
from services.scheduler.core.view import HostView

_MOST_PLACES = 1 << 20
_FEWEST_VMS = 1 << 10


def fill(columns: HostColumns, room: Room, shape: Shape, passing: Flags, count: int) -> Integers:
    """The rows that the VMs go to, in the order of the VMs; fewer than `count` where no more fit. Takes the room.

    `passing` are the rows that are eligible as far as placements do not matter (`filters.eligible`).
    """
    taken: list[Integers] = []
    depth = 2
    while count > 0:
        rows, slots = _open(columns, room, shape, passing)
        if len(rows) == 0:
            break
        depth = max(depth, 2 + count // len(rows))
        asked = min(count, max(_FEWEST_VMS, _MOST_PLACES // depth))
        found = _pass(columns, room, shape, rows, slots, depth, asked)
        taken.append(found)
        count -= len(found)
        depth = depth * 2 if len(found) < asked else depth
    return np.concatenate(taken) if taken else EMPTY


def _open(columns: HostColumns, room: Room, shape: Shape, passing: Flags) -> tuple[Integers, Integers]:
    """The rows that can take at least one, and how many each can take."""
    rows = np.flatnonzero(passing)
    if shape.requirement.is_dynamic and len(rows):
        meets = satisfied(shape.requirement.condition, HostView(columns, room, rows))
        rows = rows[np.broadcast_to(meets, rows.shape)]
    slots = room.slots(shape.demand, rows)
    is_open = slots > 0
    return rows[is_open], slots[is_open]


def _pass(
    columns: HostColumns, room: Room, shape: Shape, rows: Integers, slots: Integers, depth: int, count: int
) -> Integers:
    """Looks `depth` VMs ahead on each row, and places VMs until a row is used up to there. Places at least one.

    As many VMs as there are rows looked at never need a row beyond the best of that number.
    """
    chosen = best(own_rank(columns, room, rows, shape), balance(room, rows), count)
    rows, slots = rows[chosen], slots[chosen]
    depth = min(depth, int(slots.max()), count)
    steps = Steps(columns, room, rows, depth, shape)
    places = np.flatnonzero(steps.allowed(slots))
    order = places[steps.order(places)][:count]
    order = order[: _known(order, slots, depth)]
    at = order // depth
    room.take(rows, np.bincount(at, minlength=len(rows)), shape.demand)
    return rows[at]


def _known(order: Integers, slots: Integers, depth: int) -> int:
    """How many of the places are certain: after the last one looked at on a row, that row may have had the next."""
    unknown = np.flatnonzero((order % depth == depth - 1) & (slots[order // depth] > depth))
    return int(unknown[0]) + 1 if len(unknown) else len(order)
