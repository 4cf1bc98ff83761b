"""The scheduler's ledger and plan over virtual time: events instead of a clock, a workload instead of a store.

All that happens at one instant is taken in before the plan is made: VMs that end, then VMs that come. Placed VMs run
from that instant on, as long as the workload says.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from google.protobuf.timestamp_pb2 import Timestamp

from moln.compute.v1 import vm_pb2
from services.common.expressions import Expression
from services.scheduler.core.amounts import Flags, Integers
from services.scheduler.core.columns import HostColumns
from services.scheduler.core.filters import eligible
from services.scheduler.core.hosts import HostFacts
from services.scheduler.core.ledger import HostRevisions, Ledger
from services.scheduler.core.plan import plan
from services.scheduler.core.shapes import Shape, shape, shape_key
from services.scheduler.core.words import unknown_attributes, unknown_words, why
from services.scheduler.simulate.workload import MICROSECONDS, Wanted, Workload

NEVER = -1
_REVISION = 1


@dataclass(frozen=True, slots=True)
class Stored:
    """A part of a VM, as the store would give it."""

    value: Any
    mod_revision: int = _REVISION


@dataclass(frozen=True, slots=True)
class Kind:
    """VMs that ask for the same. `is_possible`: some host could take one, were it empty."""

    wanted: Wanted
    spec: Stored
    shape: Shape
    is_possible: bool
    problem: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of each VM, in the order of the workload: when it was placed and on which row of the hosts (NEVER
    where it was not), whether no host could ever take it. Times in microseconds; `end` is when the last event was.
    """

    start: Integers
    row: Integers
    is_impossible: Flags
    end: int
    events: int


def kinds_of(hosts: Sequence[HostFacts], workload: Workload) -> list[Kind]:
    """The kinds of VMs of a workload, tried on the empty hosts."""
    columns = HostColumns()
    columns.apply(hosts)
    return [_kind(columns, wanted) for wanted in workload.kinds]


def warnings(hosts: Sequence[HostFacts], expressions: Sequence[Expression]) -> list[str]:
    """Attributes that no host has: mostly misspelt ones."""
    columns = HostColumns()
    columns.apply(hosts)
    names = {name for expression in expressions for name in expression.attributes}
    return unknown_words(columns, unknown_attributes(columns, sorted(names)))


class Simulation:
    """One run of a workload on hosts, ranked by `rank` for VMs without a rank of their own."""

    def __init__(self, hosts: Sequence[HostFacts], workload: Workload, kinds: Sequence[Kind], rank: Expression) -> None:
        self._jobs, self._kinds = workload.jobs, kinds
        self._ledger = Ledger()
        self._ledger.columns.default_rank = rank
        self._ledger.update_hosts([(each, HostRevisions()) for each in hosts])
        self._start = np.full(len(self._jobs), NEVER, np.int64)
        self._row = np.full(len(self._jobs), NEVER, np.int64)
        self._ends: list[tuple[int, int]] = []
        self._next = 0
        self._events = 0

    def run(self, until: int | None = None) -> Outcome:
        """Goes on until nothing happens any more, or to an instant in microseconds (what happens then still does)."""
        now = 0
        for now in self._instants(until):
            ended = self._end(now)
            if self._arrive(now) or ended:
                self._place(now)
        is_possible = np.array([self._kinds[job.kind].is_possible for job in self._jobs], bool)
        goes_on = self._next < len(self._jobs) or bool(self._ends)
        end = until if until is not None and goes_on else now
        return Outcome(self._start, self._row, ~is_possible, end, self._events)

    def _instants(self, until: int | None) -> Iterator[int]:
        while self._next < len(self._jobs) or self._ends:
            coming = [self._jobs[self._next].arrival] if self._next < len(self._jobs) else []
            now = min(coming + [end for end, _ in self._ends[:1]])
            if until is not None and now > until:
                return
            yield now

    def _end(self, now: int) -> int:
        """VMs whose time is over give back their room; returns how many."""
        ended = 0
        while self._ends and self._ends[0][0] <= now:
            self._ledger.update_vm(_key(heapq.heappop(self._ends)[1]), {})
            ended += 1
        self._events += ended
        return ended

    def _arrive(self, now: int) -> int:
        """VMs that come begin to wait; returns how many of them some host could take."""
        waiting = 0
        while self._next < len(self._jobs) and self._jobs[self._next].arrival <= now:
            index, self._next = self._next, self._next + 1
            kind = self._kinds[self._jobs[index].kind]
            self._events += 1
            if kind.is_possible:
                waiting += 1
                self._ledger.update_vm(_key(index), {"intent": _intent(now), "spec": kind.spec})
        return waiting

    def _place(self, now: int) -> None:
        """Plans for all that waits, and lets it run; again while that is what others waited for."""
        ledger = self._ledger
        while queues := ledger.queues():
            for record in ledger.bind(queues, plan(ledger.columns, [queue.demand for queue in queues])):
                index, row = record.vm_id - 1, ledger.columns.row(record.bound_for)
                self._start[index], self._row[index] = now, NEVER if row is None else row
                heapq.heappush(self._ends, (now + self._jobs[index].duration, index))
                self._events += 1


def _kind(columns: HostColumns, wanted: Wanted) -> Kind:
    template = wanted.template()
    made = shape(shape_key(template, 0))
    fits = eligible(columns, columns.room(), made)
    for total, amount in zip(columns.total, made.demand, strict=True):
        fits &= total >= amount
    is_possible = bool(fits.any())
    problem = "" if is_possible else why(columns, columns.room(), made).message
    return Kind(wanted, Stored(vm_pb2.VmSpec(template=template)), made, is_possible, problem)


def _key(index: int) -> str:
    return f"{index + 1:010d}"


def _intent(now: int) -> Stored:
    seconds, rest = divmod(now, MICROSECONDS)
    created = Timestamp(seconds=seconds, nanos=rest * 1000)
    return Stored(vm_pb2.VmIntent(desired=vm_pb2.DESIRED_STATE_RUNNING, create_time=created))
