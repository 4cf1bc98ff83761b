"""Whole lives of VMs on an agent process with libvirt: the test driver, and QEMU with kill -9 under a running guest."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from moln.compute.v1 import vm_pb2
from tests.integration.hostagent.agent.conftest import AgentProcess, connected
from tests.support.eventually import eventually
from tests.support.gateway import FakeGateway, vm_uid
from tests.support.hypervisor import private_libvirtd
from tests.support.processes import Processes

OFF = vm_pb2.DESIRED_STATE_POWERED_OFF
RUN = vm_pb2.DESIRED_STATE_RUNNING
GONE = vm_pb2.DESIRED_STATE_TERMINATED


def an_agent(folder: Path, running: Processes, gateway: FakeGateway, uri: str, **settings: str) -> AgentProcess:
    agent = AgentProcess(folder / "node", running)
    agent.settings = {"driver": "libvirt", "libvirt_uri": uri, "libvirt_type": "qemu", **settings}
    agent.write_identity(gateway.address)
    agent.start()
    return agent


def qemus(vm_id: int) -> list[int]:
    """The processes that run the guest, whoever started them."""
    found = subprocess.run(["pgrep", "-f", f"qemu.*uuid {vm_uid(vm_id)}"], capture_output=True, text=True, check=False)
    return [int(line) for line in found.stdout.split()]


async def test_a_vm_lives_its_whole_life_on_libvirts_test_driver(
    folder: Path, running: Processes, gateway: FakeGateway
) -> None:
    agent = an_agent(folder, running, gateway, "test:///default")
    await connected(gateway, hosts=1)
    gateway.run(7)
    await eventually(lambda: gateway.phase(7) == "RUNNING")
    assert gateway.statuses[1, 7].hypervisor_name == f"moln-7-{vm_uid(7)[:8]}"
    gateway.want(7, OFF)
    await eventually(lambda: gateway.phase(7) == "POWERED_OFF")
    gateway.want(7, RUN)
    await eventually(lambda: gateway.phase(7) == "RUNNING")
    gateway.want(7, GONE)
    await eventually(lambda: not gateway.statuses)
    assert list((agent.state / "vms").glob("[!.]*")) == []
    await eventually(lambda: gateway.inventories[1].hypervisor == "test")


async def test_what_the_driver_cannot_make_fails_with_its_name_and_leaves_nothing(
    folder: Path, running: Processes, gateway: FakeGateway
) -> None:
    agent = an_agent(folder, running, gateway, "test:///default")
    await connected(gateway, hosts=1)
    order = gateway.an_order(7)
    order.spec.template.memory.hugepage_kib = 2048
    gateway.send(order)
    await eventually(lambda: gateway.phase(7) == "FAILED")
    status = gateway.statuses[1, 7]
    assert (status.reason, "memory.hugepage_kib" in status.message) == ("CAPABILITY", True)
    assert status.step and status.HasField("not_before")
    await eventually(lambda: list((agent.state / "vms").glob("[!.]*")) == [])


@pytest.mark.timeout(300)
async def test_guests_survive_a_killed_agent_which_then_adopts_them(
    folder: Path, running: Processes, gateway: FakeGateway
) -> None:
    uri = private_libvirtd(running, folder)
    agent = an_agent(folder, running, gateway, uri, on_stop="poweroff", stop_grace_s="1")
    await connected(gateway, hosts=1)
    gateway.run(7, shutdown_grace_s=1)
    await eventually(lambda: gateway.phase(7) == "RUNNING", within=60)
    (process,) = qemus(7)

    agent.kill()
    assert qemus(7) == [process]
    agent.start()
    await eventually(lambda: len(gateway.hellos) == 2)
    await connected(gateway, hosts=1)
    assert (1, 7) in gateway.streams[0].reported and gateway.phase(7) == "RUNNING"
    assert qemus(7) == [process] and len(gateway.claims) == 1

    os.kill(process, signal.SIGKILL)
    await eventually(lambda: gateway.statuses[1, 7].attempt == 2 and gateway.phase(7) == "RUNNING", within=60)
    assert len(qemus(7)) == 1

    assert await agent.stop() == 0
    assert qemus(7) == [], "at its ordered end the agent takes its guests along"
    agent.start()
    await eventually(lambda: gateway.statuses[1, 7].attempt == 3 and gateway.phase(7) == "RUNNING", within=60)

    gateway.want(7, GONE, is_hard=True)
    await eventually(lambda: not gateway.statuses)
    assert qemus(7) == [] and list((agent.state / "vms").glob("[!.]*")) == []
