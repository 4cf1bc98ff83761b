"""Looks at the load of all hosts every few seconds: keeps the newest sweep of each for Prometheus, sends it up.

What could not be sent before the next sweep is replaced by it: samples may be lost, and must not pile up.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from moln.node.v1.node_service_pb2 import HostSamples, VmSample
from services.common.domain.errors import MolnError
from services.common.obs.logs import get_logger
from services.hostagent.drivers.ports import HostIdentity
from services.hostagent.drivers.stats import GuestStats, StatsDriver, Sweep

SLICES = 10
"""A round over all hosts is spread over so many steps, so that thousands of hosts are no burst."""
HOSTS_IN_ONE_GO = 20
KEPT_ROUNDS = 3
"""A sweep older than so many rounds is no longer shown: its host does not answer."""


class SampleMetrics(Protocol):
    """What is counted of sweeps."""

    def swept(self, seconds: float) -> None:
        """A sweep of a host was done."""
        ...

    def sweep_failed(self) -> None:
        """The hypervisor did not answer."""
        ...


class Sampler:
    """`step` is called by a loop `SLICES` times in an interval; `take` hands out what is to be sent."""

    def __init__(
        self,
        identities: Mapping[int, HostIdentity],
        driver: StatsDriver,
        metrics: SampleMetrics,
        wake_link: Callable[[], None],
        *,
        interval_s: float,
    ) -> None:
        self._slices = [list(identities.values())[number::SLICES] for number in range(SLICES)]
        self._driver, self._metrics, self._wake_link = driver, metrics, wake_link
        self.interval_s = interval_s
        self._turn = 0
        self._sweeps: dict[int, Sweep] = {}
        self._pending: dict[int, Sweep] = {}
        self._failing: set[int] = set()
        self._log = get_logger("samples")

    async def step(self) -> None:
        """Looks at a tenth of the hosts."""
        hosts = self._slices[self._turn % SLICES]
        self._turn += 1
        for number, host in enumerate(hosts):
            if number % HOSTS_IN_ONE_GO == 0:
                await asyncio.sleep(0)  # a driver that answers from memory never waits: others want the loop too
            await self._sweep(host)
        if hosts:
            self._wake_link()

    def take(self, limit: int) -> list[HostSamples]:
        """What is to be sent, at most `limit` hosts."""
        taken = list(self._pending)[:limit]
        return [_message(host_id, self._pending.pop(host_id)) for host_id in taken]

    def newest(self) -> Iterable[tuple[int, Sweep]]:
        """The newest sweep of each host that still answers."""
        oldest = time.time() - KEPT_ROUNDS * self.interval_s
        return [(host_id, sweep) for host_id, sweep in self._sweeps.items() if sweep.time >= oldest]

    async def _sweep(self, host: HostIdentity) -> None:
        host_id = host.host_id
        try:
            sweep = await self._driver.sweep(host_id)
        except MolnError as err:
            self._metrics.sweep_failed()
            if host_id not in self._failing:
                self._log.warning("load not sampled", host_id=host_id, reason=err.reason, error=err.message)
            self._failing.add(host_id)
            return
        if host_id in self._failing:
            self._failing.discard(host_id)
            self._log.info("load sampled again", host_id=host_id)
        self._metrics.swept(sweep.seconds)
        self._sweeps[host_id] = self._pending[host_id] = sweep


def _message(host_id: int, sweep: Sweep) -> HostSamples:
    host = sweep.host
    samples = HostSamples(
        host_id=host_id, cpus=host.cpus, cpu_busy_seconds=host.cpu_busy_s or 0.0, memory_used_bytes=host.memory_used,
        memory_total_bytes=host.memory_total, disk_used_bytes=host.disk_used or 0,
        disk_total_bytes=host.disk_total or 0, vms=[_vm(guest) for guest in sweep.guests if guest.is_active],
    )  # fmt: skip
    samples.time.FromMilliseconds(int(sweep.time * 1000))
    return samples


def _vm(guest: GuestStats) -> VmSample:
    read = write = received = sent = 0
    for disk in guest.disks:
        read += disk.read_bytes
        write += disk.write_bytes
    for nic in guest.nics:
        received += nic.receive_bytes
        sent += nic.transmit_bytes
    return VmSample(
        vm_id=guest.vm_id, cpu_nanoseconds=guest.cpu_ns or 0, vcpus=guest.vcpus or 0,
        memory_bytes=guest.memory_rss or guest.memory_current or 0, disk_read_bytes=read, disk_write_bytes=write,
        net_receive_bytes=received, net_transmit_bytes=sent,
    )  # fmt: skip
