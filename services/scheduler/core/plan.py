"""Snapshot × pending → plan. Pure: the same columns and the same waiting VMs give the same plan, and nothing changes.

VMs of higher priority come first, then older ones. Up to EXACT_RUNS that is kept to the letter; beyond, VMs are cut by
age into slices, and within a slice those of one shape are placed together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from services.scheduler.core.amounts import EMPTY, Flags, Integers
from services.scheduler.core.columns import HostColumns
from services.scheduler.core.fill import fill
from services.scheduler.core.filters import eligible
from services.scheduler.core.shapes import Shape

EXACT_RUNS = 256


@dataclass(frozen=True, slots=True)
class Demand:
    """VMs of one shape, oldest first: when each was created, and its id (which settles equal times).

    `passing`: the result of `filters.eligible`, where it is known from before.
    """

    shape: Shape
    created: Integers
    ids: Integers
    passing: Flags | None = None

    def __len__(self) -> int:
        return len(self.ids)


def plan(columns: HostColumns, demands: Sequence[Demand]) -> list[Integers]:
    """For each demand the rows of its VMs, oldest first; fewer rows than VMs where not all fit."""
    room = columns.room()
    watched = np.array(sorted({vm_id for demand in demands for vm_id in demand.shape.requirement.vm_ids}), np.int64)
    found: list[list[Integers]] = [[] for _ in demands]
    passing = [_passing(columns, demand) for demand in demands]
    is_short: set[int] = set()
    for index, count in runs(demands):
        shape = demands[index].shape
        if index in is_short and not shape.requirement.is_dynamic:
            continue
        done = sum(map(len, found[index]))
        for part in _parts(demands[index].ids[done : done + count], watched):
            rows = fill(columns, room, shape, passing[index], len(part))
            found[index].append(rows)
            room.placed.update(_placed(part[: len(rows)], rows, watched))
            if len(rows) < len(part):
                is_short.add(index)
                break
    return [np.concatenate(parts) if parts else EMPTY for parts in found]


def runs(demands: Sequence[Demand]) -> Iterator[tuple[int, int]]:
    """The order of placing: (number of the demand, how many of its VMs come next)."""
    for priority in sorted({demand.shape.priority for demand in demands}, reverse=True):
        members = [index for index, demand in enumerate(demands) if demand.shape.priority == priority]
        if len(members) == 1:
            yield members[0], len(demands[members[0]])
        else:
            yield from _merged([demands[index] for index in members], members)


def _parts(ids: Integers, watched: Integers) -> Iterator[Integers]:
    """VMs that can be placed together: up to one whose host matters to others."""
    if not len(watched):
        yield ids
        return
    ends = np.flatnonzero(np.isin(ids, watched)) + 1
    yield from (part for part in np.split(ids, ends) if len(part))


def _placed(ids: Integers, rows: Integers, watched: Integers) -> dict[int, tuple[int, ...]]:
    if not len(watched):
        return {}
    return {int(ids[at]): (int(rows[at]),) for at in np.flatnonzero(np.isin(ids, watched))}


def _passing(columns: HostColumns, demand: Demand) -> Flags:
    return demand.passing if demand.passing is not None else eligible(columns, columns.room(), demand.shape)


def _merged(demands: Sequence[Demand], numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    """The same for demands of equal priority."""
    who = np.repeat(np.array(numbers), [len(demand) for demand in demands])
    created = np.concatenate([demand.created for demand in demands])
    who = who[np.lexsort((np.concatenate([demand.ids for demand in demands]), created))]
    starts = np.flatnonzero(np.diff(who, prepend=-1))
    if len(starts) <= EXACT_RUNS:
        yield from zip(who[starts].tolist(), np.diff(starts, append=len(who)).tolist(), strict=True)
        return
    for slice_of_age in np.array_split(who, max(1, EXACT_RUNS // len(demands))):
        members, first, counts = np.unique(slice_of_age, return_index=True, return_counts=True)
        order = np.argsort(first)
        yield from zip(members[order].tolist(), counts[order].tolist(), strict=True)
