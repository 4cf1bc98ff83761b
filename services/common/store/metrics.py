"""Metrics of a process's store, `moln_<service>_store_*`: how far behind it is, how it commits, how safe it is."""

from __future__ import annotations

import time
from collections.abc import Sequence

from services.common.obs.metrics import Metrics
from services.common.store.entries import Change
from services.common.store.keys import PROCESS
from services.common.store.store import Store

_MEMBERS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


class StoreMetrics:
    """Watches one store. Make it once, when the store is open."""

    def __init__(self, metrics: Metrics, store: Store) -> None:
        self._store = store
        self._lag = metrics.gauge("store_watch_lag_seconds", "How long this process's newest tick took to come back.")
        silence = metrics.gauge("store_watch_silence_seconds", "Time since anything was heard from etcd's watch.")
        silence.set_function(lambda: time.monotonic() - store.cache.heard)
        margin = metrics.gauge(
            "store_lease_margin_seconds", "Time until this process's lease ends, were it not renewed."
        )
        margin.set_function(lambda: store.process.lease_margin)
        batch = metrics.histogram("store_batch_members", "Transactions that travelled together.", buckets=_MEMBERS)
        conflicts = metrics.counter("store_conflicts", "Transactions that were refused: what they compare had changed.")
        store.group.on_batch = batch.observe
        store.group.on_conflicts = conflicts.inc
        store.cache.subscribe(self._ticked, kinds={PROCESS})

    def _ticked(self, changes: Sequence[Change], _: int) -> None:
        for change in changes:
            if change.id == self._store.process.uuid and change.new is not None:
                self._lag.set(max(0.0, time.time() - change.new.value.time.ToNanoseconds() / 1e9))
