"""The process: joining, its state folder, what it says when something is wrong, its metrics."""

from __future__ import annotations

import json
import stat
import urllib.request
from pathlib import Path

from tests.integration.hostagent.agent.conftest import AgentProcess, connected
from tests.support.eventually import eventually
from tests.support.gateway import CLOUD_UID, FakeGateway
from tests.support.processes import Processes


def fresh(folder: Path, running: Processes) -> AgentProcess:
    return AgentProcess(folder / "fresh", running)


async def test_a_node_joins_once_and_then_needs_only_its_folder(
    folder: Path, running: Processes, gateway: FakeGateway
) -> None:
    gateway.join_tokens["one-time"] = (5, "n5")
    agent = fresh(folder, running)
    agent.start("--join", "one-time", "--api", gateway.address)
    await eventually(lambda: gateway.hellos)
    host = gateway.hellos[0].hosts[0]
    assert (host.host_id, host.secret) == (5, "secret-5") and host.boot_id
    file = agent.state / "host.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    document = json.loads(file.read_text())
    assert document["cloud_uid"] == CLOUD_UID and "one-time" not in file.read_text()
    await agent.stop()
    agent.start()
    await eventually(lambda: len(gateway.hellos) == 2)
    await agent.stop()
    agent.start("--join", "one-time", "--api", gateway.address)
    await eventually(lambda: len(gateway.hellos) == 3)


async def test_many_hosts_join_with_the_tokens_in_their_file(
    folder: Path, running: Processes, gateway: FakeGateway
) -> None:
    agent = fresh(folder, running)
    entries = [{"name": f"sim-{number}", "join_token": f"token-{number}"} for number in range(1, 121)]
    gateway.join_tokens = {f"token-{number}": (number, f"sim-{number}") for number in range(1, 121)}
    agent.write_identity(gateway.address, hosts=entries)
    agent.start()
    await connected(gateway, hosts=120)
    assert "join_token" not in (agent.state / "host.json").read_text()


async def test_a_wrong_token_is_one_clear_line(folder: Path, running: Processes, gateway: FakeGateway) -> None:
    agent = fresh(folder, running)
    agent.start("--join", "wrong", "--api", gateway.address)
    assert await agent.ended() == 1
    assert "join token is wrong" in agent.output() and "Traceback" not in agent.output()


async def test_an_agent_that_waits_for_the_cloud_can_be_stopped(folder: Path, running: Processes) -> None:
    agent = fresh(folder, running)
    agent.start("--join", "one-time", "--api", "127.0.0.1:1")
    await eventually(lambda: (agent.state / "agent.lock").exists())
    assert await agent.stop() == 0


async def test_a_node_that_has_not_joined_is_told_how(folder: Path, running: Processes) -> None:
    agent = fresh(folder, running)
    agent.start()
    assert await agent.ended() == 2
    assert "has not joined a cloud: run `moln host create NAME`" in agent.output()


async def test_a_second_agent_on_the_same_folder_is_refused(agent: AgentProcess, running: Processes) -> None:
    second = AgentProcess(agent.state, running)
    second.start()
    assert await second.ended() == 2
    assert "another agent works on it" in second.output()


async def test_a_gateway_elsewhere_needs_tls(folder: Path, running: Processes) -> None:
    agent = fresh(folder, running)
    agent.write_identity("192.0.2.1:2634")
    agent.start()
    assert await agent.ended() == 2
    assert "192.0.2.1:2634 is on another machine" in agent.output()


async def test_a_refused_host_is_named_in_the_log(idle_agent: AgentProcess, gateway: FakeGateway) -> None:
    gateway.refused_hosts = {2: "its secret is wrong"}
    idle_agent.start()
    await connected(gateway, hosts=1)
    await eventually(lambda: "host refused by the gateway" in idle_agent.output())


async def test_metrics_tell_what_the_agent_does(agent: AgentProcess, gateway: FakeGateway) -> None:
    gateway.run(7)
    await eventually(lambda: gateway.phase(7) == "RUNNING")
    ready = json.loads((agent.state / "ready").read_text())
    with urllib.request.urlopen(f"http://{ready['addresses']['metrics']}/metrics") as page:  # noqa: ASYNC210  the page is another process's
        text = page.read().decode()
    assert 'moln_hostagent_guests{phase="running"} 1.0' in text
    assert 'moln_hostagent_deeds_total{deed="start",result="done"} 1.0' in text
    assert "moln_hostagent_connected 1.0" in text


async def test_a_command_that_is_not_understood_is_logged_and_the_next_one_obeyed(agent: AgentProcess) -> None:
    agent.control("fly 7")
    agent.control("set start_latency_s 0.1")
    await eventually(lambda: "command obeyed" in agent.output())
    assert "command not understood" in agent.output()
