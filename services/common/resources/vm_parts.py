"""The part of every VM that one leader gives and takes back: addresses by netsvc, volumes by imagesvc.

Level-triggered: whatever changed, the VM is looked at as it is now. It drives: what a VM gets is decided by a `Work`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

from google.protobuf.message import Message

from moln.compute.v1.vm_pb2 import DesiredState, VmIntent, VmSpec
from services.common.obs.logs import get_logger
from services.common.obs.loops import LoopCounts
from services.common.resources.stored import stored
from services.common.runtime import Background, Loop
from services.common.store import Change, Conflict, Entry, Leadership, NotLeader, Store, Txn, key

CHUNK = 256
CHUNKS_ON_THEIR_WAY = 4
IDLE_SECONDS = 30.0
FAILURE_PAUSE_S = 1.0
STATUS = "status/"
_TERMINATED = DesiredState.DESIRED_STATE_TERMINATED


class Wish(NamedTuple):
    """A VM that lacks its part, has one that only says why there is none, or one that its spec has outgrown."""

    vm: str
    """Id as in keys."""
    spec: VmSpec
    before: Message | None
    """The part as it is, where there is one."""
    is_amended: bool = False
    """The part is good as far as it goes: something was attached to the VM, or detached from it."""


class Work(Protocol):
    """What decides what a VM gets. All but `look` are called within one step of the event loop."""

    part: str
    """Of the VM, as in keys."""

    def is_needed(self, intent: VmIntent) -> bool:
        """Whether the VM waits for the part."""
        ...

    async def look(self, wishes: Sequence[Wish]) -> None:
        """Finds out what deciding needs, before `give` is called for each of them."""
        ...

    def give(self, wish: Wish, txn: Txn) -> Message | None:
        """The part, with what goes along in `txn`; None where what is there says all. Sets aside what it gives."""
        ...

    def lacks(self, spec: VmSpec, part: Message) -> bool:
        """Whether a part that holds what was needed no longer fits the spec."""
        ...

    def amend(self, wish: Wish, txn: Txn) -> Message | None:
        """The part with what is missing and without what is left over; None where that cannot be had now."""
        ...

    def settle(self, vm: str, *, is_written: bool) -> None:
        """What `give` wrote is in the store and the cache, or is not."""
        ...

    def take_back(self, vm: str, part: Message, txn: Txn) -> None:
        """Adds to `txn` what goes with the part when it is deleted."""
        ...

    def forget(self, vm: str) -> None:
        """The VM needs nothing any more."""
        ...


class VmParts:
    """The loop of one leadership. What it remembers ends with it."""

    def __init__(self, store: Store, leadership: Leadership, work: Work, loops: LoopCounts) -> None:
        self._store = store
        self._cache = store.cache
        self._leadership = leadership
        self._work = work
        self._dirty: dict[str, None] = {}
        self._busy: set[str] = set()
        self._again: set[str] = set()
        self._unamended: set[str] = set()
        """VMs whose part was to be amended, and could not be, when they were last looked at."""
        self._room = asyncio.Semaphore(CHUNKS_ON_THEIR_WAY)
        self._loop = Loop(work.part, self._step, interval=IDLE_SECONDS, metrics=loops)
        self._log = get_logger(work.part)

    def changed(self, changes: Sequence[Change]) -> None:
        """Notes which VMs to look at. Call it with all changes of the cache."""
        for change in changes:
            if change.kind != "vm" or change.id in self._busy:
                continue
            # A new status makes nothing possible; a spec alone changes nothing here.
            if change.part == "spec" or (change.part.startswith(STATUS) and change.new is not None):
                continue
            self._dirty[change.id] = None
        if self._dirty:
            self._loop.wake()

    def look_at(self, vms: Iterable[str]) -> None:
        """Looks at these VMs (ids as in keys) soon."""
        self._dirty.update(dict.fromkeys(vms))
        if self._dirty:
            self._loop.wake()

    async def run(self) -> None:
        """Looks at everything there is, then at what changes, until cancelled."""
        self.look_at(self._cache.ids("vm"))
        async with Background() as background:
            self._background = background
            await self._loop.run()

    async def _step(self) -> None:
        while self._dirty:
            dirty, self._dirty = list(self._dirty), {}
            for start in range(0, len(dirty), CHUNK):
                await self._room.acquire()
                portion = dirty[start : start + CHUNK]
                chunk = [vm for vm in portion if vm not in self._busy]
                self._again.update(vm for vm in portion if vm in self._busy)
                self._busy.update(chunk)
                self._background.start(self._chunk(chunk), name=f"{self._work.part} of {len(chunk)} VMs")
                await asyncio.sleep(0)

    async def _chunk(self, vms: Sequence[str]) -> None:
        """Looks at VMs, commits what follows, and looks again at those that somebody else changed meanwhile."""
        failed: list[str] = []
        pause = 0.0
        try:
            await self._work.look([wish for vm in vms if (wish := self._wish(self._cache.object("vm", vm), vm))])
            txns = {vm: txn for vm in vms if (txn := self._txn(vm)) is not None}
            answers = await self._store.commit_all(list(txns.values()))
            failed = [vm for vm, answer in zip(txns, answers, strict=True) if isinstance(answer, Exception)]
            for vm, answer in zip(txns, answers, strict=True):
                self._work.settle(vm, is_written=isinstance(answer, int))
            pause = self._judge(answers)
        finally:
            self._room.release()
            if pause:
                await asyncio.sleep(pause)
            self._busy.difference_update(vms)
            # While busy a VM's changes are passed over: whoever was looked at in vain, or changed since, comes again.
            again = [vm for vm in vms if vm in self._again or self._is_open(vm)]
            self._again.difference_update(vms)
            self.look_at([*failed, *again])

    def _judge(self, answers: Sequence[int | Exception]) -> float:
        """Logs what went wrong; the seconds to wait before the next try."""
        wrong = [answer for answer in answers if isinstance(answer, Exception) and not isinstance(answer, Conflict)]
        if not wrong:
            return 0.0
        if not isinstance(wrong[0], NotLeader):
            self._log.warning("parts could not be written", part=self._work.part, vms=len(wrong), error=str(wrong[0]))
        return FAILURE_PAUSE_S

    def _is_open(self, vm: str) -> bool:
        """Whether something is to be done for a VM: it is terminated, lacks its part, or has outgrown it.

        What could not be amended waits for something else than the VM's own change.
        """
        parts = self._cache.object("vm", vm)
        intent = stored(parts.get("intent"), VmIntent)
        part = parts.get(self._work.part)
        if intent is None:
            return False
        if intent.desired == _TERMINATED:
            return part is not None and not any(name.startswith(STATUS) for name in parts)
        if not self._work.is_needed(intent):
            return False
        return part is None or (vm not in self._unamended and self._is_outgrown(parts, part))

    def _is_outgrown(self, parts: Mapping[str, Entry], part: Entry) -> bool:
        spec = stored(parts.get("spec"), VmSpec)
        return spec is not None and part.value is not None and not _reason(part) and self._work.lacks(spec, part.value)

    def _wish(self, parts: Mapping[str, Entry], vm: str) -> Wish | None:
        intent, spec = stored(parts.get("intent"), VmIntent), stored(parts.get("spec"), VmSpec)
        if intent is None or spec is None or intent.desired == _TERMINATED or not self._work.is_needed(intent):
            return None
        before = parts.get(self._work.part)
        if before is None or _reason(before):
            return Wish(vm, spec, before.value if before is not None else None)
        return Wish(vm, spec, before.value, is_amended=True) if self._is_outgrown(parts, before) else None

    def _txn(self, vm: str) -> Txn | None:
        parts = self._cache.object("vm", vm)
        self._unamended.discard(vm)
        entry = parts.get("intent")
        intent = stored(entry, VmIntent)
        if entry is None or intent is None:
            self._work.forget(vm)
            return None
        if intent.desired == _TERMINATED:
            self._work.forget(vm)
            return self._taking_back(vm, parts, entry)
        wish = self._wish(parts, vm)
        if wish is None:
            return None
        txn = self._comparing(vm, parts, entry)
        value = self._work.amend(wish, txn) if wish.is_amended else self._work.give(wish, txn)
        if wish.is_amended and value is None:
            self._unamended.add(vm)
        return txn.put(key("vm", vm, self._work.part), value) if value is not None else None

    def _comparing(self, vm: str, parts: Mapping[str, Entry], intent: Entry) -> Txn:
        """What all writes compare: leadership, intent, and the part itself."""
        part = parts.get(self._work.part)
        txn = Txn(guard=self._leadership).unchanged(key("vm", vm, "intent"), intent.mod_revision)
        return txn.unchanged(key("vm", vm, self._work.part), part.mod_revision if part is not None else 0)

    def _taking_back(self, vm: str, parts: Mapping[str, Entry], intent: Entry) -> Txn | None:
        part = parts.get(self._work.part)
        if part is None or part.value is None or any(name.startswith(STATUS) for name in parts):
            return None
        txn = self._comparing(vm, parts, intent)
        txn.none_under(key("vm", vm, STATUS)).delete(key("vm", vm, self._work.part))
        self._work.take_back(vm, part.value, txn)
        return txn


def _reason(part: Entry) -> str:
    """Why the part holds nothing; empty where it holds what is needed."""
    return str(getattr(part.value, "reason", ""))
