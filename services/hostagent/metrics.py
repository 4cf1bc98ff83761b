"""What the agent measures about itself and its guests. Implements what controllers ask for; holds no logic."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterable, Iterator

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from moln.compute.v1.vm_pb2 import VmPhase
from services.common.obs.metrics import Metrics
from services.hostagent.core.guest import Guest
from services.hostagent.drivers.ports import Deed, Outcome
from services.hostagent.exposition import LoadText


class AgentMetrics:
    """Implements life.LifeMetrics, link.LinkMetrics and samples.SampleMetrics."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        deeds = metrics.counter("deeds", "What was done with guests, by how it ended.", ["deed", "result"])
        self._deeds = {(deed, result): deeds.labels(deed.value, result) for deed in Deed for result in _RESULTS}
        self._starting = metrics.histogram("order_to_running_seconds", "From an order to its running guest.")
        self._refusals = metrics.counter("claims_refused", "Claims that the gateway refused.")
        self._connected = metrics.gauge("connected", "Whether there is a stream to a gateway.")
        self._streams = metrics.counter("streams", "Streams that were opened.")
        self._reports = metrics.counter("reports", "Reports on VMs that were sent.")
        self._orders = metrics.counter("orders", "Orders that came.")
        self._acks = metrics.counter("acks", "Answers to reports that came.")
        self._sweep = metrics.histogram("sweep_seconds", "Time to ask a host for the load of itself and all guests.")
        self._failed_sweeps = metrics.counter("sweep_failures", "Such questions that were not answered in time.")

    def watch(self, guests: Iterable[Guest]) -> None:
        """Adds the number of guests by phase, counted when asked for."""
        self._metrics.collector(GuestCollector(guests))

    def load(self, text: LoadText) -> None:
        """Adds the load of hosts and guests, written when asked for."""
        self._metrics.texts.append(text)

    def swept(self, seconds: float) -> None:
        """A host was asked for its load."""
        self._sweep.observe(seconds)

    def sweep_failed(self) -> None:
        """It did not answer."""
        self._failed_sweeps.inc()

    def did(self, deed: Deed, outcome: Outcome) -> None:
        """A deed has ended."""
        result = "done" if outcome.is_done else "interrupted" if outcome.was_interrupted else "failed"
        self._deeds[deed, result].inc()

    def started_after(self, seconds: float) -> None:
        """A guest runs, that long after the order for it came."""
        self._starting.observe(seconds)

    def refused(self) -> None:
        """A claim was refused."""
        self._refusals.inc()

    def connected(self, is_connected: bool) -> None:
        """A stream is there, or gone."""
        self._connected.set(is_connected)
        if is_connected:
            self._streams.inc()

    def sent(self, reports: int) -> None:
        """A message with that many reports was sent."""
        self._reports.inc(reports)

    def got(self, orders: int, acks: int) -> None:
        """A message with that many orders and answers came."""
        self._orders.inc(orders)
        self._acks.inc(acks)


_RESULTS = ("done", "failed", "interrupted")


class GuestCollector(Collector):
    """Guests by phase."""

    def __init__(self, guests: Iterable[Guest]) -> None:
        self._guests = guests

    def collect(self) -> Iterator[Metric]:
        """Counts them."""
        tally = Tally(guest.status.phase for guest in self._guests if guest.status is not None)
        family = GaugeMetricFamily("moln_hostagent_guests", "Guests by phase.", labels=["phase"])
        for phase, count in sorted(tally.items()):
            family.add_metric([VmPhase.Name(phase).removeprefix("VM_PHASE_").lower()], count)
        yield family
