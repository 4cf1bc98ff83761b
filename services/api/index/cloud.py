"""The whole of what this process knows, kept up to date from the watch cache, one step at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby

from services.api.index.catalog import Catalog
from services.api.index.hosts import HostIndex
from services.api.index.vms import VmIndex
from services.common.store import Change, Store

KINDS = {
    "vm": None,
    "host": None,
    "hostconn": None,
    "cluster": None,
    "user": None,
    "usage": None,
    "template": None,
    "image": None,
    "datastore": None,
    "network": None,
    "lease": None,
    "process": None,
    "leader": None,
    "cloud": None,
}
"""The kinds that an api process caches."""


class CloudIndex:
    """VMs, hosts and the rest. Everything in it is as of `store.cache.revision`."""

    def __init__(self, store: Store) -> None:
        self.hosts = HostIndex()
        self.vms = VmIndex(self.hosts)
        self.catalog = Catalog()
        self._store = store
        self._on_other: list[Callable[[Change], None]] = []

    def on_other(self, listener: Callable[[Change], None]) -> None:
        """Calls the listener with each change that is none of VMs and hosts."""
        self._on_other.append(listener)

    def start(self) -> None:
        """Takes what the cache holds, and every change from now on."""
        present = [
            Change(kind, entry.id, entry.part, None, entry, entry.mod_revision)
            for kind in KINDS
            for parts in self._store.cache.table(kind).values()
            for entry in parts.values()
        ]
        present.sort(key=lambda change: change.revision)
        self.load(present)
        self._store.cache.subscribe(self.apply, kinds=set(KINDS))

    def apply(self, changes: Sequence[Change], revision: int) -> None:
        """Applies one step, revision by revision: a view is that of one moment, and transitions come in order."""
        if changes[0].revision == changes[-1].revision:
            self.load(changes)
            return
        for _, group in groupby(changes, lambda change: change.revision):
            self.load(list(group))

    def load(self, changes: Sequence[Change]) -> None:
        """Applies changes as of one moment. Hosts come before VMs, whose views look at them."""
        vms = [change for change in changes if change.kind == "vm"]
        if len(vms) == len(changes):
            self.vms.apply(vms)
            return
        hosts = [change for change in changes if change.kind in ("host", "hostconn")]
        rest = [change for change in changes if change.kind not in ("vm", "host", "hostconn")]
        self.catalog.apply(rest)
        for listener in self._on_other:
            for change in rest:
                listener(change)
        self.hosts.apply(hosts)
        self.vms.apply(vms)
