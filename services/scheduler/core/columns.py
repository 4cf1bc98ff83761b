"""All hosts as columns: one array per attribute, kept up to date by differences. Holds numbers; decides nothing.

Rows stand in the order of host ids, so that equal scores are settled the same way whatever happened before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from services.common.expressions import Kind, parse
from services.scheduler.core.amounts import EMPTY, Amounts, Flags, Integers
from services.scheduler.core.devices import Devices, Grant, Wish
from services.scheduler.core.hosts import HostFacts
from services.scheduler.core.loads import Load, Loads
from services.scheduler.core.room import Room
from services.scheduler.core.vocabulary import Vocabulary

Codes = npt.NDArray[np.int32]
_NO_TAINTS: frozenset[str] = frozenset()
_SPARE_WORDS = 10_000


class HostColumns:
    """The hosts. `facts_version` grows when what a host is changes, `room_version` also when room is given back,
    `version` with every change; equal versions mean equal answers. `hosts_of_vm`: where a VM holds room.
    """

    def __init__(self, hosts_of_vm: Callable[[int], Sequence[int]] = lambda vm_id: ()) -> None:
        self._hosts_of_vm = hosts_of_vm
        self.ids: Integers = EMPTY
        self.is_enabled: Flags = np.empty(0, bool)
        self.is_connected: Flags = np.empty(0, bool)
        self.taints: Integers = EMPTY
        self.total: list[Integers] = [EMPTY] * 3
        self.used: list[Integers] = [EMPTY] * 3
        self.vms: Integers = EMPTY
        self.loads = Loads()
        self.default_rank = parse("", Kind.RANK)
        """How hosts are ranked for VMs that do not say."""
        self.attributes: dict[str, Codes] = {}
        self.words = Vocabulary()
        self._taint_codes: dict[frozenset[str], int] = {_NO_TAINTS: 0}
        self.devices = Devices()
        self.facts_version = 0
        self.room_version = 0
        self.version = 0
        self._facts: dict[int, HostFacts] = {}
        self._rows: dict[int, int] = {}
        self._absent: dict[int, list[int]] = {}

    def __len__(self) -> int:
        return len(self.ids)

    def facts(self, host_id: int) -> HostFacts | None:
        """What is known of a host; None where there is no such host."""
        return self._facts.get(host_id)

    def row(self, host_id: int) -> int | None:
        """The host's row, until hosts come or go."""
        return self._rows.get(host_id)

    def rows_of_vm(self, vm_id: int) -> list[int]:
        """The rows of the hosts on which a VM holds room."""
        return [self._rows[host_id] for host_id in self._hosts_of_vm(vm_id) if host_id in self._rows]

    def room(self) -> Room:
        """A copy of what is left, to plan on."""
        return Room([total - used for total, used in zip(self.total, self.used, strict=True)], self.vms.copy())

    def apply(self, changed: Iterable[HostFacts], removed: Iterable[int] = ()) -> bool:
        """Takes over what hosts have become; returns whether anything is different. What is held on a host that goes
        stays known, should it come back. One call with many hosts is much cheaper than many calls.
        """
        gone = [host_id for host_id in removed if host_id in self._facts]
        different = [facts for facts in changed if self._facts.get(facts.host_id) != facts]
        if not gone and not different:
            return False
        if gone:
            self._remove(gone)
        self._append([facts for facts in different if facts.host_id not in self._rows])
        for facts in different:
            self._set(self._rows[facts.host_id], facts)
        self._forget_words()
        self.facts_version += 1
        self._roomier()
        return True

    def hold(self, host_id: int, amounts: Amounts, grant: Grant | None = None) -> None:
        """One VM takes room on a host, and devices; the host may be unknown, and may be overfull."""
        self._add(host_id, amounts, 1)
        if grant is not None:
            self.devices.hold(host_id, grant)
        self.version += 1

    def release(self, host_id: int, amounts: Amounts, grant: Grant | None = None) -> None:
        """One VM gives back its room and its devices."""
        self._add(host_id, Amounts(-amounts.cpu, -amounts.memory, -amounts.disk), -1)
        if grant is not None:
            self.devices.release(host_id, grant)
        self._roomier()

    def granted(self, host_id: int, wish: Wish) -> Grant | None:
        """What the host would give a VM for itself now; None where it has not all of it."""
        facts = self._facts.get(host_id)
        return self.devices.find(host_id, facts.pci, facts.nodes, wish) if facts is not None else None

    def granting(self, wish: Wish) -> Flags:
        """Which hosts have what a VM wants for itself."""
        return np.array([self.granted(host_id, wish) is not None for host_id in self.ids.tolist()], bool)

    def hold_rows(self, rows: Integers, amounts: Amounts) -> None:
        """As many VMs as there are rows (a row may come several times) take the same room each."""
        if not len(rows):
            return
        counts = np.bincount(rows, minlength=len(self.ids))
        for used, amount in zip(self.used, amounts, strict=True):
            used += counts * amount
        self.vms += counts
        self.version += 1

    def measure(self, host_id: int, load: Load | None) -> None:
        """Takes over what was measured of a host; None: nothing is known any more. The same again changes nothing."""
        row = self._rows.get(host_id)
        if row is not None and self.loads.set(host_id, row, load, [int(used[row]) for used in self.used[:2]]):
            self.version += 1

    def tolerated(self, tolerations: frozenset[str]) -> Flags:
        """Which hosts have no taint but these."""
        fine = np.array([taints <= tolerations for taints in self._taint_codes], bool)
        return fine[self.taints]

    def has_attribute(self, name: str) -> bool:
        """Whether any host has it, numbers that every host has aside."""
        codes = self.attributes.get(name)
        return codes is not None and bool(codes.any())

    def _roomier(self) -> None:
        self.room_version += 1
        self.version += 1

    def _add(self, host_id: int, amounts: Amounts, vms: int) -> None:
        row = self._rows.get(host_id)
        if row is None:
            absent = self._absent.setdefault(host_id, [0, 0, 0, 0])
            for index, amount in enumerate((*amounts, vms)):
                absent[index] += amount
            if not any(absent):
                del self._absent[host_id]
            return
        for used, amount in zip(self.used, amounts, strict=True):
            used[row] += amount
        self.vms[row] += vms

    def _remove(self, host_ids: Sequence[int]) -> None:
        kept = np.ones(len(self.ids), bool)
        for host_id in host_ids:
            row = self._rows[host_id]
            kept[row] = False
            self.loads.forget(host_id)
            held = [int(used[row]) for used in self.used] + [int(self.vms[row])]
            if any(held):
                self._absent[host_id] = held
            del self._facts[host_id]
        self._select(np.flatnonzero(kept))

    def _append(self, new: Sequence[HostFacts]) -> None:
        if not new:
            return
        count = len(new)
        self.ids = np.concatenate([self.ids, np.array([facts.host_id for facts in new], np.int64)])
        self.is_enabled = np.concatenate([self.is_enabled, np.zeros(count, bool)])
        self.is_connected = np.concatenate([self.is_connected, np.zeros(count, bool)])
        self.taints = _longer(self.taints, count)
        self.total = [_longer(column, count) for column in self.total]
        self.used = [_longer(column, count) for column in self.used]
        self.vms = _longer(self.vms, count)
        self.loads.append(count)
        self.attributes = {
            name: np.concatenate([codes, np.zeros(count, np.int32)]) for name, codes in self.attributes.items()
        }
        self._select(np.argsort(self.ids, kind="stable"))
        for facts in new:
            cpu, memory, disk, vms = self._absent.pop(facts.host_id, (0, 0, 0, 0))
            self._add(facts.host_id, Amounts(cpu, memory, disk), vms)

    def _select(self, rows: npt.NDArray[np.intp]) -> None:
        self.ids = self.ids[rows]
        self.is_enabled, self.is_connected = self.is_enabled[rows], self.is_connected[rows]
        self.taints, self.vms = self.taints[rows], self.vms[rows]
        self.loads.select(rows)
        self.total = [column[rows] for column in self.total]
        self.used = [column[rows] for column in self.used]
        self.attributes = {name: codes[rows] for name, codes in self.attributes.items()}
        self._rows = {host_id: row for row, host_id in enumerate(self.ids.tolist())}

    def _set(self, row: int, facts: HostFacts) -> None:
        before = self._facts.get(facts.host_id)
        self._facts[facts.host_id] = facts
        self.is_enabled[row] = facts.is_enabled
        self.is_connected[row] = facts.is_connected
        for column, amount in zip(self.total, facts.total, strict=True):
            column[row] = amount
        self.taints[row] = self._taint_code(facts.taints)
        self._set_attributes(row, before.attributes if before else {}, facts.attributes)

    def _set_attributes(self, row: int, before: Mapping[str, str], after: Mapping[str, str]) -> None:
        for name in before:
            if name not in after:
                self.attributes[name][row] = 0
        for name, text in after.items():
            if before.get(name) != text:
                if name not in self.attributes:
                    self.attributes[name] = np.zeros(len(self.ids), np.int32)
                self.attributes[name][row] = self.words.add(text)

    def _taint_code(self, taints: frozenset[str]) -> int:
        return self._taint_codes.setdefault(taints, len(self._taint_codes))

    def _forget_words(self) -> None:
        """Starts the vocabulary anew when most of it is of the past: it must not grow with time."""
        if len(self.words) <= _SPARE_WORDS + 4 * len(self.ids) * len(self.attributes):
            return
        self.words = Vocabulary()
        self.attributes = {}
        for host_id, row in self._rows.items():
            self._set_attributes(row, {}, self._facts[host_id].attributes)


def _longer(column: Integers, count: int) -> Integers:
    return np.concatenate([column, np.zeros(count, np.int64)])
