"""What a stack can end with: one clear line, and the exit code."""

from __future__ import annotations

FAILED, USAGE, NOT_REACHED, NOT_FOUND, REFUSED = 1, 2, 3, 4, 5


class StackError(Exception):
    """The stack cannot do what was asked. The text names the thing and the remedy."""

    def __init__(self, message: str, code: int = FAILED) -> None:
        super().__init__(message)
        self.code = code
