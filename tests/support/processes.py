"""Processes that a test starts, and their certain end, also when the test fails or its process is killed.

Every process carries a mark in its environment, which its children inherit: the end is found by the mark, so that one
that has left its group or session (a daemon, a QEMU of libvirt) is found too.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

MARK = "MOLN_TEST_MARK"
STOP_SECONDS = 10.0


class Processes:
    """What one test started. `close()` stops all of it: first asked to (SIGTERM), then made to (SIGKILL)."""

    def __init__(self, log_folder: Path) -> None:
        self.mark = f"{os.getpid()}-{_started(os.getpid())}-{uuid.uuid4().hex}"
        self._log_folder = log_folder
        self._children: list[subprocess.Popen[bytes]] = []

    def start(
        self,
        command: Sequence[str | Path],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        name: str = "",
    ) -> subprocess.Popen[bytes]:
        """Starts `command` in a session of its own; its output goes to `<log folder>/<name>.log`."""
        log = self.log(name or Path(command[0]).name)
        with log.open("ab") as output:
            child = subprocess.Popen(
                [str(word) for word in command], cwd=cwd, env=self.environment(env), start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            )  # fmt: skip
        self._children.append(child)
        return child

    def environment(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        """This process's environment, with `extra` and the mark."""
        return {**os.environ, **(extra or {}), MARK: self.mark}

    def log(self, name: str) -> Path:
        """Where the output of the process called `name` goes."""
        self._log_folder.mkdir(parents=True, exist_ok=True)
        return self._log_folder / f"{name}.log"

    def output(self, name: str) -> str:
        """What the process called `name` has written so far."""
        log = self.log(name)
        return log.read_text(errors="replace") if log.exists() else ""

    def alive(self) -> list[int]:
        """The processes that carry the mark and still run."""
        return [pid for pid, mark in marked() if mark == self.mark]

    def close(self) -> None:
        """Stops everything that carries the mark; safe to call twice."""
        stop_marked(lambda mark: mark == self.mark, self._reap)
        for child in self._children:  # one may have lost its environment, and so its mark, a moment before its end
            child.wait(STOP_SECONDS)

    def _reap(self) -> None:
        for child in self._children:
            child.poll()


def stop_orphans() -> int:
    """Stops what earlier test runs left behind, whose own process no longer exists; returns how many there were."""
    orphans = [pid for pid, mark in marked() if not _owner_lives(mark)]
    if orphans:
        stop_marked(lambda mark: not _owner_lives(mark), lambda: None)
    return len(orphans)


def stop_marked(is_ours: Callable[[str], bool], reap: Callable[[], None]) -> None:
    """Sends SIGTERM to all whose mark `is_ours`, SIGKILL to those that stay; `reap` collects the caller's children."""
    for number, limit in ((signal.SIGTERM, STOP_SECONDS), (signal.SIGKILL, STOP_SECONDS)):
        deadline = time.monotonic() + limit
        targets = [pid for pid, mark in marked() if is_ours(mark)]
        for pid in targets:
            _signal(pid, number)
        while targets and time.monotonic() < deadline:
            reap()
            targets = [pid for pid, mark in marked() if is_ours(mark)]
            time.sleep(0.01)
        if not targets:
            return


def marked() -> Iterator[tuple[int, str]]:
    """(pid, mark) of every living process that carries a mark, except this one."""
    prefix = f"{MARK}=".encode()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            variables = (entry / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        for variable in variables:
            if variable.startswith(prefix):
                yield int(entry.name), variable[len(prefix) :].decode(errors="replace")


def _owner_lives(mark: str) -> bool:
    pid, started, _ = mark.split("-", 2)
    return _started(int(pid)) == started


def _started(pid: int) -> str:
    """The start time of a process in clock ticks: with the pid it is unique while the machine is up; empty if gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    return stat.rsplit(")", 1)[1].split()[19]


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        return
