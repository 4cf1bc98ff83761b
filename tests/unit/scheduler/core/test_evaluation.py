"""Expressions over columns: what the vectorised evaluator finds is what the obvious one does."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.expressions import Boolean, Kind, Numeric, parse
from services.scheduler.core.amounts import Amounts
from services.scheduler.core.columns import HostColumns
from services.scheduler.core.evaluation import satisfied, scores
from services.scheduler.core.hosts import HostFacts
from services.scheduler.core.view import HostView
from tests.unit.common.expressions.test_expressions import conditions, numbers
from tests.unit.scheduler.core.obvious import Host, holds, rank

HOSTS = [
    HostFacts(1, "h1", total=Amounts(400, 4096, 10), attributes={"NAME": "h1", "A": "1", "B": "x"}),
    HostFacts(2, "h2", total=Amounts(800, 1024, 0), attributes={"NAME": "h2", "A": "0", "C": "y z, 7,x"}),
    HostFacts(3, "h3", total=Amounts(0, 0, 0), attributes={"NAME": "h3", "B": "-2.5", "C": "nan"}),
    HostFacts(4, "h4", attributes={}),
]


def columns() -> HostColumns:
    made = HostColumns(lambda vm_id: {3: (1,), 4: (2, 9)}.get(vm_id, ()))
    made.apply(HOSTS)
    made.hold(1, Amounts(100, 1000, 3))
    made.hold(2, Amounts(900, 10, 0))
    return made


def objects() -> list[Host]:
    found = [Host(each) for each in HOSTS]
    found[0].cpu, found[0].memory, found[0].disk, found[0].vms = 100, 1000, 3, 1
    found[1].cpu, found[1].memory, found[1].vms = 900, 10, 1
    found[0].vm_ids, found[1].vm_ids = {3}, {4}
    return found


def view() -> HostView:
    made = columns()
    return HostView(made, made.room(), np.arange(len(made)))


def met(condition: Boolean) -> list[bool]:
    found: list[bool] = np.broadcast_to(satisfied(condition, view()), len(HOSTS)).tolist()
    return found


def ranked(score: Numeric) -> list[float]:
    found: list[float] = np.broadcast_to(scores(score, view()), len(HOSTS)).tolist()
    return found


@given(conditions())
def test_a_condition_holds_where_the_obvious_evaluator_says_so(condition: Boolean) -> None:
    assert met(condition) == [holds(condition, host) for host in objects()]


@given(numbers())
def test_a_rank_is_what_the_obvious_evaluator_says(score: Numeric) -> None:
    assert ranked(score) == [rank(score, host) for host in objects()]


@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        ("FREE_CPU = 300", [1]),
        ("FREE_CPU < 0", [2]),
        ("USED_MEMORY + FREE_MEMORY = TOTAL_MEMORY", [1, 2, 3, 4]),
        ("RUNNING_VMS = 0", [3, 4]),
        ("A = 1", [1]),
        ("A != 1", [2]),
        ("!(A = 1)", [2, 3, 4]),
        ("B < 0", [3]),
        ("B = x", [1]),
        ('B != "x"', [3]),
        ('C = "y z*"', [2]),
        ("C @> 7", [2]),
        ('C @> "y?z"', [2]),
        ("C @> y", []),
        ("CURRENT_VMS = 3", [1]),
        ("CURRENT_VMS != 3", [2, 3, 4]),
        ("CURRENT_VMS @> 4 | CURRENT_VMS = 9", [2]),
        ("C = nan", [3]),
        ("C > 0 | C < 1", []),
        ("ID >= 2 & ID <= 3", [2, 3]),
        ("FREE_DISK > 0 | ID = 4", [1, 4]),
        ("1 / A > 5", [2]),
    ],
)
def test_examples(text: str, hosts: list[int]) -> None:
    found = met(parse(text, Kind.REQUIREMENT).condition)
    assert [facts.host_id for facts, is_met in zip(HOSTS, found, strict=True) if is_met] == hosts


def test_what_is_no_number_ranks_last_and_what_is_missing_counts_as_zero() -> None:
    assert ranked(parse("A + 1", Kind.RANK).score) == [2.0, 1.0, 1.0, 1.0]
    assert ranked(parse("A / A", Kind.RANK).score) == [1.0, -np.inf, -np.inf, -np.inf]


@given(st.sampled_from(["FREE_CPU", "USED_MEMORY", "FREE_DISK", "RUNNING_VMS", "TOTAL_CPU", "A", "ID", "NOWHERE"]))
def test_a_look_ahead_is_what_the_next_columns_will_be(name: str) -> None:
    made = columns()
    demand = Amounts(50, 7, 1)
    ahead = HostView(made, made.room(), np.arange(4), np.arange(3)[np.newaxis, :], demand).numbers(name)
    ahead = np.broadcast_to(ahead, (4, 3))
    for step in range(3):
        now = HostView(made, made.room(), np.arange(4)).numbers(name)
        np.testing.assert_array_equal(ahead[:, step], now)
        made.hold_rows(np.arange(4), demand)
