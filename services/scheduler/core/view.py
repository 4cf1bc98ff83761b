"""The attributes of hosts as an expression sees them: by row, or by row and number of further VMs placed there."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import numpy.typing as npt

from services.scheduler.core.amounts import NOTHING, Amounts, Flags, Floats, Integers
from services.scheduler.core.columns import HostColumns
from services.scheduler.core.room import Room
from services.scheduler.core.vocabulary import Test

Scalar = TypeVar("Scalar", bound=np.generic)
_RESOURCES = {"CPU": 0, "MEMORY": 1, "DISK": 2}
_LOADS = {"CPU": 0, "MEMORY": 1}


class HostView:
    """Attributes of some rows. With `steps` (0, 1, 2 …) arrays have two dimensions: what an attribute will be on each
    row when so many VMs of the size `demand` have been placed there.
    """

    def __init__(
        self,
        columns: HostColumns,
        room: Room,
        rows: Integers,
        steps: Integers | None = None,
        demand: Amounts = NOTHING,
    ) -> None:
        self._columns = columns
        self._room = room
        self._rows = rows
        self._steps = steps
        self._demand = demand

    def numbers(self, name: str) -> Floats:
        """The attribute as numbers; NaN where a host does not have it or it is none."""
        first, _, resource = name.partition("_")
        if resource in _RESOURCES and first in ("TOTAL", "USED", "FREE"):
            return self._resource(first, _RESOURCES[resource])
        if resource in _LOADS and first == "LOAD":
            return self._load(_LOADS[resource])
        if name == "RUNNING_VMS":
            return self._stepped(self._room.vms, 1)
        if name == "ID":
            return self._still(self._columns.ids).astype(np.float64)
        codes = self._columns.attributes.get(name)
        if codes is None:
            return np.full_like(self._still(self._columns.ids), np.nan, dtype=np.float64)
        return self._columns.words.numbers()[self._still(codes)]

    def codes(self, name: str) -> npt.NDArray[np.int32]:
        """The attribute as codes of texts; 0 where a host does not have it."""
        codes = self._columns.attributes.get(name)
        if codes is None:
            return np.zeros_like(self._still(self._columns.ids), dtype=np.int32)
        return self._still(codes)

    def code(self, text: str) -> int:
        """The code of a text; 0 where no host has it."""
        return self._columns.words.find(text)

    def passing(self, name: str, test: Test) -> Flags:
        """Where the attribute is there, and its text passes."""
        return self._columns.words.passing(self.codes(name), test)

    def holding(self, vm_id: int) -> Flags:
        """Where a VM is, as far as it has been placed."""
        found = np.zeros(len(self._columns), bool)
        found[[*self._columns.rows_of_vm(vm_id), *self._room.placed.get(vm_id, ())]] = True
        return self._still(found)

    def _resource(self, which: str, index: int) -> Floats:
        total = self._still(self._columns.total[index]).astype(np.float64)
        if which == "TOTAL":
            return total
        free = self._stepped(self._room.free[index], -self._demand[index])
        return free if which == "FREE" else total - free

    def _load(self, index: int) -> Floats:
        """What was measured, with what was placed since; without a measurement what is given out."""
        loads, total = self._columns.loads, self._resource("TOTAL", index)
        used, percent = self._resource("USED", index), self._still(loads.percent[index])
        then = self._still(loads.used_then[index])
        amount = np.where(np.isnan(percent), used, percent / 100 * total + (used - then))
        with np.errstate(all="ignore"):
            return np.where(total == 0, np.nan, np.maximum(amount, 0.0) / total * 100)

    def _still(self, column: npt.NDArray[Scalar]) -> npt.NDArray[Scalar]:
        chosen = column[self._rows]
        return chosen if self._steps is None else chosen[:, np.newaxis]

    def _stepped(self, column: Integers, by: int) -> Floats:
        if self._steps is None:
            return column[self._rows].astype(np.float64)
        return (column[self._rows][:, np.newaxis] + self._steps * by).astype(np.float64)
