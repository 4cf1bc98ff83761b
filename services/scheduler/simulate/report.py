"""What a run amounts to, in figures. Pure: reads the workload, the hosts and what became of each VM."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from services.scheduler.core.amounts import Flags, Floats, Integers
from services.scheduler.core.hosts import HostFacts
from services.scheduler.simulate.history import Stays, history
from services.scheduler.simulate.virtual_time import NEVER, Kind, Outcome
from services.scheduler.simulate.workload import MICROSECONDS, Workload

SLOWDOWN_BOUND_S = 10
"""Shorter VMs count as this long in the bounded slowdown: a second of waiting is no disaster for one of a second."""


class Figures(NamedTuple):
    """The figures of one run. Times in seconds; shares from 0 to 1; `vms` are those that came."""

    vms: int
    placed: int
    rejected: int
    waiting: int
    cpu_utilisation: float
    memory_utilisation: float
    wait_mean_s: float
    wait_p50_s: float
    wait_p95_s: float
    wait_max_s: float
    slowdown_mean: float
    slowdown_p95: float
    fragmentation: float
    hosts_used_mean: float
    hosts_used_peak: int
    makespan_s: float
    waiting_for_s: float
    """How long the oldest of the VMs that wait at the end has waited."""
    events: int


class GroupFigures(NamedTuple):
    """The same for the VMs of one group."""

    group: str
    vms: int
    placed: int
    rejected: int
    waiting: int
    wait_mean_s: float
    wait_p95_s: float
    slowdown_mean: float


class Spans(NamedTuple):
    """Arrivals, starts, durations in microseconds, by VM."""

    arrival: Integers
    start: Integers
    duration: Integers

    def waits(self, chosen: Flags) -> Floats:
        """How long VMs waited, in seconds."""
        return (self.start[chosen] - self.arrival[chosen]) / MICROSECONDS

    def slowdowns(self, chosen: Flags) -> Floats:
        """Time from arrival to end, divided by the duration or the bound, whichever is longer; at least 1."""
        duration = self.duration[chosen] / MICROSECONDS
        return np.maximum(1.0, (self.waits(chosen) + duration) / np.maximum(duration, SLOWDOWN_BOUND_S))


class Report:
    """The figures of one outcome."""

    def __init__(self, hosts: Sequence[HostFacts], workload: Workload, kinds: Sequence[Kind], outcome: Outcome) -> None:
        self._total = [np.array([host.total[index] for host in hosts], np.int64) for index in range(3)]
        demands = [np.array([kind.shape.demand[index] for kind in kinds], np.int64) for index in range(3)]
        self._groups = [kind.wanted.group for kind in kinds]
        jobs = np.array([tuple(job) for job in workload.jobs], np.int64).reshape(-1, 3)
        self._kind = jobs[:, 2]
        self._demand = [amounts[self._kind] for amounts in demands]
        self.spans = Spans(jobs[:, 0], outcome.start, jobs[:, 1])
        self._outcome = outcome
        self._has_come = self.spans.arrival <= outcome.end
        self._placed: Flags = outcome.start != NEVER
        self._rejected = self._has_come & outcome.is_impossible
        self._waiting = self._has_come & ~self._placed & ~outcome.is_impossible
        self._ends = np.minimum(self.spans.start + self.spans.duration, outcome.end)

    def figures(self) -> Figures:
        """Those of all VMs."""
        placed, begin, end = self._placed, int(self.spans.arrival[0]), self._outcome.end
        stays = Stays(
            self._outcome.row[placed], self.spans.start[placed], self._ends[placed],
            [amounts[placed] for amounts in self._demand],
        )  # fmt: skip
        past = history(stays, len(self._total[0]), begin, end)
        waits, slowdowns = self.spans.waits(placed), self.spans.slowdowns(placed)
        sizes, counts = np.unique(np.stack(self._demand), axis=1, return_counts=True)
        came, went, rejected, waiting = self._counts(np.ones(len(placed), bool))
        return Figures(
            vms=came,
            placed=went,
            rejected=rejected,
            waiting=waiting,
            cpu_utilisation=_share(stays, 0, self._total[0], end - begin),
            memory_utilisation=_share(stays, 1, self._total[1], end - begin),
            wait_mean_s=_mean(waits),
            wait_p50_s=_quantile(waits, 0.5),
            wait_p95_s=_quantile(waits, 0.95),
            wait_max_s=_quantile(waits, 1.0),
            slowdown_mean=_mean(slowdowns),
            slowdown_p95=_quantile(slowdowns, 0.95),
            fragmentation=past.fragmentation(self._total, list(sizes), counts),
            hosts_used_mean=past.hosts_used_mean(),
            hosts_used_peak=past.hosts_used_peak(),
            makespan_s=seconds(int(self._ends[placed].max(initial=begin)) - begin),
            waiting_for_s=seconds(end - int(self.spans.arrival[self._waiting].min(initial=end))),
            events=self._outcome.events,
        )

    def by_group(self) -> list[GroupFigures]:
        """Those of each group that the workload names, in the order of names."""
        names = sorted({name for name in self._groups if name})
        return [self._of_group(name) for name in names]

    def stays(self, hosts: Sequence[HostFacts]) -> list[Mapping[str, object]]:
        """Every VM: when it came, began and ended (empty where it did not), and where it was."""
        found: list[Mapping[str, object]] = []
        for index, row in enumerate(self._outcome.row.tolist()):
            span = [int(each[index]) for each in self.spans]
            is_placed = row != NEVER
            found.append({
                "vm": index + 1,
                "arrival_s": seconds(span[0]),
                "start_s": seconds(span[1]) if is_placed else "",
                "end_s": seconds(span[1] + span[2]) if is_placed else "",
                "host": hosts[row].name if is_placed else "",
                "group": self._groups[int(self._kind[index])],
            })  # fmt: skip
        return found

    def _of_group(self, name: str) -> GroupFigures:
        is_of_group = np.array([group == name for group in self._groups], bool)[self._kind]
        placed = self._placed & is_of_group
        waits = self.spans.waits(placed)
        return GroupFigures(
            name, *self._counts(is_of_group), _mean(waits), _quantile(waits, 0.95), _mean(self.spans.slowdowns(placed))
        )

    def _counts(self, chosen: Flags) -> tuple[int, int, int, int]:
        """VMs that came, were placed, can be placed nowhere, still wait."""
        first, second, third, fourth = (
            int((chosen & each).sum()) for each in (self._has_come, self._placed, self._rejected, self._waiting)
        )
        return first, second, third, fourth


def seconds(time: int) -> float:
    """Microseconds as seconds."""
    return time / MICROSECONDS


def _share(stays: Stays, index: int, total: Integers, time: int) -> float:
    """What was used of one resource over time."""
    used = (stays.demand[index].astype(np.float64) * (stays.end - stays.start)).sum()
    whole = float(total.sum()) * time
    return float(used) / whole if whole else 0.0


def _mean(values: Floats) -> float:
    return float(values.mean()) if len(values) else 0.0


def _quantile(values: Floats, part: float) -> float:
    """The least value that so many are not above: always one of them."""
    return float(np.quantile(values, part, method="inverted_cdf")) if len(values) else 0.0
