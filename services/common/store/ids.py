"""Ids: small integers from 1, unique in the cloud and never given twice. Taken from etcd in blocks, so with gaps."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from services.common.obs.logs import get_logger
from services.common.store.errors import Conflict, StoreError
from services.common.store.keys import COUNTER, KeyTable, key
from services.common.store.txn import Txn

log = get_logger("store")
FIRST_BLOCK = 16
LARGEST_BLOCK = 4096
Commit = Callable[[Txn], Awaitable[int]]


class Ids:
    """The ids of one process. The next free id of a kind stands in the field `next` of `/moln/counter/<kind>`."""

    def __init__(self, keys: KeyTable, commit: Commit) -> None:
        self._keys = keys
        self._commit = commit
        self._free: dict[str, deque[int]] = {}
        self._blocks: dict[str, int] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    async def take(self, kind: str, n: int = 1) -> list[int]:
        """`n` new ids of a kind, ascending. Ids that were taken and not used are lost; StoreUnavailable takes none."""
        free = self._free.setdefault(kind, deque())
        async with self._locks.setdefault(kind, asyncio.Lock()):
            if len(free) < n:
                block = max(n - len(free), self._blocks.get(kind, FIRST_BLOCK))
                self._blocks[kind] = min(LARGEST_BLOCK, block * 2)
                free.extend(await self._take_block(kind, block))
            return [free.popleft() for _ in range(n)]

    async def close(self) -> None:
        """Gives back what is left of blocks that are still the last ones, so that restarts leave no large gaps."""
        for kind, free in self._free.items():
            if not free:
                continue
            try:
                await self._commit(self._return_block(kind, free[0], free[-1] + 1))
            except (StoreError, ValueError) as err:
                log.info("ids not given back", kind=kind, error=str(err))
            free.clear()

    async def _take_block(self, kind: str, n: int) -> range:
        first = 0

        def take(old: bytes | None) -> bytes:
            nonlocal first
            first = self._next(old)
            return self._value(first + n)

        await self._commit(Txn().fold(key(COUNTER, kind), take))
        return range(first, first + n)

    def _return_block(self, kind: str, first: int, end: int) -> Txn:
        def give_back(old: bytes | None) -> bytes:
            if self._next(old) != end:
                raise Conflict(key(COUNTER, kind), "last block")
            return self._value(first)

        return Txn().fold(key(COUNTER, kind), give_back)

    def _next(self, value: bytes | None) -> int:
        message = self._keys.required(COUNTER).message.FromString(value or b"")
        return max(1, int(getattr(message, "next")))  # noqa: B009  the message is the key table's: its type is not known here

    def _value(self, after: int) -> bytes:
        return self._keys.required(COUNTER).message(next=after).SerializeToString()
