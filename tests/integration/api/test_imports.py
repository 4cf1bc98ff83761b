"""Guests of others become VMs: by the api, a real agent and libvirt's test hypervisor, which has such a guest."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from moln.compute.v1 import host_pb2, host_service_pb2, template_pb2, vm_pb2
from moln.compute.v1 import vm_service_pb2 as pb
from moln.node.v1 import node_service_pb2 as node_pb
from services.common.resources.records import guest_key
from tests.integration.api.agent import Agent
from tests.integration.api.conftest import Nodes
from tests.integration.api.running import Client, Clients, Running, refused
from tests.integration.api.test_host_guests import answered
from tests.integration.api.world import World
from tests.support.eventually import eventually
from tests.support.processes import Processes

REPO = Path(__file__).parents[3]
UID = "5f1c2f1e-6d2b-4a53-9f44-0f6d1d1f9a10"
LEGACY = host_pb2.ForeignGuest(
    name="legacy", uuid=UID, state="running", vcpus=2, memory_mib=512, is_persistent=True
)  # fmt: skip


@pytest.fixture
async def node(admin: Client, api: Running, folder: Path, running: Processes) -> AsyncIterator[str]:
    """The name of a host whose agent is a process with libvirt's test hypervisor."""
    created = await admin.hosts.CreateHost(host_service_pb2.CreateHostRequest(name="node-1"))
    state = folder / "node"
    state.mkdir()
    hosts = [{"name": "node-1", "join_token": created.join_token}]
    (state / "host.json").write_text(json.dumps({"cloud_uid": "", "api": [api.nodes], "hosts": hosts}))
    settings = {"DRIVER": "libvirt", "LIBVIRT_URI": "test:///default", "METRICS_ADDRESS": "127.0.0.1:0"}
    environment = {f"MOLN_HOSTAGENT_{name}": value for name, value in settings.items()}
    running.start(
        [sys.executable, "-m", "services.hostagent", "--state", str(state)], env=environment, cwd=REPO, name="agent"
    )
    await eventually(lambda: _connected(admin), what="the agent is connected", within=30)
    yield "node-1"


async def _connected(admin: Client) -> bool:
    host = await admin.hosts.GetHost(host_service_pb2.GetHostRequest(id=1))
    return bool(host.liveness.state == host_pb2.LIVENESS_STATE_CONNECTED and host.inventory.hypervisor)


async def guests(admin: Client) -> list[tuple[str, str, str]]:
    """Name, state and mark of those that are not this cloud's."""
    found = await admin.hosts.ListHostGuests(host_service_pb2.ListHostGuestsRequest(id=1))
    return [(guest.name, guest.state, guest.cloud_uid) for guest in found.guests]


async def reached(admin: Client, vm_id: int, state: vm_pb2.VmState) -> vm_pb2.Vm:
    request = pb.WaitVmRequest(id=vm_id, state=state)
    request.timeout.seconds = 20
    vm: vm_pb2.Vm = await admin.vms.WaitVm(request)
    return vm


async def test_a_guest_of_others_is_imported_lives_as_a_vm_and_is_given_back(
    admin: Client, node: str, world: World
) -> None:
    assert await guests(admin) == [("test", "running", "")]
    vm = await admin.vms.ImportVm(pb.ImportVmRequest(host_id=1, guest="test"))
    assert (vm.spec.name, vm.spec.imported_as, vm.view.state) == ("test", "test", vm_pb2.VM_STATE_PENDING)
    assert vm.intent.wanted_host_id == 1
    await world.place(vm.id, 1)
    vm = await reached(admin, vm.id, vm_pb2.VM_STATE_RUNNING)
    assert [status.hypervisor_name for status in vm.statuses] == ["test"]
    assert await guests(admin) == [], "it carries the mark of this cloud"
    assert (await admin.vms.ImportVm(pb.ImportVmRequest(host_id=1, guest=vm.uid))).id == vm.id

    for request in (pb.PoweroffVmRequest(id=vm.id), pb.PoweroffVmRequest(id=vm.id, is_hard=True)):
        await admin.vms.PoweroffVm(request)
        await reached(admin, vm.id, vm_pb2.VM_STATE_POWERED_OFF)
        await admin.vms.ResumeVm(pb.ResumeVmRequest(id=vm.id))
        vm = await reached(admin, vm.id, vm_pb2.VM_STATE_RUNNING)
        assert not vm.view.reason
    await admin.vms.RebootVm(pb.RebootVmRequest(id=vm.id))
    await eventually(lambda: _has_rebooted(admin, vm.id), what="the reboot is told")

    with refused("CAPABILITY", words="it was imported"):
        await admin.vms.SuspendVm(pb.SuspendVmRequest(id=vm.id))
    with refused("CAPABILITY", words="it was imported"):
        await admin.vms.ResizeVm(pb.ResizeVmRequest(id=vm.id, size=vm_pb2.VmSize(vcpus=4)))

    await admin.vms.TerminateVm(pb.TerminateVmRequest(id=vm.id))
    await eventually(lambda: guests(admin), what="it is given back")
    assert await guests(admin) == [("test", "off", "")], "defined, and without a mark"
    await eventually(lambda: _is_left(world, vm.id), what="the node has let go")
    await world.release(vm.id)
    await eventually(lambda: _is_gone(world, vm), what="nothing of the VM is stored")
    with refused("STATE_FORBIDS", words="it is off"):
        await admin.vms.ImportVm(pb.ImportVmRequest(host_id=1, guest="test"))


