"""The simulator's knobs: how long things take, and how often they go wrong. Values only.

A VM's labels go before the knobs for that VM: `sim.start_latency_s`, `sim.stop_latency_s`, `sim.fail_starts` (the first
N attempts fail), `sim.ignore_acpi` (`true`), `sim.crash_after_s`, `sim.shutdown_after_s`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any


@dataclass(frozen=True, slots=True)
class Knobs:
    """Times in seconds, rates as a share from 0 to 1."""

    start_latency_s: float = 0.0
    """From the granted claim to a running guest."""
    start_jitter_s: float = 0.0
    """Added to it, evenly from 0 to this."""
    start_failure_rate: float = 0.0
    """Share of starts that fail."""
    start_stall_rate: float = 0.0
    """Share of starts that take `stall_s` longer."""
    stall_s: float = 60.0
    stop_latency_s: float = 0.0
    """How long a guest takes to shut down."""
    ignore_acpi: bool = False
    """Guests do not listen to a shutdown, so that their plug is pulled after the grace."""
    crash_rate_per_min: float = 0.0
    """Share of running guests that crash in a minute."""
    vanish_rate_per_min: float = 0.0
    """Share of running guests that vanish in a minute, without an event."""
    deed_latency_s: float = 0.0
    """How long everything else takes: to suspend, to move, to carry out an operation."""
    deed_failure_rate: float = 0.0
    """Share of such deeds that fail."""
    deed_stall_rate: float = 0.0
    """Share of such deeds that take `stall_s` longer."""
    lie_rate: float = 0.0
    """Share of starts, shutdowns, suspends and operations that are said to be done and are not."""


_LABELS = {"sim.start_latency_s": "start_latency_s", "sim.stop_latency_s": "stop_latency_s"}


def with_setting(knobs: Knobs, name: str, text: str) -> Knobs:
    """The knobs with one of them set. Raises ValueError that names the fault."""
    known = {field.name for field in fields(Knobs)}
    if name not in known:
        raise ValueError(f"no knob {name!r}; there are: {', '.join(sorted(known))}")
    value = text in ("true", "1", "yes") if name == "ignore_acpi" else float(text)
    if value < 0:
        raise ValueError(f"{name} may not be negative")
    changed: dict[str, Any] = {name: value}
    return replace(knobs, **changed)


def for_labels(knobs: Knobs, labels: Mapping[str, str]) -> Knobs:
    """The knobs as one VM's labels have them; labels that are no numbers are passed over."""
    for label, name in _LABELS.items():
        if label in labels:
            changed: dict[str, Any] = {name: number(labels, label, getattr(knobs, name))}
            knobs = replace(knobs, **changed)
    if "sim.ignore_acpi" in labels:
        knobs = replace(knobs, ignore_acpi=labels["sim.ignore_acpi"] == "true")
    return knobs


def number(labels: Mapping[str, str], label: str, default: float) -> float:
    """A label as a number that is not negative, or the default."""
    try:
        return max(0.0, float(labels[label]))
    except (KeyError, ValueError):
        return default
