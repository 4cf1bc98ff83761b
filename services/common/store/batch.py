"""Which transactions may share a batch. Pure.

All conditions of a batch are evaluated before any of its writes. Two members therefore get along only where neither
changes what the other reads or changes: then any order of them one after the other has the same outcome. Folds on one
key are the exception: they are merged (folds.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from services.common.store.members import Member

SEPARATE_OPS = 8
"""Room in a batch for what is added to its members: the lane's mark and guards."""


@dataclass
class Limits:
    """What fits in one batch."""

    members: int
    size: int
    ops: int


@dataclass
class Folders:
    """The ranges of a batch, and the folders of its keys, by which ranges and keys are found to meet."""

    range_reads: set[str] = field(default_factory=set)
    range_writes: set[str] = field(default_factory=set)
    of_changed: set[str] = field(default_factory=set)
    of_reads: set[str] = field(default_factory=set)

    def add(self, member: Member) -> None:
        """Takes a member in."""
        self.range_reads.update(member.range_reads)
        self.range_writes.update(member.range_writes)
        self.of_changed |= member.changed_folders
        self.of_reads |= member.read_folders

    def meet(self, member: Member) -> bool:
        """Whether a range of one side and a key or range of the other meet, of which one is a write."""
        if not self.of_changed.isdisjoint(member.range_reads) or not self.of_changed.isdisjoint(member.range_writes):
            return True
        if not self.of_reads.isdisjoint(member.range_writes):
            return True
        changed = member.changed_folders
        if not self.range_reads.isdisjoint(changed) or not self.range_writes.isdisjoint(changed):
            return True
        return bool(self.range_writes) and not self.range_writes.isdisjoint(member.read_folders)


class Batch:
    """Members that get along. Members are added in the order in which they came."""

    def __init__(self, limits: Limits) -> None:
        self.members: list[Member] = []
        self._limits = limits
        self._size = 0
        self._ops = SEPARATE_OPS
        self._reads: set[str] = set()
        self._writes: set[str] = set()
        self._changed: set[str] = set()
        self._folders: Folders | None = None

    @property
    def is_full(self) -> bool:
        """Nothing more is worth trying."""
        return len(self.members) >= self._limits.members or self._size >= self._limits.size

    def add(self, member: Member) -> bool:
        """Takes the member in and returns True; False where it must travel in another batch."""
        if self.members and not self._accepts(member):
            return False
        self.members.append(member)
        self._size += len(member.body)
        self._ops += _ops(member)
        self._reads |= member.reads
        self._writes |= member.writes
        self._changed |= member.changed
        if self._folders is not None:
            self._folders.add(member)
        elif member.has_ranges:
            self._remember_folders()
        return True

    def _accepts(self, member: Member) -> bool:
        if self._size + len(member.body) > self._limits.size or self._ops + _ops(member) > self._limits.ops:
            return False
        if not self._changed.isdisjoint(member.reads) or not self._changed.isdisjoint(member.writes):
            return False
        if not self._reads.isdisjoint(member.changed) or not self._writes.isdisjoint(member.folded):
            return False
        if member.is_exclusive or self.members[0].is_exclusive:
            return False
        if self._folders is None and member.has_ranges:
            self._remember_folders()
        return self._folders is None or not self._folders.meet(member)

    def _remember_folders(self) -> None:
        self._folders = Folders()
        for member in self.members:
            self._folders.add(member)


def _ops(member: Member) -> int:
    """An upper bound of what a member adds to the longer of etcd's two lists."""
    request, folds = member.txn.request, len(member.txn.folds)
    return max(len(request.compare), len(request.success)) + folds
