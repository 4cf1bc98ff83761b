"""Whole lives of VMs on an agent process with simulated hosts."""

from __future__ import annotations

from moln.compute.v1 import vm_pb2
from moln.node.v1.node_service_pb2 import TUNNEL_KIND_CONSOLE, TUNNEL_KIND_CONSOLE_LOG, OpenTunnelResponse
from tests.integration.hostagent.agent.conftest import AgentProcess
from tests.support.eventually import eventually
from tests.support.gateway import FakeGateway, vm_uid

OFF = vm_pb2.DESIRED_STATE_POWERED_OFF
RUN = vm_pb2.DESIRED_STATE_RUNNING
GONE = vm_pb2.DESIRED_STATE_TERMINATED


async def test_a_vm_is_run_powered_off_resumed_and_terminated(agent: AgentProcess, gateway: FakeGateway) -> None:
    gateway.run(7)
    await eventually(lambda: gateway.phase(7) == "RUNNING")
    assert agent.runs(7)
    gateway.want(7, OFF)
    await eventually(lambda: gateway.phase(7) == "POWERED_OFF")
    assert not agent.runs(7) and (1, 7) in agent.guests()
    gateway.want(7, RUN)
    await eventually(lambda: gateway.phase(7) == "RUNNING")
    gateway.want(7, GONE)
    await eventually(lambda: not gateway.statuses)
    assert agent.guests() == {}
    assert gateway.phases_of(7) == ["STARTING", "RUNNING", "POWERING_OFF", "POWERED_OFF", "STARTING", "RUNNING", "GONE"]
    assert [claim.attempt for claim in gateway.claims] == [1, 2]


async def test_a_vm_that_is_placed_elsewhere_is_erased_here(agent: AgentProcess, gateway: FakeGateway) -> None:
    gateway.run(7)
    await eventually(lambda: agent.runs(7))
    gateway.move(7, 1, 2)
    await eventually(lambda: agent.runs(7, host_id=2))
    await eventually(lambda: list(agent.guests()) == [(2, 7)])
    await eventually(lambda: list(gateway.statuses) == [(2, 7)])


async def test_nothing_starts_before_the_claim_is_granted(agent: AgentProcess, gateway: FakeGateway) -> None:
    gateway.holds_acks = True
    gateway.run(7)
    await eventually(lambda: gateway.claims)
    assert agent.guests() == {}
    gateway.release_acks()
    await eventually(lambda: agent.runs(7))


async def test_a_refused_claim_touches_nothing(agent: AgentProcess, gateway: FakeGateway) -> None:
    gateway.refuse[7] = "HOST_FENCED"
    gateway.run(7)
    await eventually(lambda: any(report.is_claim for report in gateway.reports))
    gateway.run(8)
    await eventually(lambda: agent.runs(8))
    assert list(agent.guests()) == [(1, 8)] and not gateway.claims[:-1]


async def test_a_vm_whose_start_fails_is_started_again(agent: AgentProcess, gateway: FakeGateway) -> None:
    gateway.run(7, labels={"sim.fail_starts": "1"})
    await eventually(lambda: gateway.phase(7) == "FAILED")
    assert gateway.statuses[1, 7].reason == "START_FAILED" and gateway.statuses[1, 7].HasField("not_before")
    await eventually(lambda: gateway.phase(7) == "RUNNING")
    assert gateway.statuses[1, 7].attempt == 2


async def test_what_the_node_does_not_have_is_gone_at_once(agent: AgentProcess, gateway: FakeGateway) -> None:
    order = gateway.run(7)
    await eventually(lambda: gateway.phase(7) == "RUNNING")
    order.vm_id, order.uid = 8, vm_uid(8)
    order.intent.desired, order.is_erase = GONE, True
    gateway.send(order)
    await eventually(lambda: any(report.vm_id == 8 and report.is_gone for report in gateway.reports))
    assert agent.runs(7)


async def test_guests_end_by_themselves_and_their_policy_is_kept(agent: AgentProcess, gateway: FakeGateway) -> None:
    gateway.run(7)
    gateway.run(8)
    gateway.run(9, restart_policy=2)
    await eventually(lambda: all(gateway.phase(vm_id) == "RUNNING" for vm_id in (7, 8, 9)))
    agent.control("crash 7")
    agent.control("shutdown 8")
    agent.control("crash 9")
    await eventually(lambda: gateway.phase(8) == gateway.phase(9) == "POWERED_OFF")
    assert gateway.statuses[1, 8].reason == "GUEST_SHUT_DOWN"
    assert gateway.statuses[1, 9].reason == "GUEST_CRASHED"
    await eventually(lambda: gateway.phases_of(7) == ["STARTING", "RUNNING", "FAILED", "STARTING", "RUNNING"])


