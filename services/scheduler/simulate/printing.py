"""Figures as a table for people, as CSV and as JSON. Builds texts; writes nothing."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from services.scheduler.simulate.report import Figures, GroupFigures

_DIGITS = 6
_TITLES = {
    "vms": "VMs", "placed": "placed", "rejected": "rejected (fit no host)", "waiting": "waiting at the end",
    "cpu_utilisation": "CPU in use", "memory_utilisation": "memory in use", "wait_mean_s": "wait, mean",
    "wait_p50_s": "wait, half below", "wait_p95_s": "wait, 95 % below", "wait_max_s": "wait, longest",
    "slowdown_mean": "bounded slowdown, mean", "slowdown_p95": "bounded slowdown, 95 % below",
    "fragmentation": "fragmentation", "hosts_used_mean": "hosts with VMs, mean",
    "hosts_used_peak": "hosts with VMs, most", "makespan_s": "makespan", "waiting_for_s": "longest still waiting",
    "events": "events",
}  # fmt: skip
_PERCENT = frozenset({"cpu_utilisation", "memory_utilisation", "fragmentation"})


class Result(NamedTuple):
    """The figures of one contender."""

    policy: str
    figures: Figures
    groups: Sequence[GroupFigures]


def as_table(results: Sequence[Result]) -> str:
    """A line for each figure, a column for each policy."""
    lines = [["POLICY", *(result.policy for result in results)]]
    for name in Figures._fields:
        lines.append([_TITLES[name], *(_for_people(name, getattr(result.figures, name)) for result in results)])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(_aligned(line, widths)).rstrip() for line in lines)


def as_json(results: Sequence[Result]) -> str:
    """A list with an object for each policy."""
    return json.dumps(
        [
            {"policy": result.policy, **_plain(result.figures), "groups": [_plain(group) for group in result.groups]}
            for result in results
        ],
        indent=2,
    )


def as_csv(results: Sequence[Result]) -> str:
    """A line for each policy."""
    return csv_text([{"policy": result.policy, **_plain(result.figures)} for result in results])


def groups_csv(results: Sequence[Result]) -> str:
    """A line for each group under each policy; empty where the workload has no groups."""
    return csv_text([{"policy": result.policy, **_plain(group)} for result in results for group in result.groups])


def csv_text(lines: Sequence[Mapping[str, object]]) -> str:
    """Lines with the same names, as CSV with a header."""
    text = io.StringIO()
    if lines:
        writer = csv.DictWriter(text, list(lines[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
    return text.getvalue()


def _plain(figures: Figures | GroupFigures) -> dict[str, object]:
    return {
        name: round(value, _DIGITS) if isinstance(value, float) else value for name, value in figures._asdict().items()
    }


def _for_people(name: str, value: object) -> str:
    if not isinstance(value, float):
        return f"{value:,}"
    if name in _PERCENT:
        return f"{100 * value:.1f} %"
    return f"{value:,.1f} s" if name.endswith("_s") else f"{value:,.2f}"


def _aligned(words: Sequence[str], widths: Sequence[int]) -> list[str]:
    first, *others = zip(words, widths, strict=True)
    return [first[0].ljust(first[1]), *(word.rjust(width) for word, width in others)]
