"""What the store library raises. Every error says in words what was being done and what to do about it.

Callers map these to their own reasons; nothing else (no gRPC or protobuf error) leaves the library.
"""

from __future__ import annotations


class StoreError(Exception):
    """Anything that the store library raises on purpose."""


class Conflict(StoreError):
    """A transaction was refused: `key` is the first one whose `compare` failed. Nothing was written."""

    def __init__(self, key: str, compare: str) -> None:
        super().__init__(f"{key}: the condition '{compare}' does not hold")
        self.key = key
        self.compare = compare


class NotLeader(StoreError):
    """The leadership that guards a transaction has been lost. Nothing was written."""

    def __init__(self, key: str) -> None:
        super().__init__(f"{key} is no longer held: another process leads or will")
        self.key = key


class StoreStale(StoreError):
    """This process has not heard from etcd for too long to answer from its cache."""


class StoreUnavailable(StoreError):
    """etcd did not answer in time. Where `may_have_happened`, what was asked for may have been done, or still be."""

    def __init__(self, message: str, *, may_have_happened: bool = False) -> None:
        super().__init__(message)
        self.may_have_happened = may_have_happened


class StoreFull(StoreError):
    """etcd's space is nearly used up. Nothing was written; deleting objects is still possible."""


class ValueTooLarge(StoreError):
    """A value is larger than the bound of its key. Nothing was written."""

    def __init__(self, key: str, size: int, bound: int) -> None:
        super().__init__(f"{key}: {size} bytes are more than the {bound} that may be stored there")
        self.key = key
        self.size = size
        self.bound = bound


class Compacted(StoreError):
    """The asked-for revisions are forgotten; `compact_revision` is the oldest that is left."""

    def __init__(self, compact_revision: int) -> None:
        super().__init__(f"revisions before {compact_revision} are forgotten")
        self.compact_revision = compact_revision


class Refused(StoreError):
    """etcd refused a request for what it says; repeating it would not help. `code` is the name of the gRPC code."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"etcd refused: {message} ({code})")
        self.code = code
        self.message = message
