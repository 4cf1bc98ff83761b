"""Metrics of imagesvc, `moln_imagesvc_*`. Labels are bounded: ways in, states, names of datastores."""

from __future__ import annotations

from collections.abc import Mapping

from services.common.obs.loops import LoopCounts
from services.common.obs.metrics import Metrics


class ImagesvcMetrics:
    """What imagesvc counts."""

    def __init__(self, metrics: Metrics) -> None:
        self.loops = LoopCounts(metrics)
        self._received = metrics.counter("received_bytes", "Bytes of images that came in: upload, url, path.", ["way"])
        self._sent = metrics.counter("sent_bytes", "Bytes of images that nodes fetched.")
        self._imports = metrics.counter("imports", "Imports that ended, by outcome.", ["outcome"])
        self._given = metrics.counter("volumes_given", "Volumes that VMs were given.")
        self._waiting = metrics.gauge("waiting_vms", "VMs that wait for an image.")
        self._free = metrics.gauge("datastore_free_bytes", "Room in a datastore beyond its reserve.", ["datastore"])
        self._ready = metrics.gauge("datastore_is_ready", "1 where a datastore can be used.", ["datastore"])
        self._leads = metrics.gauge("is_leader", "1 while this process leads.")

    def received(self, way: str, size: int) -> None:
        """An image's bytes are in."""
        self._received.labels(way).inc(size)

    def sent(self, size: int) -> None:
        """A piece went to a node."""
        self._sent.inc(size)

    def imported(self, outcome: str) -> None:
        """An import ended: `ready`, or `error`."""
        self._imports.labels(outcome).inc()

    def given(self, volumes: int) -> None:
        """A VM has its volumes."""
        self._given.inc(volumes)

    def show_waiting(self, vms: int) -> None:
        """How many VMs wait now."""
        self._waiting.set(vms)

    def show_datastores(self, free_bytes: Mapping[str, int]) -> None:
        """Room by name of datastore; -1 for one that cannot be used."""
        self._free.clear()
        self._ready.clear()
        for name, free in free_bytes.items():
            self._free.labels(name).set(max(0, free))
            self._ready.labels(name).set(int(free >= 0))

    def leads(self, does_lead: bool) -> None:
        """Whether this process leads."""
        self._leads.set(does_lead)
