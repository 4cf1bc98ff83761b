"""A transaction on its way: sealed, with what it reads and writes, so that batches can tell who gets along. Pure."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from services.common.store.txn import NONE_UNDER, Txn

NOTHING: frozenset[str] = frozenset()
OBJECT_DEPTH = 4
"""Slashes in the folder of an object: `/moln/vm/1/`."""


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
        """It names a range that is no folder of an object: who meets it cannot be told cheaply, so it travels alone."""
        return self.has_ranges and not all(_is_object_folder(name) for name in (*self.range_reads, *self.range_writes))

    @property
    def changed_folders(self) -> set[str]:
        """The folders of all that it changes."""
        return folders([*self.changed, *self.range_writes] if self.range_writes else self.changed)

    @property
    def read_folders(self) -> set[str]:
        """The folders of all that it compares."""
        return folders([*self.reads, *self.range_reads])

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


def folders(keys: Iterable[str]) -> set[str]:
    """The folders that keys lie in, from the object's down: `/moln/vm/1/status/2` lies in `/moln/vm/1/status/` and
    `/moln/vm/1/`. A folder lies in itself."""
    found = {name[: name.rfind("/") + 1] for name in keys}
    for deep in [name for name in found if name.count("/") > OBJECT_DEPTH]:
        at = deep.rfind("/", 0, -1)
        while deep.count("/", 0, at + 1) >= OBJECT_DEPTH:
            found.add(deep[: at + 1])
            at = deep.rfind("/", 0, at)
    return found


def _is_object_folder(name: str) -> bool:
    return name.endswith("/") and name.count("/") >= OBJECT_DEPTH
