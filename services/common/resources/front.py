"""What every RPC of a service with a leader does first: who calls, is the cache new enough, does this process lead."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from moln.operations.v1.records_pb2 import LeaderRecord
from services.common.domain.caller import Caller
from services.common.domain.errors import MolnError
from services.common.domain.reasons import Reason
from services.common.resources.stored import stored
from services.common.rpc import current_call
from services.common.store import Leadership, Store

MIN_REVISION_HEADER = "moln-min-revision"
WAIT_SECONDS = 5.0


class Front:
    """The door of one service."""

    def __init__(self, store: Store, name: str) -> None:
        self._leadership: Leadership | None = None
        self._is_set = asyncio.Event()
        self._store = store
        self._name = name
        self._one_at_a_time = asyncio.Lock()

    async def reader(self) -> Caller:
        """The caller of an RPC that reads, once the cache is as new as he asks for.

        Raises UNAVAILABLE/STORE_STALE. For internal calls only: the secret was checked by the server's gate.
        """
        call = current_call()
        self._store.cache.check_fresh()
        wanted = call.header(MIN_REVISION_HEADER)
        if wanted.isdecimal():
            await self._store.cache.wait(int(wanted), WAIT_SECONDS)
        return Caller.from_metadata({name: value for name, value in call.metadata if isinstance(value, str)})

    @property
    def leadership(self) -> Leadership | None:
        """The leadership while the process leads; whoever runs the reign sets it."""
        return self._leadership

    @leadership.setter
    def leadership(self, leadership: Leadership | None) -> None:
        self._leadership = leadership
        if leadership is None:
            self._is_set.clear()
        else:
            self._is_set.set()

    async def writer(self) -> tuple[Caller, Leadership]:
        """The same for one that writes, with the leadership that guards what it writes. Raises NOT_LEADER."""
        caller = await self.reader()
        return caller, await self.lead()

    async def lead(self) -> Leadership:
        """The leadership; waits a little where it is just being won. Raises UNAVAILABLE/NOT_LEADER on a standby."""
        if not self._is_set.is_set() and not self._does_another_lead():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(WAIT_SECONDS):
                    await self._is_set.wait()
        if self.leadership is None or self.leadership.lost.is_set():
            leader = self._store.leader_address(self._name) or "nowhere yet"
            raise MolnError(Reason.NOT_LEADER, f"this {self._name} stands by; the one that leads is at {leader}")
        return self.leadership

    def _does_another_lead(self) -> bool:
        record = stored(self._store.cache.get("leader", self._name), LeaderRecord)
        return record is not None and record.uuid != self._store.process.uuid

    @asynccontextmanager
    async def one_at_a_time(self) -> AsyncIterator[None]:
        """For writes that look at other objects first (overlaps): the only writer lets them in one after the other."""
        async with self._one_at_a_time:
            yield
