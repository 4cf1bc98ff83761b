"""One process of a script, from its start to its end. Knows what is said, not what it is about."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from services.common.exec.child import Child
from services.common.exec.hearing import Hearing, TooMuchGarbage
from services.common.exec.lines import LineTooLong
from services.common.exec.protocol import Hello, Message, shutdown_line
from services.common.exec.trouble import ScriptLimits
from services.common.runtime.background import Background

_LAST_WORDS_S = 1.0
"""How long what an ended script still had to say is waited for: it is in the pipes already, but for stray writers."""


class Life:
    """`run` lasts as long as the process. `heard` is called with each message after the hello, `greeted` with that."""

    def __init__(
        self, child: Child, hearing: Hearing, limits: ScriptLimits, *,
        greeted: Callable[[Hello], None], heard: Callable[[Message], None], log: Any,
    ) -> None:  # fmt: skip
        self._child, self._hearing, self._limits = child, hearing, limits
        self._greeted, self._heard, self._log = greeted, heard, log
        self._has_greeted = asyncio.Event()
        self._has_said_all = asyncio.Event()
        self._ending = asyncio.Event()
        self._cause = ""
        self.hello: Hello | None = None

    async def run(self) -> str:
        """Returns why it has ended, in words. When this returns or is cancelled, nothing of the process is left."""
        try:
            async with Background() as tasks:
                tasks.start(self._hear(), name="script's output")
                tasks.start(self._hear_errors(), name="script's errors")
                tasks.start(self._watch_hello(), name="script's hello")
                tasks.start(self._watch_exit(), name="script's exit")
                await self._ending.wait()
        finally:
            await self._child.end()
        return self._cause

    def say(self, line: bytes) -> None:
        """Writes a line; to one that is ending it is lost."""
        if not self._ending.is_set() and not self._child.stdin.is_closing():
            self._child.stdin.write(line)

    def end(self, cause: str) -> None:
        """It must end, for this cause. The first one counts."""
        if not self._ending.is_set():
            self._cause = cause
            self._ending.set()

    async def shut_down(self) -> None:
        """Asks it to end and gives it its grace; then it must."""
        self.say(shutdown_line())
        self._child.stdin.close()
        try:
            async with asyncio.timeout(self._limits.stop_grace_s):
                await self._ending.wait()
        except TimeoutError:
            self.end(f"it did not shut down within {self._limits.stop_grace_s:g} s")

    async def _hear(self) -> None:
        try:
            async for message in self._hearing.messages(self._child.stdout):
                self._take(message)
        except LineTooLong:
            self.end(f"it said a line of more than {self._limits.line_bytes} bytes")
        except TooMuchGarbage:
            self.end(f"it said {self._limits.garbage_lines} lines that are no messages")
        self._has_said_all.set()

    def _take(self, message: Message) -> None:
        if isinstance(message, Hello):
            if self.hello is None:
                self.hello = message
                self._has_greeted.set()
                self._greeted(message)
        elif self.hello is None:
            self._log.warning("script spoke before its hello", message=type(message).__name__)
        else:
            self._heard(message)

    async def _hear_errors(self) -> None:
        await self._hearing.errors(self._child.stderr)

    async def _watch_hello(self) -> None:
        try:
            async with asyncio.timeout(self._limits.hello_s):
                await self._has_greeted.wait()
        except TimeoutError:
            fault = self._hearing.last_fault
            said = f"; what it said last is no message: {fault}" if fault else ""
            self.end(f"it said no hello within {self._limits.hello_s:g} s{said}")

    async def _watch_exit(self) -> None:
        how = await self._child.wait()
        self._child.kill()
        try:
            async with asyncio.timeout(_LAST_WORDS_S):
                await self._has_said_all.wait()
        except TimeoutError:
            self._log.warning("a script's output is held open by what it has left")
        words = self._hearing.last_words
        self.end(f"{how}: {words}" if words else how)
