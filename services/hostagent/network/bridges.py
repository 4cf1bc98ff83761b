"""The bridges of a node: made when a guest needs them, removed with the last. Holds no policy on addresses."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager

from services.hostagent.network import nat, netlink
from services.hostagent.network.netlink import MarkedBridge
from services.hostagent.network.spec import BridgeSpec


class Bridges:
    """One at a time makes or removes; a bridge that a start holds is not removed under it."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._held: Counter[str] = Counter()

    @asynccontextmanager
    async def held(self, names: Sequence[str]) -> AsyncIterator[None]:
        """None of them is removed while the block lasts; what nobody uses after it goes.

        In the block a guest starts: its interfaces are on the bridges when it is left, or it has failed.
        """
        self._held.update(names)
        try:
            yield
        finally:
            self._held.subtract(names)
            await self.release(names)

    async def ensure(self, specs: Iterable[BridgeSpec]) -> None:
        """Makes them, or brings those that are there to what is asked for. Raises NetworkError."""
        async with self._lock:
            for spec in specs:
                await asyncio.to_thread(netlink.ensure, spec)
                await nat.ensure(spec)

    async def release(self, names: Iterable[str]) -> None:
        """Removes those that are moln's and have no interface left; the others stay."""
        async with self._lock:
            for bridge in await self._idle(set(names)):
                if await asyncio.to_thread(netlink.delete, bridge.name):
                    await nat.remove(bridge.name, f"moln:{bridge.network_uid}")

    async def marked(self) -> list[MarkedBridge]:
        """All bridges of moln's on this node."""
        return await asyncio.to_thread(netlink.marked)

    async def _idle(self, names: set[str]) -> list[MarkedBridge]:
        if not names:
            return []
        bridges = await self.marked()
        return [
            bridge for bridge in bridges if bridge.name in names and not bridge.ports and not self._held[bridge.name]
        ]
