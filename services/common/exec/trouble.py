"""What goes wrong with scripts, the bounds that are kept with them, and what may be counted about them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

TIMED_OUT = "TIMED_OUT"
DIED = "DIED"
CLOSED = "CLOSED"
BUSY = "BUSY"
NOT_STARTED = "NOT_STARTED"
TOO_LARGE = "TOO_LARGE"
_OPEN = frozenset({TIMED_OUT, DIED, CLOSED})


class ScriptError(Exception):
    """A request that came to nothing. `reason` is the script's own, or one of the constants above.

    `is_retryable`: the same request may do better later. The text names the script and the method.
    """

    def __init__(self, reason: str, message: str, *, is_retryable: bool) -> None:
        super().__init__(message)
        self.reason, self.message, self.is_retryable = reason, message, is_retryable

    @property
    def may_be_done(self) -> bool:
        """The script has not answered: what was asked for may have been done, or half of it."""
        return self.reason in _OPEN


@dataclass(frozen=True, slots=True)
class ScriptLimits:
    """Bounds of one script. All times in seconds, sizes in bytes."""

    request_s: float = 60.0
    """From a call to its answer, the time in which it waits for its turn included."""
    hello_s: float = 10.0
    cancel_grace_s: float = 5.0
    """A script that answers to a cancel no sooner is killed and started again."""
    recover_s: float = 10.0
    """In which a script that was started again must say what has become of what was in flight."""
    stop_grace_s: float = 5.0
    line_bytes: int = 1 << 20
    """A longer line ends the script."""
    waiting: int = 1000
    """Requests that may wait for their turn."""
    garbage_lines: int = 1000
    """A script that has said so many lines that are no messages is killed and started again."""
    logged_lines: int = 50
    """Lines that are logged in ten seconds, of each kind; the others are counted."""
    text_chars: int = 2000
    """What is logged of one line."""


class ScriptMetrics(Protocol):
    """What is counted. The labels are bounded: names of scripts and methods are ours."""

    def answered(self, script: str, method: str, outcome: str, seconds: float) -> None:
        """A request has ended: `done`, or the reason of its error where that is one of the constants, or `failed`."""
        ...

    def died(self, script: str) -> None:
        """A process of the script has ended that was not asked to."""
        ...

    def garbage(self, script: str) -> None:
        """A line was no message."""
        ...


class NoMetrics:
    """Counts nothing. Implements ScriptMetrics."""

    def answered(self, script: str, method: str, outcome: str, seconds: float) -> None:
        """Not counted."""

    def died(self, script: str) -> None:
        """Not counted."""

    def garbage(self, script: str) -> None:
        """Not counted."""


def outcome_of(error: ScriptError | None) -> str:
    """The label of an outcome."""
    if error is None:
        return "done"
    known = error.reason in _OPEN | {BUSY, NOT_STARTED, TOO_LARGE}
    return error.reason.lower() if known else "failed"
