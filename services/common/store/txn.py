"""A transaction: conditions and writes that take effect together or not at all. Pure: built here, sent by commit.py.

It is written straight into etcd's own form, because the forms of several transactions put one after the other are the
form of the one that holds them all: a batch is made by joining bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from google.protobuf.message import Message

from moln.etcd.v1 import etcd_pb2 as pb
from services.common.store.keys import range_end

if TYPE_CHECKING:
    from services.common.store.leadership import Leadership

Fold = Callable[[bytes | None], bytes]
"""From the value of a key (None where it does not exist) to its next one; raises to refuse the transaction. Pure: it is
called again where a batch is sent again."""

ABSENT, PRESENT, UNCHANGED, VALUE, NONE_UNDER = "absent", "present", "unchanged", "value is", "none under"
"""The conditions, as Conflict.compare names them."""


class Check(NamedTuple):
    """A condition, kept beside its form so that a refusal can be explained."""

    key: str
    compare: str
    expected: int | bytes = 0


class Txn:
    """A transaction to be given to `Store.commit`, once. With `guard` it takes effect only under that leadership.

    Any method may be called in any order: all conditions are evaluated before any write. A key is written at most once.
    """

    __slots__ = (
        "absent_keys",
        "checks",
        "folds",
        "guard",
        "has_lease",
        "request",
        "sizes",
        "written",
        "written_prefixes",
    )

    def __init__(self, guard: Leadership | None = None) -> None:
        self.guard = guard
        self.request = pb.TxnRequest()
        self.checks: list[Check] = []
        self.written: set[str] = set()
        self.written_prefixes: list[str] = []
        self.sizes: list[tuple[str, int]] = []
        self.folds: list[tuple[str, Fold]] = []
        self.absent_keys: set[str] = set()
        self.has_lease = False

    def absent(self, key: str) -> Txn:
        """The key must not exist."""
        self._compare(key, ABSENT, pb.Compare.COMPARE_TARGET_CREATE).create_revision = 0
        self.absent_keys.add(key)
        return self

    def present(self, key: str) -> Txn:
        """The key must exist."""
        compare = self._compare(key, PRESENT, pb.Compare.COMPARE_TARGET_CREATE)
        compare.result = pb.Compare.COMPARE_RESULT_GREATER
        compare.create_revision = 0
        return self

    def unchanged(self, key: str, mod_revision: int) -> Txn:
        """The key must have been written last at that revision; 0: it must not exist."""
        self._compare(key, UNCHANGED, pb.Compare.COMPARE_TARGET_MOD, mod_revision).mod_revision = mod_revision
        return self

    def value_is(self, key: str, value: bytes) -> Txn:
        """The key must exist and have that value."""
        self._compare(key, VALUE, pb.Compare.COMPARE_TARGET_VALUE, value).value = value
        return self

    def none_under(self, prefix: str) -> Txn:
        """No key may exist that begins with `prefix`."""
        compare = self._compare(prefix, NONE_UNDER, pb.Compare.COMPARE_TARGET_CREATE)
        compare.create_revision = 0
        compare.range_end = range_end(compare.key)
        return self

    def put(self, key: str, value: Message | bytes, lease: int = 0) -> Txn:
        """Writes the key; with `lease` it is deleted when that lease ends."""
        self._writes(key)
        put = self.request.success.add().request_put
        put.key = key.encode()
        put.value = value if isinstance(value, bytes) else value.SerializeToString()
        self.sizes.append((key, len(put.value)))
        if lease:
            put.lease = lease
            self.has_lease = True
        return self

    def delete(self, key: str) -> Txn:
        """Deletes the key; one that does not exist is no error."""
        self._writes(key)
        self.request.success.add().request_delete_range.key = key.encode()
        return self

    def delete_prefix(self, prefix: str) -> Txn:
        """Deletes every key that begins with `prefix`."""
        self.written_prefixes.append(prefix)
        step = self.request.success.add().request_delete_range
        step.key = prefix.encode()
        step.range_end = range_end(step.key)
        return self

    def fold(self, key: str, fn: Fold) -> Txn:
        """Replaces the key's value by `fn` of it. Folds of transactions that meet are applied one after the other and
        written once; where `fn` raises, only this transaction is refused, with that exception."""
        self._writes(key)
        self.folds.append((key, fn))
        return self

    def _compare(self, key: str, kind: str, target: pb.Compare.CompareTarget, expected: int | bytes = 0) -> pb.Compare:
        self.checks.append(Check(key, kind, expected))
        compare = self.request.compare.add()
        compare.key = key.encode()
        compare.target = target
        return compare

    def _writes(self, key: str) -> None:
        if key in self.written:
            raise ValueError(f"{key} is written twice by one transaction")
        self.written.add(key)
