"""How soon the cloud is right about a node's guests when its agent is killed and comes back while guests have ended."""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from bench.agents import until_up
from bench.records import Record
from bench.stack import Bench, HostStub, OperationsStub, VmStub, stack
from moln.compute.v1 import host_pb2, host_service_pb2, template_pb2, vm_pb2, vm_service_pb2
from moln.operations.v1 import operations_service_pb2
from services.devstack.libvirtd import LibvirtdFolder, accepts
from services.hostagent.drivers.libvirt.connection import LibvirtConnection

COUNT, ENDED = 500, 50
REPEATS = 3
LIMIT_S = 90.0
PAUSE_S = 0.01
SHAPE = template_pb2.VmTemplate(cpu_percent=1, memory_mib=4, no_default_network=True)
STAYS_OFF = template_pb2.VmTemplate(restart_policy=template_pb2.RESTART_POLICY_NEVER)


async def agent_adopt(_scale: int) -> list[Record]:
    """From the start of an agent that was killed until all of 500 VMs are shown as they are; 50 have ended meanwhile.

    Guests are those of libvirt's test hypervisor, inside a libvirtd, so that they outlive the agent. Needs root.
    """
    times, contacts, bares = [], [], []
    for _ in range(REPEATS):
        async with stack(0) as bench, _libvirtd(bench) as uri, _held(uri) as libvirt:
            took, contact = await _adopt(bench, uri, libvirt)
            began = time.perf_counter()
            found = await libvirt.call(_states, what="the bare look")
            bares.append(time.perf_counter() - began)
            if found != COUNT - ENDED:
                raise SystemExit(f"bench: {found} guests run, not {COUNT - ENDED}")
        times.append(took)
        contacts.append(took - contact)
    took, bare = statistics.median(times), statistics.median(bares)
    note = (
        f"{min(times):.2f} to {max(times):.2f}; {ENDED} guests ended meanwhile, none was started anew; all but "
        f"{statistics.median(contacts):.2f} s of it before the host is heard; reference: libvirt's bare list of them"
    )
    return [Record("agent_adopt", COUNT, took, "s", bare, took / bare, note)]


async def _adopt(bench: Bench, uri: str, libvirt: LibvirtConnection) -> tuple[float, float]:
    """Seconds from the start of the process until all is right, and until the host is shown as heard again."""
    async with bench.channel() as channel, AsyncExitStack() as ends:
        hosts, vms, operations = HostStub(channel), VmStub(channel), OperationsStub(channel)
        made = await hosts.CreateHost(host_service_pb2.CreateHostRequest(name="bench"), metadata=bench.metadata)
        first = await _agent(bench, uri, "--join", made.join_token, "--api", made.node_address)
        ends.push_async_callback(_end, first)
        await until_up(hosts, bench, made.host.id)
        await _create(vms, bench, STAYS_OFF, ENDED)
        await _create(vms, bench, template_pb2.VmTemplate(), COUNT - ENDED)
        await _until(operations, bench, RUNNING=COUNT)
        before = await _start_times(vms, bench)
        first.kill()
        await _until(operations, bench, UNKNOWN=COUNT)
        ended = sorted(before)[:ENDED]
        await libvirt.call(lambda raw: _end_guests(raw, ended), what="ending guests")
        began = time.perf_counter()
        ends.push_async_callback(_end, await _agent(bench, uri))
        await _until_heard(hosts, bench, made.host.id)
        contact = time.perf_counter()
        await _until(operations, bench, RUNNING=COUNT - ENDED, POWERED_OFF=ENDED)
        right = time.perf_counter()
        after = await _start_times(vms, bench)
        if any(after[vm_id] != before[vm_id] for vm_id in after if vm_id not in ended):
            raise SystemExit("bench: a guest that ran was started anew")
        return right - began, contact - began


