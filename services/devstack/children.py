"""One process of a stack: started, started again with back-off when it ends by itself, and ended in order."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from services.common.runtime.process import PARENT_PID, READY_FILE, read_ready
from services.common.stacks import process_start_ticks
from services.devstack.errors import StackError

STACK_VARIABLE = "MOLN_STACK"
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 5.0
STEADY_SECONDS = 30.0
READY_SECONDS = 60.0
STOP_SECONDS = 40.0
KILL_SECONDS = 5.0
LOG_BYTES = 20 * 2**20
POLL_SECONDS = 0.02

Addresses = Mapping[str, str]
Probe = Callable[[], Awaitable[Addresses | None]]


@dataclass(frozen=True)
class ChildPlan:
    """What a process is started with."""

    name: str
    command: tuple[str, ...]
    log: Path
    ready_file: Path
    state_dir: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    folder: Path | None = None
    """Working directory."""
    prepare: Callable[[], None] = lambda: None
    """Done before each start."""
    probe: Probe | None = None
    """How readiness is found out where the process does not write its ready file itself."""
    stop_seconds: float = STOP_SECONDS
    is_ended_by_input: bool = False
    """It belongs to another user, so no signal reaches it: it ends when its standard input does. It stays in the
    session of the terminal, which sudo knows it by.
    """


class Child:
    """A process, over all its lives."""

    def __init__(self, plan: ChildPlan, on_change: Callable[[], None], say: Callable[[str], None]) -> None:
        self.plan = plan
        self.addresses: Addresses = {}
        self.starts = 0
        self.is_ready = False
        self._on_change = on_change
        self._say = say
        self._process: asyncio.subprocess.Process | None = None
        self._stop = asyncio.Event()
        self._end_code: int | None = None

    @property
    def pid(self) -> int:
        """Of the present life; 0 between two."""
        running = self._process is not None and self._process.returncode is None
        return self._process.pid if self._process is not None and running else 0

    async def run(self) -> None:
        """Keeps the process running until `stop`. One that ends before it was ever ready is not started again."""
        pause = FIRST_PAUSE
        while not self._stop.is_set():
            began = time.monotonic()
            process = await self._start()
            code = await process.wait()
            self._on_change()
            if self._stop.is_set():
                return
            if not self.is_ready:
                self._end_code = code
                return
            pause = FIRST_PAUSE if time.monotonic() - began > STEADY_SECONDS else min(pause * 2, LONGEST_PAUSE)
            self._say(f"{self.plan.name} {ended(code)}; it is started again in {pause:g} s (log: {self.plan.log})")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._stop.wait()

    async def ready(self, seconds: float = READY_SECONDS) -> Addresses:
        """Waits until the process answers. Raises StackError with its own last words when it does not."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            found = await self._look()
            if found is not None:
                self.addresses, self.is_ready = found, True
                self._on_change()
                return found
            if self._end_code is not None:
                raise StackError(f"{self.plan.name} {ended(self._end_code)}: {last_words(self.plan.log)}")
            await asyncio.sleep(POLL_SECONDS)
        raise StackError(f"{self.plan.name} was not ready within {seconds:g} s: {last_words(self.plan.log)}")

    async def stop(self) -> None:
        """Ends the process: asked first, killed when it takes too long. Safe to call twice."""
        self._stop.set()
        process = self._process
        if process is None or process.returncode is not None:
            return
        for number, seconds in ((signal.SIGTERM, self.plan.stop_seconds), (signal.SIGKILL, KILL_SECONDS)):
            self._ask(process, number)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await process.wait()
                return

    def kill(self) -> None:
        """Ends the process at once."""
        self._stop.set()
        if self._process is not None and self._process.returncode is None:
            self._ask(self._process, signal.SIGKILL)

    def describe(self) -> dict[str, object]:
        """For `moln dev status`."""
        ticks = process_start_ticks(self.pid) if self.pid else 0
        return {
            "name": self.plan.name, "pid": self.pid, "start_ticks": ticks, "starts": self.starts,
            "is_ready": self.is_ready and bool(self.pid), "addresses": dict(self.addresses), "log": str(self.plan.log),
        }  # fmt: skip

    async def _look(self) -> Addresses | None:
        if self.plan.probe is not None:
            return await self.plan.probe()
        return read_ready(self.plan.ready_file)

    async def _start(self) -> asyncio.subprocess.Process:
        self.plan.ready_file.unlink(missing_ok=True)
        self.plan.prepare()
        _rotate(self.plan.log)
        environment = {
            **os.environ, **self.plan.environment, READY_FILE: str(self.plan.ready_file),
            PARENT_PID: str(os.getpid()), STACK_VARIABLE: str(self.plan.state_dir),
        }  # fmt: skip
        given = asyncio.subprocess.PIPE if self.plan.is_ended_by_input else asyncio.subprocess.DEVNULL
        with self.plan.log.open("ab") as log:
            try:
                self._process = await asyncio.create_subprocess_exec(
                    *self.plan.command, env=environment, cwd=self.plan.folder, stdin=given, stdout=log, stderr=log,
                    start_new_session=not self.plan.is_ended_by_input,
                )  # fmt: skip
            except OSError as err:
                raise StackError(f"{self.plan.command[0]} cannot be started: {err.strerror or err}") from err
        self.starts += 1
        self._on_change()
        return self._process

    def _ask(self, process: asyncio.subprocess.Process, number: signal.Signals) -> None:
        if self.plan.is_ended_by_input and process.stdin is not None:
            process.stdin.close()
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(number)


def ended(code: int) -> str:
    """`was killed by SIGKILL`, `ended with code 1`."""
    if code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    return f"ended with code {code}"


def last_words(log: Path) -> str:
    """The last line that a process wrote, without the name that it begins with."""
    try:
        with log.open("rb") as handle:
            handle.seek(max(0, log.stat().st_size - 8192))
            lines = handle.read().decode(errors="replace").strip().splitlines()
    except OSError:
        lines = []
    if not lines:
        return f"it said nothing (log: {log})"
    return f"{lines[-1].strip()[:500]} (log: {log})"


def _rotate(log: Path) -> None:
    """Keeps one old log beside a new one."""
    with contextlib.suppress(FileNotFoundError):
        if log.stat().st_size > LOG_BYTES:
            log.replace(log.with_suffix(".log.1"))
