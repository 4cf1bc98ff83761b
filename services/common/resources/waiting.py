"""Who waits for what: VMs that could not get what they need, by what they lack. Pure, in the order they came.

Something may happen to a thing (`signal`); those who wait for it and have not tried since are `due`. So nobody tries
twice for nothing, and what one who is woken leaves over goes to the next.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field


@dataclass
class _Queue:
    """Those who wait for one thing: what each had seen of it when it last tried."""

    seen: dict[str, int] = field(default_factory=dict)
    signals: int = 0


class Waiting:
    """VMs (by id as in keys) that wait, each for one thing at a time."""

    def __init__(self) -> None:
        self._queues: dict[Hashable, _Queue] = {}
        self._lacking: dict[str, Hashable] = {}

    def __len__(self) -> int:
        return len(self._lacking)

    def add(self, vm: str, thing: Hashable) -> None:
        """The VM has tried, and lacks this. It keeps its place where it waited for the same already."""
        if self._lacking.get(vm) != thing:
            self.forget(vm)
        queue = self._queues.setdefault(thing, _Queue())
        queue.seen[vm] = queue.signals
        self._lacking[vm] = thing

    def forget(self, vm: str) -> Hashable | None:
        """The VM waits no more; what it waited for, or None."""
        thing = self._lacking.pop(vm, None)
        if thing is None:
            return None
        queue = self._queues[thing]
        del queue.seen[vm]
        if not queue.seen:
            del self._queues[thing]
        return thing

    def signal(self, thing: Hashable) -> None:
        """Something happened to the thing: it is worth another try."""
        if queue := self._queues.get(thing):
            queue.signals += 1

    def due(self, thing: Hashable, most: int | None = None) -> list[str]:
        """Those who have not tried since the last signal, the first to come first. Each is told once per signal."""
        queue = self._queues.get(thing)
        if queue is None:
            return []
        found: list[str] = []
        for vm, seen in queue.seen.items():
            if most is not None and len(found) >= most:
                break
            if seen < queue.signals:
                found.append(vm)
        for vm in found:
            queue.seen[vm] = queue.signals
        return found
