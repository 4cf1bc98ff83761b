"""The metrics as a document, found where they are declared: counters, gauges, histograms and metric families."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

Table = Callable[..., list[str]]
_DECLARED = {"counter": "counter", "gauge": "gauge", "histogram": "histogram"}
_FAMILIES = {
    "GaugeMetricFamily": "gauge", "CounterMetricFamily": "counter", "gauge_of": "gauge", "counter_of": "counter",
}  # fmt: skip


class Metric(NamedTuple):
    """One metric."""

    name: str
    kind: str
    labels: str
    meaning: str


def metrics(root: Path, table: Table) -> list[str]:
    """The lines of the document."""
    lines = [
        "Prometheus text format, at each service's `metrics_address`. Beside these every process has those of the",
        "operating system's process and of Python.",
    ]
    for folder in sorted((root / "services").iterdir()):
        found = sorted({metric for file in folder.rglob("*.py") for metric in _declared(file, folder.name)})
        if found:
            title = "every service" if folder.name == "common" else folder.name
            lines += ["", f"## {title}", ""]
            lines += table(("metric", "kind", "labels", "meaning"), [(f"`{m.name}`", *m[1:]) for m in found])
    return lines


def _declared(file: Path, service: str) -> Iterator[Metric]:
    prefix = f"moln_{'<service>' if service == 'common' else service}_"
    for node in ast.walk(ast.parse(file.read_text())):
        if not isinstance(node, ast.Call) or len(node.args) < 2:
            continue
        name, doc = (_text(argument) for argument in node.args[:2])
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if not name or not doc:
            continue
        if called in _DECLARED and isinstance(node.func, ast.Attribute):
            ending = "_total" if called == "counter" else ""
            yield Metric(f"{prefix}{name}{ending}", _DECLARED[called], _labels(node), doc)
        elif called in _FAMILIES:
            kind = _FAMILIES[called]
            yield Metric(f"{name}_total" if kind == "counter" else name, kind, _labels(node), doc)


def _text(node: ast.expr) -> str:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def _labels(node: ast.Call) -> str:
    lists = [*node.args[2:], *(keyword.value for keyword in node.keywords if keyword.arg == "labels")]
    return ", ".join(_text(each) for listed in lists if isinstance(listed, ast.List) for each in listed.elts)
