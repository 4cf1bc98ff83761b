"""What ends and comes back: the agent, its stream, its gateway. Guests neither notice nor run twice."""

from __future__ import annotations

import random

import pytest

from moln.compute.v1 import vm_pb2
from services.hostagent.drivers.ports import End
from tests.integration.hostagent.agent.conftest import AgentProcess, connected
from tests.support.eventually import eventually
from tests.support.gateway import FakeGateway

OFF = vm_pb2.DESIRED_STATE_POWERED_OFF


async def test_a_killed_agent_adopts_what_runs(agent: AgentProcess, gateway: FakeGateway) -> None:
    gateway.run(7)
    await eventually(lambda: gateway.phase(7) == "RUNNING")
    before = gateway.statuses[1, 7]
    agent.kill()
    gateway.statuses.clear()
    gateway.statuses[1, 7] = before
    agent.start()
    await eventually(lambda: len(gateway.hellos) == 2)
    await connected(gateway)
    assert (1, 7) in gateway.streams[0].reported
    assert agent.guests()[1, 7].starts == 1 and len(gateway.claims) == 1
    after = gateway.statuses[1, 7]
    assert (after.attempt, after.observed_generation) == (before.attempt, before.observed_generation)
    gateway.want(7, OFF)
    await eventually(lambda: gateway.phase(7) == "POWERED_OFF")


async def test_what_was_ordered_while_the_agent_was_away_is_done(agent: AgentProcess, gateway: FakeGateway) -> None:
    gateway.run(7)
    await eventually(lambda: gateway.phase(7) == "RUNNING")
    agent.kill()
    await eventually(lambda: not gateway.streams)
    gateway.want(7, vm_pb2.DESIRED_STATE_TERMINATED)
    gateway.run(8)
    agent.start()
    await eventually(lambda: gateway.phase(8) == "RUNNING" and (1, 7) not in gateway.statuses)
    assert list(agent.guests()) == [(1, 8)]


async def test_guests_run_on_without_a_gateway_and_are_reported_to_the_next(
    agent: AgentProcess, gateway: FakeGateway
) -> None:
    gateway.run(7)
    gateway.run(8)
    await eventually(lambda: gateway.phase(7) == gateway.phase(8) == "RUNNING")
    address = gateway.address
    await gateway.stop()
    agent.control("vanish 8")
    await eventually(lambda: not agent.runs(8))
    assert agent.runs(7)
    await gateway.start(address)
    await eventually(lambda: agent.runs(8))
    assert agent.guests()[1, 7].starts == 1 and agent.guests()[1, 8].starts == 2


async def test_a_report_that_was_not_answered_is_sent_again(agent: AgentProcess, gateway: FakeGateway) -> None:
    gateway.holds_acks = True
    gateway.run(7)
    await eventually(lambda: gateway.claims)
    gateway.drop()
    gateway.holds_acks = False
    await eventually(lambda: gateway.phase(7) == "RUNNING")
    assert [claim.attempt for claim in gateway.claims] == [1, 1]
    assert agent.guests()[1, 7].starts == 1


async def test_a_stream_that_was_cut_by_command_is_opened_again(agent: AgentProcess, gateway: FakeGateway) -> None:
    agent.control("disconnect 0.2")
    await eventually(lambda: len(gateway.hellos) == 2)
    await connected(gateway)


async def test_silent_hosts_stay_off_the_stream_until_they_speak(agent: AgentProcess, gateway: FakeGateway) -> None:
    agent.control("silence 2")
    await eventually(lambda: len(gateway.hellos) == 2)
    assert [host.host_id for host in gateway.hellos[-1].hosts] == [1]
    agent.control("speak")
    await eventually(lambda: len(gateway.hellos) == 3)
    assert [host.host_id for host in gateway.hellos[-1].hosts] == [1, 2]


async def test_the_next_address_is_tried_where_one_does_not_answer(
    idle_agent: AgentProcess, gateway: FakeGateway
) -> None:
    idle_agent.write_identity("127.0.0.1:1", gateway.address)
    idle_agent.start()
    await connected(gateway)


async def test_an_agent_that_takes_its_guests_along_runs_them_again_at_the_next_start(
    idle_agent: AgentProcess, gateway: FakeGateway
) -> None:
    idle_agent.settings["on_stop"] = "poweroff"
    idle_agent.start()
    await connected(gateway)
    gateway.run(7)
    gateway.run(8, restart_policy=2)
    await eventually(lambda: gateway.phase(7) == gateway.phase(8) == "RUNNING")
    assert await idle_agent.stop() == 0
    guests = idle_agent.guests()
    assert [(guest.is_running, guest.end) for guest in guests.values()] == [(False, End.BY_AGENT)] * 2
    assert gateway.phase(7) == "RUNNING", "nothing is reported of it: what is desired has not changed"
    idle_agent.start()
    await eventually(lambda: idle_agent.runs(7) and idle_agent.runs(8))


async def test_an_agent_that_keeps_its_guests_leaves_them_running(agent: AgentProcess, gateway: FakeGateway) -> None:
    gateway.run(7)
    await eventually(lambda: gateway.phase(7) == "RUNNING")
    assert await agent.stop() == 0
    assert agent.runs(7)


@pytest.mark.parametrize("seed", range(3))
async def test_after_kills_in_the_middle_of_a_burst_every_vm_runs_once(
    agent: AgentProcess, gateway: FakeGateway, seed: int
) -> None:
    randomly = random.Random(seed)
    for vm_id in range(1, 201):
        gateway.run(vm_id, 1 + vm_id % 2, labels={"sim.start_latency_s": f"{randomly.random():.2f}"})
    for _ in range(2):
        target = randomly.randrange(10, 190)
        await eventually(lambda target=target: len(agent.guests()) >= target)  # type: ignore[misc]
        agent.kill()
        agent.start()
        await connected(gateway)
    await eventually(lambda: sum(phase == "RUNNING" for phase in gateway.all_phases()) == 200)
    guests = agent.guests()
    assert len(guests) == 200 and all(guest.is_running for guest in guests.values())
    assert all(guest.starts == 1 for guest in guests.values()), "none was started anew while it ran"
