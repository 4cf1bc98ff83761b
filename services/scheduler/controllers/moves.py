"""VMs on their way: begins moves that are asked for or that a drained host needs, and leads each step by step.

What comes next is decided by `core.moves`; nothing is remembered here but when to try again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import NamedTuple

from moln.compute.v1 import vm_pb2
from services.common.domain.errors import MolnError
from services.common.obs.logs import get_logger
from services.common.runtime import Clock
from services.common.store import Entry, Store, Txn
from services.scheduler.controllers.transactions import Transactions
from services.scheduler.controllers.writes import Writes
from services.scheduler.core.ledger import Ledger
from services.scheduler.core.moves import Moving, Next, Step, Wish, next_step, wish
from services.scheduler.core.queues import VmRecord
from services.scheduler.core.shapes import demand, shape, shape_key
from services.scheduler.core.targets import IMPORTED, Target, choose
from services.scheduler.core.words import FITS, Why
from services.scheduler.stored import stored

AWAY_AT_ONCE = 4
"""Moves that leave one drained host at a time."""
RETRY_S = 15.0
"""A drained host's VM that found no target, or whose move failed, is tried again after this."""

Build = Callable[[VmRecord], Txn | None]


class Parts(NamedTuple):
    """The parts of a VM that a move is led by."""

    spec: vm_pb2.VmSpec
    intent: vm_pb2.VmIntent
    placement: vm_pb2.VmPlacement
    statuses: Mapping[int, vm_pb2.VmStatus]


class Moves:
    """The moves of one leadership."""

    def __init__(self, store: Store, ledger: Ledger, writes: Writes, transactions: Transactions, clock: Clock) -> None:
        self._cache, self._ledger, self._writes = store.cache, ledger, writes
        self._transactions, self._clock = transactions, clock
        self._not_before: dict[str, float] = {}
        self._log = get_logger("moves")

    async def step(self) -> None:
        """Looks at every VM that is on its way, or is to be."""
        leaving = Counter(record.host_id for record in self._ledger.moving.values() if record.target_host)
        for record in list(self._ledger.moving.values()):
            parts = self._parts(record)
            if parts is None or record.is_busy:
                continue
            if record.target_host:
                await self._lead(record, parts)
            elif await self._begin(record, parts, leaving[record.host_id]):
                leaving[record.host_id] += 1
        for key in self._not_before.keys() - self._ledger.vms.keys():
            del self._not_before[key]

    def _parts(self, record: VmRecord) -> Parts | None:
        found = self._cache.object("vm", record.key)
        spec, intent = stored(found.get("spec"), vm_pb2.VmSpec), stored(found.get("intent"), vm_pb2.VmIntent)
        placement = stored(found.get("placement"), vm_pb2.VmPlacement)
        if spec is None or intent is None or placement is None:
            return None
        return Parts(spec, intent, placement, _statuses(found))

    async def _lead(self, record: VmRecord, parts: Parts) -> None:
        move = parts.placement.move
        facts = self._ledger.columns.facts
        moving = Moving(
            parts.intent, parts.placement, parts.statuses.get(record.host_id), parts.statuses.get(move.target_host_id),
            facts(record.host_id), facts(move.target_host_id),
        )  # fmt: skip
        found = next_step(moving, self._clock.now().timestamp())
        if found.step is Step.NOTHING:
            return
        if found.step is Step.ABORT:
            self._wait(record)
        self._log.info(
            "move", vm_id=record.vm_id, step=found.step.value, target=move.target_host_id, reason=found.reason or None
        )
        await self._send(f"move {found.step.value}", record, self._builder(found))

    def _builder(self, found: Next) -> Build:
        transactions = self._transactions
        match found.step:
            case Step.GO:
                return partial(transactions.move_on, phase=vm_pb2.MOVE_PHASE_GO)
            case Step.TRANSFER:
                return partial(transactions.move_on, phase=vm_pb2.MOVE_PHASE_TRANSFER)
            case Step.SWITCH:
                return transactions.switch
            case Step.CANCEL:
                return transactions.cancel_move
            case _:
                return partial(transactions.abort_move, why=Why(found.reason, found.message))

    async def _begin(self, record: VmRecord, parts: Parts, leaving: int) -> bool:
        """Begins a move that is due; True where one has begun."""
        columns = self._ledger.columns
        source = columns.facts(record.host_id)
        wanted = wish(parts.intent, parts.placement, parts.statuses.get(record.host_id), source)
        if wanted is None or source is None:
            return False
        if not wanted.operation_id and (leaving >= AWAY_AT_ONCE or self._must_wait(record)):
            return False
        found = self._target(parts, wanted)
        if isinstance(found, Why):
            await self._refuse(record, parts, wanted, found)
            return False
        self._ledger.reserve(record, found.host_id)
        await self._send("move begin", record, partial(self._transactions.begin_move, wanted=wanted, how=found.mode))
        self._log.info("move", vm_id=record.vm_id, step="begin", target=found.host_id)
        return True

    def _target(self, parts: Parts, wanted: Wish) -> Target | Why:
        if parts.spec.imported_as:
            return IMPORTED
        source = self._ledger.columns.facts(parts.placement.host_id)
        assert source is not None  # noqa: S101  for the type checker: `_begin` has looked
        try:
            needed = shape(shape_key(parts.spec.template, wanted.host_id, tuple(parts.placement.avoided_host_ids)))
        except MolnError as err:
            return Why(err.reason, err.message.partition("\n")[0])
        return choose(self._ledger.columns, needed, source, wanted.modes)

    async def _refuse(self, record: VmRecord, parts: Parts, wanted: Wish, why: Why) -> None:
        """Writes down why; a VM of a drained host is tried again."""
        if not wanted.operation_id:
            self._wait(record)
            said = parts.placement.refusal
            if (said.id, said.reason, said.message) == ("", why.reason, why.message):
                return
            self._log.info("nowhere to move to", vm_id=record.vm_id, reason=why.reason, message=why.message)
        await self._send("refuse", record, partial(self._transactions.refuse, refused=wanted.operation_id, why=why))

    async def _send(self, what: str, record: VmRecord, build: Build) -> None:
        self._ledger.hold_still(record)
        await self._writes.send(what, [record], build)

    def _wait(self, record: VmRecord) -> None:
        self._not_before[record.key] = self._clock.monotonic() + RETRY_S

    def _must_wait(self, record: VmRecord) -> bool:
        return self._clock.monotonic() < self._not_before.get(record.key, 0.0)


