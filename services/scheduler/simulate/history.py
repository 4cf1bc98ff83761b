"""What was on each host when, worked out from where VMs ran. Pure; all hosts at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from services.scheduler.core.amounts import Floats, Integers

MOST_SIZES = 64
"""The usual sizes of VMs that fragmentation is measured with."""


class Stays(NamedTuple):
    """Where VMs ran: rows of hosts, from when to when (not before `begin`, not after `end`), and what each took."""

    row: Integers
    start: Integers
    end: Integers
    demand: Sequence[Integers]


@dataclass(frozen=True, slots=True)
class History:
    """Each line is a host that stays as it is for a while: row, since when, how long, what is used, how many VMs.

    In the order of rows, then of time; together they cover every host from begin to end.
    """

    row: Integers
    since: Integers
    lasts: Integers
    used: Sequence[Integers]
    vms: Integers

    def hosts_used_mean(self) -> float:
        """How many hosts had VMs, over time."""
        time = float(self.lasts.sum()) / max(1, len(np.unique(self.row)))
        return float(self.lasts[self.vms > 0].sum()) / time if time else 0.0

    def hosts_used_peak(self) -> int:
        """How many hosts had VMs at once."""
        is_used = (self.vms > 0).astype(np.int64)
        is_first = np.diff(self.row, prepend=-1) != 0
        change = is_used - np.where(is_first, 0, np.roll(is_used, 1))
        order = np.argsort(self.since, kind="stable")
        since = self.since[order]
        is_last = np.append(np.diff(since) != 0, True)[: len(since)]
        return int(np.cumsum(change[order])[is_last].max(initial=0))

    def fragmentation(self, total: Sequence[Integers], sizes: Sequence[Integers], counts: Integers) -> float:
        """The share of free CPU, over time, that is of no use to a VM because the rest of it is not free on the same
        host: the mean over VMs of the given sizes, of which there are so many.
        """
        free = [each[self.row] - used for each, used in zip(total, self.used, strict=True)]
        useless = np.zeros(len(self.row))
        for size in np.argsort(-counts, kind="stable")[:MOST_SIZES].tolist():
            fits = np.ones(len(self.row), bool)
            for left, amounts in zip(free, sizes, strict=True):
                fits &= left >= amounts[size]
            useless[~fits] += counts[size]
        shares: Floats = useless / max(1, np.sort(counts)[::-1][:MOST_SIZES].sum())
        weight = free[0].astype(np.float64) * self.lasts
        everything = float(weight.sum())
        return float((weight * shares).sum()) / everything if everything else 0.0


def history(stays: Stays, hosts: int, begin: int, end: int) -> History:
    """The history of so many hosts."""
    count, still = len(stays.row), np.zeros(hosts, np.int64)
    ones = np.ones(count, np.int64)
    row = np.concatenate([np.arange(hosts), stays.row, stays.row])
    time = np.concatenate([still + begin, stays.start, stays.end])
    order = np.lexsort((time, row))
    row, time = row[order], time[order]
    # What a host holds goes back to nothing before the next host begins, so that one sum runs over all.
    used = [np.cumsum(np.concatenate([still, each, -each])[order]) for each in (*stays.demand, ones)]
    is_last = np.append(row[1:] != row[:-1], True) if len(row) else np.zeros(0, bool)
    lasts = np.where(is_last, end, np.roll(time, -1)) - time
    kept = lasts > 0
    return History(row[kept], time[kept], lasts[kept], [each[kept] for each in used[:-1]], used[-1][kept])
