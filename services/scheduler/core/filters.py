"""Which hosts will do, filter by filter. The order is that in which a person would ask; each says what it left.

To add a filter add a row: `docs` of the row is its name in answers, `left` the words for what it let pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from services.scheduler.core.amounts import KIB_PER_MIB, Flags, Integers
from services.scheduler.core.columns import HostColumns
from services.scheduler.core.devices import Wish
from services.scheduler.core.evaluation import satisfied
from services.scheduler.core.room import Room
from services.scheduler.core.shapes import Shape
from services.scheduler.core.view import HostView


@dataclass(frozen=True, slots=True)
class Filter:
    """One filter. `passes` gives a flag for every host; `is_asked`: the VM says anything about it at all.

    `is_still`: what it answers changes only with the facts about hosts, not with what is placed on them.
    """

    name: str
    passes: Callable[[HostColumns, Room, Shape], Flags]
    left: Callable[[Shape], str]
    is_asked: Callable[[Shape], bool] = lambda shape: True
    is_still: Callable[[Shape], bool] = lambda shape: True


@dataclass(frozen=True, slots=True)
class Left:
    """What a filter left."""

    name: str
    hosts: int
    words: str


def _required(columns: HostColumns, room: Room, shape: Shape) -> Flags:
    view = HostView(columns, room, np.arange(len(columns)))
    return np.broadcast_to(satisfied(shape.requirement.condition, view), len(columns))


def _free(index: int) -> Callable[[HostColumns, Room, Shape], Flags]:
    return lambda columns, room, shape: room.free[index] >= shape.demand[index]


FILTERS: tuple[Filter, ...] = (
    Filter("enabled", lambda columns, room, shape: columns.is_enabled, lambda shape: "enabled"),
    Filter("connected", lambda columns, room, shape: columns.is_connected, lambda shape: "connected"),
    Filter(
        "wanted host",
        lambda columns, room, shape: columns.ids == shape.wanted_host_id,
        lambda shape: f"with the id {shape.wanted_host_id} that was asked for",
        is_asked=lambda shape: shape.wanted_host_id > 0,
    ),
    Filter(
        "not failed there",
        lambda columns, room, shape: ~np.isin(columns.ids, shape.avoided),
        lambda shape: "on which it did not fail to start",
        is_asked=lambda shape: bool(shape.avoided),
    ),
    Filter(
        "taints",
        lambda columns, room, shape: columns.tolerated(shape.tolerations),
        lambda shape: "without a taint that is not tolerated",
    ),
    Filter(
        "requirement",
        _required,
        lambda shape: "match the requirement",
        is_asked=lambda shape: not shape.requirement.is_empty,
        is_still=lambda shape: not shape.requirement.is_dynamic,
    ),
    Filter(
        "devices",
        lambda columns, room, shape: columns.granting(shape.wish or Wish()),
        lambda shape: "have the devices and NUMA nodes free that are asked for",
        is_asked=lambda shape: shape.wish is not None,
    ),
    Filter(
        "cpu",
        _free(0),
        lambda shape: f"have {shape.demand.cpu} % of CPU free",
        is_asked=lambda shape: shape.demand.cpu > 0,
        is_still=lambda shape: False,
    ),
    Filter(
        "memory",
        _free(1),
        lambda shape: f"have {shape.demand.memory // KIB_PER_MIB} MiB free",
        is_asked=lambda shape: shape.demand.memory > 0,
        is_still=lambda shape: False,
    ),
    Filter(
        "disk",
        _free(2),
        lambda shape: f"have {shape.demand.disk} MiB of disk free",
        is_asked=lambda shape: shape.demand.disk > 0,
        is_still=lambda shape: False,
    ),
)
"""The filters in their order."""

HOST_FILTERS = ("enabled", "connected")
"""Those that look at the host alone: where they leave none, no VM of any kind could be placed."""


def eligible(columns: HostColumns, room: Room, shape: Shape) -> Flags:
    """The hosts that pass every filter which placements do not change: good until the facts about hosts change.

    For a VM with a wish for devices good only until something is placed.
    """
    passing = np.ones(len(columns), bool)
    for each in FILTERS:
        if each.is_asked(shape) and each.is_still(shape):
            passing &= each.passes(columns, room, shape)
    return passing


def count_left(columns: HostColumns, room: Room, shape: Shape) -> tuple[Sequence[Left], Integers]:
    """What each filter in turn leaves, of those that the VM has a say in, and the rows that pass all."""
    passing = np.ones(len(columns), bool)
    found = []
    for each in FILTERS:
        if each.is_asked(shape):
            passing = passing & each.passes(columns, room, shape)
            found.append(Left(each.name, int(passing.sum()), each.left(shape)))
    return found, np.flatnonzero(passing)
