"""Usage and limits of an owner: additions that are checked, merged by the store in one put. Pure."""

from __future__ import annotations

from collections.abc import Callable

from moln.common.v1 import common_pb2
from moln.operations.v1 import records_pb2
from services.common.domain.errors import MolnError
from services.common.domain.reasons import Reason

_FIELDS = (
    ("vms", "VMs"),
    ("vcpus", "vCPUs"),
    ("memory_mib", "MiB of memory"),
    ("disk_mib", "MiB of disk"),
)

Fold = Callable[[bytes | None], bytes]


def charge(amounts: common_pb2.Amounts, limits: common_pb2.Amounts, owner: str) -> Fold:
    """Adds the amounts to the stored usage; raises EXHAUSTED/QUOTA_EXCEEDED where a limit (0: none) would be passed.

    Where no usage is stored there is no owner any more: NOT_FOUND/USER_NOT_FOUND.
    """

    def fold(old: bytes | None) -> bytes:
        if old is None:
            raise MolnError(Reason.USER_NOT_FOUND, f"create VM: user {owner} has been deleted")
        record = records_pb2.UsageRecord.FromString(old)
        usage = record.amounts
        for name, words in _FIELDS:
            total = getattr(usage, name) + getattr(amounts, name)
            limit = getattr(limits, name)
            if limit and total > limit:
                raise MolnError(
                    Reason.QUOTA_EXCEEDED,
                    f"create VM: {owner} would have {total} {words}, and the limit is {limit}; terminate VMs, or ask "
                    "an administrator to raise it",
                    metadata={"limit": name, "value": str(limit), "wanted": str(total)},
                )
            setattr(usage, name, total)
        return record.SerializeToString()

    return fold


def change(before: common_pb2.Amounts, after: common_pb2.Amounts, limits: common_pb2.Amounts, owner: str) -> Fold:
    """Changes the stored usage by what a VM takes more or less; limits hold for what grows."""

    def fold(old: bytes | None) -> bytes:
        if old is None:
            raise MolnError(Reason.USER_NOT_FOUND, f"change VM: user {owner} has been deleted")
        record = records_pb2.UsageRecord.FromString(old)
        for name, words in _FIELDS:
            more = getattr(after, name) - getattr(before, name)
            total, limit = max(0, getattr(record.amounts, name) + more), getattr(limits, name)
            if more > 0 and limit and total > limit:
                raise MolnError(
                    Reason.QUOTA_EXCEEDED,
                    f"change VM: {owner} would have {total} {words}, and the limit is {limit}; terminate VMs, or ask "
                    "an administrator to raise it",
                    metadata={"limit": name, "value": str(limit), "wanted": str(total)},
                )
            setattr(record.amounts, name, total)
        return record.SerializeToString()

    return fold


def give_back(amounts: common_pb2.Amounts) -> Fold:
    """Takes the amounts off the stored usage; never below 0."""

    def fold(old: bytes | None) -> bytes:
        record = records_pb2.UsageRecord.FromString(old or b"")
        for name, _ in _FIELDS:
            setattr(record.amounts, name, max(0, getattr(record.amounts, name) - getattr(amounts, name)))
        return record.SerializeToString()

    return fold
