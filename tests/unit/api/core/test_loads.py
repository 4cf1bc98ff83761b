"""The load of hosts: smoothed, and told when it is news."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.api.core.loads import HALF_LIFE_S, NEWS_PERCENT, SETTLED_S, Load, Smoothing


def told(smoothing: Smoothing, load: Load) -> Load | None:
    found = smoothing.take(1, load)
    if found is not None:
        smoothing.told(1, found)
    return found


def test_the_first_measurement_is_told_as_it_is() -> None:
    assert told(Smoothing(), Load(30, 40, 2, 100)) == Load(30, 40, 2, 100)


def test_after_one_half_life_a_jump_shows_by_half() -> None:
    smoothing = Smoothing()
    told(smoothing, Load(0, 50, 2, 100))
    found = told(smoothing, Load(100, 50, 2, 100 + HALF_LIFE_S))
    assert found is not None
    assert (found.cpu, found.memory) == pytest.approx((50, 50))


def test_what_hardly_changes_is_not_told_and_what_creeps_is_in_the_end() -> None:
    smoothing = Smoothing()
    told(smoothing, Load(10, 10, 2, 0))
    news = [told(smoothing, Load(10 + 1.3 * step, 10, 2, step * 1000)) for step in range(1, 11)]
    assert [number for number, found in enumerate(news, 1) if found is not None] == [4, 8]


def test_vms_that_came_are_told_of_once_they_show() -> None:
    smoothing = Smoothing()
    told(smoothing, Load(10, 10, 2, 0))
    assert told(smoothing, Load(10, 10, 3, SETTLED_S - 1)) is None
    assert told(smoothing, Load(10, 10, 3, SETTLED_S)) is not None


def test_what_could_not_be_told_is_tried_again() -> None:
    smoothing = Smoothing()
    assert smoothing.take(1, Load(10, 10, 2, 0)) == smoothing.take(1, Load(10, 10, 2, 0)) == Load(10, 10, 2, 0)
    told(smoothing, Load(10, 10, 2, 1))
    smoothing.forget_told()
    assert smoothing.take(1, Load(10, 10, 2, 2)) is not None


def test_what_is_no_number_and_what_is_older_is_passed_over() -> None:
    smoothing = Smoothing()
    assert smoothing.take(1, Load(math.nan, 10, 2, 0)) is None
    told(smoothing, Load(10, 10, 2, 50))
    assert smoothing.take(1, Load(90, 90, 2, 50)) is None
    smoothing.keep(set())
    assert smoothing.take(1, Load(90, 90, 2, 40)) == Load(90, 90, 2, 40)


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0.1, 500)), min_size=1, max_size=30))
def test_what_was_told_is_never_far_from_what_is(steps: list[tuple[float, float]]) -> None:
    smoothing, time, last = Smoothing(), 0.0, 0.0
    for cpu, pause in steps:
        time += pause
        found = told(smoothing, Load(cpu, 0, 1, time))
        last = found.cpu if found is not None else last
        assert abs(smoothing._now[1].cpu - last) < NEWS_PERCENT
