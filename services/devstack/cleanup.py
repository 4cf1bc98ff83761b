"""Processes that a killed stack has left behind: found by its folder in their command line, ended in order.

Touches nothing that does not name the folder, and no guest: those are the agent's.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from services.common.stacks import process_start_ticks
from services.devstack.layout import Folder

STOP_SECONDS = 45.0
KILL_SECONDS = 5.0
POLL_SECONDS = 0.05
_SERVICE_WORDS = ("services.", "--data-dir=")
"""What the command line of a service or of etcd has, and that of an editor or a shell has not."""


@dataclass(frozen=True)
class Leftover:
    """A process of a stack."""

    pid: int
    title: str
    kind: str = "service"
    """`service`, `supervisor`, or `guest`: a hypervisor's."""


def leftovers(folder: Folder) -> list[Leftover]:
    """The processes that work for the stack in the folder, but for this one and its parents."""
    own = set(_ancestors())
    return [found for pid, words in _command_lines() if pid not in own and (found := _judge(pid, words, folder))]


async def clean(folder: Folder, kinds: Collection[str] = ("service",), *, older_than: int = 0) -> list[str]:
    """Ends those of these kinds, asked first and then killed; says what was done, one line each.

    `older_than`: only supervisors that were started before this time (clock ticks since boot); 0: all.
    """
    found = [
        item
        for item in leftovers(folder)
        if item.kind in kinds
        and not (item.kind == "supervisor" and older_than and process_start_ticks(item.pid) >= older_than)
    ]
    for number, seconds in ((signal.SIGTERM, STOP_SECONDS), (signal.SIGKILL, KILL_SECONDS)):
        deadline = time.monotonic() + seconds
        left = _signalled(found, number)
        while left and time.monotonic() < deadline:
            await asyncio.sleep(POLL_SECONDS)
            left = [item for item in left if _is_alive(item.pid)]
        if not left:
            break
    return [f"{item.title} (process {item.pid}) was ended" for item in found]


def _judge(pid: int, words: list[str], folder: Folder) -> Leftover | None:
    roots = (str(folder.path), str(folder.etcd))
    if not any(_names(word, root) for word in words for root in roots):
        return None
    program = Path(words[0]).name
    if program.startswith(("qemu", "libvirtd", "virtqemud", "dnsmasq")):
        return Leftover(pid, program, "guest")
    if "services.devstack" in words and "up" in words:
        return Leftover(pid, "supervisor", "supervisor")
    for word in words:
        if word.startswith(_SERVICE_WORDS):
            return Leftover(pid, "etcd" if word.startswith("--data-dir") else word)
    return None


def _names(word: str, root: str) -> bool:
    """Whether a word of a command line names the folder or something in it."""
    place = word.find(root)
    return place >= 0 and word[place + len(root) :][:1] in ("", "/", ",", "'", '"')


def _command_lines() -> Iterator[tuple[int, list[str]]]:
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            words = (entry / "cmdline").read_bytes().decode(errors="replace").rstrip("\0").split("\0")
            if words != [""]:
                yield int(entry.name), words


def _ancestors() -> Iterator[int]:
    pid = os.getpid()
    while pid > 1:
        yield pid
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            return


def _signalled(items: list[Leftover], number: signal.Signals) -> list[Leftover]:
    """Sends the signal; returns those that exist. What belongs to another user ends by itself: its parent is gone."""
    left = []
    for item in items:
        if not _is_alive(item.pid):
            continue
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(item.pid, number)
        left.append(item)
    return left


def _is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state not in "ZX"
