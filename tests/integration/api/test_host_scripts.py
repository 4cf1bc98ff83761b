"""Modes of hosts, and scripts that fence and switch them, run by a real api over a real etcd."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from moln.compute.v1 import host_pb2, template_pb2, vm_pb2
from moln.compute.v1 import host_service_pb2 as pb
from moln.node.v1 import node_service_pb2 as node_pb
from moln.operations.v1 import operations_service_pb2
from services.api.settings import Settings
from tests.integration.api.agent import Agent
from tests.integration.api.asking import becomes, request, state_is
from tests.integration.api.conftest import Nodes
from tests.integration.api.running import Client, refused
from tests.integration.api.world import World
from tests.support.eventually import eventually

S, H = vm_pb2.VmState, host_pb2
FENCE = '#!/bin/sh\necho "$1 $MOLN_HOST $MOLN_HOST_ID $MOLN_ADDRESS" >>"$0.calls"\n'


@pytest.fixture
def scripts(folder: Path) -> Path:
    """The folder of scripts."""
    made = folder / "scripts"
    made.mkdir(mode=0o755)
    return made


@pytest.fixture
def settings_of(settings_of: Callable[[str], Settings], scripts: Path) -> Callable[[str], Settings]:
    """The same settings, with scripts allowed."""
    return lambda name: replace(
        settings_of(name), host_script_folder=scripts, host_script_timeout_s=20.0, self_fence_margin_s=0.1
    )


@pytest.fixture
def script(scripts: Path) -> Callable[[str, str], Path]:
    """Puts a script into the folder."""

    def put(name: str, body: str) -> Path:
        file = scripts / name
        fresh = scripts / f".{name}"
        fresh.write_text(body)
        fresh.chmod(0o755)
        fresh.replace(file)
        return file

    return put


async def update(admin: Client, **fields: Any) -> host_pb2.Host:
    host: host_pb2.Host = await admin.hosts.UpdateHost(
        pb.UpdateHostRequest(id=1, spec=host_pb2.HostSpec(**fields), update_mask=FieldMask(paths=list(fields)))
    )
    return host


async def get(admin: Client) -> host_pb2.Host:
    host: host_pb2.Host = await admin.hosts.GetHost(pb.GetHostRequest(id=1))
    return host


def calls(script: Path) -> list[str]:
    file = script.with_name(script.name + ".calls")
    return file.read_text().splitlines() if file.exists() else []


async def silent(admin: Client, nodes: Nodes) -> node_pb.HostHello:
    """A host that was heard, and is silent."""
    hello = await nodes.hello("node-1")
    async with nodes.again(hello) as agent:
        await agent.sync()
        await eventually(lambda: state_is(admin, 1, H.HOST_STATE_UP))
    await eventually(lambda: state_is(admin, 1, H.HOST_STATE_SILENT))
    return hello


async def run_vm(admin: Client, world: World, agent: Agent, **fields: Any) -> vm_pb2.Vm:
    """A VM that runs on the host."""
    vm: vm_pb2.Vm = await admin.vms.CreateVm(request(**fields))
    await world.place(vm.id, 1)
    await agent.start(await agent.order(vm.id))
    await becomes(admin, vm.id, S.VM_STATE_RUNNING)
    return vm


# What may be run


async def test_only_good_scripts_of_the_folder_may_be_named(
    admin: Client, nodes: Nodes, scripts: Path, script: Callable[[str, str], Path]
) -> None:
    await nodes.hello("node-1")
    script("good", FENCE)
    script("open", FENCE).chmod(0o777)
    (scripts / "link").symlink_to("/bin/true")
    (scripts / "text").write_text("no script")
    for name, words in {
        "../../bin/true": "is no name of a script", "/bin/true": "is no name of a script", "nowhere": "cannot be read",
        "open": "could be changed by others", "link": "is not a plain file", "text": "chmod +x",
    }.items():  # fmt: skip
        with refused("FIELD_INVALID", "spec.fence_command", words):
            await update(admin, fence_command=name)
    with refused("FIELD_INVALID", "spec.script_parameters", "no name of a parameter"):
        await update(admin, script_parameters={"PATH": "/tmp"})
    host = await update(admin, fence_command="good", power_command="good", script_parameters={"address": "bmc-1"})
    assert (host.spec.fence_command, host.spec.power_command) == ("good", "good")


async def test_a_script_that_has_become_open_to_others_is_not_run(
    quickly_silent: None, admin: Client, nodes: Nodes, script: Callable[[str, str], Path]
) -> None:
    file = script("fence", FENCE)
    await silent(admin, nodes)
    await update(admin, fence_command="fence")
    file.chmod(0o777)
    with refused("SCRIPT_FAILED", words="could be changed by others"):
        await admin.hosts.FenceHost(pb.FenceHostRequest(id=1))
    assert calls(file) == []


# Fence


async def test_a_fence_command_that_succeeds_is_proof(
    quickly_silent: None, admin: Client, nodes: Nodes, script: Callable[[str, str], Path]
) -> None:
    file = script("fence", FENCE)
    hello = await silent(admin, nodes)
    await update(admin, fence_command="fence", script_parameters={"address": "bmc-1"})
    fenced = await admin.hosts.FenceHost(pb.FenceHostRequest(id=1))
    assert (fenced.view.state, fenced.liveness.proof) == (H.HOST_STATE_FENCED, "fence_command")
    assert (fenced.operation.state, fenced.operation.kind) == (
        H.HOST_OPERATION_STATE_DONE, H.HOST_OPERATION_KIND_FENCE,
    )  # fmt: skip
    assert calls(file) == ["fence node-1 1 bmc-1"]
    await admin.hosts.FenceHost(pb.FenceHostRequest(id=1))
    assert len(calls(file)) == 1, "a fenced host is not fenced again"
    async with nodes.again(hello) as agent:
        await agent.sync()
        await eventually(lambda: state_is(admin, 1, H.HOST_STATE_UP))
        assert (await get(admin)).liveness.proof == ""
        with refused("STATE_FORBIDS", words="only a silent host can be fenced"):
            await admin.hosts.FenceHost(pb.FenceHostRequest(id=1))


async def test_a_fence_command_that_fails_proves_nothing(
    quickly_silent: None, admin: Client, nodes: Nodes, script: Callable[[str, str], Path]
) -> None:
    script("fence", "#!/bin/sh\necho no route to bmc-1 >&2\nexit 75\n")
    await silent(admin, nodes)
    await update(admin, fence_command="fence")
    with refused("SCRIPT_FAILED", words="no route to bmc-1"):
        await admin.hosts.FenceHost(pb.FenceHostRequest(id=1))
    host = await get(admin)
    assert (host.view.state, host.operation.state) == (H.HOST_STATE_SILENT, H.HOST_OPERATION_STATE_FAILED)


@pytest.mark.parametrize("loss", ["ON_HOST_LOSS_RESTART", "ON_HOST_LOSS_LEAVE"])
async def test_a_silent_host_is_fenced_unasked_where_a_vm_is_to_restart_elsewhere(
    quickly_silent: None, admin: Client, nodes: Nodes, world: World, script: Callable[[str, str], Path], loss: str
) -> None:
    file = script("fence", FENCE)
    policy = template_pb2.OnHostLoss.Value(loss)
    async with nodes.again(await nodes.hello("node-1")) as agent:
        await agent.sync()
        await update(admin, fence_command="fence")
        vm = await run_vm(admin, world, agent, on_host_loss=policy)
    if policy == template_pb2.ON_HOST_LOSS_RESTART:
        await eventually(lambda: state_is(admin, 1, H.HOST_STATE_FENCED))
        host = await get(admin)
        assert (host.liveness.proof, host.operation.is_automatic) == ("fence_command", True)
        assert (await becomes(admin, vm.id, S.VM_STATE_UNKNOWN)).view.reason == "HOST_FENCED"
        return
    await eventually(lambda: state_is(admin, 1, H.HOST_STATE_SILENT))
    assert calls(file) == []
    await update(admin, fences_automatically=True)
    await eventually(lambda: state_is(admin, 1, H.HOST_STATE_FENCED))


async def test_an_automatic_fence_that_fails_is_a_problem_and_is_tried_again(
    quickly_silent: None, admin: Client, nodes: Nodes, script: Callable[[str, str], Path]
) -> None:
    script("fence", "#!/bin/sh\necho the controller is dead >&2\nexit 1\n")
    await silent(admin, nodes)
    await update(admin, fence_command="fence", fences_automatically=True)

    async def is_told() -> bool:
        status = await admin.operations.GetStatus(operations_service_pb2.GetStatusRequest())
        return any(
            each.reason == "SCRIPT_FAILED" and "the controller is dead" in each.message for each in status.problems
        )

    await eventually(is_told)
    script("fence", FENCE)
    await eventually(lambda: state_is(admin, 1, H.HOST_STATE_FENCED))
    assert (await get(admin)).operation.attempt >= 2


async def test_a_host_that_is_back_before_its_script_has_run_is_not_fenced(
    quickly_silent: None, admin: Client, nodes: Nodes, script: Callable[[str, str], Path], scripts: Path
) -> None:
    script("fence", f"#!/bin/sh\ntouch {scripts}/begun\nwhile [ ! -e {scripts}/go ]; do sleep 0.05; done\n")
    hello = await silent(admin, nodes)
    await update(admin, fence_command="fence")
    fencing = asyncio.ensure_future(admin.hosts.FenceHost(pb.FenceHostRequest(id=1)))
    await eventually(lambda: (scripts / "begun").exists())
    async with nodes.again(hello) as agent:
        await agent.sync()
        await eventually(lambda: state_is(admin, 1, H.HOST_STATE_UP))
    await eventually(lambda: state_is(admin, 1, H.HOST_STATE_SILENT))
    (scripts / "go").touch()
    host = await fencing
    assert host.operation.state == H.HOST_OPERATION_STATE_DONE
    assert host.view.state == H.HOST_STATE_SILENT, "the proof was of an earlier silence"


# Power


async def test_power_is_by_the_hosts_script_and_not_while_vms_run(
    admin: Client, nodes: Nodes, world: World, script: Callable[[str, str], Path]
) -> None:
    file = script("power", FENCE)
    async with nodes.again(await nodes.hello("node-1")) as agent:
        await agent.sync()
        with refused("SCRIPT_MISSING", words="moln host update node-1 --power-command"):
            await admin.hosts.PowerOnHost(pb.PowerOnHostRequest(id=1))
        await update(admin, power_command="power")
        vm = await run_vm(admin, world, agent)
        with refused("HOST_IN_USE", words="it runs 1 VM (1)"):
            await admin.hosts.PowerOffHost(pb.PowerOffHostRequest(id=1))
        assert (await get(admin)).spec.mode == H.HOST_MODE_ENABLED
        await admin.hosts.PowerOffHost(pb.PowerOffHostRequest(id=1, is_forced=True))
        assert (await get(admin)).spec.mode == H.HOST_MODE_MAINTENANCE
        await admin.vms.PoweroffVm(vm_poweroff(vm.id))
        order = await agent.order(vm.id, lambda order: order.intent.desired == vm_pb2.DESIRED_STATE_POWERED_OFF)
        await agent.report(order, vm_pb2.VM_PHASE_POWERED_OFF)
        await becomes(admin, vm.id, S.VM_STATE_POWERED_OFF)
        await admin.hosts.PowerOffHost(pb.PowerOffHostRequest(id=1))
        await admin.hosts.PowerOnHost(pb.PowerOnHostRequest(id=1))
    assert [line.split()[0] for line in calls(file)] == ["power_off", "power_off", "power_on"]


async def test_what_asks_for_the_same_waits_for_it_and_for_another_is_refused(
    admin: Client, nodes: Nodes, script: Callable[[str, str], Path], scripts: Path
) -> None:
    file = script("power", FENCE + f"while [ ! -e {scripts}/go ]; do sleep 0.05; done\n")
    await nodes.hello("node-1")
    await update(admin, power_command="power")
    both = [asyncio.ensure_future(admin.hosts.PowerOnHost(pb.PowerOnHostRequest(id=1))) for _ in range(2)]
    await eventually(lambda: calls(file))
    with refused("CONFLICT", words="is at power on now"):
        await admin.hosts.PowerOffHost(pb.PowerOffHostRequest(id=1))
    (scripts / "go").touch()
    await asyncio.gather(*both)
    assert len(calls(file)) == 1


# Modes


async def test_a_drain_tells_how_far_it_is(admin: Client, nodes: Nodes, world: World) -> None:
    async with nodes.again(await nodes.hello("node-1")) as agent:
        await agent.sync()
        vms = [await run_vm(admin, world, agent) for _ in range(2)]
        heard = (await get(admin)).view.since
        host = await admin.hosts.DrainHost(pb.DrainHostRequest(id=1))
        assert (host.view.state, host.view.drain_left, host.view.drain_total) == (H.HOST_STATE_DRAINING, 2, 2)
        assert host.view.since == host.spec.mode_time, "it is drained since that was asked for, not since it is heard"
        assert host.view.since.ToNanoseconds() > heard.ToNanoseconds()
        await admin.vms.TerminateVm(vm_terminate(vms[0].id))
        assert await agent.gone(await agent.order(vms[0].id, lambda order: order.is_erase)) == ""
        await world.release(vms[0].id)

        async def is_half_done() -> bool:
            view = (await get(admin)).view
            return (view.drain_left, view.drain_total) == (1, 2)

        await eventually(is_half_done)
        host = await admin.hosts.MaintainHost(pb.MaintainHostRequest(id=1))
        assert (host.view.state, host.view.drain_total) == (H.HOST_STATE_MAINTENANCE, 2), "it goes on from a drain"
        host = await admin.hosts.EnableHost(pb.EnableHostRequest(id=1))
        assert (host.view.state, host.view.drain_left, host.spec.drain_vms) == (H.HOST_STATE_UP, 0, 0)


async def test_the_silence_of_a_host_that_is_not_monitored_is_no_problem(
    quickly_silent: None, admin: Client, nodes: Nodes, world: World, script: Callable[[str, str], Path]
) -> None:
    file = script("fence", FENCE)
    async with nodes.again(await nodes.hello("node-1")) as agent:
        await agent.sync()
        await update(admin, fence_command="fence", fences_automatically=True)
        vm = await run_vm(admin, world, agent)
        host = await admin.hosts.SetHostOffline(pb.SetHostOfflineRequest(id=1))
        assert host.view.state == H.HOST_STATE_OFFLINE
    lost = await becomes(admin, vm.id, S.VM_STATE_UNKNOWN)
    assert lost.view.reason == "HOST_SILENT", "its VMs are as they are"
    status = await admin.operations.GetStatus(operations_service_pb2.GetStatusRequest())
    assert not [each for each in status.problems if each.subject == "host node-1"]
    assert (await get(admin)).view.state == H.HOST_STATE_OFFLINE
    assert calls(file) == []


def vm_poweroff(vm_id: int) -> Any:
    from moln.compute.v1 import vm_service_pb2

    return vm_service_pb2.PoweroffVmRequest(id=vm_id)


def vm_terminate(vm_id: int) -> Any:
    from moln.compute.v1 import vm_service_pb2

    return vm_service_pb2.TerminateVmRequest(id=vm_id, is_hard=True)


# Watchdogs


async def promise(agent: Agent, *host_ids: int, seconds: int = 1) -> None:
    """The agent says that its machines' watchdogs are armed."""
    inventory = host_pb2.HostInventory(cpus=8, memory_mib=8192, driver="test", self_fence_s=seconds)
    await agent.send(hosts=[node_pb.HostReport(host_id=host_id, inventory=inventory) for host_id in host_ids])


