"""An agent process on simulated hosts, with a gateway that stands in for the api's."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from services.hostagent.drivers.sim.journal import SimGuest, read_state
from tests.support.eventually import eventually
from tests.support.gateway import CLOUD_UID, FakeGateway
from tests.support.processes import Processes

REPO = Path(__file__).parents[4]


class AgentProcess:
    """`python -m services.hostagent`, which can be killed and started again."""

    def __init__(self, state: Path, processes: Processes, *, hosts: int = 1) -> None:
        self.state, self._processes, self._hosts = state, processes, hosts
        self._child: subprocess.Popen[bytes] | None = None
        self.settings: dict[str, str] = {"driver": "sim"}

    def write_identity(self, *addresses: str, **more: Any) -> None:
        """The hosts, as if they had joined."""
        hosts = [
            {"host_id": number, "uid": f"host-{number}", "name": f"sim-{number}", "secret": f"secret-{number}"}
            for number in range(1, self._hosts + 1)
        ]
        document = {"cloud_uid": CLOUD_UID, "api": list(addresses), "hosts": hosts, **more}
        self.state.mkdir(parents=True, exist_ok=True)
        (self.state / "host.json").write_text(json.dumps(document))

    def start(self, *arguments: str) -> None:
        """Starts the process; does not wait for it."""
        environment = {f"MOLN_HOSTAGENT_{name.upper()}": value for name, value in self.settings.items()}
        environment |= {"MOLN_HOSTAGENT_METRICS_ADDRESS": "127.0.0.1:0", "MOLN_READY_FILE": str(self.state / "ready")}
        command = [sys.executable, "-m", "services.hostagent", "--state", str(self.state), *arguments]
        self._child = self._processes.start(command, env=environment, cwd=REPO, name="agent")

    def kill(self) -> None:
        """kill -9."""
        assert self._child is not None
        os.kill(self._child.pid, signal.SIGKILL)
        self._child.wait(30)

    async def stop(self) -> int:
        """Asks it to end, and returns its exit status."""
        assert self._child is not None
        os.kill(self._child.pid, signal.SIGTERM)
        return await self.ended()

    async def ended(self) -> int:
        """Waits for its end, and returns its exit status; the gateway of the test goes on meanwhile."""
        assert self._child is not None
        return await asyncio.to_thread(self._child.wait, 30)

    def control(self, line: str) -> None:
        """A command to the simulator."""
        with (self.state / "sim" / "control").open("a") as file:
            file.write(line + "\n")

    def output(self) -> str:
        """What it has written."""
        return self._processes.output("agent")

    def guests(self) -> dict[tuple[int, int], SimGuest]:
        """What the simulated hypervisors hold."""
        return read_state(self.state / "sim" / "hypervisors.journal").guests

    def runs(self, vm_id: int, host_id: int = 1) -> bool:
        """Whether a guest runs in the simulated hypervisor."""
        guest = self.guests().get((host_id, vm_id))
        return guest is not None and guest.is_running


@pytest.fixture
async def gateway() -> AsyncIterator[FakeGateway]:
    """A gateway that listens."""
    async with FakeGateway() as made:
        yield made


@pytest.fixture
def idle_agent(folder: Path, running: Processes, gateway: FakeGateway) -> AgentProcess:
    """An agent of two hosts that has not been started."""
    made = AgentProcess(folder / "node", running, hosts=2)
    made.write_identity(gateway.address)
    return made


@pytest.fixture
async def agent(idle_agent: AgentProcess, gateway: FakeGateway) -> AgentProcess:
    """One that is connected."""
    idle_agent.start()
    await connected(gateway)
    return idle_agent


async def connected(gateway: FakeGateway, hosts: int = 2) -> None:
    """Waits until so many hosts are synced."""
    await eventually(lambda: sum(len(stream.synced) for stream in gateway.streams) == hosts, what="hosts are synced")
