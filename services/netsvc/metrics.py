"""Metrics of netsvc, `moln_netsvc_*`. Labels are bounded."""

from __future__ import annotations

from services.common.obs.loops import LoopCounts
from services.common.obs.metrics import Metrics


class NetsvcMetrics:
    """What netsvc counts."""

    def __init__(self, metrics: Metrics) -> None:
        self.loops = LoopCounts(metrics)
        self._given = metrics.counter("addresses_given", "Addresses that VMs were given.")
        self._taken_back = metrics.counter("addresses_taken_back", "Addresses that were taken back from VMs.")
        self._waiting = metrics.gauge("waiting_vms", "VMs that wait for an address.")
        self._leads = metrics.gauge("is_leader", "1 while this process leads.")

    def given(self, addresses: int) -> None:
        """A VM has its addresses."""
        self._given.inc(addresses)

    def taken_back(self, addresses: int) -> None:
        """A VM's addresses are being taken back."""
        self._taken_back.inc(addresses)

    def show_waiting(self, vms: int) -> None:
        """How many VMs wait now."""
        self._waiting.set(vms)

    def leads(self, does_lead: bool) -> None:
        """Whether this process leads."""
        self._leads.set(does_lead)