async def promises(admin: Client, host_id: int) -> int:
    host: host_pb2.Host = await admin.hosts.GetHost(pb.GetHostRequest(id=host_id))
    return host.inventory.self_fence_s


async def test_watchdogs_of_many_hosts_that_are_silent_at_once_are_not_believed(
    quickly_silent: None, admin: Client, nodes: Nodes
) -> None:
    async with await nodes.agent("node-1", "node-2", "node-3") as agent:
        await agent.sync()
        await promise(agent, 1, 2, 3)
        for host_id in (1, 2, 3):
            await eventually(lambda host_id=host_id: promises(admin, host_id))  # type: ignore[misc]
    for host_id in (1, 2, 3):
        await eventually(lambda host_id=host_id: state_is(admin, host_id, H.HOST_STATE_SILENT))  # type: ignore[misc]
    status = await admin.operations.GetStatus(operations_service_pb2.GetStatusRequest())
    assert "SELF_FENCE_SUSPENDED" in {each.reason for each in status.problems}
    await admin.hosts.FenceHost(pb.FenceHostRequest(id=1, is_confirmed=True))
    for host_id in (2, 3):
        await eventually(lambda host_id=host_id: state_is(admin, host_id, H.HOST_STATE_FENCED))  # type: ignore[misc]
    host = await admin.hosts.GetHost(pb.GetHostRequest(id=2))
    assert host.liveness.proof == "self_fence"
    status = await admin.operations.GetStatus(operations_service_pb2.GetStatusRequest())
    assert "SELF_FENCE_SUSPENDED" not in {each.reason for each in status.problems}


