"""Metrics of the api. Bounded labels; no ids of VMs."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from moln.compute.v1 import host_pb2, vm_pb2
from services.api.core.verbs import state_name
from services.api.index.cloud import CloudIndex
from services.api.index.vms import Transition
from services.api.nodes.gateway import NodeGateway
from services.common.obs.metrics import Metrics
from services.common.store import Store

_START_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


class ApiMetrics:
    """Counted as it happens: transitions, and the time from creation to running."""

    def __init__(self, metrics: Metrics, cloud: CloudIndex) -> None:
        transitions = metrics.counter("vm_transitions", "Transitions of VMs into a state.", ["state"])
        self._transitions = {state: transitions.labels(state_name(state)) for state in vm_pb2.VmState.values()}
        self._start = metrics.histogram(
            "vm_start_seconds", "Time from a VM's creation to its first RUNNING.", buckets=_START_BUCKETS
        )
        cloud.vms.on_transition(self._seen)

    def _seen(self, transition: Transition) -> None:
        state = transition.after.state
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

    def __init__(self, cloud: CloudIndex, gateway: NodeGateway, store: Store) -> None:
        self._cloud = cloud
        self._gateway = gateway
        self._store = store

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
        quarantined = len(self._store.cache.quarantine)
        yield GaugeMetricFamily("moln_api_quarantined_values", "Stored values that do not parse.", value=quarantined)
