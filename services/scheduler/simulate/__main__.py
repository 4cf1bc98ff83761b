"""`python -m services.scheduler.simulate`: what `moln simulate` starts. Reads files, prints figures."""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from services.common.domain.words import counted
from services.scheduler.core.hosts import HostFacts
from services.scheduler.simulate.bad_input import BadInput
from services.scheduler.simulate.cluster import read_hosts
from services.scheduler.simulate.contenders import Contender, contenders
from services.scheduler.simulate.printing import Result, as_csv, as_json, as_table, csv_text, groups_csv
from services.scheduler.simulate.report import Report
from services.scheduler.simulate.swf import read_swf
from services.scheduler.simulate.virtual_time import Kind, Simulation, kinds_of, warnings
from services.scheduler.simulate.workload import MICROSECONDS, MOST_SECONDS, Workload, read_csv

USAGE, FAILED, INTERRUPTED = 2, 1, 130
_FORMS = {"table": as_table, "csv": as_csv, "json": as_json}
_MOST_SAID = 5


def main(words: Sequence[str]) -> int:
    """Runs the simulation and returns the exit code; what fails ends with one line."""
    try:
        _run(_parse(words))
        sys.stdout.flush()
    except BadInput as err:
        return _fail(str(err), USAGE)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as err:
        return _fail(f"{err.filename or 'files'}: {err.strerror}", FAILED)
    except KeyboardInterrupt:
        return _fail("interrupted", INTERRUPTED)
    return 0


def _run(arguments: argparse.Namespace) -> None:
    compared = contenders(arguments.policy, arguments.rank)
    hosts, workload = read_hosts(arguments.cluster), _read_workload(arguments)
    until = _until(arguments.until, workload)
    kinds = kinds_of(hosts, workload)
    for note in _notes(hosts, workload, kinds, compared):
        _say(note)
    results = []
    for number, contender in enumerate(compared, 1):
        started = time.perf_counter()
        outcome = Simulation(hosts, workload, kinds, contender.rank).run(until)
        report = Report(hosts, workload, kinds, outcome)
        _say(_speed(contender.name, outcome.events, time.perf_counter() - started))
        results.append(Result(contender.name, report.figures(), report.by_group()))
        if arguments.folder is not None:
            lines = csv_text(report.stays(hosts))
            _write(arguments.folder / f"vms-{number}-{_file_name(contender.name)}.csv", lines)
    if arguments.folder is not None:
        _write(arguments.folder / "summary.csv", as_csv(results))
        if results[0].groups:
            _write(arguments.folder / "groups.csv", groups_csv(results))
    print(_FORMS[arguments.output](results).rstrip("\n"))


def _read_workload(arguments: argparse.Namespace) -> Workload:
    path: Path = arguments.workload
    is_swf = arguments.format == "swf" if arguments.format else path.suffix.lower() == ".swf"
    if is_swf:
        return read_swf(path, arguments.split, arguments.limit)
    if arguments.split is not None:
        raise BadInput("--split is for the Standard Workload Format; say --format swf if the file is in it")
    return read_csv(path, arguments.limit)


def _until(wanted: float | None, workload: Workload) -> int | None:
    """The last instant in microseconds. It is counted, as times of the workload are, from its zero."""
    if wanted is None:
        return None
    first = workload.jobs[0].arrival
    if not first <= wanted * MICROSECONDS <= MOST_SECONDS * MICROSECONDS:
        raise BadInput(f"--until {wanted:g}: the first VM comes at {first / MICROSECONDS:g} s; name a later second")
    return int(wanted * MICROSECONDS)


def _notes(
    hosts: Sequence[HostFacts], workload: Workload, kinds: Sequence[Kind], compared: Sequence[Contender]
) -> Iterator[str]:
    """What the user should know of the input before looking at figures."""
    yield from (f"note: {words}" for words in workload.notes)
    named = [each.rank for each in compared]
    named += [expression for kind in kinds for expression in (kind.shape.requirement, kind.shape.rank)]
    yield from (f"moln: warning: {words}" for words in warnings(hosts, named))
    came = [0] * len(kinds)
    for job in workload.jobs:
        came[job.kind] += 1
    refused = [(count, kind.problem) for count, kind in zip(came, kinds, strict=True) if count and kind.problem]
    refused.sort(key=lambda each: -each[0])
    for count, problem in refused[:_MOST_SAID]:
        yield f"note: {counted(count, 'VM')} can be placed on no host: {problem}"
    if rest := refused[_MOST_SAID:]:
        yield f"note: {counted(sum(count for count, _ in rest), 'more VM')} of {len(rest)} other kinds likewise"


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _file_name(policy: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", policy).strip("-")[:60] or "rank"


def _speed(name: str, events: int, took: float) -> str:
    return f"{name}: {events:,} events in {took:.2f} s, {events / max(took, 1e-6):,.0f}/s"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _fail(text: str, code: int) -> int:
    _say(f"moln: {text}")
    return code


def _parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m services.scheduler.simulate", description=__doc__)
    parser.add_argument("workload", type=Path)
    parser.add_argument("--cluster", type=Path, required=True)
    parser.add_argument("--policy", action="append", default=[])
    parser.add_argument("--rank", action="append", default=[])
    parser.add_argument("--format", choices=("csv", "swf"))
    parser.add_argument("--split", type=_above_zero)
    parser.add_argument("--limit", type=_above_zero)
    parser.add_argument("--until", type=float)
    parser.add_argument("--output", choices=tuple(_FORMS), default="table")
    parser.add_argument("--folder", type=Path)
    return parser.parse_args(words)


def _above_zero(word: str) -> int:
    value = int(word)
    if value < 1:
        raise ValueError
    return value


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
