"""Where one VM could go: what each filter leaves, and the best hosts with their scores. Reads the columns only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from services.scheduler.core.amounts import Amounts, Integers
from services.scheduler.core.columns import HostColumns
from services.scheduler.core.devices import Grant
from services.scheduler.core.filters import Left, count_left
from services.scheduler.core.ranks import balance, best, own_rank
from services.scheduler.core.room import Room
from services.scheduler.core.shapes import Shape
from services.scheduler.core.words import FITS, Why, unknown_attributes, why_from


@dataclass(frozen=True, slots=True)
class Candidate:
    """A host that fits. The score is the VM's own rank, by default minus the number of VMs on the host."""

    host_id: int
    name: str
    score: float


@dataclass(frozen=True, slots=True)
class Explanation:
    """Everything there is to say."""

    why: Why
    hosts: int
    filters: Sequence[Left]
    candidates: Sequence[Candidate]
    unknown_attributes: Sequence[str]


def explain(
    columns: HostColumns,
    shape: Shape,
    most: int,
    host_id: int = 0,
    held: Amounts | None = None,
    grant: Grant | None = None,
) -> Explanation:
    """The explanation, with at most `most` candidates. A VM that holds room on a host is taken off it for this."""
    room = columns.room()
    row = columns.row(host_id)
    if row is not None and held is not None:
        room.take(np.array([row]), np.array([-1]), held)
    with columns.devices.without(host_id, grant):
        lefts, rows = count_left(columns, room, shape)
    names = shape.requirement.attributes | shape.rank.attributes
    return Explanation(
        why=FITS if len(rows) else why_from(columns, shape, lefts),
        hosts=len(columns),
        filters=lefts,
        candidates=_candidates(columns, room, shape, rows, most),
        unknown_attributes=unknown_attributes(columns, names),
    )


def _candidates(columns: HostColumns, room: Room, shape: Shape, rows: Integers, most: int) -> list[Candidate]:
    if not len(rows):
        return []
    chosen = rows[best(own_rank(columns, room, rows, shape), balance(room, rows), most)]
    rank, balances = own_rank(columns, room, chosen, shape), balance(room, chosen)
    order = np.argsort(-balances, kind="stable") if rank is None else np.lexsort((-balances, -rank))
    scores = -room.vms[chosen] if rank is None else rank
    return [_candidate(columns, int(columns.ids[chosen[at]]), float(scores[at])) for at in order]


def _candidate(columns: HostColumns, host_id: int, score: float) -> Candidate:
    facts = columns.facts(host_id)
    return Candidate(host_id, facts.name if facts is not None else "", score)
