"""Benchmarks of a node's agent on a hypervisor: what its work costs beside the bare calls of libvirt."""

from __future__ import annotations

import asyncio
import gc
import os
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from bench.records import Record
from bench.stack import Bench, HostStub, VmStub, stack
from moln.compute.v1 import host_pb2, host_service_pb2, template_pb2, vm_pb2, vm_service_pb2
from moln.node.v1.node_service_pb2 import ImageTicket, VmOrder
from services.hostagent.app import GC_THRESHOLDS
from services.hostagent.drivers.libvirt.connection import LibvirtConnection
from services.hostagent.drivers.libvirt.driver import DriverOptions, LibvirtDriver
from services.hostagent.drivers.libvirt.stats import bulk_stats
from services.hostagent.drivers.ports import Deed, Outcome, Work

URI = "test:///default"
SCALES = (5, 50, 500)
REPEATS = 40
AT_ONCE = 20
START_SCALES = (20, 200)
START_REPEATS = 3
START_TEMPLATE = template_pb2.VmTemplate(cpu_percent=1, memory_mib=4, no_default_network=True)


async def agent_sweep(_scale: int) -> list[Record]:
    """The load of all guests as values, beside one bare bulk call, by turns; medians. libvirt's test driver."""
    gc.set_threshold(*GC_THRESHOLDS)  # as the agent itself does
    return [await _sweep(count) for count in SCALES]


async def _sweep(count: int) -> Record:
    with tempfile.TemporaryDirectory(prefix="moln-bench-") as folder:
        async with LibvirtDriver(DriverOptions(1, "bench", Path(folder), URI, max_deeds=AT_ONCE), _no_image) as driver:
            orders = [_order(number) for number in range(1, count + 1)]
            await _do_all(driver, Deed.START, orders)
            bare_connection = LibvirtConnection(URI, workers=1, has_events=False)
            try:
                sweeps, bares = await _by_turns(
                    lambda: driver.sweep(1), lambda: bare_connection.call(_bare, what="the bare call")
                )
            finally:
                await bare_connection.close()
            found = len((await driver.sweep(1)).guests)
            await _do_all(driver, Deed.ERASE, orders)  # the test hypervisor may outlive its connections
    if found != count:
        raise SystemExit(f"bench: {found} guests are told of, not {count}")
    sweep, bare = statistics.median(sweeps), statistics.median(bares)
    note = f"p90 {_p90(sweeps) * 1000:.1f} ms; {(sweep - bare) / count * 1e6:.1f} us a guest beyond the bare call"
    return Record("agent_sweep", count, sweep, "s", bare, sweep / bare, note)


def _bare(raw: Any) -> int:
    return len(bulk_stats(raw))


async def _by_turns(
    one: Callable[[], Awaitable[Any]], other: Callable[[], Awaitable[Any]]
) -> tuple[list[float], list[float]]:
    """Times of both, so that what else happens on the machine hits both alike. The first turn is not counted."""
    times: tuple[list[float], list[float]] = ([], [])
    for turn in range(REPEATS + 1):
        for work, kept in zip((one, other), times, strict=True):
            began = time.perf_counter()
            await work()
            if turn:
                kept.append(time.perf_counter() - began)
    return times


async def _do_all(driver: LibvirtDriver, deed: Deed, orders: Sequence[VmOrder]) -> None:
    for first in range(0, len(orders), AT_ONCE):
        outcomes = await asyncio.gather(*(_begin(driver, deed, order) for order in orders[first : first + AT_ONCE]))
        failed = next((outcome for outcome in outcomes if not outcome.is_done), None)
        if failed is not None:
            raise SystemExit(f"bench: a guest could not be {deed.value}ed: {failed.message}")


def _begin(driver: LibvirtDriver, deed: Deed, order: VmOrder) -> asyncio.Future[Outcome]:
    ended: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
    status = vm_pb2.VmStatus(uid=order.uid, host_id=1, epoch=1, phase=vm_pb2.VM_PHASE_STARTING)
    work = Work(
        deed, 1, order.vm_id, order.uid, order, status, lambda _work, outcome: ended.set_result(outcome),
        lambda _work, _step, _percent: None,
    )  # fmt: skip
    driver.begin(work)
    return ended