async def _create(vms: VmStub, bench: Bench, own: template_pb2.VmTemplate, count: int) -> None:
    template = template_pb2.VmTemplate()
    template.MergeFrom(SHAPE)
    template.MergeFrom(own)
    request = vm_service_pb2.BatchCreateVmsRequest(requests=[vm_service_pb2.CreateVmRequest(template=template)] * count)
    await vms.BatchCreateVms(request, metadata=bench.metadata)


async def _start_times(vms: VmStub, bench: Bench) -> dict[int, int]:
    listed = await vms.ListVms(vm_service_pb2.ListVmsRequest(page_size=COUNT), metadata=bench.metadata)
    return {vm.id: _started(vm) for vm in listed.vms}


def _started(vm: vm_pb2.Vm) -> int:
    return max((status.start_time.ToNanoseconds() for status in vm.statuses), default=0)


async def _until(operations: OperationsStub, bench: Bench, **wanted: int) -> None:
    deadline = time.perf_counter() + LIMIT_S
    while time.perf_counter() < deadline:
        status = await operations.GetStatus(operations_service_pb2.GetStatusRequest(), metadata=bench.metadata)
        found = {state: count for state, count in status.vms.items() if count}
        if found == wanted:
            return
        await asyncio.sleep(PAUSE_S)
    raise SystemExit(f"bench: after {LIMIT_S:g} s the VMs are {found}, not {wanted}")


async def _until_heard(hosts: HostStub, bench: Bench, host_id: int) -> None:
    deadline = time.perf_counter() + LIMIT_S
    while time.perf_counter() < deadline:
        host = await hosts.GetHost(host_service_pb2.GetHostRequest(id=host_id), metadata=bench.metadata)
        if host.liveness.state == host_pb2.LIVENESS_STATE_CONNECTED:
            return
        await asyncio.sleep(PAUSE_S)
    raise SystemExit(f"bench: the agent is not heard after {LIMIT_S:g} s")


# Processes


@asynccontextmanager
async def _libvirtd(bench: Bench) -> AsyncIterator[str]:
    """A libvirtd of its own; the URI of the test hypervisor inside it."""
    if os.geteuid() != 0:
        raise SystemExit("bench: agent_adopt needs root: it starts a libvirtd of its own")
    folder = LibvirtdFolder(Path(bench.folder) / "libvirtd")
    process = await _start("services.devstack.libvirtd", "--state", str(folder.state))
    try:
        deadline = time.perf_counter() + LIMIT_S
        while not accepts(folder.socket):
            if time.perf_counter() > deadline or process.returncode is not None:
                raise SystemExit("bench: no libvirtd came up")
            await asyncio.sleep(0.1)
        yield folder.uri.replace("qemu+unix:///system", "test+unix:///default")
    finally:
        await _end(process)
        folder.erase_run()


@asynccontextmanager
async def _held(uri: str) -> AsyncIterator[LibvirtConnection]:
    """A connection for as long as it is needed: the test hypervisor's guests end with the last one."""
    connection = LibvirtConnection(uri, workers=1)
    try:
        await connection.call(_states, what="connecting")
        yield connection
    finally:
        await connection.close()


async def _agent(bench: Bench, uri: str, *joining: str) -> asyncio.subprocess.Process:
    words = ("--driver", "libvirt", "--uri", uri, "--state", str(bench.folder / "bench"))
    return await _start("services.hostagent", *words, *joining)


async def _start(module: str, *words: str) -> asyncio.subprocess.Process:
    environment = {**os.environ, "MOLN_HOSTAGENT_METRICS_ADDRESS": ""}
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, *words, env=environment,
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.terminate()
    await process.wait()


# In libvirt


def _states(raw: Any) -> int:
    return sum(domain.isActive() for domain in raw.listAllDomains() if domain.name() != "test")


def _end_guests(raw: Any, vm_ids: list[int]) -> None:
    """As by hand: the guests are off, and nobody has told the agent, which is not there."""
    for domain in raw.listAllDomains():
        if any(domain.name().startswith(f"moln-{vm_id}-") for vm_id in vm_ids):
            domain.destroy()
