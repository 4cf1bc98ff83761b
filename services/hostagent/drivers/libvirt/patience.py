"""How long is waited for a hypervisor: up to a limit, and no longer once nobody hopes for an answer. Calls nothing."""

from __future__ import annotations

import asyncio
from typing import Any


class Patience:
    """Shared by all connections to a hypervisor. Lost once, it does not come back: for the end of a process."""

    def __init__(self) -> None:
        self.is_lost = False
        self._waiting: set[asyncio.Future[None]] = set()

    def lose(self) -> None:
        """Whoever waits goes on at once, and nobody waits any more. Safe to call twice."""
        self.is_lost = True
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_result(None)

    async def wait(self, under_way: asyncio.Future[Any], seconds: float) -> None:
        """Returns when it is done, after `seconds`, or when patience is lost. What it is done with is not looked at."""
        if self.is_lost:
            return
        lost = asyncio.get_running_loop().create_future()
        self._waiting.add(lost)
        try:
            await asyncio.wait({under_way, lost}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._waiting.discard(lost)
