"""Where one VM could go: what each filter leaves, and the best hosts with their scores. Reads the columns only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from services.scheduler.core.amounts import Amounts, Integers
from services.scheduler.core.columns import HostColumns
from services.scheduler.core.devices import Grant
from services.scheduler.core.evaluation import scores
from services.scheduler.core.filters import Left, count_left
from services.scheduler.core.ranks import balance, best, own_rank
from services.scheduler.core.room import Room
from services.scheduler.core.shapes import Shape
from services.scheduler.core.view import HostView
from services.scheduler.core.words import FITS, Why, unknown_attributes, why_from


class Part(NamedTuple):
    """What one policy says of a host, and what it counts."""

    name: str
    weight: float
    value: float


@dataclass(frozen=True, slots=True)
class Candidate:
    """A host that fits. The score is its rank for the VM, where there is none minus the number of VMs on the host."""

    host_id: int
    name: str
    score: float
    parts: tuple[Part, ...] = ()


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
    shown = -room.vms[chosen] if rank is None else rank
    parts = _parts(columns, room, shape, chosen)
    found = []
    for at in order.tolist():
        facts = columns.facts(int(columns.ids[chosen[at]]))
        if facts is not None:
            found.append(Candidate(facts.host_id, facts.name, float(shown[at]), parts[at]))
    return found


def _parts(columns: HostColumns, room: Room, shape: Shape, rows: Integers) -> list[tuple[Part, ...]]:
    view = HostView(columns, room, rows)
    values = [np.broadcast_to(scores(term.value, view), rows.shape).tolist() for term in shape.terms]
    return [
        tuple(Part(term.name, term.weight, value[at]) for term, value in zip(shape.terms, values, strict=True))
        for at in range(len(rows))
    ]
