"""Machines for tests: each an agent process with one host, simulated unless said, a network that can be cut, and a
watchdog whose hardware is played here. The truth of what runs is the machine's journal, which outlives its agent."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Mapping
from pathlib import Path

from services.common.runtime.process import read_ready
from tests.support.eventually import eventually_sync
from tests.support.proxy import Proxy
from tests.support.stack import Stack

ROOT = Path(__file__).resolve().parents[2]
WATCHDOG_S = 3.0
PROMISE_S = 12


class Machine:
    """One machine. `start` boots its agent; what its guests do is seen in `journal`."""

    def __init__(
        self, stack: Stack, folder: Path, name: str, *, has_watchdog: bool = False,
        driver: tuple[str, ...] = ("--driver", "sim"),
    ) -> None:  # fmt: skip
        self._stack, self.name, self._driver = stack, name, driver
        self._folder = folder / name
        self._folder.mkdir(mode=0o700)
        created = stack.read("host", "create", name)
        self.host_id = int(created["host"]["id"])
        self._token = created["join_token"]
        self.proxy = Proxy(created["node_address"])
        self.proxy.__enter__()
        self.journal = self._folder / "sim" / "hypervisors.journal"
        self.pid_file = self._folder / "pid"
        self._fifo = self._folder / "watchdog" if has_watchdog else None
        self._child: subprocess.Popen[bytes] | None = None
        self._hardware: Hardware | None = None
        self.reset_at = 0.0
        """When its watchdog has reset it (monotonic), 0 while it has not."""

    def start(self) -> None:
        """Boots the agent, and waits until the cloud has it."""
        ready = self._folder / "ready"
        ready.unlink(missing_ok=True)
        if self._fifo is not None:
            self._fifo.unlink(missing_ok=True)
            os.mkfifo(self._fifo)
            self._hardware = Hardware(self._fifo, self._reset)
        command: list[str | Path] = [sys.executable, "-m", "services.hostagent", "--state", self._folder]
        command += [*self._driver, "--join", self._token, "--api", self.proxy.address]
        self._child = self._stack.processes.start(
            command, env=self._settings(ready), cwd=ROOT, name=f"{self.name}-agent"
        )  # fmt: skip
        self.pid_file.write_text(f"{self._child.pid}\n")
        eventually_sync(lambda: ready.exists() and read_ready(ready) is not None, what=f"agent of {self.name}")
        eventually_sync(lambda: self.state() == "UP", what=f"{self.name} is up")
        if self._fifo is not None:
            eventually_sync(lambda: self.host()["inventory"].get("self_fence_s") == PROMISE_S, what="the promise")

    def _settings(self, ready: Path) -> Mapping[str, str]:
        found = {"MOLN_READY_FILE": str(ready), "MOLN_HOSTAGENT_METRICS_ADDRESS": ""}
        if self._fifo is not None:
            found |= {
                "MOLN_HOSTAGENT_WATCHDOG_DEVICE": str(self._fifo),
                "MOLN_HOSTAGENT_WATCHDOG_TIMEOUT_S": str(int(WATCHDOG_S)),
                "MOLN_HOSTAGENT_SELF_FENCE_S": str(PROMISE_S),
            }
        return found

    def host(self) -> dict[str, dict[str, object]]:
        """The host as the cloud shows it."""
        found: dict[str, dict[str, object]] = self._stack.read("host", "show", self.name)
        return found

    def state(self) -> object:
        """Its state."""
        return self.host()["view"]["state"]

    def signal(self, number: signal.Signals) -> None:
        """To the agent alone: guests of a hypervisor do not notice."""
        assert self._child is not None
        self._child.send_signal(number)
        if number is signal.SIGKILL:
            self._child.wait()

    def power_loss(self) -> None:
        """The whole machine is gone at this moment: its agent, and every guest."""
        self.signal(signal.SIGKILL)
        with self.journal.open("a") as journal:
            journal.write(f"B\t{self.host_id}\t{uuid.uuid4()}\t{time.time():.3f}\n")

    def _reset(self) -> None:
        self.reset_at = time.monotonic()
        self.power_loss()

    def close(self) -> None:
        """Ends everything of it."""
        if self._hardware is not None:
            self._hardware.close()
        if self._child is not None:
            self._child.kill()
            self._child.wait()
        self.proxy.__exit__(None, None, None)


class Hardware:
    """The watchdog's hardware: armed by the first byte, it calls `reset` where none follows in time; `V` stops it."""

    def __init__(self, fifo: Path, reset: object) -> None:
        self._reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
        self._keeper = os.open(fifo, os.O_WRONLY)
        """Keeps the pipe from ending with its writer: a closed watchdog counts on."""
        self._reset = reset
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._count, daemon=True)
        self._thread.start()

    def _count(self) -> None:
        is_armed, deadline = False, 0.0
        while not self._is_over.is_set():
            readable, _, _ = select.select([self._reader], [], [], 0.05)
            if readable:
                is_armed = not os.read(self._reader, 4096).endswith(b"V")
                deadline = time.monotonic() + WATCHDOG_S
            elif is_armed and time.monotonic() >= deadline:
                assert callable(self._reset)
                self._reset()
                return

    def close(self) -> None:
        """Takes it out of the machine."""
        self._is_over.set()
        self._thread.join()
        os.close(self._reader)
        os.close(self._keeper)
