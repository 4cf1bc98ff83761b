"""Reads what a child says within bounds: messages from its output, text for the log from its standard error."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

from services.common.exec.lines import Allowance, LineBuffer, LineTooLong
from services.common.exec.protocol import Log, Message, NotAMessage, parse
from services.common.exec.trouble import ScriptLimits, ScriptMetrics

_CHUNK = 64 * 1024
_WINDOW_S = 10.0


class TooMuchGarbage(Exception):
    """The script says little else."""


class Hearing:
    """The ears for one process of a script. `last_words` is the last line of its standard error,
    `last_fault` what was wrong with its last line that was no message."""

    def __init__(self, script: str, limits: ScriptLimits, metrics: ScriptMetrics, log: Any) -> None:
        self._script, self._limits, self._metrics, self._log = script, limits, metrics, log
        self._garbage = 0
        self._allowed = {
            kind: Allowance(limits.logged_lines, _WINDOW_S, time.monotonic) for kind in ("stderr", "log", "garbage")
        }
        self.last_words = ""
        self.last_fault = ""

    async def messages(self, stream: asyncio.StreamReader) -> AsyncIterator[Message]:
        """The messages but those for the log, which go there. Raises LineTooLong and TooMuchGarbage."""
        buffer = LineBuffer(self._limits.line_bytes)
        while chunk := await stream.read(_CHUNK):
            for line in buffer.feed(chunk):
                message = self._message(line)
                if message is not None:
                    yield message
        if rest := buffer.shed():
            self._note_garbage(rest, "it was cut short")

    def _message(self, line: bytes) -> Message | None:
        if not line.strip():
            return None
        try:
            message = parse(line)
        except NotAMessage as err:
            self._note_garbage(line, str(err))
            return None
        if isinstance(message, Log):
            self._say("log", message.level, "script says", message.text)
            return None
        return message

    async def errors(self, stream: asyncio.StreamReader) -> None:
        """Brings standard error to the log, to its end; a line is cut where it passes the bound."""
        buffer = LineBuffer(self._limits.text_chars)
        while chunk := await stream.read(_CHUNK):
            try:
                for line in buffer.feed(chunk):
                    self._complain(line)
            except LineTooLong:
                self._complain(buffer.shed())
        self._complain(buffer.shed())

    def _complain(self, line: bytes) -> None:
        text = line.decode(errors="replace").strip()
        if text:
            self.last_words = text[: self._limits.text_chars]
            self._say("stderr", "info", "script complains", self.last_words)

    def _note_garbage(self, line: bytes, why: str) -> None:
        self._garbage += 1
        self.last_fault = why
        self._metrics.garbage(self._script)
        self._say("garbage", "warning", "script said what is no message", line[:200].decode(errors="replace"), why=why)
        if self._garbage >= self._limits.garbage_lines:
            raise TooMuchGarbage

    def _say(self, kind: str, level: str, event: str, text: str, **fields: Any) -> None:
        allowed = self._allowed[kind]
        if not allowed.take():
            return
        if withheld := allowed.take_withheld():
            self._log.warning("lines of a script were not logged", kind=kind, lines=withheld)
        getattr(self._log, level)(event, text=text[: self._limits.text_chars], **fields)
