"""What a VM takes and a host has, in the units of expressions. Only arithmetic."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

KIB_PER_MIB = 1024
MOST = 1 << 42
"""No amount is larger than this (4 PiB of memory): sums of amounts stay far from what an integer can hold."""

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


class Amounts(NamedTuple):
    """CPU in percent of one core, memory in KiB, disk in MiB."""

    cpu: int = 0
    memory: int = 0
    disk: int = 0

    @classmethod
    def bounded(cls, cpu: int, memory: int, disk: int) -> Amounts:
        """The amounts, each brought between 0 and MOST: what agents and users say may be absurd."""
        return cls(max(0, min(cpu, MOST)), max(0, min(memory, MOST)), max(0, min(disk, MOST)))


NOTHING = Amounts()
EMPTY: Integers = np.empty(0, np.int64)
EMPTY.setflags(write=False)
