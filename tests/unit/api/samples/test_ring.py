"""The ring of samples: right rates, gaps that are gaps, and memory that stays within its bound."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.api.samples.ring import CPU, DAY, DISK_READ, FIGURES, HOUR, MEMORY, RATES, Ring, decode, encode

BEGIN = 1_700_000_040.0
"""The begin of a minute."""


def put(ring: Ring, key: int, time: float, cpu: float, memory: float = 1e6, others: float = 0.0) -> None:
    counters = np.full((1, RATES), others)
    counters[0, CPU] = cpu
    ring.add([key], np.array([time]), counters, np.array([memory]))


def run(ring: Ring, key: int, times: Sequence[float], percent: float, start: float = BEGIN) -> None:
    """A guest that takes that much of a core all the time."""
    for time in times:
        put(ring, key, time, (time - start) * percent)


@given(st.floats(0, 1e18))
def test_a_code_gives_its_value_back_to_a_thousandth(value: float) -> None:
    (back,) = decode(encode(np.array([value])))
    assert back == pytest.approx(value, rel=1e-3, abs=1e-3)


def test_what_is_not_known_stays_not_known() -> None:
    assert np.isnan(decode(encode(np.array([np.nan, np.inf])))).all()


def test_the_first_sample_gives_no_rate_and_the_second_does() -> None:
    ring = Ring(10)
    put(ring, 7, BEGIN, 0)
    assert np.isnan(ring.newest([7])[1][0, CPU])
    put(ring, 7, BEGIN + 10, 500)
    times, figures = ring.newest([7])
    assert (times[0], figures[0, CPU], figures[0, MEMORY]) == (BEGIN + 10, 50.0, 1e6)


def test_a_guest_that_was_restarted_has_no_negative_rate_and_keeps_the_minute_that_was_known() -> None:
    ring = Ring(10)
    run(ring, 7, [BEGIN, BEGIN + 10, BEGIN + 20], 50)
    put(ring, 7, BEGIN + 30, 1)
    assert np.isnan(ring.newest([7])[1][0, CPU])
    assert ring.history(7, HOUR, BEGIN + 30).figures[-1, CPU] == pytest.approx(50, rel=1e-3)
    put(ring, 7, BEGIN + 40, 301)
    assert ring.history(7, HOUR, BEGIN + 40).figures[-1, CPU] == pytest.approx(30, rel=1e-2)


def test_a_sample_that_comes_late_or_twice_changes_nothing() -> None:
    ring = Ring(10)
    run(ring, 7, [BEGIN, BEGIN + 10], 50)
    put(ring, 7, BEGIN + 10, 9999)
    put(ring, 7, BEGIN + 5, 9999)
    assert ring.newest([7])[1][0, CPU] == 50.0


def test_an_hour_is_kept_minute_by_minute_and_a_day_by_half_hours() -> None:
    ring = Ring(10)
    run(ring, 7, [BEGIN + 10 * step for step in range(6 * 60 * 25)], 20)
    now = BEGIN + 25 * 3600 - 10
    hour, day = ring.history(7, HOUR, now), ring.history(7, DAY, now)
    assert len(hour.starts) == 60
    assert len(day.starts) == 48
    assert np.allclose(hour.figures[:, CPU], 20, rtol=1e-2)
    assert np.allclose(day.figures[:, CPU], 20, rtol=1e-2)
    assert (np.diff(hour.starts) == 60).all()
    assert hour.starts[-1] == now // 60 * 60


@given(st.integers(2, 200))
def test_a_gap_is_seen_as_a_gap(minutes: int) -> None:
    ring = Ring(10)
    run(ring, 7, [BEGIN + 10 * step for step in range(6 * 60)], 20)
    again = BEGIN + 3600 + minutes * 60
    run(ring, 7, [again, again + 10], 20)
    starts = ring.history(7, HOUR, again + 10).starts
    known_before = [BEGIN + 60 * minute for minute in range(60) if BEGIN + 60 * minute > again - 3600]
    assert list(starts) == [*known_before, again]


def test_the_past_goes_also_while_nothing_comes() -> None:
    ring = Ring(10)
    run(ring, 7, [BEGIN + 10 * step for step in range(6 * 60)], 20)
    assert len(ring.history(7, HOUR, BEGIN + 3600 + 1800).starts) == 30 - 1
    assert len(ring.history(7, HOUR, BEGIN + 3 * 3600).starts) == 0


def test_what_is_forgotten_leaves_nothing_to_the_next_in_its_place() -> None:
    ring = Ring(1)
    run(ring, 7, [BEGIN, BEGIN + 10], 50)
    put(ring, 8, BEGIN + 10, 0)
    assert (len(ring), ring.refused) == (1, 1)
    ring.forget(7)
    ring.forget(7)
    put(ring, 8, BEGIN + 20, 100)
    assert np.isnan(ring.newest([8])[1][0, CPU])
    assert len(ring.history(8, HOUR, BEGIN + 20).starts) == 1  # memory is known at once
    assert np.isnan(ring.history(8, HOUR, BEGIN + 20).figures[0, CPU])
    assert np.isnan(ring.newest([7])[1]).all()


def test_many_objects_at_once_are_the_same_as_one_by_one() -> None:
    together, apart = Ring(5000), Ring(5000)
    keys, random = list(range(1, 3001)), np.random.default_rng(1)
    counters = np.zeros((3000, RATES))
    for step in range(4):
        at = np.full(3000, BEGIN + 45 * step)
        counters = counters + random.uniform(0, 1e6, counters.shape)
        memory = random.uniform(0, 1e9, 3000)
        together.add(keys, at, counters, memory)
        for number in range(0, 3000, 500):
            apart.add([keys[number]], at[number : number + 1], counters[number : number + 1], memory[number:][:1])
    for key in keys[::500]:
        assert np.array_equal(together.newest([key])[1], apart.newest([key])[1], equal_nan=True)
        one, other = together.history(key, HOUR, BEGIN + 200), apart.history(key, HOUR, BEGIN + 200)
        assert np.array_equal(one.figures, other.figures, equal_nan=True)


def test_the_arrays_of_a_hundred_thousand_vms_are_bounded() -> None:
    ring = Ring(100_000)
    ring.add(list(range(100_000)), np.full(100_000, BEGIN), np.zeros((100_000, RATES)), np.zeros(100_000))
    ring.add([100_001], np.array([BEGIN]), np.zeros((1, RATES)), np.zeros(1))
    assert (len(ring), ring.refused) == (100_000, 1)
    assert ring.nbytes < 100_000 * 1.65 * 1024


def test_figures_have_a_place_of_their_own() -> None:
    ring = Ring(10)
    for step in range(2):
        counters = np.arange(1, RATES + 1, dtype=np.float64).reshape(1, RATES) * step * 10
        ring.add([1], np.array([BEGIN + 10 * step]), counters, np.array([99.0]))
    figures = ring.newest([1])[1][0]
    assert list(figures) == [1, 2, 3, 4, 5, 99]
    assert (DISK_READ, FIGURES) == (1, 6)
