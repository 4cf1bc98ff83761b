"""What hosts and VMs take: from this process's samples and, where other processes hold hosts, from theirs."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Sequence

import numpy as np
from google.protobuf.timestamp_pb2 import Timestamp

from moln.compute.v1 import host_pb2
from moln.operations.v1 import monitoring_service_pb2 as pb
from services.api.core.verbs import state_name
from services.api.forward.peers import Peers
from services.api.index.cloud import CloudIndex
from services.api.index.hosts import HostRecord
from services.api.nodes.gateway import NodeGateway
from services.api.samples.book import SampleBook
from services.api.samples.ring import (
    CPU,
    DAY,
    DISK_READ,
    DISK_WRITE,
    HOUR,
    MEMORY,
    NET_RECEIVE,
    NET_TRANSMIT,
    TIERS,
    Floats,
    Ring,
    Rows,
    Series,
)
from services.api.usecases.streams import MAX_AGE_S, Streams
from services.api.usecases.vms import Vms
from services.common.domain.caller import Caller
from services.common.domain.errors import MolnError, invalid
from services.common.domain.reasons import Reason

FRESH_S = 60.0
"""A sample that is older says nothing of the present."""
DEFAULT_PAGE, MAX_PAGE = 100, 10_000
DEFAULT_INTERVAL_S, MIN_INTERVAL_S, MAX_INTERVAL_S = 5.0, 1.0, 3600.0
_SERVICE = "/moln.operations.v1.MonitoringService/"
_ORDERS: dict[int, tuple[int, ...]] = {
    pb.USAGE_ORDER_UNSPECIFIED: (CPU,),
    pb.USAGE_ORDER_CPU: (CPU,),
    pb.USAGE_ORDER_MEMORY: (MEMORY,),
    pb.USAGE_ORDER_DISK: (DISK_READ, DISK_WRITE),
    pb.USAGE_ORDER_NET: (NET_RECEIVE, NET_TRANSMIT),
    pb.USAGE_ORDER_ID: (),
}


class Usages:
    """Reads samples; decides who may see which."""

    def __init__(
        self, cloud: CloudIndex, vms: Vms, gateway: NodeGateway, book: SampleBook, peers: Peers, streams: Streams
    ) -> None:
        self._cloud, self._vms, self._gateway = cloud, vms, gateway
        self._book, self._peers, self._streams = book, peers, streams

    # Now

    async def list_hosts(self, request: pb.ListHostUsagesRequest) -> pb.ListHostUsagesResponse:
        """All hosts by id; those of which nobody has a sample too."""
        self._book.settle()
        links = self._gateway.links
        hosts = {host.id: self._host(host) for host in self._cloud.hosts.all() if host.id in links}
        if request.is_local:
            return pb.ListHostUsagesResponse(hosts=hosts.values())
        asked = pb.ListHostUsagesRequest(is_local=True)
        answers, missing = await self._peers.ask_all(f"{_SERVICE}ListHostUsages", asked, pb.ListHostUsagesResponse)
        hosts.update((host.id, host) for answer in answers for host in answer.hosts if host.id not in hosts)
        for host in self._cloud.hosts.all():
            if host.id not in hosts:
                hosts[host.id] = pb.HostUsage(id=host.id, name=host.name, state=_host_state(host))
        return pb.ListHostUsagesResponse(hosts=[hosts[key] for key in sorted(hosts)], missing=missing)

    async def list_vms(self, request: pb.ListVmUsagesRequest, caller: Caller) -> pb.ListVmUsagesResponse:
        """The first VMs in the order that is asked for."""
        figures_of = _ORDERS.get(request.order)
        if figures_of is None:
            raise invalid("order", f"{request.order} is no order of VMs")
        size = min(request.page_size or DEFAULT_PAGE, MAX_PAGE)
        mine = self._local_vms(request, caller, figures_of, size)
        if request.is_local:
            return mine
        asked = pb.ListVmUsagesRequest(order=request.order, page_size=size, host_id=request.host_id, is_local=True)
        answers, missing = await self._peers.ask_all(f"{_SERVICE}ListVmUsages", asked, pb.ListVmUsagesResponse)
        newest: dict[int, pb.VmUsage] = {}
        for vm in (vm for answer in (mine, *answers) for vm in answer.vms):
            known = newest.get(vm.id)
            if known is None or known.time.ToNanoseconds() < vm.time.ToNanoseconds():
                newest[vm.id] = vm
        merged = sorted(newest.values(), key=lambda vm: (-_weight(vm, figures_of), vm.id))[:size]
        total = mine.total_size + sum(answer.total_size for answer in answers)
        return pb.ListVmUsagesResponse(vms=merged, total_size=total, missing=missing)

    async def watch(self, request: pb.WatchTopRequest, caller: Caller) -> AsyncIterator[pb.Top]:
        """The cloud every few seconds."""
        interval = request.interval.ToNanoseconds() / 1e9 or DEFAULT_INTERVAL_S
        if not MIN_INTERVAL_S <= interval <= MAX_INTERVAL_S:
            raise invalid("interval", f"must be from {MIN_INTERVAL_S:g} to {MAX_INTERVAL_S:g} s, it is {interval:g} s")
        wake, end = asyncio.Event(), time.monotonic() + MAX_AGE_S
        with self._streams.wakes(wake):
            while not self._streams.are_ending and time.monotonic() < end:
                yield await self._top(request.vms, caller)
                try:
                    async with asyncio.timeout(interval):
                        await wake.wait()
                except TimeoutError:
                    continue

    async def _top(self, request: pb.ListVmUsagesRequest, caller: Caller) -> pb.Top:
        vms = await self.list_vms(request, caller)
        top = pb.Top(vms=vms.vms, total_vms=vms.total_size, missing=vms.missing, time=_stamp(time.time()))
        if caller.is_admin:
            top.hosts.extend((await self.list_hosts(pb.ListHostUsagesRequest(is_local=request.is_local))).hosts)
        return top

    # The last day

    async def vm_history(self, request: pb.GetVmUsageHistoryRequest, caller: Caller) -> pb.UsageHistory:
        """What a VM took, by spans."""
        record = self._vms.visible(request.id, caller)
        host_id = record.host_id
        if host_id and host_id not in self._gateway.links:
            return await self._ask_holder(host_id, "GetVmUsageHistory", request)
        self._book.settle()
        return _history(self._book.vms, request.id, is_day=request.is_day)

    async def host_history(self, request: pb.GetHostUsageHistoryRequest) -> pb.UsageHistory:
        """What a host took, by spans."""
        if self._cloud.hosts.get(request.id) is None:
            raise MolnError(Reason.HOST_NOT_FOUND, f"id: there is no host {request.id}")
        if request.id not in self._gateway.links:
            return await self._ask_holder(request.id, "GetHostUsageHistory", request)
        self._book.settle()
        return _history(self._book.hosts, request.id, is_day=request.is_day)

    async def _ask_holder(
        self, host_id: int, method: str, request: pb.GetVmUsageHistoryRequest | pb.GetHostUsageHistoryRequest
    ) -> pb.UsageHistory:
        """The process that holds the host's stream; where none does, what is left of it here."""
        host = self._cloud.hosts.get(host_id)
        entry = host.connection if host is not None else None
        if entry is not None and entry.value.address in self._peers.addresses():
            return await self._peers.ask(entry.value.address, f"{_SERVICE}{method}", request, pb.UsageHistory)
        ring = self._book.vms if isinstance(request, pb.GetVmUsageHistoryRequest) else self._book.hosts
        return _history(ring, request.id, is_day=request.is_day)

    # Parts

    def _host(self, host: HostRecord) -> pb.HostUsage:
        usage = pb.HostUsage(id=host.id, name=host.name, state=_host_state(host))
        facts = self._book.facts.get(host.id)
        times, figures = self._book.hosts.newest([host.id])
        if facts is None or not times[0] >= time.time() - FRESH_S:
            return usage
        usage.time.CopyFrom(_stamp(times[0]))
        usage.cpus, usage.memory_total_bytes, usage.running_vms = facts.cpus, facts.memory_total, facts.running
        usage.disk_used_bytes, usage.disk_total_bytes = facts.disk_used, facts.disk_total
        if not math.isnan(figures[0, CPU]):
            usage.usage.CopyFrom(_usage(figures[0]))
        return usage

    def _local_vms(
        self, request: pb.ListVmUsagesRequest, caller: Caller, figures_of: Sequence[int], size: int
    ) -> pb.ListVmUsagesResponse:
        self._book.settle()
        keys, times, figures = self._book.vms.since(time.time() - FRESH_S)
        if request.host_id or not caller.is_admin:
            is_shown = np.array([self._is_shown(int(key), request.host_id, caller) for key in keys], np.bool_)
            keys, times, figures = keys[is_shown], times[is_shown], figures[is_shown]
        chosen = _largest(keys, figures, figures_of, size)
        vms = [self._vm(int(keys[at]), times[at], figures[at]) for at in chosen]
        return pb.ListVmUsagesResponse(vms=[vm for vm in vms if vm is not None], total_size=len(keys))

    def _is_shown(self, vm_id: int, host_id: int, caller: Caller) -> bool:
        record = self._cloud.vms.get(vm_id)
        if record is None or (host_id and record.host_id != host_id):
            return False
        return caller.is_admin or record.owner_id == caller.user_id

    def _vm(self, vm_id: int, at: float, figures: Floats) -> pb.VmUsage | None:
        record = self._cloud.vms.get(vm_id)
        if record is None:
            return None
        granted = record.placement.value.granted.memory_mib if record.placement is not None else 0
        usage = pb.VmUsage(
            id=vm_id, name=record.name, state=state_name(record.view.state), owner_id=record.owner_id,
            host_id=record.host_id, host=self._cloud.hosts.name_of(record.host_id), time=_stamp(at),
            vcpus=self._book.vcpus.get(vm_id, 0), memory_total_bytes=granted << 20,
        )  # fmt: skip
        if not math.isnan(figures[CPU]):
            usage.usage.CopyFrom(_usage(figures))
        return usage


