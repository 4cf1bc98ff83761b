"""The start's own plan on a real hypervisor: ended from wherever a killed agent left it, undone wherever it fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from moln.node.v1.node_service_pb2 import VmOrder
from services.common.domain.errors import MolnError
from services.common.domain.reasons import Reason
from services.hostagent.drivers.libvirt.compose import Endpoint
from services.hostagent.drivers.libvirt.connection import LibvirtConnection
from services.hostagent.drivers.libvirt.guests import Guests
from services.hostagent.drivers.libvirt.steps import remove_guest
from services.hostagent.drivers.libvirt.work import GuestWork
from services.hostagent.drivers.plans import Step, run_plan
from services.hostagent.drivers.ports import Power
from services.hostagent.network import netlink
from services.hostagent.network.bridges import Bridges
from services.hostagent.network.spec import bridges_of
from services.hostagent.storage.cache import ImageCache
from services.hostagent.storage.disks import DiskMaker
from services.hostagent.storage.folders import NodeFolders
from tests.integration.hostagent.libvirt.conftest import pieces_of
from tests.support.hypervisor import CLOUD, add_nic, order

STEPS = ("claim_folder", "stage_disks", "make_context", "connect_network", "start_guest")


@dataclass
class Node:
    """The parts of a node, without the agent around them."""

    guests: Guests
    folders: NodeFolders
    bridges: Bridges
    work: GuestWork
    vm: VmOrder

    def plan(self) -> list[Step]:
        return self.work.steps(self.vm, bridges_of(self.vm.addresses.nics), lambda _step, _percent: None)

    async def is_empty(self) -> bool:
        names = {nic.bridge for nic in self.vm.addresses.nics}
        await self.bridges.release(names)
        there = {bridge.name for bridge in await asyncio.to_thread(netlink.marked)}
        return not self.folders.records() and not await self.guests.all() and not there & names


@pytest.fixture
async def node(uri: str, folder: Path, bridge: str) -> AsyncIterator[Node]:
    connection = LibvirtConnection(uri)
    folders, bridges, guests = NodeFolders(folder / "node"), Bridges(), Guests(connection)
    folders.make()
    work = GuestWork(guests, folders, DiskMaker(ImageCache(folders.cache), pieces_of(folder)), bridges)
    work.endpoint = Endpoint(CLOUD, "qemu", "x86_64")
    vm = order(None)
    vm.spec.template.memory_mib = 32
    vm.spec.template.disks.add(disk_id=0, size_mib=1)
    add_nic(vm, "10.98.0.7", bridge=bridge)
    made = Node(guests, folders, bridges, work, vm)
    yield made
    await remove_guest(guests, vm.uid)
    await bridges.release([bridge])
    await connection.close()


class Failing:
    """A step that does all it should, and then fails."""

    def __init__(self, step: Step) -> None:
        self._step = step
        self.name = step.name
        self.needed, self.verify, self.undo = step.needed, step.verify, step.undo

    async def do(self) -> None:
        await self._step.do()
        raise MolnError(Reason.INTERNAL, "told to fail")


async def test_a_start_is_ended_from_wherever_it_was_left_and_repeated_without_harm(node: Node) -> None:
    assert tuple(step.name for step in node.plan()) == STEPS
    for done in range(1, len(STEPS) + 1):
        assert (await run_plan(node.plan()[:done], lambda _step: None)).is_done
    assert (await run_plan(node.plan(), lambda _step: None)).is_done
    assert await node.guests.power(node.vm.uid) is Power.RUNNING


@pytest.mark.parametrize("index", range(len(STEPS)), ids=STEPS)
async def test_a_start_that_fails_after_any_step_leaves_nothing(node: Node, index: int) -> None:
    plan = node.plan()
    plan[index] = Failing(plan[index])
    outcome = await run_plan(plan, lambda _step: None)
    assert (outcome.is_done, outcome.step) == (False, STEPS[index])
    assert await node.is_empty()


async def test_what_was_there_before_a_start_that_fails_stays(node: Node) -> None:
    await run_plan(node.plan()[:2], lambda _step: None)
    disk = node.folders.vm(node.vm.uid).disk(0, "qcow2")
    before = disk.read_bytes()
    plan = node.plan()
    plan[-1] = Failing(plan[-1])
    await run_plan(plan, lambda _step: None)
    assert disk.read_bytes() == before
