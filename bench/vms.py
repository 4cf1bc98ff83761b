"""Benchmarks of VMs on simulated hosts: from one to ten thousand, created, running, listed."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import statistics
import time
import uuid
from collections.abc import Sequence

import grpc

from bench import peers
from bench.records import Record
from bench.stack import Bench, OperationsStub, UserStub, VmStub, running, stack
from moln.common.v1 import common_pb2
from moln.compute.v1 import template_pb2, vm_pb2, vm_service_pb2
from moln.iam.v1 import user_service_pb2
from moln.network.v1 import network_pb2, network_service_pb2, network_service_pb2_grpc

REPEATS = 5
BATCH = 1000
IN_FLIGHT = 100
CONNECTIONS = 10
_FINITE = common_pb2.Amounts(vms=10_000_000, vcpus=100_000_000, memory_mib=1 << 40, disk_mib=1 << 40)


def bare_template() -> template_pb2.VmTemplate:
    """The benchmark's VM: 1 vCPU, 128 MiB, no disk, no interface."""
    return template_pb2.VmTemplate(vcpus=1, memory_mib=128, no_default_network=True)


def full_template() -> template_pb2.VmTemplate:
    """The same with a disk and an interface on the default network."""
    disk = template_pb2.DiskTemplate(size_mib=64)
    return template_pb2.VmTemplate(vcpus=1, memory_mib=128, disks=[disk])


async def first_running(scale: int) -> list[Record]:
    """From the request to RUNNING of one VM on an idle system; p50, beside 4 raw puts."""
    times = []
    async with stack(10) as bench, bench.channel() as channel:
        vms = VmStub(channel)
        for number in range(40):
            request = vm_service_pb2.CreateVmRequest(name=f"first-{number}", template=bare_template())
            began = time.perf_counter()
            created = await vms.CreateVm(request, metadata=bench.metadata)
            wait = vm_service_pb2.WaitVmRequest(id=created.id, state=vm_pb2.VM_STATE_RUNNING)
            await vms.WaitVm(wait, metadata=bench.metadata)
            times.append(time.perf_counter() - began)
            await asyncio.sleep(0.05)
    put = await peers.put_seconds()
    p50 = statistics.median(times)
    beyond = (p50 - 4 * put) * 1000
    note = (
        f"p90 {_quantile(times, 0.9) * 1000:.1f} ms; one raw put {put * 1000:.2f} ms; beyond 4 of them {beyond:.1f} ms"
    )
    return [Record("first_running", 1, p50, "s", 4 * put, p50 / (4 * put), note)]


