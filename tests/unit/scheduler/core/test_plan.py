"""The plan: what the vectorised planner does is what the obvious one does, and no host is overfilled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moln.compute.v1 import placement_pb2
from services.common.expressions import Expression, Kind, parse
from services.scheduler.core import fill
from services.scheduler.core.amounts import Amounts, Integers
from services.scheduler.core.columns import HostColumns
from services.scheduler.core.hosts import HostFacts
from services.scheduler.core.loads import Load
from services.scheduler.core.plan import EXACT_RUNS, Demand, plan, runs
from services.scheduler.core.policies import combined, for_clusters
from services.scheduler.core.shapes import Shape
from tests.unit.scheduler.core.obvious import Host, place

Measured = dict[int, tuple[float, float]]
REQUIREMENTS = [
    "", "", "",
    "FREE_MEMORY > 8", "RUNNING_VMS < 2", "RUNNING_VMS != 1", "!(FREE_CPU < 100)", 'LABEL_DISK = "ssd"',
    "LABEL_DISK != ssd", "LABEL_RACK >= 2 | RUNNING_VMS > 0", "NOWHERE = 1", "!(NOWHERE = 1)", "ID < 3 & FREE_DISK > 0",
    "TOTAL_CPU / LABEL_RACK > 150", "NAME = h2", 'NAME = "h[!2]*"', "LABEL_DISK @> ssd",
    "CURRENT_VMS = 1", "CURRENT_VMS != 1", "CURRENT_VMS @> 2 | CURRENT_VMS = 3", "CURRENT_VMS != 2 & CURRENT_VMS != 4",
]  # fmt: skip
RANKS = [
    "", "", "",
    "RUNNING_VMS", "-RUNNING_VMS", "FREE_MEMORY", "-FREE_MEMORY", "FREE_CPU", "LABEL_RACK", "ID", "-ID", "NOWHERE", "1",
    "FREE_MEMORY - 3 * RUNNING_VMS * RUNNING_VMS", "(RUNNING_VMS - 2) * (RUNNING_VMS - 2)", "FREE_CPU / RUNNING_VMS",
    "RUNNING_VMS / RUNNING_VMS", "-(RUNNING_VMS - 3) * (RUNNING_VMS - 3)",
]  # fmt: skip


@st.composite
def host_facts(draw: st.DrawFn, host_id: int) -> HostFacts:
    attributes = {"NAME": f"h{host_id}"}
    if rack := draw(st.sampled_from(["", "1", "2", "3", "cellar"])):
        attributes["LABEL_RACK"] = rack
    if disk := draw(st.sampled_from(["", "ssd", "hdd"])):
        attributes["LABEL_DISK"] = disk
    attributes["CLUSTER_ID"] = draw(st.sampled_from(["0", "1", "2"]))
    if preference := draw(st.sampled_from(["", "", "30", "-4", "much"])):
        attributes["PREFERENCE"] = preference
    return HostFacts(
        host_id=host_id,
        name=f"h{host_id}",
        is_enabled=draw(st.sampled_from([True, True, True, False])),
        is_connected=draw(st.sampled_from([True, True, True, False])),
        total=Amounts(draw(st.integers(0, 6)) * 100, draw(st.integers(0, 24)), draw(st.integers(0, 24))),
        taints=draw(st.sampled_from([frozenset(), frozenset(), frozenset({"gpu"})])),
        attributes=attributes,
    )


@st.composite
def hosts(draw: st.DrawFn) -> list[HostFacts]:
    return [draw(host_facts(host_id)) for host_id in range(1, 1 + draw(st.integers(0, 6)))]


kinds = st.sampled_from([number for number in placement_pb2.PlacementPolicy.values() if number])
policies = st.lists(st.tuples(kinds, st.sampled_from([1.0, 2.0, 0.25])), max_size=3).map(tuple)
defaults = st.builds(for_clusters, policies, st.dictionaries(st.sampled_from([1, 2]), policies, max_size=2))
measured = st.dictionaries(
    st.integers(1, 6), st.tuples(st.sampled_from([0.0, 12.5, 50.0, 99.0]), st.sampled_from([0.0, 33.3, 80.0]))
)
"""What was measured of hosts, by id, when nothing was placed yet."""


shapes = st.builds(
    Shape,
    demand=st.builds(
        Amounts, st.sampled_from([0, 50, 100, 200]), st.sampled_from([0, 1, 3, 8]), st.sampled_from([0, 0, 5])
    ),
    requirement=st.sampled_from(REQUIREMENTS).map(lambda text: parse(text, Kind.REQUIREMENT)),
    rank=st.builds(
        lambda text, policies: combined(policies, parse(text, Kind.RANK)),
        st.sampled_from(RANKS),
        st.one_of(st.just(()), policies),
    ),
    tolerations=st.sampled_from([frozenset[str](), frozenset({"gpu"})]),
    wanted_host_id=st.sampled_from([0, 0, 0, 2]),
    priority=st.sampled_from([0, 0, 5]),
)


@st.composite
def waiting(draw: st.DrawFn) -> list[Demand]:
    """Demands whose VMs are mixed in age."""
    chosen = draw(st.lists(shapes, min_size=1, max_size=4))
    owners = draw(st.lists(st.integers(0, len(chosen) - 1), max_size=40))
    ages = [draw(st.integers(0, 5)) for _ in owners]
    found = []
    for number, shape in enumerate(chosen):
        mine = sorted(
            (age, vm_id) for vm_id, (owner, age) in enumerate(zip(owners, ages, strict=True)) if owner == number
        )
        found.append(Demand(shape, array([age for age, _ in mine]), array([vm_id for _, vm_id in mine])))
    return found


def array(values: Sequence[int]) -> Integers:
    return np.array(values, np.int64)


def columns_of(facts: Sequence[HostFacts], used: Sequence[tuple[int, Amounts]] = ()) -> HostColumns:
    columns = HostColumns()
    columns.apply(facts)
    for host_id, amounts in used:
        columns.hold(host_id, amounts)
    return columns


def obvious_plan(
    facts: Sequence[HostFacts], demands: Sequence[Demand], default: Expression, loads: Measured
) -> list[list[int]]:
    """One VM after the other, by priority, age and id. What one of a shape gets goes to the oldest that has nothing."""
    objects = [Host(each, measured=loads.get(each.host_id)) for each in facts]
    order = sorted(
        (-demand.shape.priority, created, vm_id, number)
        for number, demand in enumerate(demands)
        for created, vm_id in zip(demand.created.tolist(), demand.ids.tolist(), strict=True)
    )
    found: list[list[int]] = [[] for _ in demands]
    for _, _, _, number in order:
        oldest = int(demands[number].ids[len(found[number])])
        shape = demands[number].shape
        row = place(objects, replace(shape, rank=default) if shape.rank.is_empty else shape, oldest)
        if row is not None:
            found[number].append(row)
    return found


@given(hosts(), waiting(), defaults, measured)
@settings(max_examples=600)
def test_the_plan_is_that_of_one_vm_after_the_other(
    facts: list[HostFacts], demands: list[Demand], default: Expression, loads: Measured
) -> None:
    columns = columns_of(facts)
    columns.default_rank = default
    for host_id, (cpu, memory) in loads.items():
        columns.measure(host_id, Load(cpu, memory, 1))
    found = [rows.tolist() for rows in plan(columns, demands)]
    assert found == obvious_plan(facts, demands, default, loads)


@given(hosts(), shapes, st.integers(1, 60))
@settings(max_examples=200)
def test_a_plan_in_small_steps_is_the_same_plan(facts: list[HostFacts], shape: Shape, count: int) -> None:
    demand = [Demand(shape, array([0] * count), array(range(count)))]
    whole = plan(columns_of(facts), demand)[0].tolist()
    kept = fill._MOST_PLACES, fill._FEWEST_VMS
    try:
        fill._MOST_PLACES, fill._FEWEST_VMS = 4, 2
        assert plan(columns_of(facts), demand)[0].tolist() == whole
    finally:
        fill._MOST_PLACES, fill._FEWEST_VMS = kept


@given(hosts(), waiting(), st.lists(st.tuples(st.integers(1, 6), st.just(Amounts(100, 2))), max_size=9))
def test_no_host_is_overfilled_and_nothing_is_changed(
    facts: list[HostFacts], demands: list[Demand], used: list[tuple[int, Amounts]]
) -> None:
    columns = columns_of(facts, used)
    before = columns.room()
    after = columns.room()
    for demand, rows in zip(demands, plan(columns, demands), strict=True):
        assert len(rows) <= len(demand)
        after.take(np.arange(len(facts)), np.bincount(rows, minlength=len(facts)), demand.shape.demand)
    for then, now, unchanged in zip(before.free, after.free, columns.room().free, strict=True):
        assert ((now >= 0) | (now == then)).all()
        assert (then == unchanged).all()


def test_a_rank_that_grows_packs_and_one_that_falls_stripes() -> None:
    facts = [HostFacts(host_id, f"h{host_id}", total=Amounts(400, 100)) for host_id in range(1, 5)]

    def placed(rank: str) -> list[int]:
        shape = Shape(Amounts(100, 1), parse("", Kind.REQUIREMENT), parse(rank, Kind.RANK))
        rows: list[int] = plan(columns_of(facts), [Demand(shape, array([0] * 6), array(range(6)))])[0].tolist()
        return rows

    assert placed("RUNNING_VMS") == [0, 0, 0, 0, 1, 1]
    assert placed("-RUNNING_VMS") == placed("") == [0, 1, 2, 3, 0, 1]


def test_the_default_takes_the_host_with_fewest_vms_then_that_with_most_free_memory() -> None:
    facts = [HostFacts(1, "a", total=Amounts(800, 10)), HostFacts(2, "b", total=Amounts(800, 20))]
    shape = Shape(Amounts(100, 1), parse("", Kind.REQUIREMENT), parse("", Kind.RANK))
    assert plan(columns_of(facts), [Demand(shape, array([0] * 4), array(range(4)))])[0].tolist() == [1, 0, 1, 0]


def test_of_many_shapes_each_slice_of_age_comes_before_the_next() -> None:
    rng = np.random.default_rng(3)
    owner = rng.integers(0, 40, 5000)
    shape = Shape(Amounts(1), parse("", Kind.REQUIREMENT), parse("", Kind.RANK))
    demands = [Demand(shape, np.flatnonzero(owner == number), np.flatnonzero(owner == number)) for number in range(40)]
    order = list(runs(demands))
    assert sum(count for _, count in order) == 5000
    assert len(order) <= EXACT_RUNS
    placed = [0] * 40
    for number, count in order[: len(order) // 2]:
        placed[number] += count
    assert min(placed) > 0


def test_higher_priority_is_placed_first_whatever_its_age() -> None:
    facts = [HostFacts(1, "a", total=Amounts(100, 10))]
    low = Shape(Amounts(100), parse("", Kind.REQUIREMENT), parse("", Kind.RANK))
    high = Shape(Amounts(100), parse("", Kind.REQUIREMENT), parse("", Kind.RANK), priority=1)
    demands = [Demand(low, array([1]), array([1])), Demand(high, array([2]), array([2]))]
    assert [rows.tolist() for rows in plan(columns_of(facts), demands)] == [[], [0]]


@pytest.mark.parametrize("count", [0, 1])
def test_without_hosts_nothing_is_placed(count: int) -> None:
    shape = Shape(Amounts(1), parse("RUNNING_VMS < 1", Kind.REQUIREMENT), parse("FREE_CPU", Kind.RANK))
    assert len(plan(HostColumns(), [Demand(shape, array([0] * count), array(range(count)))])[0]) == 0
