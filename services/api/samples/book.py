"""The samples of the hosts that are connected to this process, and of their VMs. Believes only what it can check."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from moln.node.v1 import node_service_pb2
from services.api.index.cloud import CloudIndex
from services.api.samples.ring import CPU, DISK_READ, MEMORY, RATES, Ring

DAY_S = 86_400.0
CLOCK_S = 30.0
"""A node's clock that is further away than this is not believed."""
MOST_HOSTS = 20_000
MOST_WAITING = 500
"""So many hosts gather before they are taken into the rings."""
_PERCENT_PER_NS = 1e-7
"""Nanoseconds of CPU as percent of a core times seconds."""

_NO_TRAFFIC = np.zeros(RATES - 1)
Samples = node_service_pb2.HostSamples


@dataclass(slots=True)
class HostFacts:
    """What the newest sample says of a host beside the figures. Bytes."""

    cpus: int
    memory_total: int
    disk_used: int
    disk_total: int
    running: int


class SampleBook:
    """Rings of hosts and VMs."""

    def __init__(self, cloud: CloudIndex, most_vms: int, *, now: Callable[[], float] = time.time) -> None:
        self._cloud, self._now = cloud, now
        self.vms = Ring(most_vms)
        self.hosts = Ring(MOST_HOSTS)
        self.facts: dict[int, HostFacts] = {}
        self.vcpus: dict[int, int] = {}
        self._waiting: dict[int, tuple[Samples, float]] = {}
        self._traffic: dict[int, tuple[float, np.ndarray]] = {}

    def take(self, samples: Sequence[Samples]) -> None:
        """Samples of hosts that their stream may speak for. They gather, since arrays want many at once."""
        now = self._now()
        for sample in samples:
            if sample.host_id in self._waiting or len(self._waiting) >= MOST_WAITING:
                self.settle()
            told = sample.time.ToNanoseconds() / 1e9
            self._waiting[sample.host_id] = sample, told if abs(told - now) < CLOCK_S else now

    def settle(self) -> None:
        """Brings what has gathered into the rings; whoever reads them asks for it first."""
        if not self._waiting:
            return
        waiting, self._waiting = self._waiting, {}
        self._take_vms(list(waiting.values()))
        self._take_hosts(list(waiting.values()))

    def tidy(self) -> None:
        """Forgets what was not sampled for a day, what is gone where rows are short, and hosts that are deleted."""
        self.settle()
        before = self._now() - DAY_S
        gone = set(self.vms.older(before))
        if self.vms.is_nearly_full:
            gone |= {key for key in self.vms.older(self._now() - CLOCK_S) if self._cloud.vms.get(key) is None}
        for key in gone:
            self.vms.forget(key)
            self.vcpus.pop(key, None)
        for host_id in list(self.facts):
            if self._cloud.hosts.get(host_id) is None:
                self.hosts.forget(host_id)
                del self.facts[host_id]
                self._traffic.pop(host_id, None)

    def _take_vms(self, waiting: Sequence[tuple[Samples, float]]) -> None:
        """A VM that two hosts speak of at once (it is being moved) is believed of the one that was heard last."""
        found: dict[int, tuple[node_service_pb2.VmSample, float]] = {}
        for sample, at in waiting:
            found.update((vm.vm_id, (vm, at)) for vm in sample.vms if self._is_there(vm.vm_id, sample.host_id))
        counters = [
            (vm.cpu_nanoseconds * _PERCENT_PER_NS, vm.disk_read_bytes, vm.disk_write_bytes, vm.net_receive_bytes,
             vm.net_transmit_bytes) for vm, _ in found.values()
        ]  # fmt: skip
        times, memory = [at for _, at in found.values()], [vm.memory_bytes for vm, _ in found.values()]
        self.vms.add(
            list(found), np.array(times, np.float64), np.array(counters, np.float64).reshape(len(found), RATES),
            np.array(memory, np.float64),
        )  # fmt: skip
        self.vcpus.update((key, vm.vcpus) for key, (vm, _) in found.items())

    def _take_hosts(self, waiting: Sequence[tuple[Samples, float]]) -> None:
        """Disk and network of a host are those of its VMs: rates times the time since its last sample."""
        spoken = [vm.vm_id for sample, _ in waiting for vm in sample.vms]
        of = np.repeat(np.arange(len(waiting)), [len(sample.vms) for sample, _ in waiting])
        _, figures = self.vms.newest(spoken)
        rates = np.zeros((len(waiting), RATES - 1))
        np.add.at(rates, of, np.nan_to_num(figures[:, DISK_READ:MEMORY]))
        counters = np.empty((len(waiting), RATES))
        for number, (sample, at) in enumerate(waiting):
            before, traffic = self._traffic.get(sample.host_id, (at, _NO_TRAFFIC))
            traffic = traffic + rates[number] * max(0.0, at - before)
            self._traffic[sample.host_id] = at, traffic
            counters[number, CPU] = sample.cpu_busy_seconds * 100
            counters[number, DISK_READ:] = traffic
            self.facts[sample.host_id] = HostFacts(
                sample.cpus, sample.memory_total_bytes, sample.disk_used_bytes, sample.disk_total_bytes, len(sample.vms)
            )
        self.hosts.add(
            [sample.host_id for sample, _ in waiting], np.array([at for _, at in waiting]), counters,
            np.array([float(sample.memory_used_bytes) for sample, _ in waiting]),
        )  # fmt: skip

    def _is_there(self, vm_id: int, host_id: int) -> bool:
        """A node speaks only of VMs that are placed on it, or of which it has a status."""
        record = self._cloud.vms.get(vm_id)
        return record is not None and (record.host_id == host_id or host_id in record.statuses)