def _order(vm_id: int) -> VmOrder:
    uid = str(uuid.uuid4())
    order = VmOrder(host_id=1, vm_id=vm_id, uid=uid, epoch=1)
    order.spec.uid, order.spec.name = uid, f"bench-{vm_id}"
    order.spec.template.vcpus, order.spec.template.memory_mib = 1, 4
    order.intent.uid, order.intent.desired, order.intent.generation = uid, vm_pb2.DESIRED_STATE_RUNNING, 1
    order.placement.uid, order.placement.host_id, order.placement.epoch = uid, 1, 1
    return order


def _p90(times: Sequence[float]) -> float:
    return sorted(times)[int(len(times) * 0.9)]


async def _no_image(ticket: ImageTicket) -> AsyncIterator[bytes]:
    raise SystemExit(f"bench: image {ticket.image_id} is wanted, and no guest has one")
    yield b""


async def agent_start(_scale: int) -> list[Record]:
    """Guests that a real agent starts on libvirt's test hypervisor, from the request of all to the last RUNNING."""
    return [await _agent_start(count) for count in START_SCALES]


async def _agent_start(count: int) -> Record:
    rates = []
    for _ in range(START_REPEATS):
        async with stack(0) as bench, a_node(bench), bench.channel() as channel:
            vms = VmStub(channel)
            request = vm_service_pb2.CreateVmRequest(template=START_TEMPLATE)
            batch = vm_service_pb2.BatchCreateVmsRequest(requests=[request] * count)
            began = time.perf_counter()
            answer = await vms.BatchCreateVms(batch, metadata=bench.metadata)
            waits = [
                vm_service_pb2.WaitVmRequest(id=result.vm.id, state=vm_pb2.VM_STATE_RUNNING)
                for result in answer.results
            ]
            await asyncio.gather(*(vms.WaitVm(wait, metadata=bench.metadata, timeout=300) for wait in waits))
            rates.append(count / (time.perf_counter() - began))
    rate, bare = statistics.median(rates), await _bare_starts(count)
    note = f"{min(rates):.0f} to {max(rates):.0f}; reference: bare createXML calls of the same, one after the other"
    return Record("agent_start", count, rate, "VMs/s", bare, rate / bare, note)


async def _bare_starts(count: int) -> float:
    """Domains per second of libvirt alone; they are gone afterwards."""
    connection = LibvirtConnection(URI, workers=1, has_events=False)
    names = [f"bare-{number}" for number in range(count)]
    try:
        began = time.perf_counter()
        for name in names:
            await connection.call(partial(_bare_start, name=name), what="a bare start")
        rate = count / (time.perf_counter() - began)
        for name in names:
            await connection.call(partial(_bare_end, name=name), what="a bare end")
    finally:
        await connection.close()
    return rate


def _bare_start(raw: Any, name: str) -> None:
    raw.createXML(f"<domain type='test'><name>{name}</name><memory>4096</memory><os><type>hvm</type></os></domain>")


def _bare_end(raw: Any, name: str) -> None:
    raw.lookupByName(name).destroy()


@asynccontextmanager
async def a_node(bench: Bench) -> AsyncIterator[None]:
    """An agent process on the test hypervisor, joined as host `bench`; gone afterwards."""
    async with bench.channel() as channel:
        hosts = HostStub(channel)
        request = host_service_pb2.CreateHostRequest(name="bench")
        made = await hosts.CreateHost(request, metadata=bench.metadata)
        words = ["-m", "services.hostagent", "--driver", "libvirt", "--uri", URI]
        words += ["--state", str(bench.folder / "bench")]
        environment = {**os.environ, "MOLN_HOSTAGENT_METRICS_ADDRESS": ""}
        agent = await asyncio.create_subprocess_exec(
            sys.executable, *words, "--join", made.join_token, "--api", made.node_address, env=environment,
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        try:
            await until_up(hosts, bench, made.host.id)
            yield
        finally:
            agent.terminate()
            await agent.wait()


async def until_up(hosts: HostStub, bench: Bench, host_id: int) -> None:
    """The host is heard, and has told what it is."""
    deadline = time.perf_counter() + 60
    while time.perf_counter() < deadline:
        host = await hosts.GetHost(host_service_pb2.GetHostRequest(id=host_id), metadata=bench.metadata)
        if host.view.state == host_pb2.HOST_STATE_UP and host.inventory.cpus:
            return
        await asyncio.sleep(0.05)
    raise SystemExit("bench: the agent did not come up within 60 s")
