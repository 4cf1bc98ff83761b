"""Workloads in the Standard Workload Format of batch systems: one job a line, 18 fields, -1 for what is not known.

A job becomes one VM, or several of at most `split` cores each, which come together and run as long as the job did.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from services.common.domain.words import counted
from services.scheduler.core.amounts import MOST
from services.scheduler.simulate.bad_input import BadInput, at
from services.scheduler.simulate.tables import read_text
from services.scheduler.simulate.workload import MICROSECONDS, MOST_CPU, MOST_SECONDS, Collector, Wanted, Workload

FIELDS = (
    "job", "submit", "wait", "run", "processors", "average_cpu", "used_memory", "requested_processors",
    "requested_time", "requested_memory", "status", "user", "group", "executable", "queue", "partition",
    "preceding", "think_time",
)  # fmt: skip
MOST_KIB = MOST
_UNKNOWN = -1
_NEVER_RAN = "left out: {} that never ran (run time 0 or unknown)"
_NO_PROCESSORS = "left out: {} without a number of processors"
_NO_MEMORY = "{} without memory, requested or used: they take none"


class Record(NamedTuple):
    """The fields of a line that matter here. Times in s, memory in KiB for each processor; -1: not known."""

    submit: float
    run: float
    processors: int
    memory_kib: int
    group: int


def read_swf(path: Path, split: int | None = None, limit: int | None = None) -> Workload:
    """The workload of a file. What jobs asked for of time is not looked at: a VM has no such limit."""
    collector, left_out = Collector(), Counter[str]()
    for number, line in enumerate(read_text(path).splitlines(), 1):
        words = line.partition(";")[0].split()
        if not words:
            continue
        record = _record(str(path), number, words)
        if record.run <= 0:
            left_out[_NEVER_RAN] += 1
        elif record.processors <= 0:
            left_out[_NO_PROCESSORS] += 1
        else:
            left_out[_NO_MEMORY] += record.memory_kib < 0
            _add(collector, record, split)
    told = (_NEVER_RAN, _NO_PROCESSORS, _NO_MEMORY)
    notes = [f"{path}: {text.format(counted(left_out[text], 'job'))}" for text in told if left_out[text]]
    try:
        return collector.workload(path, limit, notes)
    except BadInput as err:
        raise BadInput("; ".join([str(err), *notes])) from err


def _add(collector: Collector, record: Record, split: int | None) -> None:
    arrival, duration = int(record.submit * MICROSECONDS), int(record.run * MICROSECONDS)
    group = str(record.group) if record.group >= 0 else ""
    for cores in parts(record.processors, split):
        memory_mib = -(-max(record.memory_kib, 0) * cores // 1024)
        collector.add(arrival, max(duration, 1), Wanted(cores * 100, memory_mib, group=group))


def parts(processors: int, split: int | None) -> list[int]:
    """The cores of each VM of a job: as few VMs as can be, as even as can be, the larger ones first."""
    count = -(-processors // split) if split else 1
    return [processors // count + (number < processors % count) for number in range(count)]


def _record(file: str, line: int, words: Sequence[str]) -> Record:
    if len(words) != len(FIELDS):
        raise BadInput(
            f"{file}, line {line}: {len(words)} fields, where the Standard Workload Format has {len(FIELDS)}"
        )

    def number(field: str, most: int) -> float:
        word = words[FIELDS.index(field)]
        try:
            value = float(word)
        except ValueError:
            raise at(file, line, _named(field), f"'{word}' is no number") from None
        if not _UNKNOWN <= value <= most:
            raise at(file, line, _named(field), f"'{word}' is not between -1 and {most}")
        return value

    def first_known(fields: Sequence[str], most: int) -> int:
        return next((int(value) for field in fields if (value := number(field, most)) > 0), _UNKNOWN)

    submit = number("submit", MOST_SECONDS)
    if submit < 0:
        raise at(file, line, _named("submit"), "is not known; a job must say when it came")
    return Record(
        submit,
        number("run", MOST_SECONDS),
        first_known(("processors", "requested_processors"), MOST_CPU),
        first_known(("requested_memory", "used_memory"), MOST_KIB),
        int(number("group", 2**62)),
    )


def _named(field: str) -> str:
    return f"{FIELDS.index(field) + 1} ({field})"