class Grants:
    """Sizes that change: grants what the host has room for, refuses the rest. And hosts that are released."""

    def __init__(self, store: Store, ledger: Ledger, writes: Writes, transactions: Transactions) -> None:
        self._cache, self._ledger, self._writes, self._transactions = store.cache, ledger, writes, transactions

    async def step(self) -> None:
        """Writes what is due."""
        for record in list(self._ledger.asking.values()):
            if not record.is_busy:
                await self._answer(record)
        await self._send("release", self._ledger.leaving.values(), self._transactions.leave)
        await self._send("evict", self._ledger.failing.values(), self._transactions.evict)

    async def _answer(self, record: VmRecord) -> None:
        parts = self._cache.object("vm", record.key)
        spec, intent = stored(parts.get("spec"), vm_pb2.VmSpec), stored(parts.get("intent"), vm_pb2.VmIntent)
        if spec is None or intent is None:
            return
        wanted = demand(spec.template)
        lack = self._ledger.lack(record, wanted)
        if lack != FITS and intent.operation.id:
            refused = partial(self._transactions.refuse, refused=intent.operation.id, why=lack)
            await self._send("refuse", [record], refused)
            return
        self._ledger.grant(record, wanted)
        await self._send("grant", [record], self._transactions.grant)

    async def _send(self, what: str, records: Iterable[VmRecord], build: Build) -> None:
        ready = [each for each in list(records) if not each.is_busy]
        for record in ready:
            self._ledger.hold_still(record)
        if ready:
            await self._writes.send(what, ready, build)


def _statuses(parts: Mapping[str, Entry]) -> dict[int, vm_pb2.VmStatus]:
    found: dict[int, vm_pb2.VmStatus] = {}
    for name, entry in parts.items():
        status = stored(entry, vm_pb2.VmStatus) if name.startswith("status/") else None
        if status is not None:
            found[status.host_id] = status
    return found
