"""What is to be placed: VMs with a time of arrival and a duration, and the CSV form of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from moln.compute.v1 import template_pb2
from services.common.domain.errors import MolnError
from services.common.expressions import Kind, parse
from services.scheduler.core.amounts import MOST
from services.scheduler.simulate.bad_input import BadInput
from services.scheduler.simulate.tables import Row, rows

MICROSECONDS = 1_000_000
"""Virtual time is counted in whole microseconds: sums and comparisons are exact."""
MOST_SECONDS = 10**9
MOST_CPU = 1_000_000
MOST_PRIORITY = 2**31 - 1
NEEDED = ("arrival_s", "duration_s", "cpu", "memory_mib")
COLUMNS = (*NEEDED, "disk_mib", "group", "requirement", "rank", "priority")
GROUP_LABEL = "group"


class Wanted(NamedTuple):
    """What placement looks at; VMs with equal ones are of one kind. CPU in percent of a core, the rest in MiB."""

    cpu_percent: int
    memory_mib: int
    disk_mib: int = 0
    group: str = ""
    requirement: str = ""
    rank: str = ""
    priority: int = 0

    def template(self) -> template_pb2.VmTemplate:
        """The same as a user of moln would say it. The group is a label of the VM: VM_LABEL_GROUP."""
        made = template_pb2.VmTemplate(
            cpu_percent=self.cpu_percent, memory_mib=self.memory_mib, requirement=self.requirement, rank=self.rank,
            priority=self.priority, labels={GROUP_LABEL: self.group} if self.group else {},
        )  # fmt: skip
        if self.disk_mib:
            made.disks.add(size_mib=self.disk_mib)
        return made


class Job(NamedTuple):
    """One VM: when it comes and how long it runs, in microseconds, and the number of its kind."""

    arrival: int
    duration: int
    kind: int


@dataclass(frozen=True, slots=True)
class Workload:
    """VMs in the order of their arrival (of equal ones that of the file), and their kinds. `notes` are for the user."""

    jobs: Sequence[Job]
    kinds: Sequence[Wanted]
    notes: Sequence[str] = ()


class Collector:
    """Numbers the kinds as they come."""

    def __init__(self) -> None:
        self._kinds: dict[Wanted, int] = {}
        self._jobs: list[Job] = []

    def add(self, arrival: int, duration: int, wanted: Wanted) -> None:
        """One VM more."""
        self._jobs.append(Job(arrival, duration, self._kinds.setdefault(wanted, len(self._kinds))))

    def workload(self, path: Path, limit: int | None, notes: Iterable[str] = ()) -> Workload:
        """What was added: the first `limit` to arrive. Refuses nothing at all."""
        if not self._jobs:
            raise BadInput(f"{path}: no VM is in it")
        return Workload(sorted(self._jobs, key=lambda job: job.arrival)[:limit], list(self._kinds), list(notes))


def read_csv(path: Path, limit: int | None = None) -> Workload:
    """The workload of a CSV file. Raises BadInput, which names file, line and column."""
    collector = Collector()
    checked: set[Wanted] = set()
    for row in rows(path, NEEDED, COLUMNS):
        arrival = int(row.decimal("arrival_s", 0, MOST_SECONDS) * MICROSECONDS)
        duration = int(row.decimal("duration_s", 0, MOST_SECONDS) * MICROSECONDS)
        if duration == 0:
            row.refuse("duration_s", f"'{row.text('duration_s')}' is too short; above 0 is expected")
        wanted = _wanted(row)
        if wanted not in checked:
            _check(row, wanted)
            checked.add(wanted)
        collector.add(arrival, duration, wanted)
    return collector.workload(path, limit)


def _wanted(row: Row) -> Wanted:
    cpu = row.decimal("cpu", 0, MOST_CPU) * 100
    if cpu != int(cpu) or cpu == 0:
        row.refuse("cpu", f"'{row.text('cpu')}' is no number of cores in steps of 0.01, at least 0.01")
    return Wanted(
        cpu_percent=int(cpu),
        memory_mib=row.whole("memory_mib", 0, MOST >> 10),
        disk_mib=row.whole("disk_mib", 0, MOST, 0),
        group=row.text("group"),
        requirement=row.text("requirement"),
        rank=row.text("rank"),
        priority=row.whole("priority", -MOST_PRIORITY, MOST_PRIORITY, 0),
    )


def _check(row: Row, wanted: Wanted) -> None:
    for column, kind in (("requirement", Kind.REQUIREMENT), ("rank", Kind.RANK)):
        try:
            parse(row.text(column), kind, column)
        except MolnError as err:
            row.refuse(column, err.message.removeprefix(f"{column}: "))
