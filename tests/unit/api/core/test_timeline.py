"""The life of a VM in pieces of time, and what is charged for them; a gap is a gap."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moln.operations.v1 import operations_service_pb2 as pb
from services.api.core.accounting import account
from services.api.core.timeline import GAP, Event, Gap, Piece, Size, Standing, clipped, pieces

SIZE = Size(200, 1024, 4096)
UP = Standing("RUNNING", 1, SIZE)


def event(at: float, before: str, after: str, host: int = 1, size: Size | None = SIZE) -> Event:
    made = Event(to=after, host_id=host if after else 0)
    setattr(made, "from", before)
    made.time.FromNanoseconds(int(at * 1e9))
    if size is not None and after:
        made.cpu_percent, made.amounts.memory_mib, made.amounts.disk_mib = size
    return made


LIFE = [
    event(100, "", "PENDING", 0, None),
    event(110, "PENDING", "STARTING"),
    event(120, "STARTING", "RUNNING"),
    event(220, "RUNNING", "POWERED_OFF"),
    event(300, "POWERED_OFF", "", 0, None),
]


def life(
    events: Sequence[Event], gaps: Sequence[Gap] = (), now: float = 1000, present: Standing | None = None
) -> list[Piece]:
    return list(pieces(events, gaps, 50, now, present))


def shape(found: Sequence[Piece]) -> list[tuple[float, float, str]]:
    return [(piece.start, piece.end, piece.standing.state) for piece in found]


def accounted(found: Sequence[Piece]) -> pb.AccountingRecord:
    record = pb.AccountingRecord()
    account(record, found)
    return record


def test_a_whole_life_is_its_states_one_after_the_other() -> None:
    assert shape(life(LIFE)) == [
        (100, 110, "PENDING"), (110, 120, "STARTING"), (120, 220, "RUNNING"), (220, 300, "POWERED_OFF"),
    ]  # fmt: skip


def test_cpu_and_memory_are_held_while_it_runs_and_disk_while_it_is_there() -> None:
    record = accounted(life(LIFE))
    assert (record.running_seconds, record.existing_seconds, record.unknown_seconds) == (100, 200, 0)
    assert record.cpu_core_hours == pytest.approx(2 * 100 / 3600)
    assert record.memory_mib_hours == pytest.approx(1024 * 100 / 3600)
    assert record.disk_mib_hours == pytest.approx(4096 * 190 / 3600)
    assert not record.is_size_unknown


def test_time_in_a_gap_is_unknown_and_charged_for_nothing() -> None:
    record = accounted(life(LIFE[:3], [Gap(150, 250)], now=300, present=UP))
    assert (record.running_seconds, record.unknown_seconds, record.existing_seconds) == (80, 100, 200)


def test_after_a_gap_the_state_is_what_the_next_transition_came_from() -> None:
    found = life([*LIFE[:3], event(400, "POWERED_OFF", "")], [Gap(150, 250)])
    assert shape(found)[2:] == [(120, 150, "RUNNING"), (150, 250, GAP), (250, 400, "POWERED_OFF")]


def test_a_vm_that_went_in_a_gap_is_not_there_after_it() -> None:
    assert shape(life(LIFE[:3], [Gap(150, 250)]))[2:] == [(120, 150, "RUNNING"), (150, 250, GAP)]


def test_a_vm_that_was_made_and_ended_in_the_history_has_nothing_of_gaps_elsewhere() -> None:
    assert shape(life(LIFE, [Gap(60, 80), Gap(500, 600)])) == shape(life(LIFE))


def test_a_vm_that_is_older_than_the_history_is_there_from_its_begin() -> None:
    assert shape(life([], present=UP)) == [(50, 1000, "RUNNING")]
    assert shape(life(LIFE[3:]))[0] == (50, 220, "RUNNING")


def test_an_unknown_vm_is_charged_for_nothing() -> None:
    record = accounted([Piece(0, 60, Standing("UNKNOWN", 1, SIZE))])
    assert (record.unknown_seconds, record.running_seconds, record.disk_mib_hours) == (60, 0, 0)


def test_a_size_that_older_events_do_not_tell_is_said_to_be_unknown() -> None:
    record = accounted(life([event(100, "", "RUNNING", size=None)], now=200, present=UP))
    assert (record.running_seconds, record.cpu_core_hours, record.is_size_unknown) == (100, 0, True)


@given(
    st.lists(st.floats(0, 1000), min_size=1, max_size=8), st.lists(st.tuples(st.floats(0, 1000), st.floats(0, 300))),
    st.floats(0, 1000), st.floats(0, 1000),
)  # fmt: skip
def test_pieces_never_overlap_and_any_cut_adds_up(
    times: list[float], lengths: list[tuple[float, float]], one: float, other: float
) -> None:
    states = ["RUNNING", "POWERED_OFF"]
    events = [event(at, states[number % 2 - 1], states[number % 2]) for number, at in enumerate(sorted(times))]
    gaps: list[Gap] = []
    for start, length in sorted(lengths):
        begins = max(start, gaps[-1].end if gaps else 0)
        gaps.append(Gap(begins, begins + length))
    found = list(pieces(events, gaps, 0, 2000, UP))
    assert all(before.end <= after.start + 1e-6 for before, after in itertools.pairwise(found))
    assert all(piece.seconds > 0 for piece in found)
    low, high = sorted((one, other))
    whole = accounted(found).existing_seconds
    parts = [accounted(list(clipped(found, *span))).existing_seconds for span in ((-1, low), (low, high), (high, 9e9))]
    assert sum(parts) == pytest.approx(whole)
