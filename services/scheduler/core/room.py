"""What is left on the hosts while a plan is made. A plan works on a copy; only a committed plan reaches the columns."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from services.scheduler.core.amounts import Amounts, Integers

_PLENTY = np.int64(1) << 40


@dataclass(slots=True)
class Room:
    """By row: what is free (CPU, memory, disk, as in Amounts; may be negative), and how many VMs there are."""

    free: list[Integers]
    vms: Integers
    placed: dict[int, tuple[int, ...]] = field(default_factory=dict)
    """Rows of VMs that the plan has placed, of those whose hosts matter to another."""

    def slots(self, demand: Amounts, rows: Integers) -> Integers:
        """How many VMs of this size each of the rows can take; never negative."""
        least = np.full(len(rows), _PLENTY)
        for free, amount in zip(self.free, demand, strict=True):
            if amount > 0:
                np.minimum(least, free[rows] // amount, out=least)
        return np.maximum(least, 0, out=least)

    def take(self, rows: Integers, counts: Integers, demand: Amounts) -> None:
        """So many VMs of this size go to each of the rows, which are all different."""
        for free, amount in zip(self.free, demand, strict=True):
            free[rows] -= counts * amount
        self.vms[rows] += counts
