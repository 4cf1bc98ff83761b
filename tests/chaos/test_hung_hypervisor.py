"""A libvirtd that hangs: its own guests wait, everybody else's go on, and it heals without a command."""

from __future__ import annotations

import os
import signal
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from moln.compute.v1 import host_pb2, template_pb2, vm_pb2
from services.devstack.layout import Folder
from services.devstack.libvirtd import LibvirtdFolder
from tests.support.eventually import eventually_sync
from tests.support.stack import Stack, a_stack
from tests.support.stack_api import StackApi

OTHERS = 30
WITHIN_S = 60.0
LEAVING_S = 15.0
"""How long an agent may take to end; without more ado it would wait for each of its calls, half a minute."""


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with a_stack("--sim-hosts", "4") as running:
        yield running


@pytest.fixture
def api(stack: Stack) -> Iterator[StackApi]:
    api = StackApi(stack)
    yield api
    api.close()


def on(host: str) -> template_pb2.VmTemplate:
    return template_pb2.VmTemplate(no_default_network=True,
        memory_mib=64, disks=[template_pb2.DiskTemplate(size_mib=16)],
        requirement=f'NAME = "{host}"',
    )  # fmt: skip


def state_of(api: StackApi, vm_id: int) -> vm_pb2.VmState:
    return next(vm.view.state for vm in api.vms() if vm.id == vm_id)


def runs(api: StackApi, vm_id: int) -> bool:
    return state_of(api, vm_id) == vm_pb2.VM_STATE_RUNNING


def starts(api: StackApi) -> list[float]:
    """Seconds until each of the VMs of another host runs, one after the other."""
    took: list[float] = []
    for _ in range(OTHERS):
        began = time.monotonic()
        (vm_id,) = api.create(on("sim-1"), 1)
        eventually_sync(lambda vm_id=vm_id: runs(api, vm_id), within=WITHIN_S)  # type: ignore[misc]
        took.append(time.monotonic() - began)
        api.terminate([vm_id])
    return took


@contextmanager
def hanging(folder: Folder) -> Iterator[None]:
    pid = int(LibvirtdFolder(folder.state_of("libvirt")).pid_file.read_text())
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.mark.timeout(300)
def test_a_libvirtd_that_hangs_holds_up_its_own_guests_alone_and_heals(stack: Stack, api: StackApi) -> None:
    (first,) = api.create(on("node-1"), 1)
    eventually_sync(lambda: runs(api, first), what="a guest runs on the real node", within=WITHIN_S)
    before = starts(api)
    with hanging(stack.folder):
        (second,) = api.create(on("node-1"), 1)
        during = starts(api)
        assert not runs(api, second), "it cannot run where nothing answers"
        (real,) = [host for host in api.hosts() if host.spec.name == "node-1"]
        assert real.view.state == host_pb2.HOST_STATE_UP, "its agent is there, and says so"
        agent = stack.pid("node")
        os.kill(agent, signal.SIGTERM)
        eventually_sync(
            lambda: stack.pid("node") not in (0, agent), what="the agent ends, though a call hangs", within=LEAVING_S
        )
    words = f"{_words(before)} before, {_words(during)} while a libvirtd hangs"
    sys.stdout.write(f"\nstarts elsewhere, ms: {words}\n")
    eventually_sync(lambda: runs(api, first) and runs(api, second), what="both run, without a command", within=WITHIN_S)
    api.terminate([first, second])
    eventually_sync(lambda: not api.vms(), what="nothing is left", within=WITHIN_S)


def _words(seconds: list[float]) -> str:
    return f"median {statistics.median(seconds) * 1000:.0f}, longest {max(seconds) * 1000:.0f}"
