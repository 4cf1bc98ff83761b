"""Why a batch was refused: the reads that etcd does in the same step in which it refuses, and what they say. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from moln.etcd.v1 import etcd_pb2 as pb
from services.common.store.errors import Conflict, NotLeader
from services.common.store.keys import range_end
from services.common.store.members import Member
from services.common.store.txn import ABSENT, NONE_UNDER, PRESENT, UNCHANGED, VALUE, Check


@dataclass
class Diagnosis:
    """What was found in the step that refused a batch."""

    refused: list[tuple[Member, Exception]] = field(default_factory=list)
    values: dict[str, bytes | None] = field(default_factory=dict)
    """The true values of the keys that are folded."""


def reads(members: Sequence[Member], folded: Iterable[str]) -> bytes:
    """The reads to do where the batch is refused, in etcd's form: guards, folded keys, then every condition."""
    request = pb.TxnRequest()
    for guard in guards(members):
        _read(request, guard, keys_only=True)
    for key in folded:
        _read(request, key, keys_only=False)
    for member in members:
        for check in member.txn.checks:
            step = _read(request, check.key, keys_only=check.compare != VALUE)
            if check.compare == NONE_UNDER:
                step.range_end, step.limit = range_end(step.key), 1
    return request.SerializeToString()


def guards(members: Iterable[Member]) -> dict[str, int]:
    """The leaderships that members are guarded by: key → create revision."""
    return {member.txn.guard.key: member.txn.guard.create_revision for member in members if member.txn.guard}


def explain(members: Sequence[Member], folded: Iterable[str], answer: pb.TxnResponse) -> Diagnosis:
    """Reads the answers to `reads` of the same arguments."""
    found = (response.response_range for response in answer.responses)
    lost = {key for key, created in guards(members).items() if _created(next(found)) != created}
    diagnosis = Diagnosis()
    for key in folded:
        kvs = next(found).kvs
        diagnosis.values[key] = kvs[0].value if kvs else None
    for member in members:
        failed = _first_failed(member.txn.checks, found)
        if member.txn.guard is not None and member.txn.guard.key in lost:
            diagnosis.refused.append((member, NotLeader(member.txn.guard.key)))
        elif failed is not None:
            diagnosis.refused.append((member, Conflict(failed.key, failed.compare)))
    return diagnosis


def _first_failed(checks: Sequence[Check], found: Iterator[pb.RangeResponse]) -> Check | None:
    """The first condition that does not hold; takes the answers to all of them."""
    failed = [check for check, answer in zip(checks, found, strict=False) if not _holds(check, answer)]
    return failed[0] if failed else None


def _holds(check: Check, answer: pb.RangeResponse) -> bool:
    kv = answer.kvs[0] if answer.kvs else None
    if check.compare in (ABSENT, NONE_UNDER):
        return kv is None
    if check.compare == PRESENT:
        return kv is not None
    if check.compare == UNCHANGED:
        return (kv.mod_revision if kv is not None else 0) == check.expected
    return kv is not None and kv.value == check.expected


def _created(answer: pb.RangeResponse) -> int:
    return answer.kvs[0].create_revision if answer.kvs else 0


def _read(request: pb.TxnRequest, key: str, *, keys_only: bool) -> pb.RangeRequest:
    step = request.failure.add().request_range
    step.key = key.encode()
    step.keys_only = keys_only
    return step
