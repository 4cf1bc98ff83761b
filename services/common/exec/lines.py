"""Bytes into lines within bounds, and a bound for what is said about them in the log. No processes here."""

from __future__ import annotations

from collections.abc import Callable, Iterator


class LineTooLong(Exception):
    """A line has passed its bound before it ended."""


class LineBuffer:
    """Cuts a stream into lines of at most `most` bytes."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._rest = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The lines that are complete now, without their ends. Raises LineTooLong after the whole ones before it."""
        self._rest += data
        while (end := self._rest.find(b"\n")) >= 0:
            line = bytes(self._rest[:end])
            del self._rest[: end + 1]
            if len(line) > self._most:
                raise LineTooLong
            yield line
        if len(self._rest) > self._most:
            raise LineTooLong

    def shed(self) -> bytes:
        """Takes out what has come of a line that has not ended."""
        rest = bytes(self._rest)
        self._rest.clear()
        return rest


class Allowance:
    """At most `most` per `seconds`: what comes beyond is counted, and told with the first that is allowed again."""

    def __init__(self, most: int, seconds: float, now: Callable[[], float]) -> None:
        self._most, self._seconds, self._now = most, seconds, now
        self._began = now()
        self._used = 0
        self.withheld = 0

    def take(self) -> bool:
        """Whether one more may be said now."""
        if self._now() - self._began >= self._seconds:
            self._began, self._used = self._now(), 0
        self._used += 1
        if self._used <= self._most:
            return True
        self.withheld += 1
        return False

    def take_withheld(self) -> int:
        """How many were withheld since this was asked last."""
        withheld, self.withheld = self.withheld, 0
        return withheld
