"""One leadership of netsvc: pools are filled from the cache, then the loop of addresses runs until it is lost."""

from __future__ import annotations

from collections.abc import Sequence

from services.common.resources.front import Front
from services.common.resources.vm_parts import VmParts
from services.common.runtime import Clock
from services.common.store import Change, Leadership, Store
from services.netsvc.controllers.addresses import Addresses
from services.netsvc.metrics import NetsvcMetrics

KINDS = frozenset({"vm", "lease", "network"})


class Reign:
    """What runs while this process leads. What it remembers ends with it."""

    def __init__(self, store: Store, front: Front, clock: Clock, metrics: NetsvcMetrics) -> None:
        self._store = store
        self._front = front
        self._clock = clock
        self._metrics = metrics

    async def lead(self, leadership: Leadership) -> None:
        """To be given to `Store.lead`: runs until cancelled."""
        addresses = Addresses(self._store, self._clock, self._metrics)
        parts = VmParts(self._store, leadership, addresses, self._metrics.loops)
        addresses.wake = parts.look_at

        def changed(changes: Sequence[Change], _revision: int) -> None:
            addresses.changed(changes)
            parts.changed(changes)

        unsubscribe = self._store.cache.subscribe(changed, KINDS)
        self._front.leadership = leadership
        self._metrics.leads(True)
        try:
            await parts.run()
        finally:
            self._front.leadership = None
            self._metrics.leads(False)
            unsubscribe()
