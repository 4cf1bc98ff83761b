"""kill -9 of each process in the middle of a burst: every VM runs once, every lease is held once, nothing is left."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from moln.compute.v1 import template_pb2
from tests.chaos import hypervisors
from tests.support.eventually import eventually_sync
from tests.support.stack import Stack, a_stack
from tests.support.stack_api import StackApi

PROCESSES = ("etcd", "api", "scheduler", "imagesvc", "netsvc", "sim")
VMS = 200
HOSTS = 20
SETTLE_SECONDS = 120.0
SLOW_STARTS = {"MOLN_HOSTAGENT_SIM_START_JITTER_S": "3.0"}
"""Simulated guests take up to so long to start: the burst lasts long enough to be hit in its middle."""


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with a_stack("--sim-hosts", str(HOSTS), "--no-real-host", environment=SLOW_STARTS) as running:
        yield running


@pytest.fixture
def api(stack: Stack) -> Iterator[StackApi]:
    api = StackApi(stack)
    yield api
    api.close()


@pytest.fixture
def journal(stack: Stack) -> Path:
    return stack.folder.state_of("sim") / "sim" / "hypervisors.journal"


@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(2, 6))])
def test_a_burst_survives_the_kill_of_each_process_in_turn(
    stack: Stack, api: StackApi, journal: Path, seed: int
) -> None:
    order = list(PROCESSES)
    chance = random.Random(seed)
    chance.shuffle(order)
    for name in order:
        _burst_with_kill(stack, api, journal, name, chance.randint(50, 120))


def _burst_with_kill(stack: Stack, api: StackApi, journal: Path, name: str, threshold: int) -> None:
    ids = api.create(template_pb2.VmTemplate(memory_mib=64, disks=[template_pb2.DiskTemplate(size_mib=16)]), VMS)
    eventually_sync(lambda: api.count("RUNNING") >= threshold, within=SETTLE_SECONDS)
    assert api.count("RUNNING") <= 150, "the burst was nearly over before the kill"
    stack.kill(name)
    eventually_sync(
        lambda: api.count("RUNNING") == VMS, what=f"{VMS} run after the kill of {name}", within=SETTLE_SECONDS
    )
    _check_running_once(api, journal, name)
    api.terminate(ids)
    eventually_sync(lambda: not api.vms(), what=f"all are gone after the kill of {name}", within=SETTLE_SECONDS)
    _check_nothing_left(api, journal, name)


def _check_running_once(api: StackApi, journal: Path, name: str) -> None:
    vms = api.vms()
    counted = hypervisors.running(journal)
    assert set(counted) == {vm.uid for vm in vms}, f"after the kill of {name} other VMs run than there are"
    assert set(counted.values()) == {1}, f"after the kill of {name} some run more than once: {counted.most_common(3)}"
    assert not hypervisors.ever_twice(journal), f"around the kill of {name} some ran on two hosts at once"
    addresses = {nic.ipv4: vm.uid for vm in vms for nic in vm.addresses.nics}
    assert len(addresses) == VMS, f"after the kill of {name} {VMS} VMs have {len(addresses)} addresses"
    assert {lease.ipv4: lease.vm_uid for lease in eventually_sync(api.leases)} == addresses


def _check_nothing_left(api: StackApi, journal: Path, name: str) -> None:
    assert not hypervisors.present(journal), f"after the kill of {name} guests are left on hosts"
    eventually_sync(lambda: api.leases() == [], what="all leases are given back")
    assert all(host.view.vms == 0 for host in api.hosts())
    usage = api.usage()
    assert not usage.ListFields(), f"after the kill of {name} usage is left: {usage}"
