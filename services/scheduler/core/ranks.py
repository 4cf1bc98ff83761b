"""How good a host is for a VM. By default fewest VMs first, then most free memory; a rank or policies come before that.

At equal rank and balance the host with the lower id is taken, so the same input gives the same plan.
"""

from __future__ import annotations

import numpy as np

from services.common.expressions import Expression
from services.scheduler.core.amounts import Flags, Floats, Integers
from services.scheduler.core.columns import HostColumns
from services.scheduler.core.evaluation import satisfied, scores
from services.scheduler.core.room import Room
from services.scheduler.core.shapes import Shape
from services.scheduler.core.view import HostView

ONE_VM = np.int64(1) << 43
"""One VM more weighs more than any amount of memory in KiB."""


def balance(room: Room, rows: Integers) -> Integers:
    """The default score: fewest VMs, then most free memory."""
    return np.clip(room.free[1][rows], 0, ONE_VM - 1) - room.vms[rows] * ONE_VM


def rank_for(columns: HostColumns, shape: Shape) -> Expression:
    """The rank that the VM names, or else that of clusters and settings; may be empty."""
    return columns.default_rank if shape.rank.is_empty else shape.rank


def own_rank(columns: HostColumns, room: Room, rows: Integers, shape: Shape) -> Floats | None:
    """The rank for the VM on the rows as they are; None where there is none."""
    rank = rank_for(columns, shape)
    if rank.is_empty:
        return None
    found = scores(rank.score, HostView(columns, room, rows))
    return np.array(np.broadcast_to(found, rows.shape))


def best(rank: Floats | None, balances: Integers, count: int) -> Integers:
    """The positions of the `count` best, in ascending order. Of equals the first ones."""
    if count >= len(balances):
        return np.arange(len(balances))
    if rank is None:
        return _top(balances, count)
    threshold = np.partition(rank, len(rank) - count)[len(rank) - count]
    above = np.flatnonzero(rank > threshold)
    ties = np.flatnonzero(rank == threshold)
    return np.sort(np.concatenate([above, ties[_top(balances[ties], count - len(above))]]))


def _top(keys: Integers, count: int) -> Integers:
    if count >= len(keys):
        return np.arange(len(keys))
    threshold = np.partition(keys, len(keys) - count)[len(keys) - count]
    is_above = keys > threshold
    missing = count - int(is_above.sum())
    is_above[np.flatnonzero(keys == threshold)[:missing]] = True
    return np.flatnonzero(is_above)


class Steps:
    """Scores of the next VMs on some rows: a line per row, a column for each VM of this shape more on it."""

    def __init__(self, columns: HostColumns, room: Room, rows: Integers, depth: int, shape: Shape) -> None:
        self.steps = np.arange(depth)[np.newaxis, :]
        self._view = HostView(columns, room, rows, self.steps, shape.demand)
        self._shape = shape
        self._rank = rank_for(columns, shape)
        self._size = (len(rows), depth)
        self._balances = balance(room, rows)[:, np.newaxis] - self.steps * (ONE_VM + shape.demand.memory)

    def allowed(self, slots: Integers) -> Flags:
        """Where a VM can go: there is room, and the requirement holds there and at all steps before."""
        allowed = self.steps < slots[:, np.newaxis]
        if self._shape.requirement.is_dynamic:
            allowed &= satisfied(self._shape.requirement.condition, self._view)
            allowed = np.logical_and.accumulate(allowed, axis=1)
        return allowed

    def order(self, places: Integers) -> Integers:
        """The order in which places (row-major) are taken, if always the best row takes the next VM.

        A row whose score grows with each VM keeps being the best: its later places count as much as the worst place
        before them.
        """
        if self._rank.is_empty:
            return np.argsort(-self._balances.ravel()[places], kind="stable")
        ranks = np.broadcast_to(scores(self._rank.score, self._view), self._size)
        lowest = np.minimum.accumulate(ranks, axis=1)
        records = np.maximum.accumulate(np.where(ranks == lowest, self.steps, 0), axis=1)
        balances = np.take_along_axis(self._balances, records, axis=1)
        return np.lexsort((-balances.ravel()[places], -lowest.ravel()[places]))