async def test_an_agent_is_not_believed_for_what_its_predecessor_promised(
    quickly_silent: None, admin: Client, nodes: Nodes, world: World
) -> None:
    hello = await nodes.hello("node-1")
    async with nodes.again(hello) as agent:
        await agent.sync()
        await promise(agent, 1)
        await eventually(lambda: promises(admin, 1))
    async with nodes.again(hello):
        await world.settle()
        assert world.value("host", 1, "inventory").self_fence_s == 0, "from the hello on, before anything may start"
    await eventually(lambda: state_is(admin, 1, H.HOST_STATE_SILENT))
    assert await promises(admin, 1) == 0


# Machines that never come back


async def test_a_machine_that_never_comes_back_holds_nothing_for_ever(
    quickly_silent: None, admin: Client, nodes: Nodes, world: World
) -> None:
    async with nodes.again(await nodes.hello("node-1")) as agent:
        await agent.sync()
        ends, moved = [await run_vm(admin, world, agent) for _ in range(2)]
        with refused("STATE_FORBIDS", words="moln host fence node-1"):
            await admin.hosts.DeleteHost(pb.DeleteHostRequest(id=1, is_lost=True))
    await eventually(lambda: state_is(admin, 1, H.HOST_STATE_SILENT))
    await admin.hosts.FenceHost(pb.FenceHostRequest(id=1, is_confirmed=True))
    async with nodes.again(await nodes.hello("node-2")) as other:
        await other.sync()
        await world.place(moved.id, 2)
        await other.start(await other.order(moved.id, host_id=2))
        with refused("HOST_IN_USE", words="1 VM placed there (1): disks are lost with it, terminate it first"):
            await admin.hosts.DeleteHost(pb.DeleteHostRequest(id=1, is_lost=True))
        await admin.vms.TerminateVm(vm_terminate(ends.id))
        deleting = asyncio.ensure_future(admin.hosts.DeleteHost(pb.DeleteHostRequest(id=1, is_lost=True)))
        await eventually(lambda: world.value("vm", ends.id, "status/0000000001") is None)
        await world.release(ends.id)
        await deleting
        await becomes(admin, moved.id, S.VM_STATE_RUNNING)
        with refused("VM_NOT_FOUND"):
            await eventually(lambda: state_is_gone(admin, ends.id))
        with refused("HOST_NOT_FOUND"):
            await get(admin)


async def state_is_gone(admin: Client, vm_id: int) -> bool:
    """Never true: ends with the refusal of a VM that is gone."""
    from moln.compute.v1 import vm_service_pb2

    await admin.vms.GetVm(vm_service_pb2.GetVmRequest(id=vm_id))
    return False
