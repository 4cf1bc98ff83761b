"""Benchmarks of what moves on simulated hosts: live migrations at a rate, and a host that is drained of its VMs."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Sequence

from google.protobuf.duration_pb2 import Duration

from bench import peers
from bench.records import Record
from bench.stack import Bench, HostStub, VmStub, stack
from moln.compute.v1 import host_service_pb2, template_pb2, vm_pb2, vm_service_pb2

HOSTS = 10
TEMPLATE = template_pb2.VmTemplate(cpu_percent=1, memory_mib=16, no_default_network=True)
"""Small, so that all of a host's fit on few others."""
AT_ONCE = 50
"""Migrations in flight."""
DRAINED = 50
WRITES = 5
"""Raw puts that stand beside one migration: asked for, begun, gone, switched, closed."""


async def migration_steps(scale: int) -> list[Record]:
    """Live migrations of simulated guests, from the request to the end of the operation; rate and p50, two sizes."""
    records = []
    for count in sorted({AT_ONCE, min(500, max(AT_ONCE, scale // 20))}):
        async with stack(HOSTS) as bench, bench.channel() as channel:
            vms = VmStub(channel)
            ids = await _running(vms, bench, count)
            await _migrate_all(vms, bench, ids[:AT_ONCE])  # the first ones warm up
            began = time.perf_counter()
            times = await _migrate_all(vms, bench, ids)
            rate = count / (time.perf_counter() - began)
        put = await peers.puts_per_second(AT_ONCE, 2.0)
        p50, p90 = statistics.median(times), sorted(times)[int(len(times) * 0.9)]
        note = f"p50 {p50 * 1000:.0f} ms, p90 {p90 * 1000:.0f} ms, {AT_ONCE} in flight; reference: raw single puts/s"
        records.append(Record("migration_steps", count, rate, "ops/s", put, rate / put, note))
    return records


async def drain_50(_scale: int) -> list[Record]:
    """A host with 50 VMs is drained: from the request until it has none, beside as many raw puts as moves take."""
    times = []
    for _ in range(3):
        async with stack(HOSTS) as bench, bench.channel() as channel:
            hosts = HostStub(channel)
            ids = await _hosts(hosts, bench)
            await _running(VmStub(channel), bench, DRAINED, host_id=ids[0])
            began = time.perf_counter()
            await hosts.DrainHost(host_service_pb2.DrainHostRequest(id=ids[0]), metadata=bench.metadata)
            await _until_empty(hosts, bench, ids[0])
            times.append(time.perf_counter() - began)
    put = WRITES * DRAINED / await peers.puts_per_second(DRAINED, 2.0)
    took = statistics.median(times)
    note = f"{min(times):.2f} to {max(times):.2f}; {DRAINED / took:.0f} VMs/s; reference: {WRITES} raw puts a VM"
    return [Record("drain_50", DRAINED, took, "s", put, took / put, note)]


async def _running(vms: VmStub, bench: Bench, count: int, host_id: int = 0) -> list[int]:
    """That many VMs that run."""
    one = vm_service_pb2.CreateVmRequest(template=TEMPLATE, host_id=host_id)
    request = vm_service_pb2.BatchCreateVmsRequest(requests=[one] * count)
    answer = await vms.BatchCreateVms(request, metadata=bench.metadata)
    ids = [result.vm.id for result in answer.results]
    waits = (vm_service_pb2.WaitVmRequest(id=each, state=vm_pb2.VM_STATE_RUNNING) for each in ids)
    await asyncio.gather(*(vms.WaitVm(wait, metadata=bench.metadata) for wait in waits))
    return ids


async def _migrate_all(vms: VmStub, bench: Bench, ids: Sequence[int]) -> list[float]:
    """Seconds that each took; so many at once."""
    times: list[float] = []
    left = iter(ids)

    async def work() -> None:
        for vm_id in left:
            began = time.perf_counter()
            request = vm_service_pb2.MigrateVmRequest(id=vm_id, mode="live")
            asked = await vms.MigrateVm(request, metadata=bench.metadata)
            wait = vm_service_pb2.WaitVmOperationRequest(
                id=vm_id, operation_id=asked.intent.operation.id, timeout=Duration(seconds=300)
            )
            ended = await vms.WaitVmOperation(wait, metadata=bench.metadata)
            if ended.reason:
                raise SystemExit(f"bench: VM {vm_id} did not move: {ended.reason}: {ended.message}")
            times.append(time.perf_counter() - began)

    await asyncio.gather(*(work() for _ in range(AT_ONCE)))
    return times


async def _hosts(hosts: HostStub, bench: Bench) -> list[int]:
    listed = await hosts.ListHosts(host_service_pb2.ListHostsRequest(), metadata=bench.metadata)
    return [host.id for host in listed.hosts]


async def _until_empty(hosts: HostStub, bench: Bench, host_id: int) -> None:
    deadline = time.perf_counter() + 300
    while True:
        host = await hosts.GetHost(host_service_pb2.GetHostRequest(id=host_id), metadata=bench.metadata)
        if not host.view.vms and not host.view.drain_left:
            return
        if time.perf_counter() > deadline:
            raise SystemExit(f"bench: {host.view.drain_left} VMs are on the drained host after 300 s")
        await asyncio.sleep(0.02)