def _largest(keys: Rows, figures: Floats, figures_of: Sequence[int], size: int) -> Rows:
    """Places of the first `size` in the order; ties and what is not known go by id."""
    weights = np.nan_to_num(figures[:, list(figures_of)]).sum(axis=1) if figures_of else np.zeros(len(keys))
    return np.lexsort((keys, -weights))[:size]


def _weight(vm: pb.VmUsage, figures_of: Sequence[int]) -> float:
    usage = vm.usage
    by_figure = {
        CPU: usage.cpu_percent, MEMORY: usage.memory_bytes, DISK_READ: usage.disk_read_bytes_per_s,
        DISK_WRITE: usage.disk_write_bytes_per_s, NET_RECEIVE: usage.net_receive_bytes_per_s,
        NET_TRANSMIT: usage.net_transmit_bytes_per_s,
    }  # fmt: skip
    return float(sum(by_figure[figure] for figure in figures_of))


def _history(ring: Ring, key: int, *, is_day: bool) -> pb.UsageHistory:
    tier = DAY if is_day else HOUR
    series: Series = ring.history(key, tier, time.time())
    points = [
        pb.UsagePoint(time=_stamp(float(start)), usage=_usage(row))
        for start, row in zip(series.starts, series.figures, strict=True)
    ]
    history = pb.UsageHistory(points=points)
    history.step.FromSeconds(TIERS[tier].seconds)
    return history


def _usage(figures: Floats) -> pb.Usage:
    known = np.nan_to_num(figures)
    return pb.Usage(
        cpu_percent=known[CPU], memory_bytes=int(known[MEMORY]), disk_read_bytes_per_s=known[DISK_READ],
        disk_write_bytes_per_s=known[DISK_WRITE], net_receive_bytes_per_s=known[NET_RECEIVE],
        net_transmit_bytes_per_s=known[NET_TRANSMIT],
    )  # fmt: skip


def _host_state(host: HostRecord) -> str:
    return host_pb2.HostState.Name(host.state()).removeprefix("HOST_STATE_")


def _stamp(seconds: float) -> Timestamp:
    stamp = Timestamp()
    stamp.FromMilliseconds(int(seconds * 1000))
    return stamp
