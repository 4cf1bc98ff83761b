"""What a VM did and when, from its transitions: pieces of time in one state. Pure.

Where the history has a gap, a piece says so: what was before it is not carried on into it. After a gap the state is
what the next transition says it came from, or what the VM is now.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from moln.operations.v1 import operations_service_pb2

Event = operations_service_pb2.Event

GAP = "?"
"""The state of a piece of which nothing is known."""
RUNNING_STATES = frozenset(
    {"RUNNING", "MIGRATING", "SUSPENDING", "STOPPING", "UNDEPLOYING", "POWERING_OFF"}
)  # fmt: skip
"""A guest has active vCPUs in these."""


class Size(NamedTuple):
    """What is held for a VM; CPU in percent of a core."""

    cpu_percent: int = 0
    memory_mib: int = 0
    disk_mib: int = 0


class Gap(NamedTuple):
    """A span without history, in Unix seconds."""

    start: float
    end: float


class Standing(NamedTuple):
    """What a VM is at a time. `size` is None where it is not known."""

    state: str
    host_id: int = 0
    size: Size | None = Size()


class Piece(NamedTuple):
    """A VM in one state on one host, from `start` to `end` in Unix seconds."""

    start: float
    end: float
    standing: Standing

    @property
    def seconds(self) -> float:
        """Its length."""
        return self.end - self.start

    @property
    def is_unknown(self) -> bool:
        """Nobody can say whether the guest ran."""
        return self.standing.state in (GAP, "UNKNOWN")

    @property
    def is_running(self) -> bool:
        """The guest had active vCPUs."""
        return self.standing.state in RUNNING_STATES


def time_of(event: Event) -> float:
    """When it happened, in Unix seconds."""
    return event.time.ToNanoseconds() / 1e9


def standing_after(event: Event) -> Standing:
    """What the VM is after a transition; one without a state is gone."""
    is_sized = event.HasField("amounts")
    size = Size(event.cpu_percent, event.amounts.memory_mib, event.amounts.disk_mib) if is_sized else None
    return Standing(event.to, event.host_id, Size() if size is None and not event.host_id else size)


def pieces(
    events: Sequence[Event], gaps: Sequence[Gap], begin: float, now: float, present: Standing | None
) -> Iterator[Piece]:
    """The life of one VM from `begin` (where the history begins) to `now`. `present`: what it is now; None: gone."""
    at, standing = begin, _before(events, present)
    for event in events:
        moment = max(at, time_of(event))
        yield from _between(at, moment, standing, _came_from(event, standing), gaps)
        at, standing = moment, standing_after(event)
    last = present if present is not None else Standing("")
    yield from _between(at, max(at, now), standing, last, gaps)


def clipped(found: Iterable[Piece], start: float, end: float) -> Iterator[Piece]:
    """What of the pieces lies within a span."""
    for piece in found:
        inside = Piece(max(start, piece.start), min(end, piece.end), piece.standing)
        if inside.end > inside.start:
            yield inside


def _before(events: Sequence[Event], present: Standing | None) -> Standing:
    """What the VM was when the history began: what its first transition came from, or what it still is."""
    if not events:
        return present or Standing("")
    first = events[0]
    state = str(getattr(first, "from"))
    return Standing(state, first.host_id, standing_after(first).size if first.to else None) if state else Standing("")


def _came_from(event: Event, known: Standing) -> Standing:
    """What the VM was until a transition, where a gap lies before it."""
    state = str(getattr(event, "from"))
    if state == known.state:
        return known
    return Standing(state, event.host_id, standing_after(event).size if event.to else None)


def _between(start: float, end: float, first: Standing, after_gap: Standing, gaps: Sequence[Gap]) -> Iterator[Piece]:
    """The pieces between two transitions; those without a state are left out: the VM was not there."""
    at, standing = start, first
    for gap in gaps:
        if gap.end <= at or gap.start >= end:
            continue
        yield from _piece(at, max(at, gap.start), standing)
        at = max(at, gap.start)
        if standing.state or after_gap.state:
            yield from _piece(at, min(gap.end, end), Standing(GAP, standing.host_id, None))
        at, standing = min(gap.end, end), after_gap
    yield from _piece(at, end, standing)


def _piece(start: float, end: float, standing: Standing) -> Iterator[Piece]:
    if end > start and standing.state:
        yield Piece(start, end, standing)
