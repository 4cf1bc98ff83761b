"""Merging folds: the functions that members of a batch apply to one key become one condition and one write. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from moln.etcd.v1 import etcd_pb2 as pb
from services.common.store.members import Member

Values = Mapping[str, bytes | None]


@dataclass
class Folded:
    """What becomes of the folds of a batch, if the values they start from are the true ones."""

    bases: dict[str, bytes | None] = field(default_factory=dict)
    """The values started from."""
    values: dict[str, bytes | None] = field(default_factory=dict)
    """The values ended with."""
    changed: set[str] = field(default_factory=set)
    """Keys that somebody changed, also where the end is the base again: then they are written all the same."""
    accepted: list[Member] = field(default_factory=list)
    """Members that take effect, in their order."""
    refused: list[tuple[Member, Exception]] = field(default_factory=list)
    """Members that a fold refused. True only if the batch, and so its bases, holds."""

    def request(self) -> bytes:
        """The conditions and writes, in etcd's form."""
        request = pb.TxnRequest()
        for key, base in self.bases.items():
            compare = request.compare.add()
            compare.key = key.encode()
            if base is None:
                compare.target = pb.Compare.COMPARE_TARGET_CREATE
                compare.create_revision = 0
            else:
                compare.target = pb.Compare.COMPARE_TARGET_VALUE
                compare.value = base
            value = self.values[key]
            if value is not None and key in self.changed:
                put = request.success.add().request_put
                put.key, put.value = compare.key, value
        return request.SerializeToString()


def fold_all(members: Sequence[Member], bases: Values) -> Folded:
    """Applies the folds of all members in their order. `bases` has the value of every key that is folded.

    A member whose function raises is refused with that exception and has no effect on those after it.
    """
    done = Folded()
    for member in members:
        if not member.folded:
            done.accepted.append(member)
            continue
        for key in member.folded:
            if key not in done.bases:
                done.bases[key] = done.values[key] = bases[key]
        try:
            fresh = {key: fn(done.values[key]) for key, fn in member.txn.folds}
        except Exception as err:  # noqa: BLE001  whatever a caller's rule raises is that caller's answer
            done.refused.append((member, err))
            continue
        done.changed.update(key for key, value in fresh.items() if value != done.values[key])
        done.values.update(fresh)
        done.accepted.append(member)
    return done
