"""The store as services see it: a cache to read from, transactions to write with, ids, leaders, leases, the log.

This file only wires the parts and gives them one face.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Self

from services.common.obs.logs import get_logger
from services.common.store import compaction, leases
from services.common.store.batch import Limits
from services.common.store.cache import Cache
from services.common.store.commit import GroupCommit
from services.common.store.connecting import connected, probe_max_ops
from services.common.store.entries import Entry
from services.common.store.errors import StoreError, ValueTooLarge
from services.common.store.etcd.client import EtcdClient
from services.common.store.ids import Ids
from services.common.store.keys import LEADER, PROCESS, KeyTable
from services.common.store.lanes import Lane
from services.common.store.leadership import Election, Run
from services.common.store.listing import current_revision, list_into
from services.common.store.process import Process
from services.common.store.reading import entries_at, read_entry
from services.common.store.settings import ProcessInfo, StoreSettings
from services.common.store.space import Space
from services.common.store.tail import Step, tail
from services.common.store.txn import Txn
from services.common.store.watch import Watcher

log = get_logger("store")
Kinds = Mapping[str, frozenset[str] | None]
SWEEP_SECONDS = 0.5


class Store:
    """One process's store. Make it with `Store.open`; end it with `close`, or use it as an asynchronous context."""

    def __init__(
        self, client: EtcdClient, settings: StoreSettings, keys: KeyTable, kinds: Kinds | None, process: ProcessInfo
    ) -> None:
        """Wires the parts; use `Store.open`."""
        own: Kinds = {PROCESS: None, LEADER: None}
        self.settings = settings
        self.keys = keys
        self.client = client
        self.cache = Cache(keys, None if kinds is None else {**kinds, **own}, stale_after=settings.stale_after)
        self.process = Process(client, keys, process, settings)
        self.space = Space(client, settings.quota_bytes, settings.space_interval)
        self.watcher = Watcher(self.cache, client, settings)
        self.ids = Ids(keys, lambda txn: self.commit(txn, wait=False))
        self._limits = Limits(settings.batch_members, settings.batch_bytes, settings.max_txn_ops)
        self.group = GroupCommit(self.cache, self._limits)
        self._requests = leases.RequestLeases(client)
        self._tasks: list[asyncio.Task[None]] = []

    @staticmethod
    async def open(
        settings: StoreSettings, *, keys: KeyTable, kinds: Kinds | None = None, process: ProcessInfo
    ) -> Store:
        """Connects, loads the wanted kinds at one revision, begins the watch and registers this process.

        `kinds`: kind → wanted parts (None for all parts); None for every kind. StoreUnavailable where etcd does not
        answer within `settings.open_timeout`; Refused where it does not let us in.
        """
        client = await connected(settings)
        try:
            store = Store(client, settings, keys, kinds, process)
            await store._start()
        except BaseException:
            await client.close()
            raise
        return store

    async def _start(self) -> None:
        self._limits.ops = await probe_max_ops(self.client, self.settings.max_txn_ops)
        await list_into(self.cache, self.client, self.settings.page_keys)
        await self.space.look()
        await self.process.tick()
        lanes = [Lane(self.client, self.process.uuid, number) for number in range(self.settings.batches_in_flight)]
        loops: list[tuple[str, Callable[[], Awaitable[None]]]] = [
            ("watch", self.watcher.run), ("process", self.process.run),
            ("space", self.space.run), ("sweep", self._sweep),
        ]  # fmt: skip
        loops += [(f"lane {number}", _lane(self.group, lane)) for number, lane in enumerate(lanes)]
        self._tasks = [asyncio.create_task(_for_ever(name, loop), name=f"store {name}") for name, loop in loops]

    async def close(self) -> None:
        """Gives back ids and lease, ends all loops and the connection. Safe to call twice."""
        if not self._tasks:
            return
        try:
            async with asyncio.timeout(2.0):
                await self.ids.close()
        except (StoreError, TimeoutError) as err:
            log.info("closing without giving ids back", error=repr(err))
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.group.close()
        await self.process.close()
        await self.client.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # ------------------------------------------------------------------------------------------------- writing

    async def commit(self, txn: Txn, wait: bool = True) -> int:
        """Commits a transaction and returns its revision; with `wait`, only once the cache has it.

        Raises Conflict, NotLeader, ValueTooLarge, StoreFull, or what a fold raised: then nothing was written.
        StoreUnavailable with `may_have_happened` says that nobody knows; a lost answer alone does not lead to it.
        """
        return await self._submit(txn, wait)

    async def commit_all(self, txns: Sequence[Txn], wait: bool = True) -> list[int | Exception]:
        """Commits transactions, each for itself, together where possible: a revision or an error for each."""
        results = [self._submitted(txn, wait) for txn in txns]
        found: list[int | Exception] = []
        for result in results:
            try:
                found.append(result if isinstance(result, Exception) else await result)
            except Exception as err:  # noqa: BLE001  each has its own answer, whatever it is
                found.append(err)
            except asyncio.CancelledError:
                _disown(results)
                raise
        return found

    def _submitted(self, txn: Txn, wait: bool) -> asyncio.Future[int] | Exception:
        try:
            return self._submit(txn, wait)
        except Exception as err:  # noqa: BLE001  as above
            return err

    def _submit(self, txn: Txn, wait: bool) -> asyncio.Future[int]:
        self._check_sizes(txn)
        self.space.check(txn)
        deadline = asyncio.get_running_loop().time() + self.settings.commit_timeout
        return self.group.submit(txn, deadline, is_seen_wanted=wait)

    def _check_sizes(self, txn: Txn) -> None:
        for name, size in txn.sizes:
            if size > self.keys.smallest_bound:
                row = self.keys.row_of(name)
                if row is not None and size > row.max_bytes:
                    raise ValueTooLarge(name, size, row.max_bytes)

    # ------------------------------------------------------------------------------------------------- the rest

    async def current_revision(self) -> int:
        """etcd's newest revision, as agreed by its members."""
        return await current_revision(self.client)

    async def read(self, full: str) -> Entry | None:
        """The newest value of one key, read from etcd itself: for what caches do not hold. None where it is absent."""
        return await read_entry(self.client, self.keys, full)

    def list_at(self, revision: int, kinds: Iterable[str]) -> AsyncGenerator[Entry, None]:
        """All entries of some kinds as they were at a revision; Compacted once that is forgotten."""
        return entries_at(self.client, self.keys, revision, kinds, self.settings.page_keys)

    async def lead(self, name: str, address: str, run: Run) -> None:
        """Campaigns for ever to be the leader called `name`; see Election.run."""
        election = Election(name, address, keys=self.keys, cache=self.cache, process=self.process, commit=self.commit)
        await election.run(run)

    def leader_address(self, name: str) -> str | None:
        """The address of the leader called `name`; None where there is none."""
        entry = self.cache.get(LEADER, name)
        return None if entry is None else str(getattr(entry.value, "address", ""))

    async def request_lease(self) -> int:
        """The lease of the current hour: what hangs on it is deleted a day later, 24 to 25 hours from now."""
        return await self._requests.current()

    async def process_lease(self) -> int:
        """The lease of this process, for keys that shall end with it; see `process.on_lost`."""
        return await self.process.lease()

    def tail(self, from_revision: int, *, with_prev: bool = True) -> AsyncGenerator[list[Step], None]:
        """Every change from a revision on, unparsed, as lists of (revision, events); raises Compacted."""
        return tail(self.client, from_revision, self.settings.stale_after, with_prev=with_prev)

    async def compactor(self, floor: Callable[[], int | None], interval: float = 60.0) -> None:
        """Forgets old revisions for ever; run it under one leadership. See compaction.Compactor."""
        await compaction.Compactor(self.client, self.cache, self.settings).run(floor, interval)

    async def _sweep(self) -> None:
        while True:
            self.group.sweep(asyncio.get_running_loop().time())
            await asyncio.sleep(SWEEP_SECONDS)


def _disown(results: Sequence[asyncio.Future[int] | Exception]) -> None:
    """Nobody waits for these any more: what they end with is not to be logged as forgotten."""
    for result in results:
        if isinstance(result, asyncio.Future):
            result.add_done_callback(lambda done: done.cancelled() or done.exception())


def _lane(group: GroupCommit, lane: Lane) -> Callable[[], Awaitable[None]]:
    return lambda: group.run_lane(lane)


async def _for_ever(name: str, loop: Callable[[], Awaitable[None]]) -> None:
    """The loop runner of the library: a mistake is logged and the loop goes on."""
    while True:
        try:
            await loop()
        except Exception as err:  # the one broad except of its kind: a loop must outlive what it meets
            log.error("loop of the store failed", loop=name, error=repr(err), exc_info=err)
        await asyncio.sleep(SWEEP_SECONDS)
