"""A transaction on its way: sealed, with what it reads and writes, so that batches can tell who gets along. Pure."""

from __future__ import annotations

import asyncio

from services.common.store.txn import NONE_UNDER, Txn

NOTHING: frozenset[str] = frozenset()


class Member:
    """A transaction that waits for its commit. `result` becomes its revision, or why it was refused."""

    __slots__ = (
        "body", "changed", "deadline", "folded", "has_ranges", "is_seen_wanted", "range_reads", "range_writes", "reads",
        "result", "txn", "writes",
    )  # fmt: skip

    def __init__(self, txn: Txn, result: asyncio.Future[int], deadline: float, *, is_seen_wanted: bool) -> None:
        self.txn = txn
        self.result = result
        self.deadline = deadline
        self.is_seen_wanted = is_seen_wanted
        self.body = txn.request.SerializeToString()
        self.changed = txn.written
        self.folded = {key for key, _ in txn.folds} if txn.folds else NOTHING
        self.writes = txn.written - self.folded if txn.folds else txn.written
        self.reads = {check.key for check in txn.checks if check.compare != NONE_UNDER}
        self.range_reads = [check.key for check in txn.checks if check.compare == NONE_UNDER]
        self.range_writes = txn.written_prefixes
        self.has_ranges = bool(self.range_reads or self.range_writes)

    @property
    def is_exclusive(self) -> bool:
        """It names a range that is no folder of keys: who shares a batch with it cannot be told cheaply, so nobody."""
        return self.has_ranges and not all(name.endswith("/") for name in (*self.range_reads, *self.range_writes))

    @property
    def only_deletes(self) -> bool:
        """It makes room and takes none."""
        return not self.txn.sizes and not self.txn.folds

    def fail(self, error: Exception) -> None:
        """It did not take effect, or nobody knows."""
        if not self.result.done():
            self.result.set_exception(error)

    def succeed(self, revision: int) -> None:
        """It took effect at `revision`."""
        if not self.result.done():
            self.result.set_result(revision)


def folders(key: str) -> list[str]:
    """The folders that a key lies in, deepest last: `/a/b/c` lies in `/`, `/a/` and `/a/b/`. A folder lies in
    itself.
    """
    found: list[str] = []
    at = key.find("/")
    while at >= 0:
        found.append(key[: at + 1])
        at = key.find("/", at + 1)
    return found
