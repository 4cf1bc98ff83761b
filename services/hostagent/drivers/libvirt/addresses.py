"""Asks the agents of running guests for their addresses, one after the other, and tells of those that changed.

A guest without an agent costs a call that fails at once; one whose agent hangs is left alone for a while.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection

from services.common.domain.errors import MolnError
from services.hostagent.drivers.libvirt.guestagent import GuestAgents

PAUSE_S = 10.0
HANGS_S = 1.0
LEFT_ALONE_S = 300.0


class AddressWatch:
    """What guests' agents say of their addresses. `running` gives the uids to ask; `changed` is told of uids."""

    def __init__(
        self,
        agents: GuestAgents,
        running: Callable[[], Awaitable[Collection[str]]],
        changed: Callable[[str], None],
    ) -> None:
        self._agents, self._running, self._changed = agents, running, changed
        self._known: dict[str, tuple[str, ...]] = {}
        self._not_before: dict[str, float] = {}

    def known(self, uid: str) -> tuple[str, ...] | None:
        """The addresses that were told last; None where none ever were."""
        return self._known.get(uid)

    async def run(self) -> None:
        """For ever."""
        while True:
            await asyncio.sleep(PAUSE_S)
            try:
                await self.round()
            except MolnError:
                continue  # the hypervisor does not answer: others notice and say so

    async def round(self) -> None:
        """Asks every running guest once."""
        running = await self._running()
        for uid in (self._known.keys() | self._not_before.keys()) - set(running):
            self._known.pop(uid, None)
            self._not_before.pop(uid, None)
        clock = asyncio.get_running_loop()
        for uid in running:
            if clock.time() >= self._not_before.get(uid, 0.0):
                await self._ask(uid, clock.time)

    async def _ask(self, uid: str, now: Callable[[], float]) -> None:
        began = now()
        try:
            found = await self._agents.addresses(uid)
        except MolnError:
            if now() - began > HANGS_S:
                self._not_before[uid] = now() + LEFT_ALONE_S
            return
        if found != self.known(uid):
            self._known[uid] = found
            self._changed(uid)
