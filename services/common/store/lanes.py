"""A lane sends batches one after the other and always finds out what became of each, also when the answer is lost.

Every batch compares the lane's own key with what the last one left there and writes a new number into it. After a lost
answer the lane puts a fence: a transaction with the same condition. Either the fence takes effect, and then the lost
batch did not and never will, however late it may still arrive; or it does not, and the key says which batch did, and
when. Reading back what members wrote would not do: a batch may arrive after the reading, and a deletion leaves nothing.
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from moln.etcd.v1 import etcd_pb2 as pb
from services.common.store.errors import StoreUnavailable
from services.common.store.etcd.client import EtcdClient
from services.common.store.keys import LANE, key
from services.common.store.retry import pauses


class Sent(NamedTuple):
    """What became of a batch: it took effect at `revision`, or was refused and `answer` says what was found."""

    has_succeeded: bool
    revision: int
    answer: pb.TxnResponse | None


class Lane:
    """One lane of a process. Not for two senders at a time."""

    def __init__(self, client: EtcdClient, process: str, number: int) -> None:
        self._client = client
        self._process = process
        self._number = number
        self._life = 0
        self.restart()

    def restart(self) -> None:
        """Goes on with a key that was never used: nothing is known of the old one any more."""
        self._life += 1
        self._key = key(LANE, self._process, f"{self._number}-{self._life}").encode()
        self._last: bytes | None = None
        self._count = 0

    async def send(self, body: bytes, deadline: float) -> Sent:
        """Sends a batch until it has taken effect or was refused. Safe to cancel: then nobody knows.

        Refused where etcd finds fault with its form; StoreUnavailable where nothing is known at `deadline`.
        """
        for pause in pauses():
            mark = self._next()
            try:
                answer = await self._client.txn(self._marked(mark).SerializeToString() + body)
            except StoreUnavailable as err:
                revision = await self._find_out(mark, deadline, err)
                if revision:
                    return Sent(True, revision, None)
                if asyncio.get_running_loop().time() + pause > deadline:
                    raise StoreUnavailable(f"nothing was written: {err}") from err
                await asyncio.sleep(pause)
                continue
            if answer.succeeded:
                self._last = mark
            return Sent(answer.succeeded, answer.header.revision, answer)
        raise AssertionError("pauses never end")

    async def send_bare(self, body: bytes) -> pb.TxnResponse:
        """Sends without the lane's mark, once: at etcd's space quota nothing may be written, only deletions pass."""
        return await self._client.txn(body)

    def _next(self) -> bytes:
        self._count += 1
        return str(self._count).encode()

    def _marked(self, mark: bytes) -> pb.TxnRequest:
        request = pb.TxnRequest()
        compare = request.compare.add()
        compare.key = self._key
        if self._last is None:
            compare.target = pb.Compare.COMPARE_TARGET_CREATE
            compare.create_revision = 0
        else:
            compare.target = pb.Compare.COMPARE_TARGET_VALUE
            compare.value = self._last
        put = request.success.add().request_put
        put.key, put.value = self._key, mark
        return request

    async def _find_out(self, mark: bytes, deadline: float, lost: StoreUnavailable) -> int:
        """The revision at which the batch took effect, or 0: it did not and never will."""
        fences: set[bytes] = set()
        for pause in pauses():
            fence = self._next()
            fences.add(fence)
            request = self._marked(fence)
            request.failure.add().request_range.key = self._key
            try:
                answer = await self._client.txn(request.SerializeToString())
            except StoreUnavailable as err:
                if asyncio.get_running_loop().time() + pause > deadline:
                    self.restart()
                    raise err from lost
                await asyncio.sleep(pause)
                continue
            if answer.succeeded:
                self._last = fence
                return 0
            return self._read_mark(answer, mark, fences, lost)
        raise AssertionError("pauses never end")

    def _read_mark(self, answer: pb.TxnResponse, mark: bytes, fences: set[bytes], lost: StoreUnavailable) -> int:
        found = answer.responses[0].response_range.kvs
        if found and found[0].value == mark:
            self._last = mark
            return found[0].mod_revision
        if found and found[0].value in fences:
            self._last = found[0].value
            return 0
        self.restart()
        raise lost
