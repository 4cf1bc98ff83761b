"""Leaders: one process at a time holds `/moln/leader/<name>`, under its lease, and every write it makes compares that.

The key proves nothing about the present moment to anyone but etcd: what counts is the comparison in the transaction.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from google.protobuf.message import Message

from moln.etcd.v1 import etcd_pb2 as pb
from services.common.obs.logs import get_logger
from services.common.store.cache import Cache
from services.common.store.entries import Change
from services.common.store.errors import Conflict, StoreError
from services.common.store.keys import LEADER, KeyTable, key
from services.common.store.process import Process
from services.common.store.txn import Txn

log = get_logger("store")
Commit = Callable[[Txn], Awaitable[int]]
LOOK_AGAIN_SECONDS = 2.0
"""How often a standby looks at the key, beside being told of its changes."""
PAUSE_SECONDS = 1.0
"""Pause after a reign before the next campaign, so that a leader that fails at once does not spin."""


class Leadership:
    """One reign. Give it to the transactions that it allows (`Txn(guard=…)`); it never comes back once `lost`."""

    def __init__(self, name: str, create_revision: int) -> None:
        self.name = name
        self.key = key(LEADER, name)
        self.create_revision = create_revision
        self.lost = asyncio.Event()
        request = pb.TxnRequest()
        compare = request.compare.add()
        compare.key = self.key.encode()
        compare.target = pb.Compare.COMPARE_TARGET_CREATE
        compare.create_revision = create_revision
        self.condition = request.SerializeToString()
        """The comparison, in etcd's form."""


Run = Callable[[Leadership], Awaitable[None]]


def _ends(change: Change, reign: Leadership) -> bool:
    is_newer = change.revision > reign.create_revision
    return is_newer and (change.new is None or change.new.create_revision != reign.create_revision)


class Election:
    """A process's part in the election of one leader."""

    def __init__(
        self, name: str, address: str, *, keys: KeyTable, cache: Cache, process: Process, commit: Commit
    ) -> None:
        self._name = name
        self._key = key(LEADER, name)
        self._address = address
        self._keys = keys
        self._cache = cache
        self._process = process
        self._commit = commit
        self._woken = asyncio.Event()
        self._reign: Leadership | None = None

    async def run(self, run: Run) -> None:
        """Campaigns for ever. Each time it wins: loads up to that revision, then `await run(leadership)`, which is
        cancelled when the leadership is lost. A `run` that returns or raises gives it up."""
        unsubscribe = self._cache.subscribe(self._on_changes, kinds=(LEADER,))
        forget = self._process.on_lost(self._on_lease_lost)
        try:
            while True:
                await self._reign_once(await self._win(), run)
                await asyncio.sleep(PAUSE_SECONDS)
        finally:
            unsubscribe()
            forget()

    async def _win(self) -> Leadership:
        while True:
            self._woken.clear()
            try:
                won = await self._try()
            except StoreError as err:
                log.info("campaign failed, tried again", leader=self._name, error=str(err))
                won = None
            if won is not None:
                return won
            await self._pause()

    async def _try(self) -> Leadership | None:
        """One attempt: None where another leads."""
        held = self._cache.get(LEADER, self._name)
        if held is not None:
            if getattr(held.value, "uuid", "") != self._process.uuid:
                return None
            # Of an earlier reign of this very process: its lease outlived an outage.
            await self._commit(Txn().unchanged(self._key, held.mod_revision).delete(self._key))
        lease = await self._process.lease()
        try:
            revision = await self._commit(Txn().absent(self._key).put(self._key, self._record(), lease))
        except Conflict:
            return None
        return Leadership(self._name, revision)

    def _record(self) -> Message:
        record = self._keys.required(LEADER).message(uuid=self._process.uuid, address=self._address)
        getattr(record, "since").GetCurrentTime()  # noqa: B009  the message is the key table's: its type is not known here
        return record

    async def _reign_once(self, leadership: Leadership, run: Run) -> None:
        self._reign = leadership
        log.info("leads", leader=self._name, revision=leadership.create_revision)
        try:
            async with asyncio.TaskGroup() as group:
                work = group.create_task(self._work(leadership, run))
                lost = group.create_task(leadership.lost.wait())
                await asyncio.wait({work, lost}, return_when=asyncio.FIRST_COMPLETED)
                work.cancel()
                lost.cancel()
        finally:
            self._reign = None
            await self._resign(leadership)

    async def _work(self, leadership: Leadership, run: Run) -> None:
        try:
            await self._cache.wait(leadership.create_revision)
            await run(leadership)
        except Exception as err:  # whatever a leader dies of, another may lead after it
            log.error("leader failed, gives up its place", leader=self._name, error=repr(err), exc_info=err)

    async def _resign(self, leadership: Leadership) -> None:
        was_lost = leadership.lost.is_set()
        leadership.lost.set()
        log.info("leads no more", leader=self._name, revision=leadership.create_revision, lost=was_lost)
        if was_lost:
            return
        try:
            async with asyncio.timeout(PAUSE_SECONDS):
                await self._commit(Txn(guard=leadership).delete(leadership.key))
        except (StoreError, TimeoutError) as err:
            log.info("could not give the place back, its lease will", leader=self._name, error=repr(err))

    def _on_changes(self, changes: Sequence[Change], revision: int) -> None:
        for change in changes:
            if change.id != self._name:
                continue
            reign = self._reign
            if reign is not None and _ends(change, reign):
                reign.lost.set()
            self._woken.set()

    def _on_lease_lost(self) -> None:
        if self._reign is not None:
            self._reign.lost.set()

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(LOOK_AGAIN_SECONDS):
                await self._woken.wait()
        except TimeoutError:
            return
