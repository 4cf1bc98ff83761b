"""Exit codes, and the one error that commands raise: a clear line for the user and the code to leave with."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """What the exit code says; scripts rely on these."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    NOT_REACHED = 3
    NOT_FOUND = 4
    REFUSED = 5
    UNREACHABLE = 6
    INTERRUPTED = 130


class CliError(Exception):
    """A command cannot go on. `message` names the thing and the remedy; it may have further lines.

    `reason` is the word of the closed list where the cloud gave one, else empty.
    """

    def __init__(self, message: str, code: Exit = Exit.FAILED, *, reason: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.reason = reason


def usage(message: str) -> CliError:
    """An error in what the user typed."""
    return CliError(message, Exit.USAGE)