async def test_a_rebooted_host_says_so_and_runs_its_vms_again(agent: AgentProcess, gateway: FakeGateway) -> None:
    gateway.run(7)
    gateway.run(8, host_id=2)
    await eventually(lambda: gateway.phase(7) == gateway.phase(8, 2) == "RUNNING")
    before = {host.host_id: host.boot_id for host in gateway.hellos[-1].hosts}
    agent.control("reboot 1")
    await eventually(lambda: len(gateway.hellos) == 2)
    after = {host.host_id: host.boot_id for host in gateway.hellos[-1].hosts}
    assert after[1] != before[1] and after[2] == before[2]
    await eventually(lambda: agent.runs(7) and gateway.phase(7) == "RUNNING" and len(gateway.claims) >= 3)
    assert gateway.claims[-1].boot_id == after[1] and agent.guests()[2, 8].starts == 1


async def test_hosts_are_described_once_and_their_load_is_told(agent: AgentProcess, gateway: FakeGateway) -> None:
    await eventually(lambda: len(gateway.inventories) == 2)
    inventory = gateway.inventories[2]
    assert (inventory.driver, inventory.cpus, inventory.memory_mib) == ("sim", 16, 65536)
    assert inventory.uid == "host-2" and inventory.agent_version and "console" in inventory.capabilities


async def test_a_guest_without_an_order_is_listed_and_left_alone(agent: AgentProcess, gateway: FakeGateway) -> None:
    gateway.run(7)
    await eventually(lambda: gateway.phase(7) == "RUNNING")
    gateway.forget(7)
    gateway.drop()
    agent.settings["sample_interval_s"] = "0.1"
    await eventually(lambda: len(gateway.hellos) == 2)
    agent.kill()
    agent.start()
    await eventually(lambda: list(gateway.host_reports[1].orphans) == [f"vm 7 ({vm_uid(7)})"])
    assert agent.runs(7)


async def test_a_console_passes_both_ways(agent: AgentProcess, gateway: FakeGateway) -> None:
    gateway.run(7)
    await eventually(lambda: gateway.phase(7) == "RUNNING")
    ticket = gateway.open_tunnel(7, TUNNEL_KIND_CONSOLE)
    greeting = await gateway.tunnels[ticket].get()
    assert greeting is not None and vm_uid(7).encode() in greeting.data
    gateway.typed[ticket].put_nowait(OpenTunnelResponse(data=b"uname -a"))
    echo = await gateway.tunnels[ticket].get()
    assert echo is not None and echo.data == b"uname -a"
    gateway.typed[ticket].put_nowait(None)


async def test_a_consoles_log_comes_once(agent: AgentProcess, gateway: FakeGateway) -> None:
    gateway.run(7)
    await eventually(lambda: gateway.phase(7) == "RUNNING")
    ticket = gateway.open_tunnel(7, TUNNEL_KIND_CONSOLE_LOG, max_bytes=7)
    pieces = [await gateway.tunnels[ticket].get(), await gateway.tunnels[ticket].get()]
    assert pieces[0] is not None and pieces[0].data == b"login: " and pieces[1] is None


async def test_a_tunnel_to_a_guest_that_is_off_ends_with_the_reason(agent: AgentProcess, gateway: FakeGateway) -> None:
    ticket = gateway.open_tunnel(7, TUNNEL_KIND_CONSOLE)
    piece = await gateway.tunnels[ticket].get()
    assert piece is not None and piece.reason == "STATE_FORBIDS" and "does not run" in piece.message


async def test_a_hard_poweroff_does_not_wait_for_the_guest(agent: AgentProcess, gateway: FakeGateway) -> None:
    gateway.run(7, labels={"sim.ignore_acpi": "true"}, shutdown_grace_s=3600)
    await eventually(lambda: gateway.phase(7) == "RUNNING")
    gateway.want(7, OFF)
    await eventually(lambda: gateway.phase(7) == "POWERING_OFF")
    gateway.want(7, OFF, is_hard=True)
    await eventually(lambda: gateway.phase(7) == "POWERED_OFF")


async def test_many_vms_are_started_and_terminated_together(agent: AgentProcess, gateway: FakeGateway) -> None:
    for vm_id in range(1, 301):
        gateway.run(vm_id, 1 + vm_id % 2)
    await eventually(lambda: sum(agent.runs(vm, 1 + vm % 2) for vm in (1, 300)) == 2)
    await eventually(lambda: all(gateway.phase(vm, 1 + vm % 2) == "RUNNING" for vm in range(1, 301)))
    for vm_id in range(1, 301):
        gateway.want(vm_id, GONE, host_id=1 + vm_id % 2)
    await eventually(lambda: not gateway.statuses)
    assert agent.guests() == {}
