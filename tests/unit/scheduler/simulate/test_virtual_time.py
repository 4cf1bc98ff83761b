"""Virtual time: tiny workloads whose answers are worked out by hand, and random ones against an obvious simulator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from services.scheduler.core.amounts import Amounts
from services.scheduler.core.hosts import HostFacts
from services.scheduler.simulate.contenders import contenders
from services.scheduler.simulate.report import Figures, GroupFigures, Report
from services.scheduler.simulate.virtual_time import NEVER, Outcome, Simulation, kinds_of
from services.scheduler.simulate.workload import MICROSECONDS, Job, Wanted, Workload
from tests.unit.scheduler.core.obvious import Host, place

SECOND = MICROSECONDS
Vm = tuple[float, float, Wanted]
"""When it comes, how long it runs (seconds), what it wants."""


class Run(NamedTuple):
    """Everything that a run gives. Times in seconds; None where a VM was not placed."""

    starts: list[float | None]
    hosts: list[int | None]
    figures: Figures
    groups: list[GroupFigures]
    outcome: Outcome


def host(host_id: int, cores: int = 1, mib: int = 1024, **attributes: str) -> HostFacts:
    return HostFacts(host_id, f"h{host_id}", total=Amounts(cores * 100, mib * 1024, 100), attributes=attributes)


def vm(cores: float = 1, mib: int = 0, group: str = "", requirement: str = "", priority: int = 0) -> Wanted:
    return Wanted(int(cores * 100), mib, group=group, requirement=requirement, priority=priority)


def workload(*vms: Vm) -> Workload:
    kinds = list(dict.fromkeys(wanted for _, _, wanted in vms))
    jobs = [Job(int(at * SECOND), int(lasts * SECOND), kinds.index(wanted)) for at, lasts, wanted in vms]
    return Workload(sorted(jobs, key=lambda job: job.arrival), kinds)


def run(hosts: Sequence[HostFacts], vms: Sequence[Vm], policy: str = "default", until: float | None = None) -> Run:
    work = workload(*vms)
    kinds = kinds_of(hosts, work)
    rank = contenders([policy], [])[0].rank
    outcome = Simulation(hosts, work, kinds, rank).run(None if until is None else int(until * SECOND))
    report = Report(hosts, work, kinds, outcome)
    starts = [None if start == NEVER else start / SECOND for start in outcome.start.tolist()]
    rows = [None if row == NEVER else hosts[row].host_id for row in outcome.row.tolist()]
    return Run(starts, rows, report.figures(), report.by_group(), outcome)


def test_a_vm_waits_until_the_one_before_it_has_ended() -> None:
    found = run([host(1)], [(0, 10, vm()), (4, 20, vm())])
    assert found.starts == [0, 10]
    figures = found.figures
    assert (figures.wait_mean_s, figures.wait_p50_s, figures.wait_max_s) == (3, 0, 6)
    assert (figures.makespan_s, figures.cpu_utilisation) == (30, 1.0)
    assert figures.slowdown_mean == (1 + 26 / 20) / 2
    assert (figures.vms, figures.placed, figures.events) == (2, 2, 6)


def test_what_ends_at_an_instant_makes_room_for_what_comes_then() -> None:
    found = run([host(1)], [(0, 10, vm()), (10, 1, vm())])
    assert found.starts == [0, 10]
    assert found.figures.wait_max_s == 0


def test_a_short_vm_counts_as_ten_seconds_in_the_bounded_slowdown() -> None:
    found = run([host(1)], [(0, 30, vm()), (0, 1, vm())])
    assert found.figures.slowdown_p95 == (30 + 1) / 10


def test_vms_of_one_instant_are_placed_by_priority_and_later_ones_pass_those_that_do_not_fit() -> None:
    two = [host(1, 2)]
    found = run(two, [(0, 10, vm(1)), (1, 10, vm(2)), (2, 5, vm(1)), (2, 5, vm(1, priority=9))])
    assert found.starts == [0, 12, 7, 2], "whenever one core is free a VM of one takes it; that of two waits for both"


def test_a_vm_that_no_empty_host_could_take_is_rejected_and_holds_nobody_up() -> None:
    big, elsewhere = vm(3), vm(1, requirement="LABEL_DISK = ssd")
    found = run([host(1, 2), host(2, 2, LABEL_DISK="hdd")], [(0, 10, big), (0, 10, elsewhere), (0, 10, vm(2))])
    assert found.starts == [None, None, 0]
    assert (found.figures.rejected, found.figures.placed, found.figures.waiting) == (2, 1, 0)


def test_a_vm_whose_requirement_may_yet_come_true_is_not_rejected_but_waits() -> None:
    found = run([host(1, 4)], [(0, 10, vm(requirement="RUNNING_VMS > 0")), (5, 10, vm(group="a"))])
    assert found.figures.rejected == 0
    assert found.starts == [5, 5], "what is placed at 5 is what it waited for"
    alone = run([host(1)], [(2, 1, vm(requirement="RUNNING_VMS > 0")), (7, 1, vm(2))])
    assert (alone.figures.waiting, alone.figures.rejected, alone.figures.waiting_for_s) == (1, 1, 5)


def test_the_end_cuts_off_what_runs_and_what_has_not_come() -> None:
    found = run([host(1)], [(0, 10, vm()), (1, 10, vm()), (9, 1, vm())], until=5)
    assert found.starts == [0, None, None]
    figures = found.figures
    assert (figures.vms, figures.placed, figures.waiting, figures.waiting_for_s) == (2, 1, 1, 4)
    assert (figures.makespan_s, figures.cpu_utilisation) == (5, 1.0)


def test_an_end_after_the_last_event_changes_nothing() -> None:
    vms = [(0.0, 10.0, vm()), (1.0, 10.0, vm())]
    assert run([host(1)], vms, until=1000).figures == run([host(1)], vms).figures


def test_packing_uses_fewer_hosts_than_striping_and_leaves_room_for_large_vms() -> None:
    hosts = [host(1, 2), host(2, 2)]
    vms: list[Vm] = [(0, 10, vm(1)), (1, 10, vm(1)), (2, 5, vm(2))]
    packed, striped = run(hosts, vms, "packing"), run(hosts, vms, "striping")
    assert (packed.hosts, striped.hosts) == ([1, 1, 2], [1, 2, 1])
    assert (packed.starts, striped.starts) == ([0, 1, 2], [0, 1, 10])
    assert (packed.figures.hosts_used_peak, striped.figures.hosts_used_peak) == (2, 2)
    assert packed.figures.hosts_used_mean == (11 + 5) / 11
    assert striped.figures.hosts_used_mean == (10 + 10 + 5) / 15


def test_fragmentation_is_the_free_cpu_that_the_vms_of_the_workload_cannot_use() -> None:
    found = run([host(1, 2), host(2, 2)], [(0, 10, vm(1)), (0, 10, vm(1)), (10, 10, vm(2)), (10, 10, vm(2))])
    # Until 10 one core is free on each host, of no use to the half of all VMs that need two; then nothing is free.
    assert found.figures.fragmentation == 0.5


def test_free_cpu_without_memory_beside_it_is_fragmented_too() -> None:
    found = run([host(1, 2, mib=100)], [(0, 10, vm(1, mib=100))])
    assert found.figures.fragmentation == 1.0


def test_memory_in_use_is_weighed_by_time() -> None:
    found = run([host(1, 2, mib=100)], [(0, 10, vm(1, mib=60)), (10, 30, vm(1, mib=20))])
    assert found.figures.memory_utilisation == (60 * 10 + 20 * 30) / (100 * 40)


def test_groups_have_figures_of_their_own() -> None:
    found = run([host(1)], [(0, 10, vm(group="b")), (0, 10, vm(group="a")), (0, 10, vm(9, group="a"))])
    assert [(each.group, each.vms, each.placed, each.rejected, each.wait_mean_s) for each in found.groups] == [
        ("a", 2, 1, 1, 10),
        ("b", 1, 1, 0, 0),
    ]


def test_a_group_is_a_label_that_requirements_can_name() -> None:
    wanted = vm(group="r2", requirement="LABEL_RACK = VM_LABEL_GROUP")
    assert run([host(1, LABEL_RACK="r1"), host(2, LABEL_RACK="r2")], [(0, 1, wanted)]).hosts == [2]


requirements = st.sampled_from(["", "", "LABEL_DISK = ssd", "ID > 1", "!(NAME = h2)"])
wishes = st.builds(
    vm,
    cores=st.sampled_from([0.5, 1, 2, 3]),
    mib=st.sampled_from([0, 100, 300]),
    requirement=requirements,
    priority=st.sampled_from([0, 0, 7]),
)
workloads = st.lists(st.tuples(st.integers(0, 12), st.integers(1, 6), wishes), min_size=1, max_size=25)
clusters = st.lists(
    st.tuples(st.integers(1, 4), st.sampled_from([100, 400]), st.sampled_from(["ssd", "hdd"])), min_size=1, max_size=4
).map(
    lambda drawn: [
        host(number, cores, mib, NAME=f"h{number}", LABEL_DISK=disk)
        for number, (cores, mib, disk) in enumerate(drawn, 1)
    ]
)
policies = st.sampled_from(["default", "packing", "striping", "packing=2+striping"])


@given(clusters, workloads, policies)
@settings(max_examples=200)
def test_no_host_is_ever_overfull_and_every_vm_that_can_be_placed_runs_its_time_once(
    hosts: list[HostFacts], vms: list[Vm], policy: str
) -> None:
    work, found = workload(*vms), run(hosts, vms, policy)
    possible = (~found.outcome.is_impossible).tolist()
    assert [start is not None for start in found.starts] == possible
    assert found.figures.events == len(vms) + 2 * sum(possible)
    for instant in {job.arrival for job in work.jobs} | set(found.outcome.start.tolist()):
        for row, each in enumerate(hosts):
            there = [
                work.kinds[job.kind]
                for job, start, at in zip(
                    work.jobs, found.outcome.start.tolist(), found.outcome.row.tolist(), strict=True
                )
                if at == row and start <= instant < start + job.duration
            ]
            assert sum(wanted.cpu_percent for wanted in there) <= each.total.cpu, (row, instant)
            assert sum(wanted.memory_mib for wanted in there) * 1024 <= each.total.memory, (row, instant)
    placed = [(start, job) for start, job in zip(found.starts, work.jobs, strict=True) if start is not None]
    waits = [start - job.arrival / SECOND for start, job in placed]
    assert all(wait >= 0 for wait in waits)
    assert found.figures.wait_max_s == max(waits, default=0)


@given(clusters, workloads, policies)
@settings(max_examples=200)
def test_a_run_is_that_of_the_obvious_simulator(hosts: list[HostFacts], vms: list[Vm], policy: str) -> None:
    found = run(hosts, vms, policy)
    expected = obvious(hosts, workload(*vms), policy)
    assert list(zip(found.starts, found.hosts, strict=True)) == expected
    assert run(hosts, vms, policy).figures == found.figures


@given(clusters, workloads)
@settings(max_examples=100)
def test_hosts_used_and_free_cpu_add_up_whatever_happened(hosts: list[HostFacts], vms: list[Vm]) -> None:
    work, found = workload(*vms), run(hosts, vms)
    intervals = [
        (row, start, start + job.duration)
        for job, start, row in zip(work.jobs, found.outcome.start.tolist(), found.outcome.row.tolist(), strict=True)
        if row != NEVER
    ]
    instants = sorted({time for _, start, end in intervals for time in (start, end)} | {work.jobs[0].arrival})
    counts = [(len({row for row, start, end in intervals if start <= at < end}), at) for at in instants]
    ends = [*instants[1:], found.outcome.end]
    time = found.outcome.end - instants[0]
    mean = sum(count * (end - at) for (count, at), end in zip(counts, ends, strict=True)) / time if time else 0
    assert found.figures.hosts_used_peak == max((count for count, _ in counts), default=0)
    assert abs(found.figures.hosts_used_mean - mean) < 1e-9
    assert 0 <= found.figures.fragmentation <= 1
    assert 0 <= found.figures.cpu_utilisation <= 1


def obvious(hosts: Sequence[HostFacts], work: Workload, policy: str) -> list[tuple[float | None, int | None]]:
    """Second by second, one VM after the other: when each starts, and on which host."""
    rank = contenders([policy], [])[0].rank
    shapes = [replace(kind.shape, rank=rank) for kind in kinds_of(hosts, work)]
    order = sorted(range(len(work.jobs)), key=lambda each: (-shapes[work.jobs[each].kind].priority, each))
    found: dict[int, tuple[float, int]] = {}
    for second in range(1 + 12 + 6 * len(work.jobs)):
        now = second * SECOND
        objects = [Host(each) for each in hosts]
        for index, (start, host_id) in found.items():
            job = work.jobs[index]
            if now < start * SECOND + job.duration:
                objects[host_id - 1].take(shapes[job.kind])
        for index in order:
            if index not in found and work.jobs[index].arrival <= now:
                row = place(objects, shapes[work.jobs[index].kind], index)
                if row is not None:
                    found[index] = (second, hosts[row].host_id)
    return [found.get(index, (None, None)) for index in range(len(work.jobs))]


def test_a_rank_of_the_vm_comes_before_the_policy_that_is_compared() -> None:
    hosts = [host(1, 4), host(2, 4)]
    wanted = Wanted(100, 0, rank="ID")
    assert run(hosts, [(0, 1, wanted), (0, 1, wanted)], "striping").hosts == [2, 2]