async def _has_rebooted(admin: Client, vm_id: int) -> bool:
    vm = await admin.vms.GetVm(pb.GetVmRequest(id=vm_id))
    done = vm.intent.last_operation
    return bool(done.kind == vm_pb2.OPERATION_KIND_REBOOT and not done.reason)


async def _is_left(world: World, vm_id: int) -> bool:
    await world.settle()
    return world.value("vm", vm_id, f"status/{1:010d}") is None


async def _is_gone(world: World, vm: vm_pb2.Vm) -> bool:
    left = [await world.store.read(key) for key in (guest_key(vm.uid), f"/moln/vm/{vm.id:010d}/intent")]
    return left == [None, None]


@pytest.fixture
async def agent(nodes: Nodes) -> AsyncIterator[Agent]:
    """The agent of one host, played by hand."""
    async with await nodes.agent() as connected:
        await connected.sync()
        yield connected


async def imported(agent: Agent, admin: Client, *guests: host_pb2.ForeignGuest, wanted: str = "legacy") -> Any:
    """What an import answers when the node has these guests."""
    agent.tunnels.clear()
    call = admin.vms.ImportVm(pb.ImportVmRequest(host_id=1, guest=wanted))
    return await answered(agent, call, node_pb.ForeignGuests(guests=guests).SerializeToString())


async def test_what_is_imported_already_is_answered_without_asking_the_node(admin: Client, agent: Agent) -> None:
    first = await imported(agent, admin, LEGACY)
    assert (first.uid, first.spec.owner, first.spec.template.memory_mib) == (UID, "admin", 512)
    agent.tunnels.clear()
    for wanted in ("legacy", UID):
        again = await admin.vms.ImportVm(pb.ImportVmRequest(host_id=1, guest=wanted))
        assert again.id == first.id
    assert not agent.tunnels


async def test_two_imports_at_once_make_one_vm(admin: Client, agent: Agent) -> None:
    calls = [
        asyncio.ensure_future(admin.vms.ImportVm(pb.ImportVmRequest(host_id=1, guest=wanted)))
        for wanted in ("legacy", UID)
    ]
    await eventually(lambda: len(agent.tunnels) == 2, what="both have asked")
    tunnels = [await agent.open_tunnel(order) for order in agent.tunnels]
    for tunnel in tunnels:
        await tunnel.write(node_pb.ForeignGuests(guests=[LEGACY]).SerializeToString())
    for tunnel in tunnels:
        await tunnel.done()
    first, second = await asyncio.gather(*calls)
    assert first.id == second.id
    assert len((await admin.vms.ListVms(pb.ListVmsRequest())).vms) == 1
    for tunnel in tunnels:
        await tunnel.close()


async def test_a_guest_with_the_uuid_of_a_vm_is_not_imported(admin: Client, agent: Agent) -> None:
    template = template_pb2.VmTemplate(memory_mib=64)
    vm = await admin.vms.CreateVm(pb.CreateVmRequest(template=template))
    copy = host_pb2.ForeignGuest()
    copy.CopyFrom(LEGACY)
    copy.uuid = vm.uid
    with refused("GUEST_TAKEN", "guest", words=vm.uid):
        raise await imported(agent, admin, copy)


async def test_what_cannot_be_imported_is_refused_and_leaves_nothing(
    admin: Client, agent: Agent, clients: Clients
) -> None:
    anna = await clients.user("anna")
    with refused("ROLE_MISSING"):
        await anna.vms.ImportVm(pb.ImportVmRequest(host_id=1, guest="legacy"))
    with refused("HOST_NOT_FOUND", "host_id"):
        await admin.vms.ImportVm(pb.ImportVmRequest(host_id=99, guest="legacy"))
    with refused("FIELD_REQUIRED", "guest"):
        await admin.vms.ImportVm(pb.ImportVmRequest(host_id=1))
    with refused("FIELD_INVALID", "name"):
        await admin.vms.ImportVm(pb.ImportVmRequest(host_id=1, guest="legacy", name="42"))
    with refused("GUEST_NOT_FOUND", "guest", words="moln host guests node-1"):
        raise await imported(agent, admin, LEGACY, wanted="another")
    assert not (await admin.vms.ListVms(pb.ListVmsRequest())).vms
