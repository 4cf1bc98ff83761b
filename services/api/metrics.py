"""Metrics of the api. Bounded labels; no ids of VMs."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import NamedTuple

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from moln.compute.v1 import host_pb2, vm_pb2
from services.api.core.verbs import state_name
from services.api.index.cloud import CloudIndex
from services.api.index.vms import Transition
from services.api.nodes.gateway import NodeGateway
from services.api.samples.book import SampleBook
from services.common.domain.reasons import Reason
from services.common.obs.metrics import Metrics
from services.common.store import Store

_START_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


_WAIT_BUCKETS = (0.01, 0.05, 0.25, 1.0, 5.0, 15.0, 60.0, 300.0, 1800.0, 7200.0, 86400.0)
_PASSING = frozenset(
    {
        vm_pb2.VM_STATE_PENDING, vm_pb2.VM_STATE_STARTING, vm_pb2.VM_STATE_SUSPENDING, vm_pb2.VM_STATE_STOPPING,
        vm_pb2.VM_STATE_POWERING_OFF, vm_pb2.VM_STATE_UNDEPLOYING, vm_pb2.VM_STATE_MIGRATING,
        vm_pb2.VM_STATE_TERMINATING, vm_pb2.VM_STATE_UNKNOWN,
    }
)  # fmt: skip
"""States in which a VM is not what is wanted of it; all but two pass by themselves."""


class Stay(NamedTuple):
    """A VM in a passing state, for one reason, since a Unix time."""

    state: int
    reason: str
    since: float


class Unsettled:
    """Since when each VM is in a passing state."""

    def __init__(self, cloud: CloudIndex) -> None:
        self._stays: dict[str, Stay] = {}
        for key_id, record in cloud.vms.records().items():
            if record.view.state in _PASSING:
                since = record.view.since.ToNanoseconds() / 1e9 if record.view.since is not None else time.time()
                self._stays[key_id] = Stay(record.view.state, record.view.reason, since)

    def seen(self, transition: Transition) -> Stay | None:
        """The stay that ended by a transition."""
        key_id, after = transition.record.key_id, transition.after
        ended = self._stays.pop(key_id, None)
        if after.state in _PASSING:
            self._stays[key_id] = Stay(after.state, after.reason, time.time())
        return ended

    def oldest(self) -> dict[int, float]:
        """The longest stay in each passing state, in seconds; 0 where no VM is."""
        begins: dict[int, float] = {}
        for stay in self._stays.values():
            begins[stay.state] = min(stay.since, begins.get(stay.state, stay.since))
        now = time.time()
        return {state: max(0.0, now - begins[state]) if state in begins else 0.0 for state in sorted(_PASSING)}


class ApiMetrics:
    """Counted as it happens: transitions, and the time from creation to running. Each process of the api counts all."""

    def __init__(self, metrics: Metrics, cloud: CloudIndex) -> None:
        transitions = metrics.counter("vm_transitions", "Transitions of VMs into a state.", ["state"])
        self._transitions = {state: transitions.labels(state_name(state)) for state in vm_pb2.VmState.values()}
        self._start = metrics.histogram(
            "vm_start_seconds", "Time from a VM's creation to its first RUNNING.", buckets=_START_BUCKETS
        )
        self._pending = metrics.histogram(
            "vm_pending_seconds",
            "Time that VMs were PENDING for a reason, by reason.",
            ["reason"],
            buckets=_WAIT_BUCKETS,
        )
        self.unsettled = Unsettled(cloud)
        cloud.vms.on_transition(self._seen)

    def _seen(self, transition: Transition) -> None:
        state = transition.after.state
        ended = self.unsettled.seen(transition)
        if ended is not None and ended.state == vm_pb2.VM_STATE_PENDING:
            self._pending.labels(ended.reason or Reason.WAITING_FOR_SCHEDULER).observe(time.time() - ended.since)
        self._transitions[state].inc()
        if (
            state != vm_pb2.VM_STATE_RUNNING
            or transition.record.intent is None
            or transition.before.state == transition.after.state
        ):
            return
        intent, start = transition.record.intent.value, transition.after.start_time
        if start is not None and intent.generation == 1:
            taken = start.ToNanoseconds() - intent.create_time.ToNanoseconds()
            self._start.observe(max(0, taken) / 1e9)


class ScriptCounts:
    """What became of hosts' scripts, by what they were asked for. Implements ScriptMetrics."""

    def __init__(self, metrics: Metrics) -> None:
        self._runs = metrics.counter("host_scripts", "Runs of hosts' scripts.", ["method", "outcome"])
        self._seconds = metrics.histogram("host_script_seconds", "How long they took.", ["method"])
        self._nonsense = metrics.counter("host_script_garbage_lines", "Lines of them that were no messages.")

    def answered(self, script: str, method: str, outcome: str, seconds: float) -> None:
        """A run has ended."""
        self._runs.labels(method, outcome).inc()
        self._seconds.labels(method).observe(seconds)

    def died(self, script: str) -> None:
        """These are run once: their end is their answer."""

    def garbage(self, script: str) -> None:
        """A line was no message."""
        self._nonsense.inc()


class CloudCollector(Collector):
    """Computed when asked for: what there is."""

    def __init__(
        self, cloud: CloudIndex, gateway: NodeGateway, store: Store, unsettled: Unsettled, book: SampleBook
    ) -> None:
        self._cloud = cloud
        self._gateway = gateway
        self._store = store
        self._unsettled = unsettled
        self._book = book

    def collect(self) -> Iterable[Metric]:
        """The present figures."""
        vms = GaugeMetricFamily("moln_api_vms", "VMs by state.", labels=["state"])
        for state, count in self._cloud.vms.states.items():
            vms.add_metric([state_name(state)], count)
        yield vms
        hosts: dict[str, int] = {}
        for host in self._cloud.hosts.all():
            name = host_pb2.HostState.Name(host.state()).removeprefix("HOST_STATE_")
            hosts[name] = hosts.get(name, 0) + 1
        family = GaugeMetricFamily("moln_api_hosts", "Hosts by state.", labels=["state"])
        for name, count in hosts.items():
            family.add_metric([name], count)
        yield family
        is_suspended = self._cloud.hosts.self_fence_is_suspended()
        yield GaugeMetricFamily(
            "moln_api_self_fence_suspended",
            "Whether so many hosts are silent that a watchdog is no proof.",
            value=is_suspended,
        )
        yield GaugeMetricFamily("moln_api_connected_hosts", "Hosts on this process.", value=len(self._gateway.links))
        yield GaugeMetricFamily("moln_api_store_revision", "Newest revision seen.", value=self._store.cache.revision)
        oldest = GaugeMetricFamily(
            "moln_api_oldest_unreconciled_seconds", "Longest stay of a VM in a passing state.", labels=["state"]
        )
        for vm_state, seconds in self._unsettled.oldest().items():
            oldest.add_metric([state_name(vm_state)], seconds)
        yield oldest
        kept = len(self._book.vms)
        yield GaugeMetricFamily("moln_api_sampled_vms", "VMs whose load of the last day is kept here.", value=kept)
        refused = self._book.vms.refused
        yield CounterMetricFamily("moln_api_refused_samples", "Samples of VMs beyond samples_max_vms.", value=refused)
        quarantined = len(self._store.cache.quarantine)
        yield GaugeMetricFamily("moln_api_quarantined_values", "Stored values that do not parse.", value=quarantined)
