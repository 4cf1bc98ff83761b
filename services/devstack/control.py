"""`moln dev up --detach`, `down`, `status`: looks at supervisors from outside and tells them to end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from services.common import stacks
from services.common.exec import run_program
from services.common.stacks import StackRecord, process_start_ticks
from services.devstack import cleanup
from services.devstack.children import last_words
from services.devstack.errors import NOT_FOUND, StackError
from services.devstack.layout import Folder
from services.devstack.nodes import ask_for_root
from services.devstack.stack import is_held

START_SECONDS = 300.0
STOP_SECONDS = 150.0
POLL_SECONDS = 0.05
Say = Callable[[str], None]


async def start_detached(folder: Folder, arguments: Sequence[str], say: Say) -> None:
    """Starts a supervisor on its own and returns when everything is up. Raises StackError with its last words."""
    folder.make()
    log = folder.log_of("stack")
    tail = _Tail(log, log.stat().st_size if log.exists() else 0, say)
    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "services.devstack", "up", "--state", str(folder.path), *arguments,
            stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        record = stacks.in_folder(folder.path)
        is_up = record is not None and record.pid == process.pid and record.is_ready
        tail.read()
        if is_up:
            tail.flush()
            return
        if process.returncode is not None:
            raise StackError(tail.last or last_words(log), process.returncode)
        await asyncio.sleep(POLL_SECONDS)
    process.terminate()
    raise StackError(f"the cloud was not up within {START_SECONDS:g} s: {last_words(log)}")


async def end(folder: Folder, say: Say, *, is_purged: bool) -> None:
    """Ends the stack in the folder, cleans up after it, and erases it where that is asked. Safe to repeat."""
    if not folder.is_stack():
        raise StackError(f"there is no cloud in {folder.path}", NOT_FOUND)
    record = stacks.in_folder(folder.path)
    if record is not None and is_held(folder):
        say(f"ending the cloud {record.name} in {folder.path}")
        await _stop(folder, record)
    for line in await cleanup.clean(folder, ("supervisor", "service")):
        say(line)
    if is_purged:
        await _purge(folder)
        say(f"{folder.path} is erased")
    else:
        say("the cloud has ended; `moln dev up` finds it as it was")


async def _stop(folder: Folder, record: StackRecord) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(record.pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_SECONDS
    while is_held(folder) or record.is_running():
        if time.monotonic() > deadline:
            raise StackError(
                f"process {record.pid} has not ended within {STOP_SECONDS:g} s: see {folder.log_of('stack')}"
            )
        await asyncio.sleep(POLL_SECONDS)


async def _purge(folder: Folder) -> None:
    link = folder.etcd
    if link.parent != folder.path:
        link.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            link.parent.rmdir()
    stacks.forget(folder.path, os.environ)
    try:
        await asyncio.to_thread(shutil.rmtree, folder.path)
    except PermissionError as err:
        if not ask_for_root(f"what the real node's agent made in {folder.path} is root's"):
            raise StackError(f"not all could be erased ({err.filename} is root's): sudo rm -rf {folder.path}") from err
        await run_program(["sudo", "-n", "rm", "-rf", "--", folder.path])
    except OSError as err:
        raise StackError(f"not all could be erased ({err.filename}: {err.strerror})") from err


def describe(folder: Folder | None) -> list[dict[str, Any]]:
    """The stacks of this machine (or the one in the folder), and the processes of each."""
    records = stacks.known(os.environ)
    if folder is not None:
        found = stacks.in_folder(folder.path)
        if found is None:
            raise StackError(f"there is no cloud in {folder.path}", NOT_FOUND)
        records = [found]
    return [_describe(record) for record in records]


def _describe(record: StackRecord) -> dict[str, Any]:
    folder = Folder(Path(record.state_dir))
    is_running = record.is_running()
    return {
        "name": record.name,
        "state_dir": record.state_dir,
        "state": ("ready" if record.is_ready else "starting") if is_running else "stopped",
        "pid": record.pid if is_running else 0,
        "endpoint": record.endpoint,
        "token_file": record.token_file,
        "start_time": record.start_time,
        "processes": _processes(folder) if is_running else [],
    }


def _processes(folder: Folder) -> list[dict[str, Any]]:
    try:
        found: list[dict[str, Any]] = json.loads(folder.processes.read_text())
    except (OSError, ValueError):
        return []
    for process in found:
        process["is_running"] = bool(process["pid"]) and process_start_ticks(process["pid"]) == process["start_ticks"]
    return found


class _Tail:
    """Passes on what the supervisor says; its last line is kept back, since that may be the one that ends it."""

    def __init__(self, log: Path, shown: int, say: Say) -> None:
        self._log = log
        self._shown = shown
        self._say = say
        self.last = ""

    def read(self) -> None:
        """Takes in what is new."""
        with self._log.open("rb") as handle:
            handle.seek(self._shown)
            text = handle.read()
        whole = text[: text.rfind(b"\n") + 1]
        self._shown += len(whole)
        for line in whole.decode(errors="replace").splitlines():
            self.flush()
            self.last = line.removeprefix("moln: ")

    def flush(self) -> None:
        """Passes on the line that was kept back."""
        if self.last:
            self._say(self.last)
        self.last = ""
