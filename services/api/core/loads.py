"""The load of hosts, smoothed, and when it has changed so much that others should know. Pure."""

from __future__ import annotations

import math
from typing import NamedTuple

HALF_LIFE_S = 60.0
"""After so many seconds what was measured before counts half."""
NEWS_PERCENT = 5.0
"""So much more or less of a machine is in use."""
SETTLED_S = 30.0
"""VMs that came or went show in what is measured after this."""


class Load(NamedTuple):
    """CPU and memory in use in percent of the machine, and VMs that run, at a time in seconds."""

    cpu: float
    memory: float
    running: int
    time: float


class Smoothing:
    """Loads of hosts by id, and what was last told of each."""

    def __init__(self) -> None:
        self._now: dict[int, Load] = {}
        self._told: dict[int, Load] = {}

    def take(self, host_id: int, measured: Load) -> Load | None:
        """Takes a measurement; returns the smoothed load where it is worth telling. An older one changes nothing."""
        if not (math.isfinite(measured.cpu) and math.isfinite(measured.memory)):
            return None
        before = self._now.get(host_id)
        if before is not None and measured.time <= before.time:
            load = before
        else:
            load = self._now[host_id] = measured if before is None else _mixed(before, measured)
        return load if _is_news(self._told.get(host_id), load) else None

    def told(self, host_id: int, load: Load) -> None:
        """This load is known to all."""
        self._told[host_id] = load

    def forget_told(self) -> None:
        """What was told is not known any more."""
        self._told.clear()

    def keep(self, host_ids: set[int]) -> None:
        """Forgets all other hosts."""
        for known in (self._now, self._told):
            for host_id in known.keys() - host_ids:
                del known[host_id]


def _mixed(before: Load, measured: Load) -> Load:
    old = 0.5 ** ((measured.time - before.time) / HALF_LIFE_S)
    cpu = old * before.cpu + (1 - old) * measured.cpu
    memory = old * before.memory + (1 - old) * measured.memory
    return Load(cpu, memory, measured.running, measured.time)


def _is_news(told: Load | None, load: Load) -> bool:
    if told is None:
        return True
    if max(abs(load.cpu - told.cpu), abs(load.memory - told.memory)) >= NEWS_PERCENT:
        return True
    return load.running != told.running and load.time - told.time >= SETTLED_S
