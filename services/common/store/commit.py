"""Group commit: transactions that wait at the same time travel as one, and each gets its own answer.

A batch is flat: all conditions of its members in one transaction of etcd. It mostly takes effect; where it is refused
it goes once more with the reads that explain a refusal, the members that caused it get their Conflict, and the rest
goes again. There is no delay for company: a transaction that finds a free lane leaves at once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

from services.common.obs.logs import get_logger
from services.common.store import diagnosis
from services.common.store.batch import Batch, Limits
from services.common.store.cache import Cache
from services.common.store.errors import Conflict, NotLeader, Refused, StoreFull, StoreStale, StoreUnavailable
from services.common.store.folds import Folded, fold_all
from services.common.store.heads import Heads
from services.common.store.lanes import Lane, Sent
from services.common.store.members import Member
from services.common.store.txn import Txn

log = get_logger("store")
MOST_SKIPPED = 64
"""Members that are passed over, because they get along with no one before, before a batch is closed."""


class GroupCommit:
    """The queue of a process and what empties it. `run_lane` must run once for every lane."""

    def __init__(self, cache: Cache, limits: Limits) -> None:
        self._cache = cache
        self._limits = limits
        self._heads = Heads(cache)
        self._queue: deque[Member] = deque()
        self._idle: deque[asyncio.Future[None]] = deque()
        self._unseen: deque[tuple[int, list[Member]]] = deque()
        self.batches = 0
        self.commits = 0
        self.on_batch: Callable[[float], None] = lambda _: None
        """Is told the size of each batch that took effect."""
        self.on_conflicts: Callable[[float], None] = lambda _: None
        """Is told how many transactions were refused because what they compare had changed."""

    def submit(self, txn: Txn, deadline: float, *, is_seen_wanted: bool) -> asyncio.Future[int]:
        """Queues a transaction; the future becomes its revision or the error that refused it."""
        result: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._queue.append(Member(txn, result, deadline, is_seen_wanted=is_seen_wanted))
        if self._idle:
            work = self._idle.popleft()
            if not work.done():
                work.set_result(None)
        return result

    async def run_lane(self, lane: Lane) -> None:
        """Sends one batch after the other until cancelled."""
        while True:
            members = self._take()
            if members:
                await self._settle(lane, members)
            else:
                await self._wait_for_work()

    def sweep(self, now: float) -> None:
        """Ends the wait of those whose time is up; call it now and then."""
        while self._queue and (self._queue[0].deadline < now or self._queue[0].result.done()):
            self._queue.popleft().fail(StoreUnavailable("etcd does not answer: nothing was written"))
        while self._unseen and all(member.deadline < now or member.result.done() for member in self._unseen[0][1]):
            revision, members = self._unseen.popleft()
            for member in members:
                member.fail(StoreStale(f"written at revision {revision}, which this process has not seen yet"))

    def close(self) -> None:
        """Ends the wait of everyone who is left; no lane may run any more."""
        for member in (*self._queue, *(member for _, members in self._unseen for member in members)):
            member.fail(StoreUnavailable("the store is closed", may_have_happened=True))
        self._queue.clear()
        self._unseen.clear()

    async def _wait_for_work(self) -> None:
        work: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._idle.append(work)
        try:
            await work
        finally:
            if work in self._idle:
                self._idle.remove(work)

    def _take(self) -> list[Member]:
        """The next batch: from the head of the queue, leaving out in order those that do not get along with it."""
        batch, skipped = Batch(self._limits), list[Member]()
        while self._queue and not batch.is_full and len(skipped) < MOST_SKIPPED:
            member = self._queue.popleft()
            if not member.result.done() and not batch.add(member):
                skipped.append(member)
        self._queue.extendleft(reversed(skipped))
        return batch.members

    async def _settle(self, lane: Lane, members: list[Member]) -> None:
        """Sends members until each has its answer."""
        try:
            await self._rounds(lane, members)
        except Refused as err:
            self._heads.forget(key for member in members for key in member.folded)
            await self._refused(lane, members, err)
        except StoreUnavailable as err:
            self._heads.forget(key for member in members for key in member.folded)
            _fail_all(members, err)
        except asyncio.CancelledError:
            _fail_all(members, StoreUnavailable("the store is closed", may_have_happened=True))
            raise

    async def _rounds(self, lane: Lane, members: list[Member]) -> None:
        is_explained = len(members) == 1
        deadline = max(member.deadline for member in members)
        while members:
            folded = fold_all(members, self._heads.bases({key for member in members for key in member.folded}))
            body = _body(folded, members if is_explained else ())
            self._heads.expect(folded.values)
            sent = await lane.send(body, deadline)
            if sent.has_succeeded:
                self._succeeded(folded, sent.revision)
                return
            self._heads.expect(folded.bases)
            if is_explained:
                members = self._explained(lane, members, folded, sent)
            is_explained = True

    def _succeeded(self, folded: Folded, revision: int) -> None:
        self.batches += 1
        self.commits += len(folded.accepted)
        self.on_batch(len(folded.accepted))
        self._heads.settle(folded.values, revision)
        for member, err in folded.refused:
            member.fail(err)
        if self._cache.revision >= revision:
            _succeed_all(folded.accepted, revision)
            return
        waiting = [member for member in folded.accepted if member.is_seen_wanted]
        _succeed_all([member for member in folded.accepted if not member.is_seen_wanted], revision)
        if waiting:
            self._when_seen(waiting, revision)

    def _when_seen(self, waiting: list[Member], revision: int) -> None:
        row = (revision, waiting)
        self._unseen.append(row)

        def seen() -> None:
            _succeed_all(waiting, revision)
            if row in self._unseen:
                self._unseen.remove(row)

        self._cache.when(revision, seen)

    def _explained(self, lane: Lane, members: list[Member], folded: Folded, sent: Sent) -> list[Member]:
        """Answers the members that caused a refusal; returns the others."""
        if sent.answer is None:
            return members
        found = diagnosis.explain(members, folded.bases, sent.answer)
        self._heads.expect(found.values)
        self._heads.settle(found.values, sent.revision)
        if not found.refused and found.values == folded.bases:
            lane.restart()
        for member, err in found.refused:
            if isinstance(err, NotLeader) and member.txn.guard is not None:
                member.txn.guard.lost.set()
            member.fail(err)
        self.on_conflicts(sum(isinstance(err, Conflict) for _, err in found.refused))
        gone = {id(member) for member, _ in found.refused}
        return [member for member in members if id(member) not in gone]

    async def _refused(self, lane: Lane, members: list[Member], err: Refused) -> None:
        """etcd found fault with a batch as a whole: halves find out whose fault it is."""
        if len(members) == 1:
            await self._refused_alone(lane, members[0], err)
            return
        middle = len(members) // 2
        await self._settle(lane, members[:middle])
        await self._settle(lane, members[middle:])

    async def _refused_alone(self, lane: Lane, member: Member, err: Refused) -> None:
        if not (member.only_deletes and _is_full(err)):
            member.fail(_reason(member, err))
            return
        try:
            answer = await lane.send_bare(member.body)
        except (Refused, StoreUnavailable) as again:
            member.fail(again)
            return
        if answer.succeeded:
            member.succeed(answer.header.revision)
        else:
            member.fail(Conflict(member.txn.checks[0].key, member.txn.checks[0].compare))


def _body(folded: Folded, explained: Sequence[Member]) -> bytes:
    """A batch without the lane's part: guards, members, merged folds, and the reads that explain a refusal."""
    forms = [member.body for member in folded.accepted]
    guards = {member.txn.guard.key: member.txn.guard for member in folded.accepted if member.txn.guard}
    forms += [guard.condition for guard in guards.values()]
    if folded.bases:
        forms.append(folded.request())
    if explained:
        forms.append(diagnosis.reads(explained, folded.bases))
    return b"".join(forms)


def _reason(member: Member, err: Refused) -> Exception:
    """What etcd's complaint about a single transaction means to who asked for it."""
    if err.code == "NOT_FOUND" and member.txn.has_lease:
        return Conflict(next(iter(member.txn.written)), "lease lives")
    if _is_full(err):
        return StoreFull(
            f"etcd's space is used up: delete objects, then `moln doctor` says how to go on ({err.message})"
        )
    return err


def _is_full(err: Refused) -> bool:
    return err.code == "RESOURCE_EXHAUSTED" and "space" in err.message


def _succeed_all(members: Sequence[Member], revision: int) -> None:
    for member in members:
        member.succeed(revision)


def _fail_all(members: Sequence[Member], err: StoreUnavailable) -> None:
    for member in members:
        member.fail(StoreUnavailable(str(err), may_have_happened=err.may_have_happened))
