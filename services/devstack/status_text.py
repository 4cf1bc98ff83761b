"""Stacks in words, for `moln dev status`. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def status_lines(found: Sequence[dict[str, Any]]) -> list[str]:
    """Each stack, and under it its processes."""
    if not found:
        return ["there is no stack on this machine; `moln dev up --detach` makes one"]
    return [line for stack in found for line in _stack_lines(stack)]


def _stack_lines(stack: dict[str, Any]) -> list[str]:
    head = f"{stack['name']}  {stack['state']}  {stack['endpoint']}  {stack['state_dir']}"
    rows = [_row(process) for process in stack["processes"]]
    widths = [max((len(row[place]) for row in rows), default=0) for place in range(4)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)).rstrip() for row in rows]
    return [head, *(f"  {line}" for line in lines)]


def _row(process: dict[str, Any]) -> tuple[str, str, str, str]:
    if not process["is_running"]:
        state = "is started again"
    elif not process["is_ready"]:
        state = "starts"
    else:
        state = "runs"
    starts = f"started {process['starts']} times" if process["starts"] > 1 else ""
    where = " ".join(f"{name} {address}" for name, address in process["addresses"].items())
    return process["name"], f"{state} ({process['pid']})", starts, where
