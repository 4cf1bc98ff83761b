"""A whole stack for tests: started and ended by the `moln` command as a user does, in folders of the test's own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc

from services.common import stacks
from services.devstack.layout import Folder
from tests.support.eventually import eventually_sync
from tests.support.processes import Processes

MOLN = Path(sys.executable).parent / "moln"
COMMAND_SECONDS = 300


class Stack:
    """A running stack. `moln(...)` runs the command against it and gives what it printed."""

    def __init__(self, parent: Path) -> None:
        self.path = parent / "s"
        self.folder = Folder(self.path)
        self.processes = Processes(parent / "log")
        self.environment = self.processes.environment(
            {"XDG_STATE_HOME": str(parent / "state"), "XDG_CACHE_HOME": str(parent / "cache"), "NO_COLOR": "1"}
        )
        for name in ("MOLN_CLOUD", "MOLN_ENDPOINT", "MOLN_TOKEN_FILE"):
            self.environment.pop(name, None)

    def run(self, *words: str | Path, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """Runs `moln` in the stack's environment, whatever comes of it."""
        return subprocess.run(
            [str(MOLN), *map(str, words)],
            env={**self.environment, "MOLN_CLOUD": str(self.path)},
            capture_output=True,
            text=True,
            check=False,
            timeout=COMMAND_SECONDS,
            input=stdin if stdin is not None else "",
        )

    def run_as(self, variables: Mapping[str, str], *words: str | Path) -> subprocess.CompletedProcess[str]:
        """Runs `moln` with these variables and no other cloud named, whatever comes of it."""
        return subprocess.run(
            [str(MOLN), *map(str, words)],
            env={**self.environment, **variables},
            capture_output=True,
            text=True,
            check=False,
            timeout=COMMAND_SECONDS,
            stdin=subprocess.DEVNULL,
        )

    def moln(self, *words: str | Path) -> str:
        """Runs `moln`, which must succeed, and returns what it printed."""
        done = self.run(*words)
        assert done.returncode == 0, f"moln {' '.join(map(str, words))}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def read(self, *words: str | Path) -> Any:
        """The same with `-o json`, parsed."""
        return json.loads(self.moln(*words, "-o", "json"))

    def up(self, *words: str) -> str:
        """Starts it, detached."""
        return self.moln("dev", "up", "--detach", "--state", self.path, *words)

    def down(self, *words: str) -> str:
        """Ends it."""
        return self.moln("dev", "down", "--state", self.path, *words)

    @property
    def endpoint(self) -> str:
        """Address of the gRPC API."""
        record = stacks.in_folder(self.path)
        assert record is not None, "the stack has left no record"
        return record.endpoint

    @property
    def token(self) -> str:
        """The administrator's token."""
        return self.folder.token_file.read_text().strip()

    @property
    def metadata(self) -> list[tuple[str, str]]:
        """What calls carry."""
        return [("authorization", f"Bearer {self.token}")]

    def channel(self) -> grpc.Channel:
        """A blocking connection to the API."""
        return grpc.insecure_channel(self.endpoint)

    def pid(self, name: str) -> int:
        """The process id of one of the stack's processes; 0 while it has none."""
        for child in json.loads(self.folder.processes.read_text()):
            if child["name"] == name:
                return int(child["pid"] or 0)
        raise AssertionError(f"the stack has no process {name}")

    def kill(self, name: str) -> None:
        """kill -9 of one process; the supervisor starts it again."""
        pid = eventually_sync(lambda: self.pid(name))
        os.kill(pid, signal.SIGKILL)

    def log(self, name: str) -> str:
        """The log of one process."""
        return self.folder.log_of(name).read_text(errors="replace")


@contextmanager
def a_stack(*words: str, environment: Mapping[str, str] | None = None) -> Iterator[Stack]:
    """A stack that is up; all of it is gone afterwards, also when the test fails. Its processes see `environment`."""
    parent = Path(tempfile.mkdtemp(prefix="moln-t-"))
    stack = Stack(parent)
    stack.environment.update(environment or {})
    try:
        stack.up(*words)
        yield stack
    finally:
        try:
            stack.run("dev", "down", "--state", stack.path, "--purge")
        finally:
            stack.processes.close()
            shutil.rmtree(parent, ignore_errors=True)
