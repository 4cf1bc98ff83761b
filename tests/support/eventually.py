"""Waiting for a condition instead of sleeping. The limit is a guard against a hang, never a measurement."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar, overload

T = TypeVar("T")
LIMIT_SECONDS = 30.0
PAUSE_SECONDS = 0.01


@overload
async def eventually(check: Callable[[], Awaitable[T]], *, what: str = "", within: float = LIMIT_SECONDS) -> T: ...
@overload
async def eventually(check: Callable[[], T], *, what: str = "", within: float = LIMIT_SECONDS) -> T: ...
async def eventually(check: Callable[[], object], *, what: str = "", within: float = LIMIT_SECONDS) -> object:
    """Calls `check` (a function, sync or async) until what it returns is true, and returns that.

    A check may fail with AssertionError until the condition holds; the last such failure is the one shown.
    """
    wait = _Wait(check, what, within)
    while True:
        try:
            found = check()
            if inspect.isawaitable(found):
                found = await found
            if found:
                return found
            wait.again(None)
        except AssertionError as err:
            wait.again(err)
        await asyncio.sleep(PAUSE_SECONDS)


def eventually_sync(check: Callable[[], T], *, what: str = "", within: float = LIMIT_SECONDS) -> T:
    """The same for tests without an event loop."""
    wait = _Wait(check, what, within)
    while True:
        try:
            if found := check():
                return found
            wait.again(None)
        except AssertionError as err:
            wait.again(err)
        time.sleep(PAUSE_SECONDS)


class GaveUp(Exception):
    """The condition did not come to hold."""


class _Wait:
    """The clock of one wait: decides whether there is another try."""

    def __init__(self, check: Callable[..., object], what: str, within: float) -> None:
        self._what = what or getattr(check, "__qualname__", repr(check))
        self._within = within
        self._deadline = time.monotonic() + within

    def again(self, last: AssertionError | None) -> None:
        """Returns if there is time for another try; GaveUp, with the last failure as cause, if not."""
        if time.monotonic() < self._deadline:
            return
        shown = f": {last}" if last is not None and str(last) else ""
        raise GaveUp(f"not within {self._within:g} s: {self._what}{shown}") from last