async def burst(scale: int) -> list[Record]:
    """Created → running, all at once, on 1,000 hosts, beside raw single puts; the same with a disk and an interface."""
    records = []
    put = await peers.puts_per_second(IN_FLIGHT, 3.0)
    for name, template in (("burst", bare_template()), ("burst_full", full_template())):
        for count in sorted({scale // 100, scale // 10, scale} - {0}):
            record = await _burst(name, template, count, repeats=REPEATS if count == scale else 3)
            records.append(dataclasses.replace(record, reference=put, ratio=record.value / put))
    return records


async def _burst(name: str, template: template_pb2.VmTemplate, count: int, repeats: int) -> Record:
    rates, notes = [], []
    async with stack(1000) as bench, bench.channel() as channel:
        operations = OperationsStub(channel)
        if template.disks:
            await _use_wide_network(bench, count * repeats, template)
        for _ in range(repeats):
            before = bench.cpu_seconds()
            present = await running(operations, bench)
            began = time.perf_counter()
            await _create(bench, template, count)
            await _until_running(operations, bench, present + count)
            rates.append(count / (time.perf_counter() - began))
            after = bench.cpu_seconds()
            spent = {each: (after[each] - before.get(each, 0.0)) / count * 1e6 for each in sorted(after)}
            notes.append(spent)
            await _terminate_all(bench)
    rate = statistics.median(rates)
    spent = notes[rates.index(rate)] if rate in rates else notes[-1]
    note = "CPU µs per VM: " + ", ".join(f"{each} {value:.0f}" for each, value in spent.items() if value)
    return Record(name, count, rate, "VMs/s", 0.0, 0.0, f"{min(rates):,.0f} to {max(rates):,.0f}; {note}")


async def create_batch(scale: int) -> list[Record]:
    """BatchCreate by one user with finite quotas, one api process: VMs per second, and their growth."""
    records = []
    async with stack(1) as bench:
        user = await _limited_user(bench)
        for count in sorted({max(BATCH, scale // 10), scale}):
            rates = []
            for _ in range(REPEATS):
                began = time.perf_counter()
                await _create(user, bare_template(), count, is_held=True)
                rates.append(count / (time.perf_counter() - began))
                await _terminate_all(user)
            rate = statistics.median(rates)
            put = await peers.puts_per_second(IN_FLIGHT, 2.0)
            note = f"{min(rates):,.0f} to {max(rates):,.0f}; reference: raw single puts/s"
            records.append(Record("create_batch", count, rate, "VMs/s", put, rate / put, note))
    return records


async def create_single(scale: int) -> list[Record]:
    """Single creates, 100 in flight on 10 connections, beside raw single puts of the same library."""
    count = min(scale, 5000)
    rates = []
    async with stack(1) as bench:
        channels = [bench.channel() for _ in range(CONNECTIONS)]
        stubs = [VmStub(channel) for channel in channels]
        for _ in range(REPEATS):
            numbers = itertools.count()

            async def create(stub: VmStub, numbers: itertools.count[int] = numbers) -> None:
                while next(numbers) < count:
                    request = vm_service_pb2.CreateVmRequest(template=bare_template(), is_held=True)
                    await stub.CreateVm(request, metadata=bench.metadata)

            began = time.perf_counter()
            await asyncio.gather(*(create(stubs[each % CONNECTIONS]) for each in range(IN_FLIGHT)))
            rates.append(count / (time.perf_counter() - began))
            await _terminate_all(bench)
        for channel in channels:
            await channel.close()
    rate = statistics.median(rates)
    put = await peers.puts_per_second(IN_FLIGHT, 3.0)
    note = f"{min(rates):,.0f} to {max(rates):,.0f}; reference: raw single puts/s, {IN_FLIGHT} in flight"
    return [Record("create_single", count, rate, "ops/s", put, rate / put, note)]


async def list_vms(scale: int) -> list[Record]:
    """One list of all VMs by a user who may see them, beside an echo of as many bytes."""
    records = []
    async with stack(1) as bench:
        user = await _limited_user(bench)
        async with user.channel() as channel:
            present = 0
            for count in sorted({max(1, 2 * scale // 100), max(1, 2 * scale // 10), 2 * scale}):
                await _create(user, bare_template(), count - present, is_held=True)
                present = count
                records.append(await _list(user, channel, count))
    return records


async def _list(user: Bench, channel: grpc.aio.Channel, count: int) -> Record:
    """Bytes are taken undecoded, as the echo's are; one answer is decoded to see that all VMs are in it."""
    call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary("/moln.compute.v1.VmService/ListVms")
    request = vm_service_pb2.ListVmsRequest(page_size=count).SerializeToString()
    times, answer = [], b""
    for _ in range(2 * REPEATS + 1):
        began = time.perf_counter()
        answer = await call(request, metadata=user.metadata)
        times.append(time.perf_counter() - began)
    found = len(vm_service_pb2.ListVmsResponse.FromString(answer).vms)
    assert found == count, f"{found} of {count} VMs are in one page"
    took, echo = statistics.median(times[1:]), await peers.echo_seconds(len(answer), 2 * REPEATS)
    note = f"{len(answer) / 1e6:.1f} MB; first time {times[0]:.3f} s; reference: an echo of as many bytes"
    return Record("list", count, took, "s", echo, took / echo, note)


async def _create(bench: Bench, template: template_pb2.VmTemplate, count: int, *, is_held: bool = False) -> None:
    sizes = [min(BATCH, count - start) for start in range(0, count, BATCH)]
    one = vm_service_pb2.CreateVmRequest(template=template, is_held=is_held)
    async with bench.channel() as channel:
        vms = VmStub(channel)

        async def create(size: int) -> None:
            answer = await vms.BatchCreateVms(
                vm_service_pb2.BatchCreateVmsRequest(requests=[one] * size), metadata=bench.metadata
            )
            failed = [result.failure.message for result in answer.results if result.HasField("failure")]
            assert not failed, failed[0]

        await asyncio.gather(*map(create, sizes))


async def _until_running(operations: OperationsStub, bench: Bench, wanted: int) -> None:
    deadline = time.perf_counter() + 300
    while await running(operations, bench) < wanted:
        assert time.perf_counter() < deadline, f"fewer than {wanted} VMs run after 300 s"
        await asyncio.sleep(0.05)


async def _terminate_all(bench: Bench) -> None:
    """All VMs that the caller sees go away; returns when they have."""
    async with bench.channel() as channel:
        vms = VmStub(channel)
        while True:
            listed = await vms.ListVms(vm_service_pb2.ListVmsRequest(page_size=20_000), metadata=bench.metadata)
            if not listed.vms:
                return
            waiting = [vm.id for vm in listed.vms if vm.view.state != vm_pb2.VM_STATE_TERMINATING]
            for chunk in _chunks(waiting, IN_FLIGHT):
                requests = (vm_service_pb2.TerminateVmRequest(id=each, is_hard=True) for each in chunk)
                await asyncio.gather(*(vms.TerminateVm(request, metadata=bench.metadata) for request in requests))
            await asyncio.sleep(0.2)


async def _limited_user(bench: Bench) -> Bench:
    async with bench.channel() as channel:
        request = user_service_pb2.CreateUserRequest(name=f"bench-{uuid.uuid4().hex[:8]}", limits=_FINITE)
        made = await UserStub(channel).CreateUser(request, metadata=bench.metadata)
    return Bench(bench.folder, bench.endpoint, made.token)


async def _use_wide_network(bench: Bench, count: int, template: template_pb2.VmTemplate) -> None:
    async with bench.channel() as channel:
        spec = network_pb2.NetworkSpec(name="wide", cidr="10.64.0.0/14")
        networks = network_service_pb2_grpc.NetworkServiceStub(channel)
        made = await networks.CreateNetwork(
            network_service_pb2.CreateNetworkRequest(spec=spec), metadata=bench.metadata
        )
    del template.nics[:]
    template.nics.add(network=str(made.id))


def _chunks(items: Sequence[int], size: int) -> list[Sequence[int]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


def _quantile(values: Sequence[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]
