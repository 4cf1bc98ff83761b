"""What was measured of hosts, by row, and what was given out then: since then more was placed. Holds numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from services.scheduler.core.amounts import Floats, Integers

_FIGURES = 2


class Load(NamedTuple):
    """One measurement: CPU and memory in use in percent of the machine, and the store's revision of it."""

    cpu: float
    memory: float
    revision: int


class Loads:
    """`percent` and `used_then` for CPU and memory, in the rows of the columns; NaN where nothing was measured."""

    def __init__(self) -> None:
        self.percent: list[Floats] = [np.empty(0)] * _FIGURES
        self.used_then: list[Integers] = [np.empty(0, np.int64)] * _FIGURES
        self._known: dict[int, Load] = {}

    def set(self, host_id: int, row: int, load: Load | None, used: Sequence[int]) -> bool:
        """Takes over a measurement; returns whether it is news."""
        if self._known.get(host_id) == load:
            return False
        if load is None:
            del self._known[host_id]
        else:
            self._known[host_id] = load
        for index, value in enumerate((np.nan, np.nan) if load is None else (load.cpu, load.memory)):
            self.percent[index][row] = value
            self.used_then[index][row] = used[index]
        return True

    def forget(self, host_id: int) -> None:
        """The host goes; its row goes by `select`."""
        self._known.pop(host_id, None)

    def append(self, count: int) -> None:
        """Rows of hosts of which nothing was measured."""
        self.percent = [np.concatenate([column, np.full(count, np.nan)]) for column in self.percent]
        self.used_then = [np.concatenate([column, np.zeros(count, np.int64)]) for column in self.used_then]

    def select(self, rows: npt.NDArray[np.intp]) -> None:
        """Only these rows, in this order."""
        self.percent = [column[rows] for column in self.percent]
        self.used_then = [column[rows] for column in self.used_then]
