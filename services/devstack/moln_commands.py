"""Runs `moln` commands as a person would, for the demo: every command is shown with what it prints."""

from __future__ import annotations

import json
import os
import re
import selectors
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from services.devstack.errors import StackError

SECONDS = 180.0


class Moln:
    """The `moln` command, speaking to one cloud."""

    def __init__(self, state: Path, cache: Path, say: Callable[[str], None]) -> None:
        self._environment = {**os.environ, "MOLN_CLOUD": str(state), "NO_COLOR": "1"}
        self._cache = {"XDG_CACHE_HOME": str(cache)}
        self._say = say

    def show(self, *words: str, hides: str = "") -> str:
        """Runs a command and prints it with its output. Raises StackError with its own words when it fails."""
        command = shlex.join(("moln", *words))
        self._say(f"$ {command.replace(hides, '…') if hides else command}")
        output = self.run(*words)
        for line in output.splitlines():
            self._say(f"  {line}")
        return output

    def run(self, *words: str) -> str:
        """Runs a command in silence and returns what it prints."""
        try:
            done = subprocess.run(
                self._command(words), env=self._variables(words), stdin=subprocess.DEVNULL, capture_output=True,
                text=True, check=False, timeout=SECONDS,
            )  # fmt: skip
        except subprocess.TimeoutExpired as err:
            raise StackError(f"`moln {shlex.join(words)}` did not end within {SECONDS:g} s") from err
        if done.returncode != 0:
            raise StackError(f"`moln {shlex.join(words)}` failed: {done.stderr.strip().removeprefix('moln: ')}")
        return done.stdout

    def read(self, *words: str) -> Any:
        """What a command prints with `-o json`."""
        return json.loads(self.run(*words, "-o", "json"))

    def console(self, vm: str) -> Console:
        """A terminal on the guest's serial console."""
        words = ("vm", "console", vm)
        return Console(self._command(words), self._variables(words))

    def _variables(self, words: Sequence[str]) -> dict[str, str]:
        """What the command caches goes with the demo; what a stack caches saves the next one seconds."""
        return self._environment if words[0] == "dev" else {**self._environment, **self._cache}

    @staticmethod
    def _command(words: Sequence[str]) -> list[str]:
        return [sys.executable, "-m", "services.cli", *words]


class Console:
    """Types on a serial console and reads what the guest answers."""

    def __init__(self, command: Sequence[str], environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
        )
        self._seen = b""

    def __enter__(self) -> Console:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.kill()
        self._process.communicate()

    def type(self, line: str) -> None:
        """Types a line, with Enter."""
        assert self._process.stdin is not None  # noqa: S101  (for the type checker: it is a pipe)
        self._process.stdin.write(line.encode() + b"\n")

    def until(self, pattern: str, seconds: float) -> str:
        """Reads until a line matches, and returns the match. Raises StackError when none has in time."""
        assert self._process.stdout is not None  # noqa: S101
        deadline = time.monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while time.monotonic() < deadline:
                found = re.search(pattern, self._seen.decode(errors="replace"))
                if found:
                    return found[0]
                if selector.select(0.2):
                    data = os.read(self._process.stdout.fileno(), 65536)
                    if not data:
                        break
                    self._seen += data
        last = self._seen.decode(errors="replace").strip().splitlines()[-1:] or ["nothing"]
        raise StackError(f"the guest's console did not show '{pattern}' within {seconds:g} s; its last line: {last[0]}")
